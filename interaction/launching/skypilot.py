"""A job on whatever cloud SkyPilot finds, as a managed job.

In: a `Job`. Out: YAML of a task, one per command. One process per node; `train.processes` reads
SkyPilot's own variables. Servers have their port opened. Fields are those of
https://docs.skypilot.co/en/latest/reference/yaml-spec.html.
"""

import shlex
import subprocess
import tempfile
from typing import Any

import yaml

from interaction.launching.job import Job
from interaction.launching.status import REQUEUE


def render(job: Job) -> list[str]:
    """The tasks, one text each.

    Raises:
        ValueError: something that a task cannot have.
    """
    if job.resources.tasks > 1:
        raise ValueError(f"tasks={job.resources.tasks}: on SkyPilot every node has one process")
    return [
        yaml.safe_dump(_task(job, index), sort_keys=False, width=100)
        for index in range(len(job.commands))
    ]


def _task(job: Job, index: int) -> dict[str, Any]:
    need = job.resources
    resources: dict[str, Any] = {"cpus": f"{need.cpus}+"}
    if need.memory:
        resources["memory"] = f"{need.memory}+"
    if need.accelerator:
        resources["accelerators"] = f"{need.accelerator}:{need.per_node}"
    if job.image:
        resources["image_id"] = f"docker:{job.image}"
    if job.serving:
        resources["ports"] = [job.serving.port]
    resources["job_recovery"] = {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": job.restarts,
        "recover_on_exit_codes": [REQUEUE],
    }
    task: dict[str, Any] = {
        "name": job.name_of(index),
        "workdir": job.root,
        "num_nodes": need.nodes,
        "resources": resources,
    }
    if job.volumes:
        task["file_mounts"] = {
            path: {"source": source, "mode": "MOUNT"} for source, path in job.volumes
        }
    # An image brings its own environment; a bare machine makes the one of this repository.
    if not job.image:
        task["setup"] = "make .venv/.ready\n"
    python = job.python if job.image else ".venv/bin/python"
    task["run"] = f"exec {shlex.join([python, 'launch.py', *job.commands[index]])}\n"
    return task


def submit(job: Job) -> str:
    """Hands the tasks to ``sky jobs launch``; what it says.

    Raises:
        ValueError: there is no sky, or it refuses.
    """
    said = []
    for text in render(job):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            command = ["sky", "jobs", "launch", "--yes", "--detach-run", file.name]
            try:
                done = subprocess.run(command, text=True, capture_output=True)
            except FileNotFoundError:
                raise ValueError(
                    "sky was not found; print the task with --dry-run and take it there"
                ) from None
        if done.returncode:
            raise ValueError(f"sky jobs launch refused: {done.stderr.strip()}")
        said.append(done.stdout.strip())
    return "\n".join(said)
