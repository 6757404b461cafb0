"""Our model against pip `moshi` of the same size, per second of conversation, on one CPU core.

Question: what does a second of full-duplex conversation cost, for the language model alone and
for the whole path from samples to samples?
Command: taskset -c 1 python -m experiments.bench.against_moshi --peer-python /env/bin/python
    (an environment with `moshi==0.2.13` and torch for CPU)
Cost: about 15 minutes; `--quick` two minutes, writes nothing.
Expectation: whole path at most 1/5 of the peer's time; the language model's ratio is reported.
Finding: in `against_moshi.json`.

Both have random weights, float32, one thread, and run in turns, 400 ms of conversation at a time:
five frames of the peer, two micro-turns of ours. Width 512, 8 layers, 8 heads, feed-forward 1408
(gated), text vocabulary 8192 on both sides; the peer remembers 3000 frames and ours 4096 slots.
The peer is the released design at that size: 17 streams, a depth transformer (width 256, 4 layers)
that puts out 8 codes a frame, and the codec at its released size, since no other size of it
exists. Ours hears every micro-turn (4 slots and the slot that asks), puts out two text tokens and
a chunk of speech (3 tokens, 2 own-speech slots) and never stays silent: its weights are steered
so, which is the dearest case. The row of the language model alone leaves out the stems, the flow
head and the vocoder on our side, and the codec on the peer's; it appends 7 slots and decodes 3.
In these two rows all eight of our layers see the whole store, as the peer's see all its frames.
Another is the whole path as this project builds its models: sliding layers (512 slots) between
global ones, three to one here (the announced size has five to one). These rows are computed by
`kernels.native` (C++), float32 on both sides. Each whole path has a second row in which our
matrices and the keys and values that a lane keeps are bfloat16 (`serve --weights bfloat16 --cache
bfloat16`), and the peer's language model is float32 or bfloat16 (its default on accelerators),
whichever took it less time. The last row is that of sliding layers, float32, by XLA alone.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import time

# One thread, as the peer. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import machine, measure, text_stack
from experiments.bench.measure import Peer
from interaction.kernels.implementation import Implementation
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    CacheType,
    InteractionConfig,
    MlpKind,
    TransformerConfig,
)
from interaction.models.parameters import init_params
from interaction.models.quantise import halve_matrices
from interaction.session.loop import Lanes
from interaction.streams.weave import LaneInput
from interaction.types import Control

HERE = pathlib.Path(__file__).parent
GOAL = 1 / 5
SECONDS = 0.4
FRAMES, MICRO_TURNS = 5, 2
WIDTH, LAYERS, HEADS, FEED_FORWARD, VOCABULARY = 512, 8, 8, 1408, 8192
PEER_TYPES = ("float32", "bfloat16")
PUT_OUT = 3
WINDOW = 512
PEER_SIZES = {
    "dim": WIDTH,
    "num_heads": HEADS,
    "num_layers": LAYERS,
    "hidden_scale": 4.125,
    "text_card": VOCABULARY,
    "context": 3000,
    "depformer_dim": 256,
    "depformer_dim_feedforward": 1056,
    "depformer_num_heads": 8,
    "depformer_num_layers": 4,
}


def our_config(
    *, sliding: bool, implementation: Implementation = Implementation.NATIVE
) -> InteractionConfig:
    """A dense stack of the peer's sizes with this project's stems, flow head and vocoder.

    Args:
        sliding: three of four layers slide over `WINDOW` slots; else all see the whole store.
        implementation: who computes products and attention.
    """
    heads = functools.partial(AttentionConfig, HEADS, HEADS, WIDTH // HEADS, bias_extent=512)
    local, global_ = AttentionKind.LOCAL, AttentionKind.GLOBAL
    period = (local, local, local, global_) if sliding else (global_,)
    stack = TransformerConfig(
        vocabulary=VOCABULARY,
        width=WIDTH,
        attention_kinds=period * (LAYERS // len(period)),
        mlp_kinds=(MlpKind.DENSE,) * LAYERS,
        local=heads(window=WINDOW) if sliding else None,
        global_=heads(window=None),
        dense_width=FEED_FORWARD,
        implementation=implementation,
    )
    return InteractionConfig(transformer=stack, max_text_out=PUT_OUT)


def steered(params: dict, config: InteractionConfig) -> dict:
    """Weights that put out token 0 until only a closer may follow, which then is SPEAK.

    One state dimension is large in every slot; the unembedding reads it alone for these two ids.
    """
    stack, tags = dict(params["transformer"]), dict(params["tags"])
    tags["stream"] = tags["stream"].at[:, 0].set(100.0)
    speak = config.ordinary_tokens + int(Control.SPEAK)
    stack["unembed"] = stack["unembed"].at[0, 0].set(20.0).at[0, speak].set(10.0)
    return params | {"transformer": stack, "tags": tags}


def in_bfloat16(config: InteractionConfig, params: dict) -> tuple[InteractionConfig, dict]:
    """The same with the stack's matrices, and the keys and values of lanes, in bfloat16."""
    return dataclasses.replace(config, cache_type=CacheType.BFLOAT16), halve_matrices(params)


