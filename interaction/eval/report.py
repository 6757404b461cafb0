"""What an evaluation found: ``report.json`` and ``report.html``, one file that asks no network.

In: an `Evaluation` and what each system did in each suite. Out: one row per scene and figure, our
systems beside published figures; latencies as distributions; and the samples, failures first, on a
time axis with both sides of the sound.
"""

import dataclasses
import html
import importlib.metadata
import importlib.resources
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from interaction.eval.evaluate import Evaluation, Outcome, ears_of, figure_to_dict
from interaction.eval.published import PUBLISHED, beside
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, Run, Sample
from interaction.eval.report_plots import latency_plots, step_plot
from interaction.eval.suite import Better, Figure, Mode
from interaction.session.page import data_url, json_inside, page

SHOWN = 3  # samples per system and suite on the page; report.json has all
ENVELOPE_RATE = 50


def write_report(
    evaluation: Evaluation, outcomes: Sequence[Outcome], *, wall_seconds: float = math.nan
) -> None:
    """Write both files into the evaluation's folder; it has taken so long until now."""
    evaluation.out.mkdir(parents=True, exist_ok=True)
    content = report(evaluation, outcomes)
    content["evaluation"]["wall_seconds"] = _number(wall_seconds)
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (evaluation.out / "report.json").write_text(text, encoding="utf-8")
    made = render(content, outcomes)
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
        "published": [dataclasses.asdict(item) for item in PUBLISHED],
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
                    dataclasses.asdict(item) for item in beside(suite, figure.scene, figure.name)
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


def render(content: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The page."""
    names = [system["name"] for system in content["systems"]]
    data = dict(content) | {"shown": shown(content, outcomes), "perSystem": SHOWN}
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
        plots=figures,
        data=json_inside(data),
    )


def shown(content: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Sounds and events of the samples that the page shows: the worst of each system and suite."""
    inputs: dict[str, Any] = {}
    runs = []
    by_key = {(s["suite"], s["system"], s["id"]): i for i, s in enumerate(content["samples"])}
    for outcome in outcomes:
        for sample, _ in failures_first(outcome)[:SHOWN]:
            key = f"{outcome.part.name}/{sample.id}"
            if key not in inputs:
                inputs[key] = _input(sample)
            index = by_key[outcome.part.name, outcome.system, sample.id]
            runs.append({"sample": index, "input": key} | _output(outcome.runs[sample.id]))
    return {"inputs": inputs, "runs": runs, "envelopeRate": ENVELOPE_RATE}


def _input(sample: Sample) -> dict[str, Any]:
    text = [{"t": e.seconds, "from": e.source.name.lower(), "text": e.text} for e in sample.text]
    heard = sample.audio
    return {
        "text": text,
        "video": [] if sample.video is None else [round(float(t), 2) for t in sample.video.times],
        "envelope": [] if heard is None else envelope(heard),
        "sound": "" if heard is None else _sound(heard),
        "truth": json.dumps(dict(sample.truth), ensure_ascii=False, default=str)[:1200],
    }


def _output(run: Run) -> dict[str, Any]:
    measured = run.waveform(Clock.MEASURED)
    events = []
    for event in run.events:
        if event.kind is not Kind.AUDIO:
            events.append(
                {
                    "t": round(event.t, 3),
                    "late": round(event.delay, 3),
                    "kind": event.kind.value,
                    "payload": event.payload,
                }
            )
    return {
        "events": events,
        "envelope": envelope(measured),
        "sound": _sound(measured) if measured.any() else "",
        "steps": [round(1000 * s, 1) for s in run.step_seconds],
    }


def envelope(wave: np.ndarray) -> list[int]:
    """Largest absolute sample of every 20 ms, 0..99 on a root scale."""
    size = SAMPLE_RATE // ENVELOPE_RATE
    padded = np.pad(np.abs(wave), (0, -len(wave) % size)).reshape(-1, size)
    return np.rint(99 * np.sqrt(np.clip(padded.max(1, initial=0.0), 0, 1))).astype(int).tolist()


def _sound(wave: np.ndarray) -> str:
    """Opus: a twentieth of WAV's size; every current browser plays it."""
    encoded = io.BytesIO()
    soundfile.write(encoded, wave, SAMPLE_RATE, format="OGG", subtype="OPUS")
    return data_url("audio/ogg", encoded.getvalue())
