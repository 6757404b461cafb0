"""Intervals of what was measured.

In: counts or samples. Out: `Measured`, a figure with its 95 % interval and its n. Counts get
Wilson's interval, rates the exact Poisson one (Garwood), samples a bootstrap.

One rule holds for every bootstrap. Samples that are all equal, and a single one, give the same
figure however they are drawn anew: the interval has no width, whatever lies behind it ("0 % (0 to
0), n = 40"). Then the mean of values that are known to lie within bounds (shares, per cent, points
of a scale) gets Wilson's score interval [1], which is the right one for values of 0 and 1 [2] and
errs on the wide side for values between, as none varies more than a share of the same mean [3];
anything else (times, medians) gets no interval, and its n alone is shown.

[1] Wilson, JASA 22, 1927. [2] Brown, Cai and DasGupta, Statistical Science 16(2), 2001.
[3] Bhatia and Davis, American Mathematical Monthly 107(4), 2000.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

_Z = 1.959963984540054

_EDGE = 1e-9  # of the bounds' distance: what adding up may lose

Bounds = tuple[float, float]
SHARE: Bounds = (0.0, 1.0)
PERCENT: Bounds = (0.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A figure.

    Attributes:
        value: what was measured.
        low, high: its 95 % interval; nan where the samples tell of none.
        count: n, what it rests on (clips, videos, minutes).
        chance: what guessing would reach, if that is a thing.
    """

    value: float
    low: float
    high: float
    count: float
    chance: float | None = None

    def times(self, scale: float) -> "Measured":
        """The same in another unit (100 for per cent)."""
        value, low, high = self.value * scale, self.low * scale, self.high * scale
        return dataclasses.replace(self, value=value, low=low, high=high)

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
    return Measured(right / count, *wilson(right / count, count), count, chance)


def wilson(mean: float, count: int) -> Bounds:
    """Wilson's 95 % interval of a mean of `count` values within 0..1."""
    z2 = _Z * _Z
    middle = (mean + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(mean * (1 - mean) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    low = 0.0 if mean == 0 else max(0.0, middle - half)
    return low, 1.0 if mean == 1 else min(1.0, middle + half)


def within(mean: float, count: int, bounds: Bounds) -> Bounds:
    """Wilson's interval of a mean of `count` values within `bounds`.

    Raises:
        ValueError: the mean lies outside.
    """
    least, most = bounds
    share = (mean - least) / (most - least)
    if not -_EDGE <= share <= 1 + _EDGE:
        raise ValueError(f"mean={mean} must lie within bounds={bounds}")
    low, high = wilson(min(1.0, max(0.0, share)), count)
    return least + low * (most - least), least + high * (most - least)


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
    samples: Sequence[float],
    statistic: Callable = np.median,
    *,
    bounds: Bounds | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> Measured:
    """A statistic with its percentile bootstrap interval; nan of no samples.

    Args:
        samples: values.
        statistic: takes an array and an axis.
        bounds: of the mean of values that cannot lie outside them: Wilson's interval where the
            bootstrap has no width. None: then there is no interval (nan).
        draws: of the samples, with replacement.
        seed: of the draws.

    Raises:
        ValueError: bounds of another statistic than the mean, or a sample outside them.
    """
    values = np.asarray(samples, float)
    if not len(values):
        return Measured(math.nan, math.nan, math.nan, 0)
    if bounds is not None:
        if statistic is not np.mean:
            raise ValueError(f"bounds={bounds} are of a mean, statistic={statistic}")
        for value in (values.min(), values.max()):
            within(float(value), len(values), bounds)
    random = np.random.default_rng(seed)
    drawn = values[random.integers(0, len(values), (draws, len(values)))]
    figures = statistic(drawn, axis=1)
    low, high = np.percentile(figures, [2.5, 97.5])
    value = float(statistic(values, axis=0))
    if values.min() == values.max():  # the draws' means may differ by a rounding
        value = float(values[0])
        low, high = (math.nan, math.nan) if bounds is None else within(value, len(values), bounds)
    return Measured(value, float(low), float(high), len(values))