class Whole:
    """Ours from samples to samples: `Lanes`, one lane."""

    def __init__(self, config: InteractionConfig, params: dict):
        self._lanes = Lanes(params, config)
        self._now, self._rng = 0, np.random.default_rng(0)

    def run(self) -> None:
        """400 ms of conversation."""
        for _ in range(MICRO_TURNS):
            wave = 0.1 * self._rng.normal(size=self._lanes.config.grid.samples).astype(np.float32)
            heard = LaneInput(self._now, None, (), ((self._now, wave),))
            output = self._lanes.step([heard])[0]
            if (
                output is None
                or output.closer is not Control.SPEAK
                or len(output.tokens) != PUT_OUT
            ):
                raise RuntimeError(f"micro-turn {self._now} was to speak, it gave {output}")
            self._now += 1


class Alone:
    """Our language model alone: the stack with its cache."""

    def __init__(self, config: InteractionConfig, params: dict):
        self._stack, self._params = config.transformer, params["transformer"]
        self._cache = text_stack.init_cache(self._stack, global_slots=config.global_slots)
        self._step = text_stack.compiled(self._stack, put_out=PUT_OUT)
        frames = config.grid.audio_frames + 1 + config.speech_slots
        self._tokens = jnp.ones((1, frames), jnp.int32)

    def run(self) -> None:
        """400 ms of conversation."""
        for _ in range(MICRO_TURNS):
            self._cache, out = self._step(self._params, self._cache, self._tokens)
            out.block_until_ready()


def timed(run) -> tuple[float, float]:
    """Elapsed and processor seconds of one call."""
    started, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - used


def row(ours: np.ndarray, peers: np.ndarray) -> dict:
    """One row of the table: seconds ``[n, 2]`` (elapsed, processor) per 400 ms of conversation."""
    found = {}
    for column, kind in enumerate(("elapsed", "processor")):
        a, b = ours[:, column] / SECONDS, peers[:, column] / SECONDS
        found[kind] = {
            "ratio": measure.ratio(a, b),
            "ratio_by_third_of_the_run": [
                measure.ratio(*each)
                for each in zip(np.array_split(a, 3), np.array_split(b, 3), strict=True)
            ],
            "ours_ms_per_second_of_conversation": measure.milliseconds(a),
            "peer_ms_per_second_of_conversation": measure.milliseconds(b),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer-python", required=True, help="python that has moshi")
    parser.add_argument("--rounds", type=int, default=300, help="400 ms of conversation each")
    parser.add_argument("--quick", action="store_true", help="6 rounds, nothing written")
    args = parser.parse_args()
    rounds = 6 if args.quick else args.rounds
    facts = machine.facts()
    hello = {"sizes": PEER_SIZES, "threads": 1}
    peers = {
        dtype: Peer(args.peer_python, HERE / "peer_moshi.py", hello | {"dtype": dtype})
        for dtype in PEER_TYPES
    }
    peer = peers["float32"]
    print(peer.facts, flush=True)
    config, other = our_config(sliding=False), our_config(sliding=True)
    by_xla = our_config(sliding=True, implementation=Implementation.REFERENCE)
    params = steered(init_params(jax.random.key(0), config), config)
    others = steered(init_params(jax.random.key(0), other), other)
    ours = {
        "language_model_alone": Alone(config, params),
        "whole_path": Whole(config, params),
        "whole_path_bfloat16": Whole(*in_bfloat16(config, params)),
        "whole_path_with_sliding_layers": Whole(other, others),
        "whole_path_with_sliding_layers_bfloat16": Whole(*in_bfloat16(other, others)),
        "whole_path_with_sliding_layers_by_xla": Whole(by_xla, others),
    }
    rows = [f"peer_{part}_{dtype}" for dtype in PEER_TYPES for part in ("alone", "whole")]
    times: dict[str, list] = {name: [] for name in (*ours, *rows)}
    for number in range(-2, rounds):
        mine = {name: timed(each.run) for name, each in ours.items()}
        replies = {dtype: each.ask(frames=FRAMES) for dtype, each in peers.items()}
        if number < 0:
            continue  # compiling, and the peer's first frames
        for name, seconds in mine.items():
            times[name].append(seconds)
        for dtype, reply in replies.items():
            model = (reply["model_seconds"], reply["model_cpu_seconds"])
            codec = (reply["codec_seconds"], reply["codec_cpu_seconds"])
            times[f"peer_alone_{dtype}"].append(model)
            whole = [m + c for m, c in zip(model, codec, strict=True)]
            times[f"peer_whole_{dtype}"].append(whole)
    for each in peers.values():
        each.close()
    arrays = {name: np.array(values) for name, values in times.items()}
    content = {
        "question": "milliseconds per second of conversation, ours against moshi",
        "goal_whole_path_ours_over_peer": GOAL,
        "facts": facts,
        "peer": peer.facts | {"sizes": PEER_SIZES, "codec": "released size"},
        "our_parameters": {
            name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()
        },
        "rounds_of_400_ms": rounds,
        "peer_processor_ms_per_second_of_conversation": {
            name: measure.milliseconds(arrays[name][:, 1] / SECONDS) for name in rows
        },
    }
    for name in ours:
        of = "alone" if name == "language_model_alone" else "whole"
        types = PEER_TYPES if "bfloat16" in name else PEER_TYPES[:1]
        used = {dtype: np.median(arrays[f"peer_{of}_{dtype}"][:, 1]) for dtype in types}
        faster = min(used, key=used.__getitem__)
        content[name] = {"peer_type": faster} | row(arrays[name], arrays[f"peer_{of}_{faster}"])
        print(name, content[name]["elapsed"]["ratio"], content[name]["processor"]["ratio"])
    if not args.quick:
        measure.write(HERE / "against_moshi.json", content)


if __name__ == "__main__":
    main()
