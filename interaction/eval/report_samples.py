"""The samples on the report's page: failures first, both sides of the sound on a time axis.

In: what each system did in each suite, how many failures the page is to hold. Out: those, and
beside the page a folder of scripts, one for each other sample, that it loads when somebody opens
it.
"""

import io
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from interaction.eval.evaluate import Outcome
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, Run, Sample
from interaction.session.page import data_url, json_inside

FOLDER = "report_samples"
LEAST = 3  # of a system in a suite, were they all right
PAGE_BYTES = 24_000_000  # of samples that the page itself holds; what goes beyond lies beside it
ENVELOPE_RATE = 50
_BLOCK = 30 * SAMPLE_RATE

Ordered = Sequence[tuple[Sample, float]]


def lay_out(
    samples: Sequence[Mapping[str, Any]],
    outcomes: Sequence[tuple[Outcome, Ordered]],
    most: int,
    beside: pathlib.Path,
) -> dict[str, Any]:
    """What the page holds of samples; the others are written down beside it.

    Of each system in each suite the page takes its failures, worst first, up to `most` (at least
    `LEAST` samples), the worst of all systems first, until they take `PAGE_BYTES`.

    Args:
        samples: as in `report.json`.
        outcomes: each with its samples and how wrong they went, worst first.
        most: failures of each system in each suite.
        beside: the page's folder; its ``report_samples`` is replaced.

    Returns:
        ``inputs`` by key, ``runs`` (index of the sample, key of the input, what was put out),
        ``rest`` (indices of samples that lie beside the page), all as JSON values.
    """
    fresh = beside / f".{FOLDER}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    places = {(s["suite"], s["system"], s["id"]): index for index, s in enumerate(samples)}
    inputs: dict[str, dict[str, Any]] = {}
    shown: dict[str, Any] = {"inputs": {}, "runs": [], "rest": [], "envelopeRate": ENVELOPE_RATE}
    left = PAGE_BYTES
    for outcome, sample, wanted in _in_turn(outcomes, most):
        key = f"{outcome.part.name}/{sample.id}"
        if key not in inputs:
            inputs[key] = _input(sample)
        index = places[outcome.part.name, outcome.system, sample.id]
        run = _output(outcome.runs[sample.id])
        size = len(json.dumps(run)) + (key not in shown["inputs"]) * len(json.dumps(inputs[key]))
        if wanted and size <= left:
            left -= size
            shown["inputs"][key] = inputs[key]
            shown["runs"].append({"sample": index, "input": key} | run)
        else:
            shown["rest"].append(index)
            script = f"sampleLoaded({index}, {json_inside(run)}, {json_inside(inputs[key])});\n"
            (fresh / f"{index}.js").write_text(script, encoding="utf-8")
    shutil.rmtree(beside / FOLDER, ignore_errors=True)
    fresh.rename(beside / FOLDER)
    return shown


def _in_turn(
    outcomes: Sequence[tuple[Outcome, Ordered]], most: int
) -> Iterator[tuple[Outcome, Sample, bool]]:
    """Every sample, the worst of every outcome, then the next worst, ..., and whether the page is
    to hold it."""
    longest = max((len(ordered) for _, ordered in outcomes), default=0)
    for rank in range(longest):
        for outcome, ordered in outcomes:
            if rank < len(ordered):
                sample, wrong = ordered[rank]
                yield outcome, sample, rank < most and (wrong > 0 or rank < LEAST)


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
    """Vorbis: a twentieth of WAV's size, 20 ms for 12 s (Opus takes 400); browsers play it."""
    encoded = io.BytesIO()
    with soundfile.SoundFile(
        encoded, "w", SAMPLE_RATE, channels=1, format="OGG", subtype="VORBIS"
    ) as file:
        for start in range(0, len(wave), _BLOCK):  # libsndfile's encoder keeps a call on its stack
            file.write(wave[start : start + _BLOCK])
    return data_url("audio/ogg", encoded.getvalue())
