"""How fast the kernels are, against plain XLA and against the limits of this machine.

    python -m experiments.bench.kernels            # all that this machine can run
    python -m experiments.bench.kernels --rounds 5 # fewer rounds

In: nothing. Out: `experiments/bench/kernels.json`. On a GPU: attention and experts at one layer of
`configs/tml_interaction_small.py`, each as a share of the copy bandwidth measured in the same run
(goal: 60 %). On CPU: the loops over touched experts against all experts at several row counts, and
the share of the memory bandwidth measured in the same run. What is not run says so and why.

Question: does reading only what is touched reach the memory's speed? Cost: 2 minutes on a GPU, 3
on two CPU cores. Expectation: 60 % of copy bandwidth on a GPU; on CPU the loop wins while few
experts are touched. Computed next to each time: bytes and operations by `count` of each kernel.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import tml_interaction_small
from interaction.kernels import attention, experts, flow
from interaction.kernels.implementation import CHIPS, Count, Implementation

OUT = pathlib.Path(__file__).with_suffix(".json")
STACK = tml_interaction_small.get_config().model.transformer
GPU_GOAL = 0.6


def median_seconds(function, arguments, rounds: int) -> float:
    """Median wall time of one call, compiled and warm."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def copy_bandwidth(rounds: int) -> float:
    """Bytes per second, read and written together, of copying 1 GiB (CPU: 256 MiB)."""
    size = (1 << 30) if jax.default_backend() == "gpu" else (1 << 28)
    x = jnp.ones((size // 4,), jnp.float32)
    seconds = median_seconds(jax.jit(lambda x: x + 1), (x,), rounds)
    return 2 * size / seconds


def read_bandwidth(rounds: int) -> float:
    """Bytes per second of a matrix-vector product over 256 MiB of float32, which are only read."""
    x = jnp.ones((8192, 8192), jnp.float32)
    seconds = median_seconds(jax.jit(lambda v, x: v @ x), (jnp.ones((1, 8192)), x), rounds)
    return x.nbytes / seconds


def row(name: str, count: Count, seconds: dict, bandwidth: float, **about) -> dict:
    """One line of the table: each implementation's time and its share of the bandwidth."""
    return {
        "kernel": name,
        **about,
        "computed_bytes": count.bytes,
        "computed_flops": count.flops,
        "milliseconds": {key: round(1e3 * value, 4) for key, value in seconds.items()},
        "share_of_bandwidth": {
            key: round(count.bytes / value / bandwidth, 4) for key, value in seconds.items()
        },
    }


def attention_rows(bandwidth: float, rounds: int) -> list[dict]:
    """Sliding and global attention of one layer on a GPU."""
    rows = []
    for kind, places, slots, lanes in (
        ("local", 640, 20, 8), ("global_", 131_072, 20, 1), ("global_", 131_072, 60, 1),
        ("global_", 16_384, 20, 8),
    ):  # fmt: skip
        heads = getattr(STACK, kind)
        N, K, H, Q = heads.heads, heads.kv_heads, heads.head_width, heads.bias_extent
        keys = jax.random.split(jax.random.key(0), 4)
        draw = lambda key, *shape: jax.random.normal(key, shape, jnp.bfloat16)
        query, bias = draw(keys[0], lanes, slots, N, H), draw(keys[1], lanes, slots, N, Q)
        key, value = (draw(k, 2, lanes, places, K, H) for k in keys[2:])
        place = jnp.broadcast_to(jnp.arange(places, dtype=jnp.int32)[None], (lanes, places))
        asked = place[:, -slots:]
        where = attention.Places(asked, asked), attention.Places(place, place)

        def call(query, key, value, bias, implementation, where=where, heads=heads):
            return attention.microturn_attention(
                query, key, value, bias, queries=where[0], keys=where[1], scale=1 / 128,
                window=heads.window, layer=1, implementation=implementation,
            )  # fmt: skip

        run = jax.jit(call, static_argnums=4)
        seconds, outputs = {}, {}
        for each in (Implementation.REFERENCE, Implementation.PALLAS_GPU):
            arguments = (query, key, value, bias, each)
            seconds[each.value] = median_seconds(run, arguments, rounds)
            outputs[each.value] = run(*arguments).astype(jnp.float32)
        filled = places if heads.window is None else min(places, heads.window + slots)
        count = attention.count(
            lanes=lanes, slots=slots, heads=N, kv_heads=K, head_width=H, filled=filled,
            extent=Q, item=2,
        )  # fmt: skip
        first, second = outputs.values()
        rows.append(
            row(
                "microturn_attention", count, seconds, bandwidth, kind=kind.strip("_"),
                lanes=lanes, slots=slots, places=places,
                largest_difference=float(jnp.abs(first - second).max()),
            )
        )  # fmt: skip
    return rows


def expert_arguments(rows: int, width: int, inner: int, number: int, per_row: int, dtype) -> tuple:
    """Random rows, even choices, one layer's matrices."""
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(number)[:per_row] for _ in range(rows)])
    keys = jax.random.split(jax.random.key(1), 4)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype) * shape[-2] ** -0.5
    return (
        draw(keys[0], rows, width),
        jnp.asarray(chosen, jnp.int32),
        jnp.asarray(rng.random((rows, per_row)), jnp.float32),
        draw(keys[1], number, width, inner),
        draw(keys[2], number, width, inner),
        draw(keys[3], number, inner, width),
    )


