"""Our step against what this machine's memory and arithmetic allow.

Question: how far is a text micro-turn at size `small` from the time that reading its weights and
cache takes at the measured bandwidth, and where does the rest go?
Command: taskset -c 1 python -m experiments.bench.machine_limits
Cost: about six minutes; `--quick` one and a half, writes nothing.
Expectation: within 1.5 times the limit.
Finding: in `machine_limits_small_native.json`, C++ computing, with `--implementation REFERENCE` XLA
    in `machine_limits_small_reference.json`; where the time goes in the pictures of these names.

The limit of one call (8 slots in, then 8 single slots) is the larger of bytes / bandwidth and
operations / GEMM peak; those of the nine calls are summed. Bytes are counted, not measured: every
weight outside the experts, the experts that some slot touches (taken from the run's own routing),
the unembedding, and the filled part of the cache. Bandwidth is the best of numpy's sum and numpy's
matrix-vector product over 256 MiB; the peak is numpy's float32 matrix product. Parts are the same
functions that the step calls, run alone for the same slots. A round is a read of memory, a matrix
product, one micro-turn and each part once; of steps and parts the medians over the same rounds are
told, of bandwidth and peak the 90th percentiles, which the limit is made of. Last, with the store
as full as it then is, three micro-turns are traced: what copies tiles of weights and blocks of the
cache out of their stacks, their one reading of memory among it, what multiplies, and all else (by
the names that jaxlib 0.11.2 gives). Tracing costs about a microsecond an operation: those are
shares rather than times.
"""

import argparse
import collections
import functools
import gzip
import json
import os
import pathlib
import re
import tempfile
import time

# One thread everywhere. Set before numpy and jax start.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import machine, measure, text_stack
from experiments.bench.text_stack import TOKENS_IN, TOKENS_OUT
from interaction.kernels.implementation import Implementation
from interaction.kernels.streamed import Row, project
from interaction.models import moe, transformer
from interaction.models.attention import Whereabouts
from interaction.models.attention_live import attend_live
from interaction.models.config import AttentionKind, TransformerConfig

HERE = pathlib.Path(__file__).parent
GOAL = 1.5
FILL = 20  # micro-turns before measuring
NOT_EXPERTS = ("query", "key", "value", "relative", "output")
PARTS = ("experts", "attention weights", "attention over the cache", "unembedding")


def bandwidth(array: np.ndarray, vector: np.ndarray) -> float:
    """Bytes read per second: the better of a sum and a matrix-vector product."""
    best = 0.0
    for read in (lambda: array.sum(), lambda: vector @ array):
        started = time.perf_counter()
        read()
        best = max(best, array.nbytes / (time.perf_counter() - started))
    return best


