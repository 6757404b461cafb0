"""Stage widths of the hMLP stem by the reference rule of the Inkling release.

In: tubelet size, number of stages. Out: for every stage its folds and widths. The rule places
`stages + 1` points evenly in log space between one pixel and the whole tubelet and assigns to
each the nearest scale among the prime-factor folds of space, then of time.
"""

import itertools
import math

import numpy as np


def reference_stages(
    frames: int, patch: int, stages: int, channels: int, width: int
) -> tuple[tuple[int, int, int, int], ...]:
    """Folds and widths of each stage.

    Args:
        frames: frames of a tubelet.
        patch: pixels on a side.
        stages: fold + linear stages.
        channels: colours.
        width: output width of the last stage.

    Returns:
        For each stage (time fold, space fold, inputs, outputs). For 2x40x40x3 and four stages:
        75 -> 128, 512 -> 320, 5120 -> 4800, 9600 -> width.
    """
    scales = _scales(frames, patch, channels)
    sizes = np.log([t * s * s for t, s, _ in scales])
    total = math.log(patch * patch * frames * channels)
    cost = np.abs(np.linspace(0, total, stages + 1, dtype=np.float32)[:, None] - sizes[None])
    if stages >= len(scales):
        assigned = cost.argmin(axis=1)
    else:
        # Imported here: it takes about as long to import as JAX, and few models need it.
        from scipy.optimize import linear_sum_assignment

        assigned = linear_sum_assignment(cost)[1]
    chosen = [int(index) for index in assigned]
    chosen[0], chosen[-1] = 0, len(scales) - 1
    plan = []
    for index, (start, stop) in enumerate(itertools.pairwise(chosen)):
        (t0, s0, c0), (t1, s1, c1) = scales[start], scales[stop]
        inputs = c0 * (t1 // t0) * (s1 // s0) ** 2
        plan.append((t1 // t0, s1 // s0, inputs, width if index == stages - 1 else c1))
    return tuple(plan)


def _scales(frames: int, patch: int, channels: int) -> list[tuple[int, int, int]]:
    """Every reachable (time, space, width) scale, smallest first."""
    scales = [(1, 1, channels)]
    space = 1
    for factor in sorted(_prime_factors(patch), reverse=True):
        space *= factor
        scales.append((1, space, math.ceil(space * space * channels / 64) * 64))
    time = 1
    for factor in sorted(_prime_factors(frames), reverse=True):
        time *= factor
        scales.append((time, space, math.ceil(space * space * channels * time) * 64))
    return scales


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
