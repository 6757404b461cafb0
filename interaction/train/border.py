"""The border between two steps: what all processes decide there together.

In: signals to this process and the clock of the first one. Out: at every border the same
`Decision` in every process: go on, save, or save and stop. SIGTERM and SIGUSR2 ask to stop; the
process that hears one need not be the first, and the others need not hear it.
"""

import dataclasses
import signal
import threading
import time

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interaction.launching.status import REQUEUE

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Stopped(SystemExit):
    """Training was asked to stop and has saved; the process ends with status `REQUEUE`.

    Attributes:
        step: the step that is saved.
    """

    def __init__(self, step: int):
        super().__init__(REQUEUE)
        self.step = step


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do at a border.

    Attributes:
        save: a checkpoint is due.
        stop: save and end.
    """

    save: bool = False
    stop: bool = False


class Interruption:
    """Whether this process was asked to stop; a context in which `SIGNALS` do not end it.

    Processes started within the context (those that prepare data) do not see the signals, although
    schedulers send them to all: the mask is inherited. Outside the main thread, where Python has
    no signals, it hears none.
    """

    def __init__(self):
        self.name = ""
        self._main = threading.current_thread() is threading.main_thread()

    @property
    def heard(self) -> bool:
        """Whether a signal came."""
        return bool(self.name)

    def _hear(self, number: int, *_) -> None:
        if not self.name:
            self.name = signal.Signals(number).name

    def __enter__(self) -> "Interruption":
        if self._main:
            # A signal to the process goes to any thread that lets it in: the one that waits for
            # it, or one that began before and has the handler.
            self._handlers = {number: signal.signal(number, self._hear) for number in SIGNALS}
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._main:
            self._over.set()
            self._thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _wait(self) -> None:
        while not self._over.is_set():
            came = signal.sigtimedwait(SIGNALS, 0.05)
            if came is not None:
                self._hear(came.si_signo)


class Border:
    """Agreement at every border, without the host ever waiting for the devices.

    Alone, a wish holds at once. In a job every process hands in its wishes, a reduction over all
    processes is put behind the step, and its result is read at the next border, when the step has
    long been awaited: one step later, in all processes alike.
    """

    def __init__(self, interruption: Interruption, seconds: float):
        """Args:
        interruption: asks to stop.
        seconds: between checkpoints, by the clock of the first process.
        """
        self._interruption, self._seconds = interruption, seconds
        self._saved = time.monotonic()
        self._pending: jax.Array | None = None
        count = jax.process_count()
        if count > 1:
            first = [jax.local_devices(process_index=i)[0] for i in range(count)]
            mesh = Mesh(np.asarray(first), ("process",))
            self._split = NamedSharding(mesh, PartitionSpec("process"))
            whole = NamedSharding(mesh, PartitionSpec())
            self._greatest = jax.jit(lambda wishes: wishes.max(0), out_shardings=whole)

    def cross(self) -> Decision:
        """To be called once per step by every process; the same answer in all."""
        if jax.process_count() == 1:
            decision = self._wish()
        else:
            decision = Decision()
            if self._pending is not None:
                save, stop = np.asarray(self._pending)
                decision = Decision(bool(save), bool(stop))
        if decision.save:
            self._saved = time.monotonic()
        if jax.process_count() > 1:
            wish = self._wish()
            mine = np.asarray([[wish.save, wish.stop]], np.int32)
            shape = (jax.process_count(), 2)
            wishes = jax.make_array_from_process_local_data(self._split, mine, shape)
            self._pending = self._greatest(wishes)
        if decision.stop:
            heard = self._interruption.name or "a signal to another process"
            logging.info("%s: saving, then ending with status %d", heard, REQUEUE)
        return decision

    def _wish(self) -> Decision:
        due = jax.process_index() == 0 and time.monotonic() - self._saved > self._seconds
        return Decision(due, self._interruption.heard)
