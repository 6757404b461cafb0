"""Our model as a system under test: a native checkpoint, or any board that steps one lane.

In: every micro-turn's input. Out: what the lane says and writes as text, its sound at playback
times, and what it delegates as tool events. Results of calls come back to it as text.
"""

import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from interaction.eval.records import (
    Kind,
    MicroTurnInput,
    OutputEvent,
    Sample,
)
from interaction.eval.runner import imported
from interaction.microturn import Grid, output_seconds
from interaction.models.checkpoint import load_model
from interaction.models.config import InteractionConfig
from interaction.session.lanes import Lanes
from interaction.session.loop import Playback
from interaction.streams.events import TextInQueue
from interaction.streams.image import frame_at, tubelets
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import Tokenizer
from interaction.streams.weave import LaneInput
from interaction.types import Control

_HOLD_SECONDS = 1.0  # a frame is shown so long when no newer one comes


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


class Board(Protocol):
    """One lane of a model that can be stepped.

    Attributes:
        weave, grid: sizes of what it takes.
        tokenizer: reads the text.
    """

    weave: WeaveConfig
    grid: Grid
    tokenizer: Tokenizer

    def begin(self, seed: int) -> None:
        """A fresh session."""
        ...

    def step(self, given: LaneInput) -> LaneText:
        """One micro-turn."""
        ...


class LanesBoard:
    """A model through `session.lanes`, compiled when it is made.

    Args:
        params: the whole tree, vocoder included.
        config: the model.
    """

    def __init__(self, params: dict, config: InteractionConfig):
        self._lanes = Lanes(params, config)
        self._lanes.warm_up()
        self.weave, self.grid = config.weave, config.grid
        self.tokenizer = self._lanes.tokenizer

    def begin(self, seed: int) -> None:
        """A fresh session."""
        self._lanes.close(0)
        self._lanes.open(seed=seed)

    def step(self, given: LaneInput) -> LaneText:
        """One micro-turn."""
        output = self._lanes.step([given])[0]
        assert output is not None
        return output


class Model:
    """A board as a system.

    Args:
        board: makes the board.
        name: of the system.
        seed: of the noise, beside the sample's id.
    """

    def __init__(self, board: Callable[[], Board], *, name: str = "model", seed: int = 0):
        self.name, self._board, self._seed = name, board(), seed

    def converse(self, sample: Sample) -> "ModelConversation":
        """A fresh session in the lane."""
        self._board.begin((zlib.crc32(sample.id.encode()) + self._seed) % 2**31)
        return ModelConversation(self._board, sample.tools)


def from_folder(checkpoint: str, *, name: str, seed: int = 0, board: str = "") -> Model:
    """A folder as a system.

    Args:
        checkpoint: a native checkpoint, or what `board` reads.
        name: of the system.
        seed: of the noise.
        board: ``module:callable`` that makes a `Board` of the folder; "": a native checkpoint.
    """

    def make() -> Board:
        return imported(board)(checkpoint) if board else LanesBoard(*load_model(checkpoint))

    return Model(make, name=name, seed=seed)


class ModelConversation:
    """One session of the board's lane."""

    def __init__(self, board: Board, tools: Any = ()):
        self._board, self._tools = board, tuple(tools)
        self._queue = TextInQueue(board.tokenizer, board.weave)
        self._playback = Playback(margin=0.0)
        self._eyes = _Eyes(board)
        self._request = _Request(board.tokenizer, self._tools)

    def step(self, given: MicroTurnInput) -> list[OutputEvent]:
        """One micro-turn: everything the lane puts out, at its border."""
        now = given.micro_turn
        for event in given.text:
            self._queue.put(event.source, event.text)
        for result in given.tool_results:
            self._queue.put(Control.TOOL, result)
        lane = LaneInput(
            micro_turn=now,
            video=self._eyes.see(given),
            text_in=self._queue.take(),
            audio=self._heard(given),
        )
        output = self._board.step(lane)
        border = output_seconds(now)
        events = [
            OutputEvent(border, Kind.TEXT, {"channel": channel, "text": text})
            for channel, text in (("say", output.said), ("write", output.written))
            if text
        ]
        events += [OutputEvent(border, Kind.TOOL, call) for call in self._request.take(output)]
        speaks, spoke = output.closer is Control.SPEAK, self._playback.speaking
        start = self._playback.start(now, 0.0, speaks)
        if speaks or spoke:  # the chunk after the last spoken one carries the vocoder's tail
            events.append(OutputEvent(start, Kind.AUDIO, output.waveform))
        return events

    def _heard(self, given: MicroTurnInput) -> tuple[tuple[int, np.ndarray], ...]:
        """Chunks that are not too late, the newest ones of too many."""
        weave = self._board.weave
        fit = [c for c in given.audio if given.micro_turn - c[0] <= weave.max_lateness]
        return tuple(fit[-weave.max_audio_chunks :])

    def close(self) -> None:
        """The lane is taken over by the next session."""


class _Eyes:
    """Frames at any rate to the tubelets of each micro-turn."""

    def __init__(self, board: Board):
        self._weave, self._grid = board.weave, board.grid
        self._times = np.zeros(0)
        self._frames: np.ndarray | None = None

    def see(self, given: MicroTurnInput) -> np.ndarray | None:
        """uint8 ``[P, 2, p, p, 3]`` of this micro-turn, or None if there is nothing to see."""
        if given.video is not None:
            times, frames = given.video.times, given.video.frames
            if self._frames is not None:
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
