"""What is to run, apart from where: commands of `launch.py`, and what each needs.

In: a command, `Resources`, points of a sweep. Out: a `Job` with one command per point. The targets
beside this file (`local`, `slurm`, `jobset`, `skypilot`) turn it into processes or text.
"""

import dataclasses
import ipaddress
import itertools
import re
import shlex
import sys
from collections.abc import Sequence

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one run of a command needs; 0 and "" leave it to the target.

    Attributes:
        nodes: machines.
        tasks: processes per machine.
        cpus: cores per process.
        memory: GB per machine.
        accelerator: kind, by the target's own name for it (SLURM: a GRES type, GKE: a node label,
            SkyPilot: H100, tpu-v6e-8, ...).
        per_node: accelerators per machine.
        topology: chips along the axes of a TPU slice, as in 4x4 (GKE).
        minutes: limit of time; a run that reaches it saves, and is requeued.
    """

    nodes: int = 1
    tasks: int = 1
    cpus: int = 1
    memory: int = 0
    accelerator: str = ""
    per_node: int = 0
    topology: str = ""
    minutes: int = 60

    def __post_init__(self):
        for name in ("nodes", "tasks", "cpus", "minutes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("memory", "per_node"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.accelerator and not self.per_node:
            raise ValueError(f"accelerator={self.accelerator!r} asked for, per_node=0 of them")

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.nodes * self.tasks


@dataclasses.dataclass(frozen=True)
class Serving:
    """What a job that answers sessions adds to one that ends by itself.

    Attributes:
        host: the address it listens on.
        port: the same.
        drain_seconds: what its sessions get to end, once it was told to.
    """

    host: str
    port: int
    drain_seconds: float

    def __post_init__(self):
        if not 0 < self.port < 65_536:
            raise ValueError(f"port={self.port} of a job must be one of 1..65535, to be found by")

    @property
    def is_reached_from_elsewhere(self) -> bool:
        """Whether other machines, and a cluster's probes, reach its address."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True  # a name

    def grace(self, least: int) -> int:
        """Seconds from the signal to the end by force: `least`, or a minute beyond the drain."""
        return max(least, int(self.drain_seconds) + 60)


@dataclasses.dataclass(frozen=True)
class Job:
    """One submission.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 40.
        commands: arguments of `launch.py`, one tuple per point of a sweep, else one.
        resources: of each of them.
        root: folder of `launch.py` where the job runs.
        logs: folder for what processes print.
        restarts: how often a run is begun again after one of its processes was killed; a run that
            stopped by itself on a signal is begun again without limit.
        python: interpreter where the job runs.
        queue: SLURM's partition, or Kueue's queue.
        account: who pays, on SLURM.
        image: of the container, where there is one.
        volumes: ``(source, path)``: a claim (JobSet) or a bucket's address (SkyPilot), and where
            the run finds it.
        serving: of a job that answers sessions, which is begun again after an error too.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    resources: Resources
    root: str
    logs: str = "runs/logs"
    restarts: int = 3
    python: str = sys.executable
    queue: str = ""
    account: str = ""
    image: str = ""
    volumes: tuple[tuple[str, str], ...] = ()
    serving: Serving | None = None

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name={self.name!r} must be 1 to 40 lower-case letters, digits and hyphens"
            )
        if not self.commands or not all(self.commands):
            raise ValueError("a job needs a command of launch.py, after --")
        if self.restarts < 0:
            raise ValueError(f"restarts={self.restarts} must not be negative")
        if self.serving and self.resources.tasks > 1:
            raise ValueError(
                f"tasks={self.resources.tasks}: servers on one machine cannot share "
                f"port={self.serving.port}; give one server more --lanes"
            )

    def apart(self) -> "Job":
        """Servers on several nodes know nothing of each other: a run on one node for each."""
        nodes = self.resources.nodes
        if self.serving is None or nodes == 1:
            return self
        alone = dataclasses.replace(self.resources, nodes=1)
        return dataclasses.replace(self, commands=self.commands * nodes, resources=alone)

    def name_of(self, index: int) -> str:
        """The name of one of the commands."""
        return self.name if len(self.commands) == 1 else f"{self.name}-{index}"

    def line(self, index: int) -> str:
        """One of the commands as a shell reads it, from `root`."""
        return shlex.join([self.python, "launch.py", *self.commands[index]])


def sweep(command: Sequence[str], axes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The commands of all points of a sweep, each with a working folder of its own.

    Args:
        command: a training, with ``--workdir``.
        axes: ``section.field=value,value,...``; commas within brackets or quotes do not split.

    Returns:
        The command as it is where there are no axes; else one per combination, with ``--set`` for
        every axis and ``point-0``, ``point-1``, ... below the given folder.

    Raises:
        ValueError: an axis without values, twice the same, or a command that cannot be swept.
    """
    if not axes:
        return (tuple(command),)
    fields: dict[str, list[str]] = {}
    for axis in axes:
        field, equals, text = axis.partition("=")
        values = _split(text)
        if not equals or not field or not all(values):
            raise ValueError(f"--sweep {axis}: write it as section.field=value,value")
        if field in fields or len(set(values)) < len(values):
            raise ValueError(f"--sweep {axis}: {field} or one of its values is given twice")
        fields[field] = values
    if command[:1] != ["train"] and command[:1] != ("train",):
        raise ValueError(f"--sweep is for train, which has --set; the command is {command[0]!r}")
    place = _workdir(command)
    commands = []
    for index, point in enumerate(itertools.product(*fields.values())):
        here = list(command)
        here[place] = here[place] + f"/point-{index}"
        for field, value in zip(fields, point, strict=True):
            here += ["--set", f"{field}={value}"]
        commands.append(tuple(here))
    return tuple(commands)


def _workdir(command: Sequence[str]) -> int:
    """Where in the command the value of ``--workdir`` ends."""
    for index, word in enumerate(command):
        if word == "--workdir" and index + 1 < len(command):
            return index + 1
        if word.startswith("--workdir="):
            return index
    raise ValueError(f"--sweep needs --workdir in the command: {shlex.join(command)}")


def _split(text: str) -> list[str]:
    """At commas that are in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    return parts
