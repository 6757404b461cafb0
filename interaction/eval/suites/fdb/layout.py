"""The directory layouts of Full-Duplex-Bench, read and written as they are.

In: a folder `{scene}/{ID}/` with `input.wav` and the scene's JSON, or runs. Out: sounds, words,
`Run`s; and back: `output.wav` (16 kHz, mono, as long as the input) and `output.json`
(``{"text", "chunks": [{"text", "timestamp": [start, end]}]}``), so that the authors' code can score
our runs and we can score any other system's tree.
"""

import dataclasses
import enum
import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr

from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Hearing, Word
from interaction.eval.suites.fdb import timing


class RateRule(enum.Enum):
    """What happens to a sound that is not at 16 kHz.

    RESAMPLE makes it 16 kHz. AS_IF_16K takes its samples for 16 kHz ones, as the authors' code
    does before it looks for backchannels: at 24 kHz every time comes out 1.5 times too late.
    """

    RESAMPLE = "resample"
    AS_IF_16K = "as if 16 kHz"


def read_sound(path: pathlib.Path, rule: RateRule = RateRule.RESAMPLE) -> np.ndarray:
    """A sound file as float32 ``[W]`` at 16 kHz, channels averaged."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate == SAMPLE_RATE or rule is RateRule.AS_IF_16K:
        return mono
    return soxr.resample(mono, rate, SAMPLE_RATE).astype(np.float32)


def write_sound(path: pathlib.Path, samples: np.ndarray) -> None:
    """16 kHz, mono, 16 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16")


def read_json(path: pathlib.Path, wanted_by: str):
    """A JSON file.

    Raises:
        ValueError: it is not there or is no JSON; names it and who wants it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; the layout of {wanted_by} has it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def write_json(path: pathlib.Path, value) -> None:
    """Indented, UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def interval(path: pathlib.Path, entry, key: str = "timestamp") -> tuple[float, float]:
    """``[start, end]`` of an annotation.

    Raises:
        ValueError: it has none.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{path}: {key!r} must be [start, end], is {value!r}")
    return float(value[0]), float(value[1])


def sample_folders(scene: pathlib.Path) -> list[pathlib.Path]:
    """Folders of samples (those with an `input.wav`), numbers in their order, then names."""
    found = [p for p in scene.iterdir() if (p / "input.wav").is_file()]
    return sorted(
        found, key=lambda p: (not p.name.isdigit(), int(p.name) if p.name.isdigit() else 0, p.name)
    )


def places(folder: pathlib.Path, endings: tuple[str, ...]) -> list[pathlib.Path]:
    """Folders of samples in every scene below `folder`, or in the one scene that it is.

    Args:
        folder: of scenes, or of samples.
        endings: how names of scenes end.

    Raises:
        ValueError: no scene there, or no sample in any.
    """
    scenes = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.endswith(endings)]
    if not scenes and folder.name.endswith(endings):
        scenes = [folder]
    if not scenes:
        raise ValueError(f"{folder} has no folder whose name ends in one of {endings}")
    found = [place for scene in scenes for place in sample_folders(scene)]
    if not found:
        raise ValueError(f"no folder below {folder} has an input.wav")
    return found


def to_chunks(words: Sequence[Word]) -> dict:
    """Words as the contents of `output.json`."""
    chunks = [
        {"text": w.text, "timestamp": [w.start, None if math.isnan(w.end) else w.end]}
        for w in words
    ]
    return {"text": " ".join(w.text for w in words), "chunks": chunks}


def from_chunks(content: dict) -> list[Word]:
    """Words of an `output.json`; one without an end gets nan, one without a start is left out."""
    words = []
    for chunk in content["chunks"]:
        start, end = chunk["timestamp"]
        if start is not None:
            words.append(Word(chunk["text"], float(start), math.nan if end is None else float(end)))
    return words


def spoken_run(sample: Sample, samples: np.ndarray, system: str) -> Run:
    """A `Run` that is nothing but sound from time 0 on."""
    event = OutputEvent(0.0, Kind.AUDIO, np.asarray(samples, np.float32))
    seconds = len(samples) / SAMPLE_RATE
    return Run(sample.suite, sample.scene, sample.id, system, seconds, (event,))


def input_run(sample: Sample) -> Run:
    """What the user said as a `Run`, so that the same ears hear both sides."""
    sound = np.zeros(0, np.float32) if sample.audio is None else sample.audio
    return spoken_run(sample, sound, "user")


def cropped(run: Run, start: float, clock: Clock) -> Run:
    """The run from `start` seconds on, moved to 0: its sound cut there, its later text kept."""
    wave = run.waveform(clock)[int(start * SAMPLE_RATE) :]
    events = [OutputEvent(0.0, Kind.AUDIO, wave)] if run.of(Kind.AUDIO) else []
    for event in run.of(Kind.TEXT):
        if event.at(clock) >= start:
            events.append(OutputEvent(event.at(clock) - start, Kind.TEXT, event.payload))
    seconds = max(0.0, run.seconds - start)
    return Run(run.suite, run.scene, run.id, run.system, seconds, tuple(events))


def moved(words: Sequence[Word], seconds: float) -> list[Word]:
    """The same words, so many seconds later."""
    return [Word(w.text, w.start + seconds, w.end + seconds) for w in words]


def sample_folder(root: pathlib.Path, sample: Sample) -> pathlib.Path:
    """Where a sample of v1 or v1.5 lives; the clean run of v1.5 shares its twin's folder."""
    number = sample.truth["folder"]
    inside = root / sample.scene / number
    return inside if inside.is_dir() or not (root / number).is_dir() else root / number


