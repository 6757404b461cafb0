"""The record format of every evaluation: what is put to a system, and what it put out.

In: streams with times. Out: `Sample` (input streams and truth), `Run` (output events of one system
on one sample), and the two protocols that a system under test fulfils. A system is anything that
steps on 200 ms: it sees a micro-turn's input only after that micro-turn has ended.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS
from interaction.session.exchange import (
    SAMPLE_RATE,
    STOP_PLAYBACK,
    Clock,
    Kind,
    MicroTurnInput,
    OutputEvent,
)
from interaction.streams.events import TextEvent, VideoFrames


@dataclasses.dataclass(frozen=True)
class Sample:
    """One thing to put to a system.

    Attributes:
        suite, scene, id: where it belongs; `id` is unique within its suite.
        seconds: length of the session, the time left for answering included.
        audio: float32 ``[W]`` at 16 kHz, mono, from session time 0; None: no sound stream.
        video: frames with their times; None: no video.
        text: what is typed, when (system text too).
        tools: name of each tool the system may call -> JSON schema of its arguments and, under
            ``"result"``, what a call gives back.
        truth: what scoring needs; JSON values only. Only the oracle may look at it.
    """

    suite: str
    scene: str
    id: str
    seconds: float
    audio: np.ndarray | None = None
    video: VideoFrames | None = None
    text: tuple[TextEvent, ...] = ()
    tools: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    truth: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def micro_turns(self) -> int:
        """Steps that the session takes."""
        return int(np.ceil(round(self.seconds / MICRO_TURN_SECONDS, 6)))


class Conversation(Protocol):
    """One session of a system."""

    def step(self, given: MicroTurnInput) -> Sequence[OutputEvent]:
        """Take one micro-turn in; give what is put out, at ``0.2 (m + 1)`` s or later."""
        ...

    def close(self) -> None:
        """The session is over."""
        ...


class System(Protocol):
    """A system under test."""

    name: str

    def converse(self, sample: Sample) -> Conversation:
        """Begin a session. Only `oracle` looks at ``sample.truth`` or ahead in its streams."""
        ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What one system put out on one sample.

    Attributes:
        suite, scene, id: of the sample.
        system: its name.
        seconds: length of the session.
        events: in order of `t`.
        step_seconds: measured time of every step.
        recording: the file that it was read from, if it is somebody's recording: `events` hold its
            sound at 16 kHz and as long as the session, the authors' code opens the file itself.
    """

    suite: str
    scene: str
    id: str
    system: str
    seconds: float
    events: tuple[OutputEvent, ...]
    step_seconds: tuple[float, ...] = ()
    recording: pathlib.Path | None = None

    def of(self, kind: Kind) -> list[OutputEvent]:
        """Its events of one kind."""
        return [event for event in self.events if event.kind is kind]

    def text(self, *channels: str) -> str:
        """All text of these channels (default: say and write), joined by spaces."""
        wanted = channels or ("say", "write")
        parts = [e.payload["text"] for e in self.of(Kind.TEXT) if e.payload["channel"] in wanted]
        return " ".join(part.strip() for part in parts if part.strip())

    def waveform(self, clock: Clock = Clock.INSTANT) -> np.ndarray:
        """float32 ``[W]`` of `seconds`: its sound at the times it plays.

        A chunk that is due while the one before it still plays waits for that one's end.
        """
        wave = np.zeros(round(self.seconds * SAMPLE_RATE), np.float32)
        end = 0
        for event in self.events:
            place = round(event.at(clock) * SAMPLE_RATE)
            if event.kind is Kind.AUDIO:
                samples = np.asarray(event.payload, np.float32)
                start = max(place, end)
                end = start + len(samples)
                part = samples[: max(0, len(wave) - start)]
                wave[start : start + len(part)] = part
            elif event.kind is Kind.UI and event.payload == STOP_PLAYBACK:
                wave[place:] = 0.0
                end = min(end, place)
        return wave
