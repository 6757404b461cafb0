"""What an evaluation found: ``report.json`` and ``report.html``, a page that asks no network.

In: an `Evaluation` and what each system did in each suite. Out: one row per scene and figure, our
systems beside published figures; latencies as distributions; and the samples, failures first, on a
time axis with both sides of the sound, those that the page itself does not hold in a folder
``report_samples`` beside it.
"""

import dataclasses
import html
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interaction.eval.evaluate import Evaluation, Outcome, ears_of
from interaction.eval.figure_files import figure_to_dict
from interaction.eval.published import PUBLISHED, beside
from interaction.eval.records import Clock, Kind, Sample
from interaction.eval.report_plots import latency_plots, step_plot
from interaction.eval.report_samples import FOLDER, lay_out
from interaction.eval.suite import Better, Figure, Mode
from interaction.session.page import FILES_BESIDE, data_url, json_inside, page


def write_report(
    evaluation: Evaluation, outcomes: Sequence[Outcome], *, wall_seconds: float = math.nan
) -> None:
    """Write both files into the evaluation's folder; it has taken so long until now."""
    evaluation.out.mkdir(parents=True, exist_ok=True)
    content = report(evaluation, outcomes)
    content["evaluation"]["wall_seconds"] = _number(wall_seconds)
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (evaluation.out / "report.json").write_text(text, encoding="utf-8")
    ordered = [(outcome, failures_first(outcome)) for outcome in outcomes]
    shown = lay_out(content["samples"], ordered, evaluation.shown, evaluation.out)
    made = render(content, outcomes, shown)
    fresh = evaluation.out / ".report.html"
    fresh.write_text(made, encoding="utf-8")
    fresh.rename(evaluation.out / "report.html")


# ---------------------------------------------------------------- report.json


