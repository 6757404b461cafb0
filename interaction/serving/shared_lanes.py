"""The lanes of one process, shared by sessions that each go at a pace of their own.

In: a model or an artefact; sessions that open, step and close from an event loop. Out: what each
one's lane puts out. All that touches the model runs in one thread. A step takes the inputs of every
lane that waits when it begins; the other lanes stand still.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS, Grid
from interaction.models.config import InteractionConfig
from interaction.session.dialogue import LaneText
from interaction.session.lanes import Lanes
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import Tokenizer
from interaction.streams.weave import LaneInput

WINDOW = 1_000  # steps that the percentiles are of


class AllTakenError(ValueError):
    """Every lane holds a session."""


class StepError(RuntimeError):
    """The program itself failed: its state is lost, and with it every session."""


class Stepped(Protocol):
    """Lanes that step together (`session.lanes.Lanes`, `serving.artefact_lanes.ArtefactLanes`).

    Attributes:
        lanes: B.
        weave, grid: sizes of what a lane takes.
        tokenizer: reads the text.
    """

    lanes: int
    weave: WeaveConfig
    grid: Grid
    tokenizer: Tokenizer

    def open(self, *, seed: int) -> int:
        """A fresh session; its lane."""
        ...

    def close(self, lane: int) -> None:
        """The lane is free."""
        ...

    def step(self, inputs: Sequence[LaneInput | None]) -> Sequence[LaneText | None]:
        """One micro-turn of every lane that has an input; ValueError: no lane has moved."""
        ...


def lanes_of_model(params: dict, config: InteractionConfig, lanes: int) -> Lanes:
    """`lanes` free lanes of a model, compiled."""
    if lanes < 1:
        raise ValueError(f"lanes={lanes} must be at least 1")
    made = Lanes(params, config, lanes=lanes)
    made.warm_up()
    for lane in range(lanes):
        made.close(lane)
    return made


@dataclasses.dataclass
class _Waiting:
    """An input that waits for the next step."""

    lane: int
    given: LaneInput
    output: "asyncio.Future[LaneText]"


class SharedLanes:
    """B lanes behind one thread.

    Args:
        make: gives the lanes, all free and compiled; called in the thread.
        seed: beside each session's own.

    Attributes:
        lanes: B.
        weave, grid, tokenizer: of the lanes.
        sessions: lanes that are taken.
        steps: taken since the start.
        broken: set once a step has failed (`StepError`).
    """

    def __init__(self, make: Callable[[], Stepped], *, seed: int = 0):
        self.sessions, self.steps, self.seed = 0, 0, seed
        self.broken = asyncio.Event()
        self._lock = threading.Lock()  # of what the thread counts
        self._seconds: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._waiting: list[_Waiting] = []
        self._stepper: asyncio.Task | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "lanes")
        self._lanes = self._thread.submit(make).result()
        self.lanes, self.tokenizer = self._lanes.lanes, self._lanes.tokenizer
        self.weave, self.grid = self._lanes.weave, self._lanes.grid

    async def open(self, seed: int) -> int:
        """A fresh session; its lane.

        Raises:
            AllTakenError: every lane holds a session.
        """
        if self.sessions == self.lanes:
            raise AllTakenError(
                f"all of lanes={self.lanes} lanes hold a session; come back when one has ended"
            )
        self.sessions += 1
        try:
            return await self._in_thread(lambda: self._lanes.open(seed=seed))
        except BaseException:
            self.sessions -= 1
            raise

    async def close(self, lane: int) -> None:
        """The lane is free; an input of it that still waits is forgotten."""
        self._waiting = [each for each in self._waiting if each.lane != lane]
        await self._in_thread(lambda: self._lanes.close(lane))
        self.sessions -= 1

    async def step(self, lane: int, given: LaneInput) -> LaneText:
        """One micro-turn of a lane, together with whoever else waits.

        Raises:
            ValueError: the input does not fit; the lane has not moved.
            StepError: the program failed.
        """
        output = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(lane, given, output))
        if self._stepper is None or self._stepper.done():
            self._stepper = asyncio.create_task(self._step_while_any_waits())
        return await output

    def health(self) -> dict[str, Any]:
        """JSON values: sessions, steps, and how long the last `WINDOW` of them took."""
        with self._lock:
            milliseconds = 1000 * np.array(self._seconds)
        median, slow = np.percentile(milliseconds, [50, 99]) if len(milliseconds) else (None, None)
        return {
            "lanes": self.lanes,
            "sessions": self.sessions,
            "steps": self.steps,
            "last": {
                "steps": len(milliseconds),
                "p50_milliseconds": None if median is None else round(float(median), 3),
                "p99_milliseconds": None if slow is None else round(float(slow), 3),
                "late": int((milliseconds > 1000 * MICRO_TURN_SECONDS).sum()),
            },
        }

    def shut_down(self) -> None:
        """Ends the thread once it has nothing left to do."""
        self._thread.shutdown()

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _step_while_any_waits(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                outputs = await self._in_thread(functools.partial(self._step, batch))
            except Exception as error:
                self.broken.set()
                outputs = [StepError(f"the model's step failed: {error}")] * len(batch)
            for each, output in zip(batch, outputs, strict=True):
                if each.output.done():  # its session is gone
                    continue
                if isinstance(output, Exception):
                    each.output.set_exception(output)
                else:
                    each.output.set_result(output)

    def _step(self, batch: Sequence[_Waiting]) -> list[LaneText | Exception]:
        """Outputs, or what is wrong with an input. `Lanes` moves all lanes of a step or none."""
        row: list[LaneInput | None] = [None] * self.lanes
        for each in batch:
            row[each.lane] = each.given
        began = time.perf_counter()
        try:
            outputs = self._lanes.step(row)
        except ValueError as error:
            if len(batch) == 1:
                return [error]
            return [output for each in batch for output in self._step([each])]
        with self._lock:
            self._seconds.append(time.perf_counter() - began)
            self.steps += 1
        return [output for output in (outputs[each.lane] for each in batch) if output is not None]
