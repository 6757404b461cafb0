"""Intervals of what was measured.

In: counts or samples. Out: `Measured`, a figure with its 95 % interval and its n. Shares get
Wilson's interval, rates the exact Poisson one (Garwood), medians and the like a bootstrap.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Measured:
    """A figure.

    Attributes:
        value: what was measured.
        low, high: its 95 % interval.
        count: n, what it rests on (clips, videos, minutes).
        chance: what guessing would reach, if that is a thing.
    """

    value: float
    low: float
    high: float
    count: float
    chance: float | None = None

    def as_dict(self) -> dict:
        """Rounded, for a file."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rounded = {k: round(v, 4) for k, v in values.items() if v is not None}
        return {
            k: None if isinstance(v, float) and math.isnan(v) else v for k, v in rounded.items()
        }


def share(right: int, count: int, *, chance: float | None = None) -> Measured:
    """A share with Wilson's interval; nan where there is nothing to count.

    Raises:
        ValueError: more right than there are.
    """
    if not 0 <= right <= count:
        raise ValueError(f"right={right} must lie in 0..count={count}")
    if count == 0:
        return Measured(math.nan, 0.0, 1.0, 0, chance)
    p, z2 = right / count, _Z * _Z
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    low = 0.0 if right == 0 else max(0.0, middle - half)
    high = 1.0 if right == count else min(1.0, middle + half)
    return Measured(p, low, high, count, chance)


def _poisson_tail(count: int, mean: float) -> float:
    """P(N <= count) of a Poisson variable."""
    term, total = math.exp(-mean), 0.0
    for k in range(count + 1):
        total += term
        term *= mean / (k + 1)
    return total


def rate(events: int, minutes: float) -> Measured:
    """Events per minute with the exact Poisson interval.

    Raises:
        ValueError: no time.
    """
    if minutes <= 0 or events < 0:
        raise ValueError(f"events={events} in minutes={minutes}: need minutes > 0, events >= 0")

    def solve(wanted: float, count: int) -> float:
        low, high = 0.0, 10.0 + 4.0 * (count + 1)
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if _poisson_tail(count, middle) > wanted else (low, middle)
        return low

    lowest = 0.0 if events == 0 else solve(0.975, events - 1)
    return Measured(events / minutes, lowest / minutes, solve(0.025, events) / minutes, minutes)


def bootstrap(
    samples: Sequence[float], statistic: Callable = np.median, *, draws: int = 2_000, seed: int = 0
) -> Measured:
    """A statistic with its percentile bootstrap interval; nan of no samples."""
    values = np.asarray(samples, float)
    if not len(values):
        return Measured(math.nan, math.nan, math.nan, 0)
    random = np.random.default_rng(seed)
    drawn = values[random.integers(0, len(values), (draws, len(values)))]
    figures = statistic(drawn, axis=1)
    low, high = np.percentile(figures, [2.5, 97.5])
    return Measured(float(statistic(values, axis=0)), float(low), float(high), len(values))
