"""Ears, judges and voices for the tests of Full-Duplex-Bench: exact, and without any model."""

import dataclasses
import math

import numpy as np
import pytest

from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run
from interaction.eval.suite import Scoring, Verdict, Word
from interaction.eval.suites.fdb import generate

WORD_SECONDS = 0.3


def tone(text: str, _voice) -> np.ndarray:
    """A steady sound, 0.3 s per word, in place of a voice."""
    size = round(WORD_SECONDS * len(text.split()) * SAMPLE_RATE)
    return (0.3 * np.sin(np.arange(size) * 0.35 + 0.5)).astype(np.float32)


class TextEars:
    """Each `say` event's words take 0.3 s apiece; sound is speech where it is not silent."""

    name = "text ears"

    def words(self, run: Run, clock) -> list[Word]:
        found = []
        for event in run.of(Kind.TEXT):
            if event.payload["channel"] != "say":
                continue
            for place, word in enumerate(event.payload["text"].split()):
                start = event.at(clock) + WORD_SECONDS * place
                found.append(Word(word.strip(".,?").lower(), start, start + WORD_SECONDS))
        return sorted(found, key=lambda word: word.start)

    def speech(self, run: Run, clock) -> list[tuple[float, float]]:
        if run.of(Kind.AUDIO):
            loud = np.abs(run.waveform(clock)) > 1e-3
            return loud_stretches(loud)
        stretches: list[tuple[float, float]] = []
        for word in self.words(run, clock):
            if stretches and word.start - stretches[-1][1] <= 0.1:
                stretches[-1] = (stretches[-1][0], word.end)
            else:
                stretches.append((word.start, word.end))
        return stretches


def loud_stretches(loud: np.ndarray, gap: float = 0.1) -> list[tuple[float, float]]:
    """Where samples are loud, silences of at most `gap` seconds bridged."""
    places = np.flatnonzero(loud)
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) > gap * SAMPLE_RATE)
    starts = [places[0], *places[breaks + 1]]
    ends = [*places[breaks], places[-1]]
    return [(s / SAMPLE_RATE, (e + 1) / SAMPLE_RATE) for s, e in zip(starts, ends, strict=True)]


@dataclasses.dataclass
class ContainsJudge:
    """The best choice if the reference is in the answer, else the last one; keeps what it saw."""

    name: str = "contains"
    seen: list = dataclasses.field(default_factory=list)

    def verdict(self, question) -> Verdict:
        self.seen.append(question)
        right = bool(question.reference) and question.reference.lower() in question.answer.lower()
        return Verdict(question.choices[0] if right else question.choices[-1])


def run_of(sample, events, system="test") -> Run:
    """A run of these events."""
    ordered = tuple(sorted(events, key=lambda event: event.t))
    return Run(sample.suite, sample.scene, sample.id, system, sample.seconds, ordered)


def oracle_runs(suite, samples) -> dict[str, Run]:
    """What the oracle puts out, as text and tools."""
    return {s.id: run_of(s, suite.oracle(s), "oracle") for s in samples}


def silent_runs(samples) -> dict[str, Run]:
    """Nothing at all."""
    return {s.id: run_of(s, [], "silent") for s in samples}


def say(t: float, text: str) -> OutputEvent:
    """An output event of own words."""
    return OutputEvent(t, Kind.TEXT, {"channel": "say", "text": text})


def words(*timed: tuple[float, float]) -> list[Word]:
    """Words called w with these starts and ends."""
    return [Word("w", start, end) for start, end in timed]


def scored_by(suite, samples, runs, mode, judge=None):
    """A suite's figures under the clock without step times."""
    how = Scoring(TextEars(), Clock.INSTANT, judge or ContainsJudge(), mode)
    return suite.score(samples, runs, how)


def tree_of(suite, *, size: int, seed: int):
    """A fixture: the folder of what the suite generates, with tones in place of voices."""

    @pytest.fixture
    def tree(tmp_path, monkeypatch):
        monkeypatch.setattr(generate.voices, "say", tone)
        suite.generate(tmp_path, size=size, seed=seed)
        return tmp_path

    return tree


def figure(figures, scene_end: str, name: str):
    """The one figure of that scene and name."""
    found = [f for f in figures if f.scene.endswith(scene_end) and f.name == name]
    assert len(found) == 1, [(f.scene, f.name) for f in figures]
    return found[0]


def assert_anchors(figures, system: str, tolerance: float = 1e-9) -> None:
    """Every figure that names a value for this system has it, with an interval around it (none
    where all samples are equal and without bounds)."""
    named = 0
    for row in figures:
        wanted = getattr(row, system)
        if wanted is None:
            continue
        named += 1
        got = row.measured
        assert math.isclose(got.value, wanted, abs_tol=tolerance), (row.scene, row.name, got)
        if not math.isnan(got.low):
            assert got.low - 1e-9 <= got.value <= got.high + 1e-9
            assert got.low < got.high, (row.scene, row.name, got)
        assert got.count > 0
    assert named
