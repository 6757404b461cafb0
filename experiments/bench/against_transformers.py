"""Our decoder stack against `transformers` Inkling in torch, on one CPU core.

Question: what does a text-only micro-turn (8 tokens in, 8 out, greedy) cost in each, and does it
stay the same over a long session?
Command: taskset -c 1 python -m experiments.bench.against_transformers --size toy \
    --peer-python /path/to/env/bin/python
    (and `--size small`; the environment is that of `experiments/parity/requirements.txt`)
Cost: toy about 20 minutes, small about 30; `--quick` two minutes, writes nothing.
Expectation: at most 1/8 of the peer's time (toy), 1/3 (small); ours flat, the peer's rising.
Finding: in `against_transformers_toy.json` and `against_transformers_small.json`.

Both run the same architecture with the same sizes and number of weights (drawn at random on each
side), float32, one thread, each in its own process, asked in turns within one run. The peer runs
as its users run it: eager python, its own growing cache. Ours is `transformer.run` with cache and
`transformer.logits`, the code of the live step, as one program per micro-turn; the live step's
flow head and vocoder have no counterpart and are left out. C++ computes it (`kernels.native`), or
with `--implementation REFERENCE` XLA alone. Both see the same slots until our
global layer's ring of 4096 slots is full, after 256 micro-turns; from then on ours forgets the
oldest and the peer's cache grows on. The ratio is therefore given twice: over the micro-turns
before, and over the whole run.
"""

import argparse
import os
import pathlib
import time

# One thread, as the peer. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from experiments.bench import machine, measure, text_stack
from experiments.bench.measure import Peer
from interaction.kernels.implementation import Implementation

HERE = pathlib.Path(__file__).parent
GOALS = {"toy": 1 / 8, "small": 1 / 3}
WARM_UP = 5


def run(
    size: str, micro_turns: int, global_slots: int, implementation: Implementation, peer: Peer
) -> dict:
    """Micro-turns of both in turns; seconds of each."""
    config = text_stack.stack_config(size, implementation)
    params = text_stack.init(config)
    cache = text_stack.init_cache(config, global_slots=global_slots)
    step = text_stack.compiled(config)
    scratch = text_stack.init_cache(config, global_slots=global_slots)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocabulary, (micro_turns, 1, text_stack.TOKENS_IN))
    for _ in range(WARM_UP):
        scratch, out = jax.block_until_ready(step(params, scratch, tokens[0].astype(np.int32)))
    times: dict[str, list[float]] = {"ours": [], "ours_cpu": [], "peer": [], "peer_cpu": []}
    for number in range(micro_turns):
        started, used = time.perf_counter(), time.process_time()
        cache, out = step(params, cache, tokens[number].astype(np.int32))
        out.block_until_ready()
        times["ours"].append(time.perf_counter() - started)
        times["ours_cpu"].append(time.process_time() - used)
        reply = peer.ask(tokens=tokens[number, 0].tolist(), put_out=text_stack.TOKENS_OUT)
        times["peer"].append(reply["seconds"])
        times["peer_cpu"].append(reply["cpu_seconds"])
        if number % 100 == 99:
            recent = {name: 1000 * float(np.median(t[-100:])) for name, t in times.items()}
            print(number + 1, {name: round(v, 2) for name, v in recent.items()}, flush=True)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"times": times, "parameters": count, "step_traces": step._cache_size()}


def summary(times: dict[str, list[float]], together: int) -> dict:
    """Ratios and the course over the run, of elapsed and of processor time.

    Args:
        times: seconds per micro-turn.
        together: micro-turns during which both see all slots.
    """
    kinds = {"elapsed": ("ours", "peer"), "processor": ("ours_cpu", "peer_cpu")}
    first = slice(min(WARM_UP, together - 1), together)
    found: dict = {}
    for kind, (ours, peer) in kinds.items():
        found[kind] = {
            "ratio_while_both_see_all_slots": measure.ratio(times[ours][first], times[peer][first]),
            "ratio_over_the_run": measure.ratio(times[ours], times[peer]),
            "ours_ms": measure.milliseconds(times[ours]),
            "peer_ms": measure.milliseconds(times[peer]),
            "ours_course": measure.course(times[ours]),
            "peer_course": measure.course(times[peer]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=sorted(text_stack.SIZES), required=True)
    parser.add_argument("--peer-python", required=True, help="python that has transformers")
    parser.add_argument("--micro-turns", type=int, default=3000)
    parser.add_argument("--global-slots", type=int, default=text_stack.GLOBAL_SLOTS)
    parser.add_argument("--implementation", choices=("NATIVE", "REFERENCE"), default="NATIVE")
    parser.add_argument("--quick", action="store_true", help="30 micro-turns, nothing written")
    args = parser.parse_args()
    micro_turns = 30 if args.quick else args.micro_turns
    facts = machine.facts()
    hello = {"config": text_stack.peer_config(args.size), "threads": 1}
    peer = Peer(args.peer_python, HERE / "peer_transformers.py", hello)
    print(peer.facts, flush=True)
    who = Implementation[args.implementation]
    ran = run(args.size, micro_turns, args.global_slots, who, peer)
    peer.close()
    per_turn = text_stack.TOKENS_IN + text_stack.TOKENS_OUT
    together = min(micro_turns, args.global_slots // per_turn)
    content = {
        "question": "text-only micro-turn, 8 tokens in and 8 out, ours against transformers",
        "size": args.size,
        "implementation": who.name,
        "sizes": text_stack.peer_config(args.size),
        "goal_ours_over_peer": round(GOALS[args.size], 4),
        "facts": facts,
        "peer": peer.facts,
        "our_parameters": ran["parameters"],
        "our_traces_of_the_step": ran["step_traces"],
        "micro_turns": micro_turns,
        "our_global_slots": args.global_slots,
        "micro_turns_while_both_see_all_slots": together,
        **summary(ran["times"], together),
    }
    for kind in ("elapsed", "processor"):
        print(kind, content[kind]["ratio_while_both_see_all_slots"])
        print(kind, content[kind]["ratio_over_the_run"])
    if not args.quick:
        measure.write(HERE / f"against_transformers_{args.size}.json", content)


if __name__ == "__main__":
    main()
