"""A job on this machine: its processes side by side, watched, and begun again when one dies.

In: a `Job`. Out: its exit status. This is what a cluster's scheduler does, on one machine: all
processes get `COORDINATOR_ADDRESS`, `NUM_PROCESSES` and `PROCESS_ID`; when one is killed the others
are ended and the run is begun again; when they stop on a signal and have saved, likewise.
"""

import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from interaction.launching.job import Job
from interaction.launching.status import REQUEUE, Outcome, outcome

# Processes that remain after another has ended get this long to end by themselves.
GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.1


def plan(job: Job) -> str:
    """What `run` would do, in words."""
    _check(job)
    lines = [f"# in {job.root}, {job.resources.processes} process(es) each, one after the other:"]
    lines += [job.line(index) for index in range(len(job.commands))]
    return "\n".join(lines) + f"\n# what they print: {job.logs}/{job.name}*-PROCESS.log\n"


def _check(job: Job) -> None:
    if job.resources.nodes > 1 and job.serving:
        raise ValueError(
            f"nodes={job.resources.nodes}: this machine is one node; give one server more --lanes"
        )
    if job.resources.nodes > 1:
        raise ValueError(f"nodes={job.resources.nodes}: this machine is one node; use --tasks")


def run(job: Job) -> int:
    """All commands of a job, one after the other; the first status that is not 0, else 0.

    SIGTERM and SIGUSR2 to this process go on to the job's, which save; it then ends with
    `REQUEUE` itself, and the same submission goes on from there.
    """
    _check(job)
    forwarder = _Forwarder()
    with forwarder:
        for index in range(len(job.commands)):
            status = _persist(job, index, forwarder)
            if status:
                return status
    return 0


def _persist(job: Job, index: int, forwarder: "_Forwarder") -> int:
    """One command, begun again as `status.outcome` says."""
    killed = 0
    while True:
        statuses = once(job, index, forwarder)
        what = outcome(statuses, serves=job.serving is not None)
        print(f"{job.name_of(index)}: exit statuses {statuses}: {what.value}", flush=True)
        killed += what is Outcome.RESTART
        if what is Outcome.DONE:
            return 0
        if forwarder.told:
            return REQUEUE
        if what is Outcome.FAILED or killed > job.restarts:
            return next((s for s in statuses if s > 0), 1)


def once(job: Job, index: int, forwarder: "_Forwarder | None" = None) -> list[int]:
    """Starts the processes of one command and waits for all; their exit statuses."""
    count = job.resources.processes
    logs = pathlib.Path(job.root, job.logs)
    logs.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{_free_port()}"
    children: list[subprocess.Popen] = []
    try:
        for process in range(count):
            with (logs / f"{job.name_of(index)}-{process}.log").open("ab") as log:
                children.append(
                    subprocess.Popen(
                        [job.python, "launch.py", *job.commands[index]],
                        cwd=job.root, stdout=log, stderr=subprocess.STDOUT,
                        env=_environment(os.environ, address, count, process),
                    )
                )  # fmt: skip
        if forwarder is not None:
            forwarder.children = children
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


def _environment(
    given: Mapping[str, str], address: str, count: int, process: int
) -> dict[str, str]:
    own = {}
    if count > 1:
        own = {
            "COORDINATOR_ADDRESS": address,
            "NUM_PROCESSES": str(count),
            "PROCESS_ID": str(process),
        }
    return {**given, **own}


def _wait(children: Sequence[subprocess.Popen]) -> list[int]:
    """Waits for all; once one was killed or failed, the others have `GRACE_SECONDS` at most."""
    deadline = None
    while any(child.poll() is None for child in children):
        ended = [child.returncode for child in children if child.returncode is not None]
        if deadline is None and any(ended):
            # One that was killed takes part in nothing any more: the others can only hang.
            dead = outcome(ended) is Outcome.RESTART
            deadline = time.monotonic() + (0.0 if dead else GRACE_SECONDS)
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                if child.poll() is None:
                    child.kill()
        time.sleep(_POLL_SECONDS)
    return [int(child.returncode) for child in children]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Forwarder:
    """Passes SIGTERM and SIGUSR2 on to the processes of the job."""

    def __init__(self):
        self.children: list[subprocess.Popen] = []
        self.told = False

    def __enter__(self) -> "_Forwarder":
        numbers = (signal.SIGTERM, signal.SIGUSR2)
        self._before = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, *_) -> None:
        self.told = True
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)
