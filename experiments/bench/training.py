"""A training step of our decoder stack against `transformers` Inkling in torch, on one CPU core.

Question: how many tokens a second does forward, backward and AdamW take in each, and what share of
this core's matrix product do ours reach?
Command: taskset -c 1 python -m experiments.bench.training --size toy --peer-python ENV/bin/python
    (and `--size small`; the environment is that of `experiments/parity/requirements.txt`), with
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:
    glibc.malloc.trim_threshold=34359738368 in the environment: both processes keep freed memory.
Cost: toy about one minute, small about five; `--quick` two steps each, writes nothing.
Expectation: at least 3 times the peer's tokens a second at toy, 1.5 times at small, in float32.
Finding: in `training_toy.json` and `training_small.json`.

The same architecture, sizes and number of weights, 2 sequences of 512 tokens drawn at random, the
loss over the next token, gradients of all weights, one update of AdamW; one thread each, in its
own process, asked in turns within one run. Where others share the core, elapsed time says little;
ratios and shares of processor time stand beside it. Ours is `transformer.run` and
`transformer.logits` under `jax.value_and_grad`, with dropless experts; layers are unrolled. The
first row computes products, experts, attention and convolutions in C++ (`kernels.native_train`),
the second by XLA alone. A third computes with weights and states in bfloat16, the update in
float32; XLA multiplies after widening. Operations are counted, not measured: 6 for every weight
that a token uses (2 forward, 4 backward), the unembedding included, and 12 for every (query, key)
pair and channel of attention that is not masked.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import time

# One thread, as the peer. Set before numpy and jax start.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench import machine, measure, text_stack
from experiments.bench.machine_limits import gemm_peak
from experiments.bench.measure import Peer
from interaction.kernels.implementation import Implementation
from interaction.models import transformer
from interaction.models.config import AttentionKind, TransformerConfig

HERE = pathlib.Path(__file__).parent
GOALS = {"toy": 3.0, "small": 1.5}
STEPS = {"toy": 40, "small": 24}
BATCH, LENGTH = 2, 512
RATE = 1e-3
ROWS = {
    "float32": (jnp.float32, Implementation.NATIVE),
    "float32_by_xla": (jnp.float32, Implementation.REFERENCE),
    "bfloat16": (jnp.bfloat16, Implementation.REFERENCE),
}


def loss(params: dict, tokens_BT: jax.Array, config: TransformerConfig, dtype) -> jax.Array:
    """Mean cross-entropy of every token after the first, float32."""
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    scores = transformer.forward_tokens(params, tokens_BT, config).astype(jnp.float32)
    # Labels are moved rather than scores cut, as the peer does: scores are the largest array.
    following = jnp.roll(tokens_BT, -1, axis=1)
    each = optax.softmax_cross_entropy_with_integer_labels(scores, following)
    return each[:, :-1].mean()


def compiled(config: TransformerConfig, dtype):
    """``(params, moments, tokens) -> (params, moments, loss)`` jitted, its state donated."""
    rule = optax.adamw(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, moments, tokens_BT):
        value, gradient = jax.value_and_grad(loss)(params, tokens_BT, config, dtype)
        updates, moments = rule.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    return rule, step


def operations(config: TransformerConfig, params: dict) -> float:
    """Floating-point operations of one step, by the formula above."""
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    routed = sum(size(params["moe"][name]) for name in ("gate", "up", "down"))
    used = size(params) - params["embed"]["table"].size
    used -= routed * (1 - config.experts_per_slot / config.experts)
    pairs = 0
    for kind in config.attention_kinds:
        attention = config.local if kind is AttentionKind.LOCAL else config.global_
        window = attention.window or LENGTH
        seen = sum(min(place + 1, window) for place in range(LENGTH))
        pairs += seen * attention.heads * attention.head_width
    return BATCH * (6 * used * LENGTH + 12 * pairs)


class Ours:
    """Our training, one step at a time."""

    def __init__(self, config: TransformerConfig, dtype):
        self.params = text_stack.init(config)
        rule, self._step = compiled(config, dtype)
        self._moments = rule.init(self.params)
        self.losses: list[float] = []

    def step(self, tokens_BT: np.ndarray) -> tuple[float, float]:
        """Seconds, elapsed and of the processor."""
        started, used = time.perf_counter(), time.process_time()
        self.params, self._moments, value = self._step(self.params, self._moments, tokens_BT)
        self.losses.append(float(value))
        return time.perf_counter() - started, time.process_time() - used


def run(size: str, steps: int, peer: Peer) -> dict:
    """Steps of all in turns: seconds by row, and the measured peak of the matrix product."""
    config = dataclasses.replace(text_stack.stack_config(size), unroll=text_stack.LAYERS)
    by = lambda who: dataclasses.replace(config, implementation=who)
    ours = {name: Ours(by(who), dtype) for name, (dtype, who) in ROWS.items()}
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocabulary, (steps + 2, BATCH, LENGTH)).astype(np.int32)
    counted = operations(config, ours["float32"].params)
    weights = sum(leaf.size for leaf in jax.tree.leaves(ours["float32"].params))
    times: dict[str, list[float]] = {}
    peaks = []
    for number, batch in enumerate(tokens):
        found = {}
        for name, one in ours.items():
            found[name], found[f"{name}_cpu"] = one.step(batch)
        reply = peer.ask(batch=batch.tolist())
        found["peer"], found["peer_cpu"] = reply["seconds"], reply["cpu_seconds"]
        if number < 2:  # compiling, and the first of everything
            continue
        peaks.append(gemm_peak(repeats=2))
        for name, seconds in found.items():
            times.setdefault(name, []).append(seconds)
        print(number - 1, {name: round(s, 3) for name, s in found.items()}, flush=True)
    return {
        "times": times,
        "peak": float(np.median(peaks)),
        "operations": counted,
        "parameters": weights,
        "losses": {name: [one.losses[0], one.losses[-1]] for name, one in ours.items()},
    }


def summary(ran: dict) -> dict:
    """Tokens a second, ratios, shares of the peak."""
    times, tokens = ran["times"], BATCH * LENGTH
    found = {}
    for name in ROWS:
        median = float(np.median(times[name]))
        used = float(np.median(times[f"{name}_cpu"]))
        found[name] = {
            "tokens_per_second": round(tokens / median, 1),
            "times_the_peer": _times(times["peer"], times[name]),
            "times_the_peer_processor_time": _times(times["peer_cpu"], times[f"{name}_cpu"]),
            "share_of_gemm_peak": round(ran["operations"] / median / ran["peak"], 3),
            "share_of_gemm_peak_processor_time": round(ran["operations"] / used / ran["peak"], 3),
            "step_processor_ms": measure.milliseconds(times[f"{name}_cpu"]),
            "step_ms": measure.milliseconds(times[name]),
            "first_and_last_loss": ran["losses"][name],
        }
    found["peer"] = {
        "tokens_per_second": round(tokens / float(np.median(times["peer"])), 1),
        "step_ms": measure.milliseconds(times["peer"]),
        "step_processor_ms": measure.milliseconds(times["peer_cpu"]),
    }
    return found


def _times(peers: list[float], ours: list[float]) -> dict:
    """How many times as fast as the peer."""
    ratio = measure.ratio(peers, ours)
    return {"median": ratio["ours_over_peer"], "low": ratio["low"], "high": ratio["high"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=sorted(text_stack.SIZES), required=True)
    parser.add_argument("--peer-python", required=True, help="python that has transformers")
    parser.add_argument("--quick", action="store_true", help="two steps, nothing written")
    args = parser.parse_args()
    facts = machine.facts(packages=("jax", "jaxlib", "numpy", "optax"))
    hello = {"config": text_stack.peer_config(args.size), "threads": 1, "learning_rate": RATE}
    peer = Peer(args.peer_python, HERE / "peer_transformers.py", hello)
    print(peer.facts, flush=True)
    ran = run(args.size, 2 if args.quick else STEPS[args.size], peer)
    peer.close()
    content = {
        "question": "tokens per second of training, ours against transformers, one core",
        "size": args.size,
        "goal_times_the_peer_float32": GOALS[args.size],
        "batch": [BATCH, LENGTH],
        "steps": len(ran["times"]["peer"]),
        "facts": facts,
        "peer_facts": peer.facts,
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
        "our_parameters": ran["parameters"],
        "operations_per_step_counted": ran["operations"],
        "gemm_peak_gflops": round(ran["peak"] / 1e9, 1),
        **summary(ran),
    }
    for name in (*ROWS, "peer"):
        print(name, content[name])
    if not args.quick:
        measure.write(HERE / f"training_{args.size}.json", content)


if __name__ == "__main__":
    main()
