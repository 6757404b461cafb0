"""How fast the kernels are, against plain XLA and against the limits of the device.

Question: how near does each kernel come to what memory or arithmetic allow, and what does it gain
over plain XLA?
Command: taskset -c 1 python -m experiments.bench.kernels            # on CPU
         python -m experiments.bench.kernels                         # on a GPU or a TPU
Cost: four minutes on one core; two on an accelerator. `--quick`: two rounds, writes nothing.
Expectation: on a GPU at least 60 % of the measured copy bandwidth for attention and experts. On CPU
the loops over touched experts and filled blocks win over computing everything.
Finding: `kernels_cpu.json`, and `kernels_gpu.json` and `kernels_tpu.json` where one was at hand:
neither has been run yet.

The cases are those of `kernel_cases`. Ways of one call, and the device's bandwidth, are timed in
turns, round by round. A call is repeated inside one program, whose result each repetition needs
(so that neither dispatch nor the host's clock counts), with another layer or other experts each
time. A case whose repetitions read more than the last cache holds is compared with the bandwidth
of memory: on CPU a matrix-vector product over 256 MiB, which only reads; on GPU and TPU an addition
over 1 GiB, read and written together. Another is compared with the same over an array of its own
size, which lies in a cache (a share may pass 1 there: it is another program's reading, no peak); on
a TPU kernels lay out fast memory themselves, and everything counts as read from memory. The peak is
a matrix product: float32 on CPU, bfloat16 elsewhere. The limit of a call is the longer of computed
bytes / bandwidth and computed operations / peak.
"""

import argparse
import dataclasses
import functools
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

# One thread on CPU. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import kernel_cases, machine, measure
from experiments.bench.kernel_cases import MODEL, STACK, Case, cases
from interaction.kernels import attention, experts, flow
from interaction.kernels.implementation import CHIPS

HERE = pathlib.Path(__file__).parent
GPU_GOAL = 0.6
MEBIBYTE = 1 << 20
# Bytes of the last cache, of a CPU as it tells, of an H200 its L2; a TPU's does not fill itself.
LAST_CACHE = {"cpu": machine.last_cache(), "gpu": 50 * MEBIBYTE, "tpu": 0}
PROGRAM_SECONDS = {"cpu": 0.02, "gpu": 0.005, "tpu": 0.005}


@dataclasses.dataclass(frozen=True)
class Program:
    """Something repeated inside one compiled program.

    Attributes:
        call: takes the number of repetitions.
        repeats: so many take about `PROGRAM_SECONDS`.
    """

    call: Callable[[int], Any]
    repeats: int

    def seconds(self) -> float:
        """Wall time of one repetition."""
        began = time.perf_counter()
        jax.block_until_ready(self.call(self.repeats))
        return (time.perf_counter() - began) / self.repeats


def repeated(way: kernel_cases.Way, arguments, x, backend: str) -> Program:
    """`way` again and again, with index 0, 1, ...; each repetition needs the one before."""

    @jax.jit
    def run(arguments, x, repeats):
        again = lambda index, y: (x + 1e-6 * way(arguments, y, index)).astype(x.dtype)
        return jax.lax.fori_loop(0, repeats, again, x)

    return sized(lambda repeats: run(arguments, x, repeats), backend)


def sized(call: Callable[[int], Any], backend: str) -> Program:
    """With as many repetitions as take `PROGRAM_SECONDS`, at least three; compiled and warm."""
    jax.block_until_ready(call(1))
    few = 3
    taken = min(Program(call, few).seconds() for _ in range(2))
    return Program(call, max(few, round(PROGRAM_SECONDS[backend] / taken)))


