"""Figures as plain values, for `scores/SYSTEM/SUITE.json` and the report.

In: a `Figure`. Out: JSON values, and from them the same figure again.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from interaction.eval.intervals import Measured
from interaction.eval.records import Clock
from interaction.eval.suite import Better, Figure, Mode


def figure_to_dict(figure: Figure) -> dict[str, Any]:
    """Plain values; numbers as they are, nan as None."""
    values = {field.name: getattr(figure, field.name) for field in dataclasses.fields(figure)}
    measured = {f.name: getattr(figure.measured, f.name) for f in dataclasses.fields(Measured)}
    values["measured"] = {name: _number(value) for name, value in measured.items()}
    for name in ("mode", "clock", "better"):
        values[name] = values[name].value
    values["samples"] = {name: _number(value) for name, value in figure.samples.items()}
    return values


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def figure_from_dict(values: Mapping[str, Any]) -> Figure:
    """What `figure_to_dict` made."""
    plain = dict(values)
    measured: dict[str, Any] = {
        name: math.nan if value is None and name != "chance" else value
        for name, value in plain["measured"].items()
    }
    samples = {n: math.nan if v is None else v for n, v in plain["samples"].items()}
    return Figure(
        **plain
        | {
            "measured": Measured(**measured),
            "mode": Mode(plain["mode"]),
            "clock": Clock(plain["clock"]),
            "better": Better(plain["better"]),
            "samples": samples,
        }
    )