def expert_row(sizes: dict, implementations, bandwidth: float, rounds: int) -> dict:
    """One call of the experts by every implementation."""
    dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
    arguments = expert_arguments(**sizes, dtype=dtype)
    reached = len(np.unique(np.asarray(arguments[1])))
    count = experts.count(
        rows=sizes["rows"], width=sizes["width"], inner=sizes["inner"], reached=reached,
        computed=-(-sizes["rows"] * sizes["per_row"] // reached), item=jnp.dtype(dtype).itemsize,
    )  # fmt: skip
    seconds, outputs = {}, []
    for each in implementations:
        run = jax.jit(lambda *a, each=each: experts.mix(*a, implementation=each))
        seconds[each.value] = median_seconds(run, arguments, rounds)
        outputs.append(run(*arguments).astype(jnp.float32))
    apart = max(float(jnp.abs(o - outputs[0]).max()) for o in outputs)
    chosen = experts.choose(
        Implementation.PALLAS_GPU if dtype == jnp.bfloat16 else Implementation.REFERENCE,
        sizes["rows"], sizes["number"], sizes["per_row"],
    )  # fmt: skip
    return row(
        "experts", count, seconds, bandwidth, **sizes, touched=reached,
        largest_difference=apart, chosen=chosen.value,
    )  # fmt: skip


def cpu_rows(bandwidth: float, rounds: int) -> list[dict]:
    """Loops over touched experts against all experts: the small size of the benches, and more."""
    ways = (Implementation.REFERENCE, Implementation.TOUCHED, Implementation.BLOCKS)
    shapes = (
        {"width": 128, "inner": 96, "number": 4, "per_row": 2},
        {"width": 512, "inner": 256, "number": 16, "per_row": 4},
        {"width": 512, "inner": 512, "number": 32, "per_row": 4},
    )
    return [
        expert_row({"rows": rows, **shape}, ways, bandwidth, rounds)
        for shape in shapes
        for rows in (1, 4, 16, 64)
    ]


def computed_rooflines() -> list[dict]:
    """Least time of one layer's call on each chip, from counts and published peaks: computed."""
    local, far = STACK["local"], STACK["global_"]
    heads = lambda h: {"heads": h.heads, "kv_heads": h.kv_heads, "head_width": h.head_width,
                       "extent": h.bias_extent, "item": 2}  # fmt: skip
    touched = round(experts.expected_touched(60, STACK.experts, STACK.experts_per_slot))
    head = tml_interaction_small.get_config().model.flow
    flow_sizes = {"rows": 1, "steps": head.steps, "blocks": head.blocks, "width": head.width,
                  "chunk": 1280, "item": 2}  # fmt: skip
    calls = {
        "local attention, 60 slots": attention.count(lanes=1, slots=60, filled=572, **heads(local)),
        "global attention, 60 slots, 131,072 places": attention.count(
            lanes=1, slots=60, filled=131_072, **heads(far)
        ),
        f"experts, 60 rows, {touched} touched": experts.count(
            rows=60, width=STACK.width, inner=STACK.expert_width, reached=touched, computed=60,
            item=2,
        ),
        "flow head, 8 steps, streamed": flow.count(**flow_sizes, where=flow.Residency.STREAMED),
    }  # fmt: skip
    return [
        {
            "call": name,
            "bytes": count.bytes,
            "flops": count.flops,
            "least_microseconds": {
                chip: round(1e6 * count.seconds(peaks), 1) for chip, peaks in CHIPS.items()
            },
        }
        for name, count in calls.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each")
    rounds = parser.parse_args().rounds
    backend = jax.default_backend()
    bandwidth = copy_bandwidth(rounds)
    report = {
        "device": jax.devices()[0].device_kind if backend == "gpu" else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
        "rounds": rounds,
        "copy_bytes_per_second": round(bandwidth),
        "computed_rooflines": computed_rooflines(),
    }
    if backend == "gpu":
        sizes = {"width": STACK.width, "inner": STACK.expert_width, "number": STACK.experts,
                 "per_row": STACK.experts_per_slot}  # fmt: skip
        ways = (Implementation.REFERENCE, Implementation.PALLAS_GPU)
        report["gpu"] = attention_rows(bandwidth, rounds)
        report["gpu"] += [
            expert_row({"rows": rows, **sizes}, ways, bandwidth, rounds) for rows in (16, 60, 240)
        ]
        report["gpu_goal"] = GPU_GOAL
        shares = [each["share_of_bandwidth"]["pallas_gpu"] for each in report["gpu"]]
        report["gpu_least_share"] = min(shares)
        report["cpu"] = "not run: this is the GPU's run"
    else:
        report["gpu"] = "not run: no GPU"
        report["tpu"] = "not run: no TPU (compiled only: tests/test_kernels_compile.py)"
        reading = read_bandwidth(rounds)
        report["read_bytes_per_second"] = round(reading)
        report["cpu"] = cpu_rows(reading, rounds)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
