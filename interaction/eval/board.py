"""Rows of the report: every figure of a scoring with its bootstrap interval.

In: per-sample values. Out: `Figure`s of one mode and clock. Where a bootstrap has no width the rule
of `intervals` holds: Wilson's interval of what has bounds, none of what has not.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from interaction.eval import averages
from interaction.eval.intervals import SHARE, Bounds, Measured
from interaction.eval.records import Clock
from interaction.eval.suite import Better, Figure, Mode


@dataclasses.dataclass
class Board:
    """Collects the figures of one scoring."""

    mode: Mode
    clock: Clock
    figures: list[Figure] = dataclasses.field(default_factory=list)

    def add(
        self,
        scene: str,
        name: str,
        measured: Measured,
        samples: Mapping[str, float],
        better: Better,
        *,
        oracle: float | None = None,
        silent: float | None = None,
        judge: str = "",
    ) -> None:
        """Adds a row; see `Figure` for what it holds."""
        row = Figure(
            scene=scene,
            name=name,
            measured=measured,
            mode=self.mode,
            clock=self.clock,
            better=better,
            oracle=oracle,
            silent=silent,
            judge=judge,
            samples=dict(samples),
        )
        self.figures.append(row)

    def mean(
        self,
        scene: str,
        name: str,
        samples: Mapping[str, float],
        better: Better,
        *,
        oracle: float | None = None,
        silent: float | None = None,
        judge: str = "",
        values: Sequence[float] | None = None,
        scale: float = 1.0,
        decimals: int | None = None,
        chance: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Adds the mean of `values` (default: of the samples), nan where there are none.

        Args:
            scene, name, better, oracle, silent, judge: of the row.
            samples: per-sample value by id.
            values: what the mean is over where a sample gives more or less than one value.
            scale: what the figure is multiplied by (100 for percent).
            decimals: the authors' code rounds the figure to so many (None: it does not).
            chance: what guessing scores.
            bounds: between which values lie whatever happens (before they are scaled); None: they
                are times or other open numbers.
        """
        chosen = list(samples.values()) if values is None else list(values)
        measured = averages.mean(chosen, bounds=bounds, chance=chance)
        value = measured.value if not chosen else sum(chosen) / len(chosen)
        if decimals is not None and not math.isnan(value):
            value = round(value, decimals)
        measured = dataclasses.replace(measured, value=value).times(scale)
        self.add(scene, name, measured, samples, better, oracle=oracle, silent=silent, judge=judge)

    def mean_of_scenes(
        self,
        name: str,
        scenes: Mapping[str, Mapping[str, float]],
        better: Better,
        *,
        oracle: float | None = None,
        silent: float | None = None,
        judge: str = "",
        scale: float = 1.0,
        bounds: Bounds | None = SHARE,
    ) -> None:
        """Adds the mean of the scenes' means (each scene weighs the same) as scene "all".

        The interval draws samples anew within each scene; a scene without samples is left out.
        """
        kinds = {scene: list(samples.values()) for scene, samples in scenes.items()}
        measured = averages.macro(kinds, bounds=bounds).times(scale)
        every = {i: v for samples in scenes.values() for i, v in samples.items()}
        self.add("all", name, measured, every, better, oracle=oracle, silent=silent, judge=judge)
