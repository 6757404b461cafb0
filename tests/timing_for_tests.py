"""What the tests of timed suites share: text ears, a judge that compares, runs, a fake voice."""

import math

import numpy as np
import pytest

from interaction.eval.normalise import normalise
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Figure, Mode, Question, Scoring, Suite, Verdict, Word
from interaction.eval.suites import instructions

EACH = 0.3


class TextEars:
    """Takes said text as the words: `EACH` seconds each from the event's time on."""

    name = "text"

    def words(self, run: Run, clock: Clock) -> list[Word]:
        result = []
        for event in run.of(Kind.TEXT):
            if event.payload["channel"] == "say":
                at = event.at(clock)
                for index, part in enumerate(event.payload["text"].split()):
                    result.append(Word(part, at + index * EACH, at + (index + 1) * EACH))
        return result

    def speech(self, run: Run, clock: Clock) -> list[tuple[float, float]]:
        return [(word.start, word.end) for word in self.words(run, clock)]


class ExactJudge:
    """The best choice if the texts are equal after normalising, else the worst one."""

    name = "exact"

    def __init__(self):
        self.asked: list[Question] = []

    def verdict(self, question: Question) -> Verdict:
        self.asked.append(question)
        same = normalise(question.answer) == normalise(question.reference)
        return Verdict(question.choices[0 if same else -1])


def said(time: float, text: str, channel: str = "say", delay: float = 0.0) -> OutputEvent:
    """A text event."""
    return OutputEvent(time, Kind.TEXT, {"channel": channel, "text": text}, delay)


def run_of(sample: Sample, events=()) -> Run:
    """A run of these events."""
    return Run(sample.suite, sample.scene, sample.id, "made by hand", sample.seconds, tuple(events))


def scored(suite: Suite, samples, events, mode: Mode, clock: Clock = Clock.INSTANT, judge=None):
    """(scene, name) -> figure, where `events` gives the events of a sample."""
    runs = {sample.id: run_of(sample, events(sample)) for sample in samples}
    how = Scoring(TextEars(), clock, judge or ExactJudge(), mode)
    figures = suite.score(samples, runs, how)
    return {(figure.scene, figure.name): figure for figure in figures}


def assert_anchors(suite: Suite, samples, mode: Mode) -> dict[tuple[str, str], Figure]:
    """The oracle's and the silent run's figures are those that the suite states.

    Raises:
        AssertionError: a figure is not what it says, or its interval has no width.
    """
    perfect = scored(suite, samples, suite.oracle, mode)
    nothing = scored(suite, samples, lambda sample: (), mode)
    assert perfect.keys() >= nothing.keys()
    for key, figure in perfect.items():
        assert figure.mode is mode
        if figure.oracle is not None:
            assert figure.measured.value == pytest.approx(figure.oracle, abs=1e-6), key
            low, value, high = (getattr(figure.measured, k) for k in ("low", "value", "high"))
            bounded = "(%)" in figure.name or "PAUC" in figure.name
            assert (low < high and low <= value <= high) or (not bounded and math.isnan(low)), key
    for key, figure in nothing.items():
        if figure.silent is not None:
            assert figure.measured.value == pytest.approx(figure.silent, abs=1e-6), key
    return perfect


def made_by(suite: Suite, *, size: int, seed: int):
    """Two fixtures: the folder of what the suite generates, without recordings from elsewhere, and
    the suite with the samples that it loads from there."""

    @pytest.fixture(scope="module")
    def folder(tmp_path_factory):
        path = tmp_path_factory.mktemp("made")
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("INTERACTION_MEDIA", raising=False)
            suite.generate(path, size=size, seed=seed)
        return path

    @pytest.fixture
    def made(folder, monkeypatch):
        fake_voice(monkeypatch)
        return suite, suite.load(folder)

    return folder, made


def fake_voice(monkeypatch) -> None:
    """Tones in place of voices: 0.3 s for every word, so that no extra is needed."""

    def say(text: str, *, seed: int, voice: str | None = None) -> instructions.Spoken:
        parts = text.split()
        tone = np.sin(np.arange(round(EACH * SAMPLE_RATE)) * 0.1).astype(np.float32) / 4
        words = tuple(
            Word(part.strip(".,"), i * EACH, (i + 1) * EACH) for i, part in enumerate(parts)
        )
        return instructions.Spoken(np.tile(tone, len(parts)), words)

    monkeypatch.setattr(instructions, "say", say)
    monkeypatch.setattr(instructions, "say_with_piper", say)
