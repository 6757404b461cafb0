"""Training on a SLURM of two nodes: submitted, killed, signalled, requeued, and compared.

    python -m experiments.two_nodes            # root, and Debian's slurm-wlm and munge

Question: does a training that loses a process, and is then told to stop, arrive where one that was
left alone arrives? Cost: a few minutes of two CPU cores, most of it compiling. Expectation: the
same losses within 1e-4 relative, every step there, at most one interval of steps done twice.
Finding: `two_nodes.json` and the transcript `two_nodes.txt` beside this file: killed after step 13,
resumed from step 2 (it saves every six seconds), told to stop after step 26, saved at 29 and went
on; all 50 losses are those of one process, bit for bit.

The cluster runs on this machine (`tests/slurm_for_tests.py`): two node daemons, real scheduling,
real requeues, one kernel. The network between nodes is the loopback.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import launch
from experiments.transcript import Transcript
from tests import slurm_for_tests

CONFIG = "configs/smoke.py:2"
LAUNCH = [sys.executable, "launch.py"]
# Unoptimised programs: they are compiled five times and run for seconds.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
INTERESTING = r"exit status|resumed at|saving, then|process \d of|\d+/\d+ .*loss="


def first_parameters(folder: pathlib.Path) -> pathlib.Path:
    """Parameters to start from, drawn once: each process would compile the drawing of its own."""
    from interaction import configuration
    from interaction.models.checkpoint import save_model
    from interaction.models.config import InteractionConfig
    from tests.models_for_tests import random_params

    if not folder.exists():
        model = configuration.build(InteractionConfig, launch.read_config(CONFIG)["model"])
        save_model(folder, random_params(model, spread=0.02), model)
    return folder


def metrics(folder: pathlib.Path) -> list[dict]:
    """Lines of metrics as they were written; none yet: none."""
    place = folder / "metrics.jsonl"
    if not place.exists():
        return []
    return [json.loads(line) for line in place.read_text().splitlines() if line.endswith("}")]


def process_of(job: str, rank: int) -> int:
    """The training process of one rank of a job; 0: there is none."""
    for place in pathlib.Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
        if mine <= set(environment) and b"launch.py" in words:
            return int(place.name)
    return 0


def disturb(transcript: Transcript, job: str, folder: pathlib.Path, environment) -> None:
    """Kills rank 1 once some steps are done, and tells the job to stop some steps later."""
    pending = [
        (lambda line: line["step"] >= 8, "kill"),
        (lambda line: line["step"] >= 20, "stop"),
    ]
    log, seen, state = folder / "logs" / f"smoke-{job}.log", 0, ""
    while True:
        said = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%i %T restarts of nodes %N"],
            env=environment, capture_output=True, text=True,
        ).stdout.strip().replace("restarts of nodes", "nodes:")  # fmt: skip
        if said != state:
            state = said
            transcript.add(f"squeue: {said or 'job ' + job + ' is gone'}")
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()
            for line in lines[seen:]:
                if re.search(INTERESTING, line):
                    transcript.add("log: " + line[:160])
            seen = len(lines)
        if not said:
            return
        done = metrics(folder / "two")
        if pending and done and pending[0][0](done[-1]) and process_of(job, 1):
            act = pending.pop(0)[1]
            if act == "kill":
                transcript.add(f"# step {done[-1]['step']} is done: kill -9, the process of rank 1")
                os.kill(process_of(job, 1), signal.SIGKILL)
            else:
                transcript.add(f"# step {done[-1]['step']} is done: SLURM's signal before the end")
                transcript.command(["scancel", "--signal=USR2", job], environment)
            time.sleep(2)
        time.sleep(1.0)


def compared(two: list[dict], one: list[dict]) -> dict:
    """The figures: losses against those of one process, steps done twice."""
    last = {line["step"]: line for line in two}
    steps = [line["step"] for line in two]
    differences = [
        abs(last[line["step"]]["loss"] - line["loss"]) / abs(line["loss"]) for line in one
    ]
    return {
        "steps": len(one),
        "steps_missing": sorted({line["step"] for line in one} - set(last)),
        "steps_done_twice": len(steps) - len(set(steps)),
        "greatest_relative_difference_of_loss": max(differences),
        "first_and_last_loss": [one[0]["loss"], one[-1]["loss"]],
    }


def main() -> None:
    """Runs it and writes the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", help="kept and gone on from; default: a temporary one")
    options = parser.parse_args()
    why = slurm_for_tests.missing()
    if why:
        raise SystemExit(f"error: {why}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster is taken down then, too
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="two_nodes_")).absolute()
    os.environ.update(ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"))
    for name in ("two", "logs", "slurm"):
        shutil.rmtree(folder / name, ignore_errors=True)
    training = ["train", "--config", CONFIG, "--set", f"steps={options.steps}"]
    transcript = Transcript(folder, INTERESTING)
    training += ["--set", f"start={first_parameters(folder / 'start')}"]
    with slurm_for_tests.two_nodes(folder / "slurm") as environment:
        transcript.command(["sinfo", "-N", "-o", "%N %t %c cores"], environment)
        words = [
            *LAUNCH, "submit", "--on", "slurm", "--nodes", "2", "--minutes", "60", "--name",
            "smoke", "--logs", str(folder / "logs"), "--queue", "debug",
        ]  # fmt: skip
        frequent = ["--workdir", str(folder / "two"), "--set", "checkpoint_minutes=0.1"]
        transcript.command([*words, "--dry-run", "--", *training, *frequent], environment)
        job = transcript.command([*words, "--", *training, *frequent], environment)
        disturb(transcript, job, folder, environment)
        said = subprocess.run(
            ["scontrol", "show", "job", job], env=environment, capture_output=True, text=True
        ).stdout
        found = re.findall(r"(?:JobState|Restarts|ExitCode)=\S+", said)
        transcript.add(f"$ scontrol show job {job}\n" + " ".join(dict.fromkeys(found)))
    transcript.command([*LAUNCH, *training, "--workdir", str(folder / "one")], dict(os.environ))
    result = compared(metrics(folder / "two"), metrics(folder / "one"))
    restarts = next((f for f in found if f.startswith("Restarts")), "Restarts=?")
    result["restarts"] = int(restarts.partition("=")[2])
    transcript.add(json.dumps(result))
    here = pathlib.Path(__file__)
    here.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    transcript.write(here.with_suffix(".txt"))


if __name__ == "__main__":
    main()