def report(evaluation: Evaluation, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything as JSON values, sound left out."""
    return {
        "evaluation": {
            "impairments": [str(impairment) or "none" for impairment in evaluation.impairments],
            "background": evaluation.background.value,
            "ears": evaluation.ears.name,
            "judge": evaluation.judge.name,
            "processes": evaluation.processes,
            "size": evaluation.size,
            "seed": evaluation.seed,
            "shown": evaluation.shown,
            "data": str(evaluation.data) if evaluation.data else "generated",
            "versions": {name: _version(name) for name in ("interaction", "jax", "numpy")},
        },
        "systems": _systems(outcomes),
        "processor_seconds": [
            {"system": o.system, "suite": o.part.name}
            | {name: round(seconds, 2) for name, seconds in dataclasses.asdict(o.spent).items()}
            for o in outcomes
        ],
        "suites": [_suite(evaluation, outcome) for outcome in _first_of_suites(outcomes)],
        "rows": rows(outcomes),
        "published": [item.as_dict() for item in PUBLISHED],
        "samples": [
            _sample(outcome, sample, worse)
            for outcome in outcomes
            for sample, worse in failures_first(outcome)
        ],
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _first_of_suites(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return list({outcome.part.name: outcome for outcome in reversed(outcomes)}.values())[::-1]


def _suite(evaluation: Evaluation, outcome: Outcome) -> dict[str, Any]:
    part = outcome.part
    source = dataclasses.asdict(part.suite.source)
    source["small_set"] = source.pop("generated")
    return source | {
        "name": part.name,
        "generated": part.generated,
        "ears": ears_of(evaluation, part.suite).name,
        "samples": len(part.samples),
        "seconds": round(sum(sample.seconds for sample in part.samples), 1),
    }


def _systems(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.system, []).append(outcome)
    result = []
    for name, theirs in found.items():
        steps = [s for o in theirs for run in o.runs.values() for s in run.step_seconds]
        median, p99 = np.percentile(steps, [50, 99]) if steps else (math.nan, math.nan)
        result.append(
            {
                "name": name,
                "steps": len(steps),
                "step_ms_median": _number(1000 * median),
                "step_ms_p99": _number(1000 * p99),
                "steps_over_200_ms": sum(s > 0.2 for s in steps),
                "processor_seconds": round(
                    sum(sum(dataclasses.astuple(o.spent)) for o in theirs), 1
                ),
                "parts": _parts(theirs),
            }
        )
    return result


def _parts(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Median and longest seconds of the parts that a system tells of (`stitched` does)."""
    spent: dict[str, list[float]] = {}
    for outcome in outcomes:
        for run in outcome.runs.values():
            for event in run.of(Kind.UI):
                told = event.payload.get("seconds") if isinstance(event.payload, dict) else None
                for part, seconds in (told or {}).items():
                    spent.setdefault(part, []).append(seconds)
    return {
        part: {"calls": len(all_), "median": float(np.median(all_)), "longest": max(all_)}
        for part, all_ in spent.items()
    }


def _number(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row per suite, scene, figure, mode and clock; every system's measurement in it."""
    found: dict[tuple, dict[str, Any]] = {}
    for outcome in outcomes:
        for figure in outcome.figures:
            suite = outcome.part.name
            key = (suite, figure.scene, figure.name, figure.mode, figure.clock)
            if key not in found:
                values = figure_to_dict(figure)
                kept = ("scene", "name", "mode", "clock", "better", "oracle", "silent", "judge")
                found[key] = {"suite": suite} | {name: values[name] for name in kept}
                found[key]["published"] = [
                    item.as_dict() for item in beside(suite, figure.scene, figure.name)
                ]
                found[key]["systems"] = {}
            found[key]["systems"][outcome.system] = figure_to_dict(figure)["measured"]
    return list(found.values())


def failures_first(outcome: Outcome) -> list[tuple[Sample, float]]:
    """The samples with how wrong each went (0 right, 1 as wrong as any), worst first."""
    worse: dict[str, list[float]] = {sample.id: [] for sample in outcome.part.samples}
    figures = [f for f in outcome.figures if f.clock is Clock.INSTANT]
    strict = [f for f in figures if f.mode is Mode.STRICT]
    for figure in strict or figures:
        for key, value in _wrongness(figure).items():
            if key in worse:
                worse[key].append(value)
    scored = [
        (s, float(np.mean(worse[s.id])) if worse[s.id] else 0.0) for s in outcome.part.samples
    ]
    return sorted(scored, key=lambda pair: -pair[1])


def _wrongness(figure: Figure) -> dict[str, float]:
    values = {k: v for k, v in figure.samples.items() if math.isfinite(v)}
    if not values or figure.better is Better.NEITHER:
        return {}
    known = [*values.values(), *(a for a in (figure.oracle, figure.silent) if a is not None)]
    best, worst = max(known), min(known)
    if figure.better is Better.LOWER:
        best, worst = worst, best
    best = best if figure.oracle is None else figure.oracle
    span = abs(best - worst)
    return {k: min(1.0, abs(v - best) / span) if span else 0.0 for k, v in values.items()}


def _sample(outcome: Outcome, sample: Sample, worse: float) -> dict[str, Any]:
    run = outcome.runs[sample.id]
    values: dict[str, dict[str, float | None]] = {}
    for figure in outcome.figures:
        if sample.id in figure.samples:
            where = values.setdefault(f"{figure.mode.value}, {figure.clock.value}", {})
            where[figure.name] = _number(figure.samples[sample.id])
    return {
        "suite": outcome.part.name,
        "system": outcome.system,
        "scene": sample.scene,
        "id": sample.id,
        "seconds": sample.seconds,
        "wrong": round(worse, 4),
        "said": run.text("say"),
        "written": run.text("write"),
        "values": values,
    }


# ---------------------------------------------------------------- report.html


def render(
    content: Mapping[str, Any], outcomes: Sequence[Outcome], shown: Mapping[str, Any]
) -> str:
    """The page, with the samples that it holds (`report_samples.lay_out`)."""
    names = [system["name"] for system in content["systems"]]
    data = dict(content) | {"shown": shown, "folder": FOLDER}
    plots = [step_plot(outcomes), *latency_plots(outcomes)]
    figures = "".join(
        f'<figure><img alt="{html.escape(title)}" src="{data_url("image/svg+xml", svg)}">'
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, svg in plots
    )
    return page(
        "interaction.eval",
        "report_page",
        title="Evaluation: " + ", ".join(names),
        scripts=FILES_BESIDE,
        plots=figures,
        data=json_inside(data),
    )
