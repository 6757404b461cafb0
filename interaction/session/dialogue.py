"""One session between what arrives for it and its lane.

In: every micro-turn's `MicroTurnInput`, then what the lane put out. Out: the lane's `LaneInput`,
then events: what it says and writes as text, its sound at playback times, what it delegates as tool
events, and that text was forgotten. Results of calls come back to the model as text. Nothing here
computes with the model.
"""

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from interaction.microturn import Grid, output_seconds
from interaction.session.exchange import Kind, MicroTurnInput, OutputEvent, forgotten
from interaction.session.loop import Playback
from interaction.streams.events import TextInQueue
from interaction.streams.image import frame_at, tubelets
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import Tokenizer
from interaction.streams.weave import LaneInput
from interaction.types import Control

_HOLD_SECONDS = 1.0  # a frame is shown so long when no newer one comes


def seed_of(identity: str, seed: int = 0) -> int:
    """The seed of a session's noise from the name of the session."""
    return (zlib.crc32(identity.encode()) + seed) % 2**31


class LaneText(Protocol):
    """What a board gives for one micro-turn (`session.lanes.LaneOutput` is one)."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids with their closer."""
        ...

    @property
    def written(self) -> str:
        """Text that is shown."""
        ...

    @property
    def said(self) -> str:
        """Words of its own speech."""
        ...

    @property
    def delegated(self) -> str:
        """Text for the background model."""
        ...

    @property
    def closer(self) -> Control:
        """How the micro-turn ended."""
        ...

    @property
    def waveform(self) -> np.ndarray:
        """float32 ``[3200]``."""
        ...

    @property
    def forgotten_text(self) -> int:
        """Text slots that gave way in this micro-turn."""
        ...


class Dialogue:
    """Both directions of one session.

    Args:
        tokenizer: reads the text.
        weave, grid: sizes of what the lane takes.
        tools: names of the tools that may be called.
    """

    def __init__(
        self, tokenizer: Tokenizer, weave: WeaveConfig, grid: Grid, tools: Iterable[str] = ()
    ):
        self._weave = weave
        self._queue = TextInQueue(tokenizer, weave)
        self._playback = Playback(margin=0.0)
        self._eyes = _Eyes(weave, grid)
        self._request = _Request(tokenizer, tuple(tools))

    def hear(self, given: MicroTurnInput) -> LaneInput:
        """What the lane takes of a micro-turn's input; text that does not fit waits.

        Raises:
            ValueError: frames of another size than the ones before them, or no room for text.
        """
        for event in given.text:
            self._queue.put(event.source, event.text)
        for result in given.tool_results:
            self._queue.put(Control.TOOL, result)
        return LaneInput(
            micro_turn=given.micro_turn,
            video=self._eyes.see(given),
            text_in=self._queue.take(),
            audio=self._heard(given),
        )

    def tell(self, micro_turn: int, output: LaneText) -> list[OutputEvent]:
        """Everything the lane put out in a micro-turn, at its border."""
        border = output_seconds(micro_turn)
        events = [
            OutputEvent(border, Kind.TEXT, {"channel": channel, "text": text})
            for channel, text in (("say", output.said), ("write", output.written))
            if text
        ]
        events += [OutputEvent(border, Kind.TOOL, call) for call in self._request.take(output)]
        speaks, spoke = output.closer is Control.SPEAK, self._playback.speaking
        start = self._playback.start(micro_turn, 0.0, speaks)
        if speaks or spoke:  # the chunk after the last spoken one carries the vocoder's tail
            events.append(OutputEvent(start, Kind.AUDIO, output.waveform))
        if output.forgotten_text:
            events.append(OutputEvent(border, Kind.UI, forgotten(output.forgotten_text)))
        return events

    def _heard(self, given: MicroTurnInput) -> tuple[tuple[int, np.ndarray], ...]:
        """Chunks that are not too late, the newest ones of too many."""
        weave = self._weave
        fit = [c for c in given.audio if given.micro_turn - c[0] <= weave.max_lateness]
        return tuple(fit[-weave.max_audio_chunks :])


class _Eyes:
    """Frames at any rate to the tubelets of each micro-turn."""

    def __init__(self, weave: WeaveConfig, grid: Grid):
        self._weave, self._grid = weave, grid
        self._times = np.zeros(0)
        self._frames: np.ndarray | None = None

    def see(self, given: MicroTurnInput) -> np.ndarray | None:
        """uint8 ``[P, 2, p, p, 3]`` of this micro-turn, or None if there is nothing to see."""
        if given.video is not None:
            times, frames = given.video.times, given.video.frames
            if self._frames is not None:
                if frames.shape[1:] != self._frames.shape[1:]:
                    raise ValueError(
                        f"video frames are {list(frames.shape[1:])}, those before them "
                        f"{list(self._frames.shape[1:])}"
                    )
                times = np.concatenate([self._times, times])
                frames = np.concatenate([self._frames, frames])
            order = np.argsort(times, kind="stable")
            self._times, self._frames = np.asarray(times)[order], frames[order]
        if self._frames is None:
            return None
        per = self._grid.video_frames
        now = given.micro_turn
        index = frame_at(self._times, self._grid.video_rate, (now + 1) * per, hold=_HOLD_SECONDS)
        mine = index[now * per :]
        shown = None
        if (mine >= 0).all():
            shown = tubelets(
                self._frames[mine], max_patches=self._weave.max_patches, patch=self._weave.patch
            )
        keep = self._times >= output_seconds(now) - _HOLD_SECONDS
        self._times, self._frames = self._times[keep], self._frames[keep]
        return shown


class _Request:
    """Text of the delegate channel, whole requests at a time."""

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[str]):
        self._opens = tokenizer.control(Control.DELEGATE)
        ends = (Control.DONE, Control.SAY, Control.WRITE)
        self._ends = {tokenizer.control(control) for control in ends}
        self._tools, self._text, self._open = tools, "", False

    def take(self, output: LaneText) -> list[dict[str, Any]]:
        """The requests that end in this micro-turn."""
        was_open = self._open
        self._text += output.delegated
        for token in output.tokens:
            if token == self._opens:
                self._open = True
            elif token in self._ends:
                self._open = False
        if self._open or not (was_open or self._text):
            return []
        text, self._text = self._text.strip(), ""
        return [read_request(text, self._tools)] if text else []


_CALL = re.compile(r"^\s*(\w+)\s*\((.*)\)\s*$", re.S)


def read_request(text: str, tools: Sequence[str] = ()) -> dict[str, Any]:
    """A request as a tool event's payload.

    A JSON object ``{"function": ..., "args": {...}}`` or ``name({...})`` that names one of `tools`
    is a call; everything else is a request in words.
    """
    call = _CALL.match(text)
    try:
        if call and call[1] in tools:
            args = json.loads(call[2] or "{}")
            value = {"function": call[1], "args": args}
        else:
            value = json.loads(text)
    except json.JSONDecodeError:
        return {"request": text}
    if isinstance(value, dict) and value.get("function") in tools:
        args = value.get("args", {})
        if isinstance(args, dict):
            return {"function": value["function"], "args": args}
    return {"request": text}