def gemm_peak(size: int = 1024, repeats: int = 8) -> float:
    """Operations per second of numpy's float32 matrix product, best of several."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def call_bytes(config: TransformerConfig, params: dict, touched: float, filled: int) -> dict:
    """Bytes that one call must read, by part.

    Args:
        config: the stack.
        params: its parameters.
        touched: routed experts per layer that some slot of the call uses, on average.
        filled: slots in the cache.
    """
    size = lambda leaf: leaf.size * leaf.dtype.itemsize
    weights = cache = 0
    for kind in AttentionKind:
        family, heads = params[f"attention_{kind.value}"], config.attention(kind)
        weights += sum(size(leaf) for leaf in family.values())
        seen = min(filled, heads.window or filled)
        cache += config.count(kind) * seen * 2 * heads.kv_heads * heads.head_width * 4
    experts = sum(size(params["moe"][name]) for name in ("gate", "up", "down"))
    shared = sum(size(params["moe"][f"shared_{name}"]) for name in ("gate", "up", "down"))
    return {
        "experts": experts * touched / config.experts + shared + size(params["moe"]["router"]),
        "attention weights": weights,
        "attention over the cache": cache,
        "unembedding": size(params["unembed"]),
    }


def call_operations(config: TransformerConfig, params: dict, slots: int, filled: int) -> float:
    """Multiplications and additions of one call: two per active weight and slot, and attention."""
    heads = config.local
    assert heads is not None
    active = params["unembed"].size / slots  # one slot's logits are asked for
    for kind in AttentionKind:
        active += sum(leaf.size for leaf in params[f"attention_{kind.value}"].values())
    per_expert = 3 * config.width * config.expert_width
    active += config.layers * per_expert * (config.experts_per_slot + config.shared_experts)
    seen = sum(
        config.count(kind) * min(filled, config.attention(kind).window or filled)
        for kind in AttentionKind
    )
    return 2 * slots * active + 4 * slots * seen * heads.heads * heads.head_width


@functools.partial(jax.jit, static_argnames="config")
def touched_experts(params, cache, tokens, config):
    """Routed experts per layer that the slots of one append use, on average over layers."""
    _, _, load = transformer.run(
        params,
        transformer.embed_tokens(params, tokens, config),
        config,
        position_BT=cache["count"][:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None],
        valid_BT=jnp.ones(tokens.shape, bool),
        cache=cache,
    )
    return jnp.mean(jnp.sum(load.share > 0, axis=1, dtype=jnp.float32))


# ---------------------------------------------------------------- parts of the step


def _layers(config: TransformerConfig):
    """Each layer's attention kind and its row in the stack of that kind."""
    seen = dict.fromkeys(AttentionKind, 0)
    for kind in config.attention_kinds:
        yield kind, seen[kind]
        seen[kind] += 1


def _experts(params, cache, x, config):
    rows = lambda layer: {name: Row(leaf, jnp.int32(layer)) for name, leaf in params["moe"].items()}
    for layer in range(config.layers):
        p = rows(layer)
        p = {n: row.whole() if n in ("router", "bias", "scale") else row for n, row in p.items()}
        x = x + 1e-3 * moe.mixture(p, x, jnp.ones(x.shape[:2], bool), config)[0]
    return x


def _attention_weights(params, cache, x, config):
    native = config.implementation is Implementation.NATIVE
    for kind, row in _layers(config):
        family = params[f"attention_{kind.value}"]
        of = lambda name, family=family, row=row: Row(family[name], jnp.int32(row))
        made = [project(x, of(name), native=native) for name in NOT_EXPERTS[:-1]]
        out = made[0] + sum(jnp.mean(part) for part in made[1:])
        x = x + 1e-3 * project(out, of("output"), contract=2, native=native)
    return x


def _attention(params, cache, x, config):
    B, T, _ = x.shape
    at = cache["count"][:, None] - T + jnp.arange(T, dtype=jnp.int32)[None]
    where = Whereabouts(position=at, order=at)
    for kind, row in _layers(config):
        heads, entry = config.attention(kind), cache[kind.value]
        query = x.reshape(B, T, heads.heads, heads.head_width)
        out = attend_live(
            query,
            entry["key"],
            entry["value"],
            jnp.int32(row),
            jnp.broadcast_to(x[..., None, :1], (B, T, heads.heads, heads.bias_extent)),
            queries=where,
            keys=Whereabouts(position=entry["position"], order=entry["order"]),
            heads=heads,
            scale=1.0 / heads.head_width,
            length_scale_BT=None,
            implementation=config.implementation,
            planned=None,
        )
        x = x + 1e-3 * out.reshape(x.shape)
    return x


def _unembedding(params, cache, x, config):
    scores = transformer.logits(params, x[:, -1:], config, live=True)
    return x + 1e-3 * jnp.max(scores, axis=-1, keepdims=True)