@functools.cache
def moving(backend: str, cached: int | None) -> tuple[int, Program]:
    """What a case is compared with: the bytes that one repetition moves, and the program.

    Args:
        backend: the device.
        cached: bytes of an array that lies in a cache; None: memory.
    """
    if backend == "cpu":
        side = 8192 if cached is None else max(64, math.isqrt(cached // 4))
        matrix, vector = jnp.ones((side, side), jnp.float32) / side, jnp.ones((1, side))
        return 4 * side**2, repeated(lambda m, v, index: v @ m, matrix, vector, backend)
    numbers = (1 << 28) if cached is None else cached // 4
    add = jax.jit(lambda x, repeats: jax.lax.fori_loop(0, repeats, lambda _, y: y + 1, x))
    x = jnp.ones((numbers,), jnp.float32)
    return 8 * numbers, sized(lambda repeats: add(x, repeats), backend)


def peak(backend: str, rounds: int) -> float:
    """Operations per second of a matrix product, the best of `rounds`."""
    size, dtype = (1024, jnp.float32) if backend == "cpu" else (8192, jnp.bfloat16)
    square = jnp.ones((size, size), dtype) / size
    program = repeated(lambda a, x, index: x @ a, square, square, backend)
    return 2 * size**3 / min(program.seconds() for _ in range(rounds))


def row(case: Case, backend: str, operations: float, rounds: int) -> dict:
    """One line of the table: a case's ways and the bandwidth in turns."""
    lies = "memory" if case.working_set > LAST_CACHE[backend] else "cache"
    moved, reads = moving(backend, None if lies == "memory" else case.working_set)
    arguments, x = jax.jit(case.make)()
    outputs = [
        jax.jit(way)(arguments, x, jnp.int32(0)).astype(jnp.float32) for way in case.ways.values()
    ]
    apart = max(float(jnp.abs(each - outputs[0]).max()) for each in outputs)
    programs = {name: repeated(way, arguments, x, backend) for name, way in case.ways.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    rates = []
    for number in range(rounds):
        rates.append(moved / reads.seconds())
        order = list(programs) if number % 2 else list(programs)[::-1]
        for name in order:
            times[name].append(programs[name].seconds())
    bandwidth = float(np.median(rates))
    by_memory, by_arithmetic = case.count.bytes / bandwidth, case.count.flops / operations
    limit = max(by_memory, by_arithmetic)
    medians = {name: float(np.median(each)) for name, each in times.items()}
    found = {
        "kernel": case.kernel,
        **case.about,
        "live": case.live,
        "working_set_bytes": case.working_set,
        "read_from": lies,
        "bandwidth_GB_s": float(f"{bandwidth / 1e9:.4g}"),
        "computed_bytes": case.count.bytes,
        "computed_flops": case.count.flops,
        "limited_by": "bandwidth" if by_memory >= by_arithmetic else "arithmetic",
        "limit_ms": round(1e3 * limit, 5),
        "milliseconds": {name: round(1e3 * each, 5) for name, each in medians.items()},
        "share_of_limit": {name: round(limit / each, 4) for name, each in medians.items()},
        "share_of_bandwidth": {name: round(by_memory / each, 4) for name, each in medians.items()},
        "largest_difference": apart,
    }
    if case.live != "reference":
        against = measure.ratio(times[case.live], times["reference"])
        found["live_over_reference"] = {
            "ratio": against["ours_over_peer"], "low": against["low"], "high": against["high"],
        }  # fmt: skip
    print(case.kernel, dict(case.about), found["milliseconds"], found["share_of_limit"], flush=True)
    return found


def computed_rooflines() -> list[dict]:
    """Least time of one layer's call on each chip, from counts and published peaks: computed."""
    local, far = STACK["local"], STACK["global_"]
    heads = lambda h: {"heads": h.heads, "kv_heads": h.kv_heads, "head_width": h.head_width,
                       "extent": h.bias_extent, "item": 2}  # fmt: skip
    touched = round(experts.expected_touched(60, STACK.experts, STACK.experts_per_slot))
    head = MODEL.flow
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


def goal(rows: list[dict]) -> dict:
    """Whether attention and experts reach their share of the copy bandwidth on a GPU."""
    bound = [each for each in rows if each["kernel"] in ("microturn_attention", "experts")]
    shares = [each["share_of_bandwidth"][each["live"]] for each in bound]
    return {"least_share": min(shares), "goal": GPU_GOAL}


def main() -> None:
    """Times every case of this device and writes its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="timed programs of each way")
    parser.add_argument("--quick", action="store_true", help="2 rounds, nothing written")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    backend = jax.default_backend()
    about = machine.facts()
    best = peak(backend, rounds)
    rows = [row(case, backend, best, rounds) for case in cases(backend)]
    report = {
        "facts": about,
        "backend": backend,
        "device": jax.devices()[0].device_kind,
        "rounds": rounds,
        "peak_GFLOP_s": round(best / 1e9, 1),
        "rows": rows,
        "computed_rooflines": computed_rooflines(),
    }
    if backend == "gpu":
        report["gpu_goal"] = goal(rows)
    if not options.quick:
        measure.write(HERE / f"kernels_{backend}.json", report)


if __name__ == "__main__":
    main()
