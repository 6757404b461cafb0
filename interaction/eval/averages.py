"""Means and macro-averages of samples with bootstrap intervals.

In: a value per sample. Out: `Measured`. Samples are drawn with replacement; for a macro-average
they are drawn within each kind, so that every kind keeps its weight. Where that has no width, the
rule of `intervals` holds.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.intervals import Bounds, Measured, bootstrap, within


def mean(
    values: Sequence[float], *, bounds: Bounds | None = None, chance: float | None = None
) -> Measured:
    """The mean with its interval; nan of no values."""
    figure = bootstrap(values, np.mean, bounds=bounds)
    return Measured(figure.value, figure.low, figure.high, figure.count, chance)


def macro(
    kinds: Mapping[str, Sequence[float]],
    *,
    bounds: Bounds | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> Measured:
    """The mean over kinds of the mean within each; kinds without values are left out.

    Where all values of every kind are equal, the kinds' Wilson intervals are put together by the
    squares of their half-widths (Zou, Huang and Zhang, Computational Statistics and Data Analysis
    53, 2009, equation 3), if the values have `bounds`; else there is no interval.
    """
    groups = [np.asarray(values, float) for values in kinds.values() if len(values)]
    if not groups:
        return Measured(math.nan, math.nan, math.nan, 0)
    means = [float(group.mean()) for group in groups]
    value, count = float(np.mean(means)), sum(map(len, groups))
    if all(group.min() == group.max() for group in groups):
        if bounds is None:
            return Measured(value, math.nan, math.nan, count)
        spans = [within(m, len(g), bounds) for m, g in zip(means, groups, strict=True)]
        below = math.hypot(*(m - low for m, (low, _) in zip(means, spans, strict=True)))
        above = math.hypot(*(high - m for m, (_, high) in zip(means, spans, strict=True)))
        return Measured(value, value - below / len(means), value + above / len(means), count)
    random = np.random.default_rng(seed)
    drawn = np.mean(
        [g[random.integers(0, len(g), (draws, len(g)))].mean(axis=1) for g in groups], axis=0
    )
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measured(value, float(low), float(high), count)