def part_program(part: str, config: TransformerConfig):
    """One part for the slots of a micro-turn: 8 at once, then 8 one by one."""
    run = dict(zip(PARTS, (_experts, _attention_weights, _attention, _unembedding), strict=True))

    def program(params, cache, x_BTD):
        start = x_BTD if part == "unembedding" else run[part](params, cache, x_BTD, config)
        one = lambda _, x: run[part](params, cache, x, config)
        return jax.lax.fori_loop(0, TOKENS_OUT, one, start[:, -1:])

    return jax.jit(program)


def picture(limit_ms: dict, parts_ms: dict, measured_ms: float, path: pathlib.Path) -> None:
    """Two bars: what the bytes cost at the measured bandwidth, and where the step's time goes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rest = max(0.0, measured_ms - sum(parts_ms.values()))
    measured = "measured (medians)"
    rows = {"limit: bytes / bandwidth": limit_ms, measured: parts_ms | {"everything else": rest}}
    colours = dict(
        zip([*PARTS, "everything else"], matplotlib.colormaps["tab10"].colors, strict=False)
    )
    figure, axes = pyplot.subplots(figsize=(8, 2.4), dpi=100)
    for name, row in rows.items():
        left = 0.0
        for part, value in row.items():
            label = part if name == measured else None
            axes.barh(name, value, left=left, color=colours[part], label=label)
            left += value
        axes.text(left, name, f" {left:.0f} ms", va="center")
    axes.set_xlabel("ms per micro-turn of 8 tokens in and 8 out, one core")
    axes.margins(x=0.1)
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.45, 1.22), frameon=False)
    figure.savefig(path, bbox_inches="tight")


def steps(config: TransformerConfig, params: dict, rounds: int) -> dict:
    """Rounds of reads of memory, matrix products, micro-turns and parts, after `FILL` micro-turns.

    Returns:
        Seconds of each step and of each part, bytes and operations per second of each round, and
        experts touched by one append.
    """
    cache, step = text_stack.init_cache(config), text_stack.compiled(config)
    rng = np.random.default_rng(0)
    draw = lambda: rng.integers(0, config.vocabulary, (1, TOKENS_IN)).astype(np.int32)
    for _ in range(FILL):
        cache, out = jax.block_until_ready(step(params, cache, draw()))
    touched = [float(touched_experts(params, cache, draw(), config)) for _ in range(10)]
    array, vector = np.ones((1024, 65536), np.float32), np.ones(1024, np.float32)
    x = jnp.asarray(rng.normal(size=(1, TOKENS_IN, config.width)), jnp.float32)
    programs = {part: part_program(part, config) for part in PARTS}
    for program in programs.values():  # compiled and warm
        program(params, cache, x).block_until_ready()
    seconds, reads, products = [], [], []
    parts: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        reads.append(bandwidth(array, vector))
        products.append(gemm_peak(repeats=2))
        started = time.perf_counter()
        cache, out = step(params, cache, draw())
        out.block_until_ready()
        seconds.append(time.perf_counter() - started)
        for part, program in programs.items():
            started = time.perf_counter()
            program(params, cache, x).block_until_ready()
            parts[part].append(time.perf_counter() - started)
    return {
        "seconds": seconds,
        "parts": parts,
        "reads": reads,
        "products": products,
        "touched": float(np.mean(touched)),
        "traced": traced(step, params, cache, draw()),
    }


def traced(step, params: dict, cache: dict, tokens: np.ndarray, repeats: int = 3) -> dict:
    """Milliseconds of a traced micro-turn by kind of operation, what holds others left out."""
    kinds = (
        ("holds others", r"while|call|conditional|ThunkExecutor|Pjit|\$|end: |np\.asarray"),
        ("tiles copied out of stacks", r"dynamic-slice_bitcast_fusion"),
        ("C++", r"custom-call|ffi"),
        ("products", r"dot|ynn_fusion"),
        ("everything else", ""),
    )
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 3, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(repeats):
                cache, _ = jax.block_until_ready(step(params, cache, tokens))
        (path,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    found: dict[str, float] = collections.defaultdict(float)
    for event in events:
        if event.get("ph") == "X":
            kind = next(kind for kind, pattern in kinds if re.match(pattern, event["name"]))
            found[kind] += event["dur"] / 1000 / repeats
    return {kind: round(found[kind], 1) for kind, _ in kinds[1:]}


def limit_of(config, params: dict, touched: float, filled: int, read: float, peak: float):
    """Seconds that a micro-turn's nine calls need at least, and the bytes they read, by part."""
    calls = [(TOKENS_IN, touched)] + [(1, float(config.experts_per_slot))] * TOKENS_OUT
    by_part, limit = dict.fromkeys(PARTS, 0.0), 0.0
    for number, (slots, experts) in enumerate(calls):
        parts = call_bytes(config, params, experts, filled)
        if number == TOKENS_OUT:  # nobody asks what would follow the last token
            parts["unembedding"] = 0.0
        by_part = {part: by_part[part] + parts[part] for part in PARTS}
        operations = call_operations(config, params, slots, filled)
        limit += max(sum(parts.values()) / read, operations / peak)
    return limit, by_part


