"""Plays many samples to one system, in processes of their own, and never twice; and listens there.

In: a system's specification, samples and a folder. Out: a run per sample in the folder; what ears
made of runs, in their own cache. Whatever was finished when an evaluation was killed is there and
is not made again.
"""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from interaction.eval.impairment import Impairment
from interaction.eval.records import Clock, Run, Sample, System
from interaction.eval.run_files import fingerprint, load_run, read_met, run_folder, save_run
from interaction.eval.runner import Spec, play

_AHEAD = 2  # tasks per process that wait in its queue
_TOGETHER = 6  # runs that are heard in one go


class SampleError(RuntimeError):
    """A system broke on a sample; names both and the cause."""


@runtime_checkable
class Prepared(Protocol):
    """Ears that are faster when they hear many runs at once, and keep what they heard."""

    def prepare(self, runs: Iterable[Run], clocks: Sequence[Clock]) -> None:
        """Hear them."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """One sample to play: to which system, through which network, into which folder."""

    spec: Spec
    sample: Sample
    folder: pathlib.Path
    impairment: Impairment
    background: str | None
    met: str

    def __str__(self) -> str:
        return f"{self.spec.name} on sample {self.sample.id} of {self.sample.suite}"

    def __call__(self) -> None:
        """Play it with this process's system and write the run down."""
        made_of = f"{self.spec.factory} {sorted(self.spec.options.items())}"
        if made_of not in _systems:
            _forget()
            with _building:
                _systems[made_of] = self.spec.build()
        run = play(
            _systems[made_of],
            self.sample,
            name=self.spec.name,
            impairment=self.impairment,
            background=self.background,
        )
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        save_run(run, self.folder, met=self.met)


@dataclasses.dataclass(frozen=True)
class Listening:
    """Runs to hear under both clocks, by ears that keep what they heard."""

    spec: Spec
    runs: Sequence[Run]

    def __str__(self) -> str:
        return f"ears {self.spec.name} on {len(self.runs)} runs of {self.runs[0].suite}"

    def __call__(self) -> None:
        """Hear them; nothing is given back."""
        made_of = f"{self.spec.factory} {sorted(self.spec.options.items())}"
        if made_of not in _ears:
            _ears[made_of] = self.spec.build()
        if isinstance(_ears[made_of], Prepared):
            _ears[made_of].prepare(self.runs, tuple(Clock))


class Players:
    """Processes that hold one system at a time and play samples to it; a context manager.

    Args:
        processes: that play side by side; 1: this one plays.

    Attributes:
        processor_seconds: that playing has taken until now, all processes together.
    """

    def __init__(self, *, processes: int = 2):
        self._processes, self.processor_seconds = processes, 0.0
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> "Players":
        return self

    def __exit__(self, *error) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        _forget()

    def run(
        self,
        spec: Spec,
        samples: Sequence[Sample],
        root: pathlib.Path,
        *,
        impairment: Impairment | None = None,
        background: Callable[[Sample], str | None] = lambda sample: None,
        finished: Callable[[Sample], None] = lambda sample: None,
    ) -> dict[str, Run]:
        """Every sample's run, those that are already there as they are.

        Args:
            spec: the system; a process makes it when it first plays to it.
            samples: what is played, each id once.
            root: gets a folder per sample.
            impairment: of the network.
            background: gives what a background agent answers in a sample (see `runner.play`).
            finished: called in this process for every sample whose run is there.

        Returns:
            Runs by sample id.

        Raises:
            SampleError: the system broke; runs that were finished stay.
            ValueError: two samples of one id.
        """
        impairment = impairment or Impairment()
        ids = {sample.id for sample in samples}
        if len(ids) != len(samples):
            raise ValueError(f"{len(samples)} samples have {len(ids)} ids: an id is there twice")
        tasks, made_from = [], spec.fingerprint()
        for sample in samples:
            folder = run_folder(root, sample.id)
            answer = background(sample)
            met = f"{fingerprint(sample, impairment, answer)}-{made_from}"
            if read_met(folder) == met:
                finished(sample)
            else:
                tasks.append(Task(spec, sample, folder, impairment, answer, met))
        for task, seconds in self._done(tasks):
            self.processor_seconds += seconds
            finished(task.sample)
        return {sample.id: load_run(run_folder(root, sample.id)) for sample in samples}

    def listen(
        self, ears: Spec, runs: Iterable[Sequence[Run]]
    ) -> Iterator[tuple[Sequence[Run], float]]:
        """Lets ears hear runs before anything is scored, if they are `Prepared`.

        Args:
            ears: how a process makes them.
            runs: those of each suite.

        Yields:
            Runs of one suite that have been heard, and the seconds of the processor it took.

        Raises:
            SampleError: the ears broke.
        """
        tasks = [
            Listening(ears, theirs[at : at + _TOGETHER])
            for theirs in runs
            for at in range(0, len(theirs), _TOGETHER)
        ]
        for task, seconds in self._done(tasks):
            yield task.runs, seconds

    def _done[T: Task | Listening](self, tasks: Sequence[T]) -> Iterator[tuple[T, float]]:
        """Every task when it is done, with the seconds of the processor that it took."""
        if self._processes == 1:
            return ((task, _work(task)) for task in tasks)
        return self._side_by_side(tasks)

    def _side_by_side[T: Task | Listening](self, tasks: Sequence[T]) -> Iterator[tuple[T, float]]:
        if not tasks:
            return
        if self._pool is None:
            # Spawned, not forked: compiled programs and threads do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._processes, context, _begin_process, (context.Lock(),)
            )
        waiting = collections.deque(tasks)
        running: dict[concurrent.futures.Future, T] = {}
        try:
            while waiting or running:
                while waiting and len(running) < _AHEAD * self._processes:
                    task = waiting.popleft()
                    running[self._pool.submit(_work, task)] = task
                done, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    task = running.pop(future)
                    try:
                        seconds = future.result()
                    except concurrent.futures.process.BrokenProcessPool as error:
                        raise SampleError(
                            f"{task}: a process was killed (out of memory?)"
                        ) from error
                    yield task, seconds
        finally:
            for future in running:
                future.cancel()


# ---------------------------------------------------------------- in the process that plays

_systems: dict[str, System] = {}
_ears: dict[str, Any] = {}
# Held while a system is made: what one process compiles the next one finds in the cache.
_building: contextlib.AbstractContextManager = contextlib.nullcontext()


def _begin_process(building: contextlib.AbstractContextManager) -> None:
    """One thread of computing each, and no process that outlives the one that began it."""
    global _building
    _building = building
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {flags}".strip()
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(task: Task | Listening) -> float:
    """Do it; the seconds of the processor that it took, all threads of this process together."""
    began = time.process_time()
    try:
        task()
    except Exception as error:
        raise SampleError(f"{task}: {error}") from error
    return time.process_time() - began


def _forget() -> None:
    """Let go of the system of this process, with whatever it holds open."""
    for system in _systems.values():
        with contextlib.suppress(AttributeError):
            system.shut_down()  # type: ignore[attr-defined]
    _systems.clear()
