"""Runs on disk: one folder each, there only when it is whole.

In: a `Run`. Out: ``run.json`` and ``output.wav`` (16 kHz, mono, 16 bits, as long as the session,
compute time 0, the layout that Full-Duplex-Bench reads), and from them the same run again. Sound
that only plays because a stop came late is no part of that: it lies in ``late.wav``.
"""

import hashlib
import json
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from interaction.eval.impairment import Impairment
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample

_FORMAT = 1
_SCALE = 32_768


def run_folder(root: pathlib.Path, sample_id: str) -> pathlib.Path:
    """Folder of one sample's run; whatever a file name cannot hold is escaped."""
    name = urllib.parse.quote(sample_id, safe=" ,=+@()")
    return root / (name if name.strip(".") else name.replace(".", "%2E"))


def fingerprint(
    sample: Sample, impairment: Impairment | None = None, background: str | None = None
) -> str:
    """Of everything a system met: another one means that the run has to be made again."""
    digest = hashlib.sha256()
    text = [(e.seconds, e.source.name, e.text, *["more"] * e.more) for e in sample.text]
    known = [sample.suite, sample.scene, sample.id, sample.seconds, text]
    known += [dict(sample.tools), dict(sample.truth), str(impairment or Impairment())]
    known += [] if background is None else [background]
    digest.update(json.dumps(known, sort_keys=True, default=str).encode())
    if sample.audio is not None:
        digest.update(np.ascontiguousarray(sample.audio, np.float32).tobytes())
    if sample.video is not None:
        digest.update(np.ascontiguousarray(sample.video.times, np.float64).tobytes())
        digest.update(np.ascontiguousarray(sample.video.frames).data)
    return digest.hexdigest()[:16]


def save_run(run: Run, folder: pathlib.Path, *, met: str = "") -> None:
    """Write a run; its folder appears only when everything is in it.

    Args:
        run: from `runner.play` (its sound lies on the 16-bit grid).
        folder: replaced if it is there.
        met: `fingerprint` of what the system met.
    """
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    wave = run.waveform()
    late = [e.payload for e in run.of(Kind.AUDIO) if not _lies_in(wave, e)]
    _write(fresh / "output.wav", wave)
    if late:
        _write(fresh / "late.wav", np.concatenate(late))
    where = iter(np.cumsum([0, *map(len, late)]).tolist())
    record = {
        "format": _FORMAT,
        "met": met,
        "suite": run.suite,
        "scene": run.scene,
        "id": run.id,
        "system": run.system,
        "seconds": run.seconds,
        "step_seconds": [round(s, 6) for s in run.step_seconds],
        "recording": None if run.recording is None else str(run.recording.resolve()),
        "events": [_event(event, wave, where) for event in run.events],
    }
    (fresh / "run.json").write_text(json.dumps(record, ensure_ascii=False, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _write(path: pathlib.Path, wave: np.ndarray) -> None:
    soundfile.write(path, np.rint(wave * _SCALE).astype(np.int16), SAMPLE_RATE)


def _lies_in(wave: np.ndarray, event: OutputEvent) -> bool:
    """Whether a recording holds a sound whole, at its time."""
    start = round(event.t * SAMPLE_RATE)
    return np.array_equal(wave[start : start + len(event.payload)], event.payload)


def _event(event: OutputEvent, wave: np.ndarray, late: Iterator[int]) -> dict[str, Any]:
    payload = event.payload
    if event.kind is Kind.AUDIO:
        inside = _lies_in(wave, event)
        start = round(event.t * SAMPLE_RATE) if inside else next(late)
        payload = {"start": start, "length": len(payload)} | ({} if inside else {"late": True})
    return {"t": event.t, "kind": event.kind.value, "payload": payload, "delay": event.delay}


def read_met(folder: pathlib.Path) -> str | None:
    """Fingerprint of what the run in `folder` met; None: there is no run."""
    try:
        return json.loads((folder / "run.json").read_text())["met"]
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return None


def load_run(folder: pathlib.Path) -> Run:
    """The run as it was saved.

    Raises:
        ValueError: no run there, or of another format.
    """
    try:
        record = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run (run.json is missing)") from None
    if record["format"] != _FORMAT:
        raise ValueError(f"{folder}/run.json is of format {record['format']}, expected {_FORMAT}")
    wave, events = _read(folder / "output.wav"), []
    late = _read(folder / "late.wav") if (folder / "late.wav").is_file() else wave[:0]
    for item in record["events"]:
        kind, payload = Kind(item["kind"]), item["payload"]
        if kind is Kind.AUDIO:
            held = late if payload.get("late") else wave
            payload = held[payload["start"] : payload["start"] + payload["length"]]
        events.append(OutputEvent(item["t"], kind, payload, item["delay"]))
    return Run(
        suite=record["suite"],
        scene=record["scene"],
        id=record["id"],
        system=record["system"],
        seconds=record["seconds"],
        events=tuple(events),
        step_seconds=tuple(record["step_seconds"]),
        recording=pathlib.Path(record["recording"]) if record.get("recording") else None,
    )


def _read(path: pathlib.Path) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{path} is of {rate} Hz, expected {SAMPLE_RATE}")
    return wave