def over_limit(seconds: list[float], limit: float) -> dict[str, float]:
    """Median of the steps over the limit, its 95 % bootstrap interval, and the smallest."""
    ratios = np.array(seconds) / limit
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    values = {"median": np.median(ratios), "low": low, "high": high, "smallest": ratios.min()}
    return {name: round(float(value), 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=sorted(text_stack.SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--implementation", choices=("NATIVE", "REFERENCE"), default="NATIVE")
    parser.add_argument("--quick", action="store_true", help="5 rounds, nothing written")
    args = parser.parse_args()
    rounds = 5 if args.quick else args.rounds
    facts = machine.facts()
    config = text_stack.stack_config(args.size, Implementation[args.implementation])
    params = text_stack.init(config)
    ran = steps(config, params, rounds)
    read, peak = (float(np.percentile(ran[name], 90)) for name in ("reads", "products"))
    filled = (FILL + rounds // 2) * (TOKENS_IN + TOKENS_OUT)
    filled = min(filled, text_stack.GLOBAL_SLOTS)
    limit, by_part = limit_of(config, params, ran["touched"], filled, read, peak)
    parts_ms = {part: round(1000 * float(np.median(s)), 3) for part, s in ran["parts"].items()}
    shares = {part: 1000 * value / read for part, value in by_part.items()}
    content = {
        "question": "a text micro-turn against the limits of memory and arithmetic",
        "size": args.size,
        "implementation": args.implementation,
        "goal_over_limit": GOAL,
        "facts": facts,
        "read_bandwidth_GB_s": {
            "p90_used_for_the_limit": round(read / 1e9, 2),
            "median": round(float(np.median(ran["reads"])) / 1e9, 2),
        },
        "gemm_peak_GFLOP_s": round(peak / 1e9, 1),
        "rounds": f"{rounds}: each one read, one product, one micro-turn and every part once",
        "experts_touched_by_8_slots": round(ran["touched"], 2),
        "filled_slots": filled,
        "bytes_per_micro_turn": {part: round(value) for part, value in by_part.items()},
        "limit_ms": round(1000 * limit, 3),
        "step_ms": measure.milliseconds(ran["seconds"]),
        "over_limit": over_limit(ran["seconds"], limit),
        "parts_alone_ms_median": parts_ms,
        "traced_ms": ran["traced"],
        "limit_of_parts_ms": {part: round(ms, 3) for part, ms in shares.items()},
    }
    for name in ("limit_ms", "step_ms", "over_limit", "parts_alone_ms_median", "traced_ms"):
        print(name, content[name])
    if not args.quick:
        name = f"machine_limits_{args.size}_{args.implementation.lower()}"
        measure.write(HERE / f"{name}.json", content)
        median = 1000 * float(np.median(ran["seconds"]))
        picture(shares, parts_ms, median, HERE / f"{name}.png")


if __name__ == "__main__":
    main()
