"""Jobs made up for tests, and a `launch.py` that does as it is told.

In: what a job's processes shall do at each start. Out: jobs for the launchers, the starts that each
process noted, and whether the batch script asked to be put back into the queue.
"""

import json
import pathlib
import subprocess
import sys

import yaml

from interaction.launching import jobset, slurm
from interaction.launching.job import Job, Resources, sweep

SCHEMA = json.loads((pathlib.Path(__file__).parent / "testdata/jobset_schema.json").read_text())
TRAIN = ("train", "--config", "configs/smoke.py:2", "--workdir", "runs/a b")

# A stand-in for launch.py: notes who it is, then ends as its arguments say for this start.
ACTS = """
import os, pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
process = os.environ.get("PROCESS_ID") or os.environ.get("SLURM_PROCID", "0")
point = sys.argv[3] if len(sys.argv) > 3 else "0"
mine = here / f"{point}-{process}"
noted = len(mine.read_text().splitlines()) if mine.exists() else 0
start = int(os.environ.get("SLURM_RESTART_COUNT", noted))  # SLURM's own count where it has one
names = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "SLURM_NTASKS")
with mine.open("a") as file:
    file.write(f"{start} " + " ".join(os.environ.get(n, "-") for n in names) + "\\n")
acts = sys.argv[2].split(";")[start].split(",")
act = acts[min(int(process), len(acts) - 1)]
if act == "kill":  # once the others have noted this start
    others = [here / f"{point}-{p}" for p in range(int(os.environ.get("NUM_PROCESSES", 1)))]
    while not all(o.exists() and f"\\n{start} " in "\\n" + o.read_text() for o in others):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
if act == "wait":
    time.sleep(600)
if act == "signal":
    import threading
    stop = threading.Event()
    signal.signal(signal.SIGUSR2, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    (here / f"ready-{point}-{process}").touch()
    sys.exit(75 if stop.wait(120) else 1)
sys.exit(int(act))
"""


def job_of(*commands, **changes) -> Job:
    values = {"name": "smoke", "commands": commands or (TRAIN,), "root": "/code"}
    return Job(**{"resources": Resources(nodes=2), "python": "python3", **values, **changes})


def acting_in(folder: pathlib.Path):
    """What makes jobs whose processes act; and, as `starts`, the starts that each of them noted."""
    (folder / "launch.py").write_text(ACTS)
    (folder / "noted").mkdir()

    def make(acts: str, tasks: int = 2, **changes) -> Job:
        command = (str(folder / "noted"), acts)
        return job_of(
            command, root=str(folder), python=sys.executable, logs="logs",
            resources=Resources(tasks=tasks), **changes,
        )  # fmt: skip

    def starts(process: int) -> list[list[str]]:
        return [s.split() for s in (folder / f"noted/0-{process}").read_text().splitlines()]

    make.starts = starts
    return make


def requeued_by_the_script(job: Job, folder: pathlib.Path, status: int, killed_before: int) -> bool:
    """The script itself is run, with a srun and a scontrol that are no SLURM's."""
    for name, body in (("srun", f"exit {status}"), ("scontrol", f'echo "$@" > {folder}/asked')):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "killed-7").write_text("137\n" * killed_before)
    done = subprocess.run(
        ["bash"], input=slurm.script(job), text=True, capture_output=True,
        env={"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7"},
    )  # fmt: skip
    requeued = (folder / "asked").exists()
    assert done.returncode == (0 if requeued else status), done.stdout
    assert not done.stderr
    if requeued:
        assert (folder / "asked").read_text() == "requeue 7\n"
    return requeued


def manifests(job: Job) -> list[dict]:
    return list(yaml.safe_load_all(jobset.render(job)))


JOBSETS = {
    "one pod": job_of(resources=Resources(), image="i"),
    "gpus": job_of(
        resources=Resources(nodes=3, memory=9, accelerator="nvidia-h100-80gb", per_node=8),
        image="registry/image:1", queue="team", volumes=(("claim", "/runs"), ("other", "/data")),
    ),
    "tpu slice": job_of(
        resources=Resources(nodes=4, accelerator="tpu-v6e-slice", per_node=4, topology="4x4"),
        image="i",
    ),
    "sweep": job_of(*sweep(TRAIN, ["steps=1,2"]), image="i"),
}  # fmt: skip