def output_names(sample: Sample) -> tuple[str, str]:
    """`output.wav` and `output.json`, or their `clean_` versions."""
    prefix = "clean_" if sample.truth.get("clean") else ""
    return f"{prefix}output.wav", f"{prefix}output.json"


def write_run(
    root: pathlib.Path, sample: Sample, run: Run, words: Sequence[Word], clock: Clock
) -> None:
    """Writes `output.wav`, cut or padded to the input's length, and `output.json`."""
    folder, (wave_name, json_name) = sample_folder(root, sample), output_names(sample)
    size = round(sample.truth["input_seconds"] * SAMPLE_RATE)
    wave = run.waveform(clock)[:size]
    write_sound(folder / wave_name, np.pad(wave, (0, size - len(wave))))
    kept = [w for w in words if w.start < sample.truth["input_seconds"]]
    write_json(folder / json_name, to_chunks(kept))


def read_run(root: pathlib.Path, sample: Sample, system: str) -> Run:
    """The recorded `output.wav` of any system as a `Run`.

    Raises:
        ValueError: it is missing.
    """
    path = sample_folder(root, sample) / output_names(sample)[0]
    if not path.is_file():
        raise ValueError(f"{path} is missing: no run of system={system!r} on {sample.id}")
    run = spoken_run(sample, read_sound(path), system)
    return dataclasses.replace(run, recording=path.resolve())


def whole(run: Run, rule: RateRule = RateRule.RESAMPLE) -> Run:
    """The run as the authors' code meets it: of a recording all of its file, however long it is.

    Args:
        run: one that was no recording (or of no sound) stays as it is.
        rule: for a file that is not at 16 kHz.
    """
    if run.recording is None or run.recording.suffix != ".wav":
        return run
    sound = OutputEvent(0.0, Kind.AUDIO, read_sound(run.recording, rule))
    rest = (event for event in run.events if event.kind is not Kind.AUDIO)
    seconds = len(sound.payload) / SAMPLE_RATE
    return dataclasses.replace(run, seconds=seconds, events=(sound, *rest))


def official_speech(
    run: Run, how: Hearing, rule: RateRule = RateRule.RESAMPLE
) -> list[tuple[float, float]]:
    """A run's speech as the authors' code has it: by Silero's defaults, where Silero listens.

    Ears that know it in another way are believed. `rule` is for recordings at another rate.
    """
    run = whole(run, rule)
    found = how.speech(run)
    return timing.as_silero_cuts(found, run.seconds) if how.by_silero else found
