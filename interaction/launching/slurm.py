"""A job on SLURM, as text for sbatch or through submitit.

In: a `Job`. Out: a batch script, or an executor of submitit; a sweep is a job array. Nothing of
JAX's set-up is in it: JAX finds its processes from SLURM's own variables. Before the time is up,
SLURM sends SIGUSR2 to the processes; training saves and ends with `status.REQUEUE`, and the script
puts the job back into the queue. So it does after a process was killed, `restarts` times, and
SLURM itself after a node has failed. A server lets its sessions end on SIGUSR2 and is put back too,
after any error `restarts` times; on several nodes it is an array of servers.
"""

import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from interaction.launching.job import Job
from interaction.launching.status import REQUEUE, Outcome, outcome

# Seconds before the end of its time at which a run is told to save. SLURM may be a minute early.
SIGNAL_SECONDS = 120
# Once one process has ended the others get this long.
WAIT_SECONDS = 60


def script(job: Job) -> str:
    """The batch script."""
    several = len(job.commands) > 1
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{option}" for option in _options(job)]
    lines += [
        "",
        "trap : TERM  # to the processes it goes by itself; this script has to outlive them",
        f"cd {shlex.quote(job.root)} || exit",
    ]
    if several:
        lines.append('case "$SLURM_ARRAY_TASK_ID" in')
        for index, command in enumerate(job.commands):
            lines.append(f"  {index}) set -- {shlex.join(command)} ;;")
        lines.append("esac")
    else:
        lines.append(f"set -- {shlex.join(job.commands[0])}")
    python = shlex.quote(job.python)
    died = '[ "$status" -gt 128 ]'
    if job.serving:
        died = f'[ "$status" -ne 0 ] && [ "$status" -ne {REQUEUE} ]'
    # The number alone may mean all of an array: one of its points has the number of the whole.
    own = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if several else "$SLURM_JOB_ID"
    lines += [
        "",
        f'srun --wait={WAIT_SECONDS} {python} launch.py "$@"',
        "status=$?",
        f"killed={shlex.quote(job.logs)}/killed-$SLURM_JOB_ID  # a line for each time",
        f'if {died}; then echo "$status" >> "$killed"; fi',
        f'if [ "$status" -eq {REQUEUE} ] || {{ {died} '
        f'&& [ "$(wc -l < "$killed")" -le {job.restarts} ]; }}; then',
        '  echo "exit status $status: requeued"',
        f'  scontrol requeue "{own}" && exit 0',
        "fi",
        'echo "exit status $status"',
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _options(job: Job) -> list[str]:
    need, several = job.resources, len(job.commands) > 1
    options = [
        f"job-name={job.name}",
        f"nodes={need.nodes}",
        f"ntasks-per-node={need.tasks}",
        f"cpus-per-task={need.cpus}",
        f"time={need.minutes}",
        f"output={job.logs}/%x-{'%A_%a' if several else '%j'}.log",
        "open-mode=append",
        "requeue",
        f"signal=USR2@{_signal_seconds(job)}",
    ]
    if job.serving and several:
        options.append("exclusive")  # two of one array would ask one machine for the same port
    if several:
        options.append(f"array=0-{len(job.commands) - 1}")
    if need.memory:
        options.append(f"mem={need.memory}G")
    if need.per_node:
        kind = f"{need.accelerator}:" if need.accelerator else ""
        options.append(f"gpus-per-node={kind}{need.per_node}")
    if job.queue:
        options.append(f"partition={job.queue}")
    if job.account:
        options.append(f"account={job.account}")
    return options


def _signal_seconds(job: Job) -> int:
    return job.serving.grace(SIGNAL_SECONDS) if job.serving else SIGNAL_SECONDS


def submit(job: Job) -> str:
    """Hands the script to sbatch; the job's number.

    Raises:
        ValueError: there is no sbatch, or it refuses; says what it said.
    """
    if shutil.which("sbatch") is None:
        raise ValueError("sbatch was not found; print the script with --dry-run and take it there")
    pathlib.Path(job.root, job.logs).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["sbatch", "--parsable"], input=script(job), text=True, capture_output=True, cwd=job.root
    )
    if done.returncode:
        raise ValueError(f"sbatch refused: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]


# ---------------------------------------------------------------- through submitit


def _own_number(environment: Mapping[str, str]) -> str:
    """The number of this job, or of this point of an array (see `script`)."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


@dataclasses.dataclass
class Command:
    """What submitit runs in every process: the command as a child, and how it is requeued.

    Attributes:
        words: the whole command.
        root: where it runs.
        restarts: as in `Job`, but here SLURM's own count, which has every restart in it.
        serves: it is begun again after an error too.
    """

    words: tuple[str, ...]
    root: str
    restarts: int
    serves: bool = False

    def __call__(self) -> str:
        self._child = subprocess.Popen(self.words, cwd=self.root)
        status = self._child.wait()
        what = outcome([status], serves=self.serves)
        count = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        again = what is Outcome.RESTART and count < self.restarts
        if again or what is Outcome.REQUEUE:
            subprocess.run(["scontrol", "requeue", _own_number(os.environ)], check=True)
        if what is not Outcome.DONE:
            raise RuntimeError(f"{shlex.join(self.words)}: exit status {status}: {what.value}")
        return what.value

    def checkpoint(self) -> Any:
        """Called by submitit on SIGUSR2: has the child save; what to submit next, or None."""
        from submitit.helpers import DelayedSubmission  # type: ignore[import-not-found]

        self._child.send_signal(signal.SIGUSR2)
        if outcome([self._child.wait()]) is not Outcome.REQUEUE:
            return None
        return DelayedSubmission(dataclasses.replace(self))


def parameters(job: Job) -> dict[str, Any]:
    """What submitit's executor is given."""
    need = job.resources
    values: dict[str, Any] = {
        "name": job.name,
        "nodes": need.nodes,
        "tasks_per_node": need.tasks,
        "cpus_per_task": need.cpus,
        "timeout_min": need.minutes,
        "slurm_signal_delay_s": _signal_seconds(job),
        "slurm_srun_args": [f"--wait={WAIT_SECONDS}"],
    }
    additional = {}
    if need.memory:
        values["mem_gb"] = need.memory
    if need.per_node:
        kind = f"{need.accelerator}:" if need.accelerator else ""
        additional["gpus-per-node"] = f"{kind}{need.per_node}"
    if job.queue:
        values["slurm_partition"] = job.queue
    if job.account:
        additional["account"] = job.account
    if job.serving and len(job.commands) > 1:
        additional["exclusive"] = True
    if additional:
        values["slurm_additional_parameters"] = additional
    return values


def submit_with_submitit(job: Job) -> list[Any]:
    """Hands the job to submitit; its jobs, one per command, an array if there are several.

    Raises:
        ValueError: submitit is not installed, or there is no SLURM.
    """
    try:
        import submitit  # type: ignore[import-not-found]
    except ImportError:
        raise ValueError(
            "submitit is not installed: install the extra 'cluster', or leave out "
            "--through submitit"
        ) from None
    if shutil.which("srun") is None:
        raise ValueError("srun was not found: this is no machine of a SLURM cluster")
    executor = submitit.AutoExecutor(
        pathlib.Path(job.root, job.logs), cluster="slurm", slurm_python=job.python
    )
    executor.update_parameters(**parameters(job))
    runs = [
        Command(
            (job.python, "launch.py", *command), job.root, job.restarts, job.serving is not None
        )
        for command in job.commands
    ]
    if len(runs) == 1:
        return [executor.submit(runs[0])]
    with executor.batch():
        return [executor.submit(run) for run in runs]
