"""Plays a sample to a system, 200 ms at a time, and says when everything it put out was there.

In: a `System` and a `Sample`. Out: its `Run`. Nothing waits for a clock: every step is measured,
and how late computing made each event is written beside its time.
"""

import dataclasses
import hashlib
import importlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from interaction.eval.impairment import Impairment, arrivals
from interaction.eval.records import (
    SAMPLE_RATE,
    STOP_PLAYBACK,
    Clock,
    Kind,
    OutputEvent,
    Run,
    Sample,
    System,
)
from interaction.microturn import (
    MICRO_TURN_SECONDS,
    ONSET_MARGIN_SECONDS,
    micro_turn_of,
    output_seconds,
)
from interaction.streams.events import TextEvent
from interaction.types import Control

_SCALE = 32_768
BACKGROUND_SECONDS = 1.0


@runtime_checkable
class Recalled(Protocol):
    """A system that has met its samples before: there is nothing to step."""

    def recall(self, sample: Sample) -> Run:
        """What it put out then.

        Raises:
            FileNotFoundError: this sample is not among the recordings.
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """A conversation that may be bound to real time."""

    def wait_until(self, seconds: float) -> None:
        """Return when session time has come to `seconds`."""
        ...


@dataclasses.dataclass(frozen=True)
class Spec:
    """How any process makes a system (or ears, or a judge).

    Attributes:
        name: in folders and in the report.
        factory: ``module:callable``.
        options: its keyword arguments; they travel between processes.
    """

    name: str
    factory: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fingerprint(self) -> str:
        """Of how it is made, and of the files of its checkpoint or recordings."""
        known: list[Any] = [self.factory, sorted((k, str(v)) for k, v in self.options.items())]
        read = "folder" if self.factory.endswith(":Recorded") else "checkpoint"
        if self.options.get(read):
            files = sorted(p for p in pathlib.Path(self.options[read]).rglob("*") if p.is_file())
            known += [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]

    def build(self) -> Any:
        """The thing itself."""
        return imported(self.factory)(**self.options)


def imported(name: str) -> Any:
    """What ``module:attribute`` names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def play(
    system: System,
    sample: Sample,
    *,
    name: str | None = None,
    impairment: Impairment | None = None,
    background: str | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Run:
    """One session of a system on one sample.

    Step m begins at its border ``0.2 (m + 1)`` s or when the step before it has ended, whichever
    is later, and takes as long as it was measured to take.

    Args:
        system: what is tested.
        sample: what it hears and sees.
        name: of the system in the run; None: its own.
        impairment: of the network.
        background: what a scripted background agent gives back for any request in words,
            `BACKGROUND_SECONDS` after it; None: there is none.
        timer: clock that measures the steps, s.

    Raises:
        ValueError: the system put something out before it existed.
    """
    if isinstance(system, Recalled):
        return dataclasses.replace(system.recall(sample), system=name or system.name)
    conversation = system.converse(sample)
    board = _Board(sample.seconds)
    steps, ends, results = [], 0.0, ()
    answers: list[TextEvent] = []  # of the background agent, in order of time
    try:
        for given in arrivals(sample, impairment):
            told = [a for a in answers if micro_turn_of(a.seconds) == given.micro_turn]
            given = dataclasses.replace(given, tool_results=results, text=(*given.text, *told))
            border = output_seconds(given.micro_turn)
            if isinstance(conversation, Paced):
                conversation.wait_until(border)
            began = timer()
            put_out = tuple(conversation.step(given))
            steps.append(timer() - began)
            ends = max(border, ends) + steps[-1]
            for event in put_out:
                if event.t < border - 1e-6:
                    raise ValueError(
                        f"{system.name} put out {event.kind.value} at {event.t:.3f} s in the step "
                        f"of {border:.1f} s (sample {sample.id})"
                    )
                board.put(event, ends)
            results = tool_results(put_out, sample.tools)
            if background is not None and any(_is_request(event) for event in put_out):
                when = border + BACKGROUND_SECONDS
                answers.append(TextEvent(when, Control.BACKGROUND, background))
    finally:
        conversation.close()
    return Run(
        suite=sample.suite,
        scene=sample.scene,
        id=sample.id,
        system=name or system.name,
        seconds=sample.seconds,
        events=board.events(),
        step_seconds=tuple(steps),
    )


def _is_request(event: OutputEvent) -> bool:
    return event.kind is Kind.TOOL and "request" in event.payload


def tool_results(
    events: Iterable[OutputEvent], tools: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """What the calls among `events` give back, as text; a request in words is no call."""
    results = []
    for event in events:
        if event.kind is not Kind.TOOL or "function" not in event.payload:
            continue
        name = event.payload["function"]
        if name in tools:
            answer = {"function": name, "result": tools[name].get("result")}
        else:
            answer = {"function": name, "error": f"there is no function {name}"}
        results.append(json.dumps(answer, ensure_ascii=False))
    return tuple(results)


def quantised(samples: np.ndarray) -> np.ndarray:
    """float32 samples on the grid of 16-bit sound, so that a file holds them exactly."""
    steps = np.rint(np.asarray(samples, np.float64) * _SCALE)
    return (np.clip(steps, -_SCALE, _SCALE - 1) / _SCALE).astype(np.float32)


class _Board:
    """Events with their delays; sound at the samples at which it plays if computing takes no time.

    A sound that starts is held `ONSET_MARGIN_SECONDS` after it was computed, and if it is more
    than a micro-turn late it waits for the next border; one that goes on joins the sound before it
    (the rule of `session.loop.Playback`, for sounds of any length).
    """

    def __init__(self, seconds: float):
        self._length = round(seconds * SAMPLE_RATE)
        self._events: list[OutputEvent] = []
        self._end = 0  # sample at which the last sound ends, compute time 0
        self._measured_end = 0.0  # second at which it ends, compute time counted

    def put(self, event: OutputEvent, ready: float) -> None:
        """Take an event that had been computed at `ready` s."""
        if event.kind is Kind.AUDIO:
            self._sound(event, ready)
            return
        delay = max(event.delay, ready - event.t, 0.0)
        self._events.append(dataclasses.replace(event, delay=delay))
        if event.kind is Kind.UI and event.payload == STOP_PLAYBACK:
            self._stop(event.t, event.t + delay)

    def _sound(self, event: OutputEvent, ready: float) -> None:
        samples = quantised(event.payload)
        if not len(samples):
            return
        start = max(round(event.t * SAMPLE_RATE), self._end)
        seconds = start / SAMPLE_RATE
        if start == self._end and start > 0:
            plays = max(ready, self._measured_end)
        else:
            if ready - seconds > MICRO_TURN_SECONDS:
                ready = math.ceil(ready / MICRO_TURN_SECONDS - 1e-6) * MICRO_TURN_SECONDS
            plays = max(seconds, ready + ONSET_MARGIN_SECONDS, self._measured_end)
        self._end = start + len(samples)
        self._measured_end = plays + len(samples) / SAMPLE_RATE
        samples = samples[: max(0, self._length - start)]
        if len(samples):
            delay = max(event.delay, plays - seconds, 0.0)
            self._events.append(OutputEvent(seconds, Kind.AUDIO, samples, delay))

    def _stop(self, time: float, late: float) -> None:
        """Drop what has not played at `time` s, or when computing is counted `late` s.

        Sound is kept as far as it plays under either clock: `Run.waveform` ends it under each. What
        only plays because the stop itself came late is put at the stop, before it.
        """
        place = round(time * SAMPLE_RATE)
        kept = []
        for event in self._events:
            if event.kind is Kind.AUDIO:
                plays = event.at(Clock.MEASURED)
                instant = place - round(event.t * SAMPLE_RATE)
                left = max(instant, round((late - plays) * SAMPLE_RATE))
                if left <= 0:
                    continue
                event = dataclasses.replace(event, payload=event.payload[:left])
                if instant <= 0:
                    event = dataclasses.replace(event, t=time, delay=plays - time)
            kept.append(event)
        self._events = kept
        self._end = min(self._end, place)
        self._measured_end = min(self._measured_end, late)

    def events(self) -> tuple[OutputEvent, ...]:
        """In order of time; what is put out after the session's end is left out."""
        inside = [e for e in self._events if round(e.t * SAMPLE_RATE) <= self._length]
        return tuple(sorted(inside, key=lambda event: event.t))
