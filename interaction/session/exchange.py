"""What goes into a session and what comes out of it, 200 ms at a time, whoever holds it.

In: nothing. Out: `MicroTurnInput`, what has arrived by the end of a micro-turn, and `OutputEvent`,
something that was put out, with its time. Evaluation, the wire and the server speak of the same.
"""

import dataclasses
import enum
from typing import Any

import numpy as np

from interaction.streams.events import TextEvent, VideoFrames

SAMPLE_RATE = 16_000


class Kind(enum.Enum):
    """What an output event is.

    TEXT: payload ``{"channel": "say" | "write", "text": str}``; AUDIO: payload float32 samples
    ``[W]`` at 16 kHz, mono; TOOL: payload ``{"function": str, "args": dict}`` or, for a
    delegation in words, ``{"request": str}``; UI: payload any JSON value; `STOP_PLAYBACK` drops
    the sound that has been put out but not played, `forgotten` says that memory let text go.
    """

    TEXT = "text"
    AUDIO = "audio"
    TOOL = "tool"
    UI = "ui"


# Payload of a UI event: a system that holds its tongue.
STOP_PLAYBACK = {"playback": "stop"}


def forgotten(slots: int) -> dict[str, int]:
    """Payload of a UI event: so many slots of the oldest text gave way in this micro-turn."""
    return {"forgotten_text": slots}


class Clock(enum.Enum):
    """Whether the time a system computes counts."""

    INSTANT = "compute time 0"
    MEASURED = "compute time measured"


@dataclasses.dataclass(frozen=True)
class OutputEvent:
    """Something a system put out.

    Attributes:
        t: seconds of session time, compute time not counted: text is seen then, the first sample
            of a sound plays then.
        kind: what it is.
        payload: see `Kind`.
        delay: seconds by which computing made it later than `t` (the runner measures it).
    """

    t: float
    kind: Kind
    payload: Any
    delay: float = 0.0

    def at(self, clock: Clock) -> float:
        """Its time under a clock."""
        return self.t + (self.delay if clock is Clock.MEASURED else 0.0)


@dataclasses.dataclass(frozen=True)
class MicroTurnInput:
    """What has arrived by the end of one micro-turn.

    Attributes:
        micro_turn: which one.
        audio: (micro-turn that the chunk belongs to, float32 ``[3200]``) in order of arrival;
            none where the sample has no sound, or the chunk was lost or is late.
        video: frames whose time lies in this micro-turn, or None.
        text: what was typed in it.
        tool_results: what earlier calls gave back, as text.
    """

    micro_turn: int
    audio: tuple[tuple[int, np.ndarray], ...] = ()
    video: VideoFrames | None = None
    text: tuple[TextEvent, ...] = ()
    tool_results: tuple[str, ...] = ()
