"""Distributions of an evaluation as pictures: latencies, and the time of the steps.

In: what each system did in each suite. Out: titles with SVG files.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Picture

from interaction.eval.evaluate import Outcome
from interaction.eval.published import beside
from interaction.eval.records import Clock
from interaction.eval.suite import Figure, Mode

_COLOURS = ("#2563eb", "#d9620a", "#15803d", "#7c3aed", "#0e7490", "#be185d", "#65a30d", "#6b7280")
_LATENCY = ("latency", "lateness", "delay")


def step_plot(outcomes: Sequence[Outcome]) -> tuple[str, bytes]:
    """Share of steps that took at most so long, per system."""
    steps: dict[str, list[float]] = {}
    for outcome in outcomes:
        for run in outcome.runs.values():
            steps.setdefault(outcome.system, []).extend(1000 * s for s in run.step_seconds)
    picture, axes = _picture()
    for colour, (name, values) in zip(_cycle(len(steps)), steps.items(), strict=True):
        if values:
            _rising(axes, values, colour, f"{name} (n={len(values)})")
    axes.axvline(200, color="#dc2626", linewidth=1, linestyle="--", label="one micro-turn, 200 ms")
    axes.set_xscale("log")
    axes.set_xlabel("measured time of a step, ms", fontsize=8)
    axes.set_ylabel("share of steps", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return "Time of the steps", _svg(picture)


def latency_plots(outcomes: Sequence[Outcome]) -> list[tuple[str, bytes]]:
    """For every latency of every scene: the share of samples answered within so many seconds.

    In the mode by whose rule others have published figures for it, else in the strict one.
    """
    found: dict[tuple[str, str, str, Mode], dict[str, list[float]]] = {}
    for outcome in outcomes:
        timed = [f for f in outcome.figures if _is_latency(f)]
        for figure in timed:
            there = {f.mode for f in timed if (f.scene, f.name) == (figure.scene, figure.name)}
            if figure.mode is not _drawn(outcome.part.name, figure, there):
                continue
            values = [v for v in figure.samples.values() if math.isfinite(v)]
            if values:
                key = (outcome.part.name, figure.scene, figure.name, figure.mode)
                found.setdefault(key, {})[outcome.system] = values
    return [_latency(key, systems) for key, systems in found.items()]


def _is_latency(figure: Figure) -> bool:
    seconds = figure.name.endswith(("(s)", ", s"))
    named = seconds and any(word in figure.name for word in _LATENCY)
    return named and figure.clock is Clock.MEASURED


def _drawn(suite: str, figure: Figure, there: set[Mode]) -> Mode:
    """Of the modes in which a figure is there the one to draw."""
    published = {item.mode for item in beside(suite, figure.scene, figure.name)} & there
    order = (Mode.STRICT, Mode.COMPAT)
    return next(mode for mode in order if mode in (published or there))


def _latency(key: tuple[str, str, str, Mode], systems: dict[str, list[float]]) -> tuple[str, bytes]:
    suite, scene, name, mode = key
    picture, axes = _picture()
    for colour, (system, values) in zip(_cycle(len(systems)), systems.items(), strict=True):
        _rising(axes, values, colour, f"{system} (n={len(values)})")
    for item in beside(suite, scene, name):
        if item.mode is not mode:  # another rule is no line to be measured against
            continue
        axes.axvline(item.value, color="#9ca3af", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{item.system} {item.value:g}",
            (item.value, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=5,
            color="#6b7280",
            va="bottom",
            ha="right",
        )
    axes.set_xlabel("seconds", fontsize=8)
    axes.set_ylabel("share of samples", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    title = f"{suite}, {scene}: {name}, {mode.value}, compute time measured"
    return title, _svg(picture)


def _rising(axes, values: Sequence[float], colour: str, label: str) -> None:
    ordered = np.sort(np.asarray(values, float))
    ordered = ordered[:: max(1, len(ordered) // 400)] if len(ordered) > 400 else ordered
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.step(ordered, shares, where="post", color=colour, linewidth=1.4, label=label)
    if len(ordered) <= 60:
        axes.plot(ordered, shares, ".", color=colour, markersize=3)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _picture():
    picture = Picture(figsize=(4.6, 2.7), layout="constrained")
    axes = picture.add_subplot()
    axes.set_ylim(0, 1.03)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    return picture, axes


def _svg(picture: Picture) -> bytes:
    file = io.BytesIO()
    FigureCanvasSVG(picture).print_svg(file, metadata={"Date": None})
    return file.getvalue()
