"""A job on Kubernetes as a JobSet, with Kueue where a queue is named.

In: a `Job`. Out: YAML, one JobSet per command. One pod per node and one process per pod. On TPU
slices GKE tells JAX the rest; elsewhere the pods find each other by the names that JobSet gives
them. A pod that answers sessions has a port, is ready once ``/health`` says so, and has no limit of
time. Fields are those of https://jobset.sigs.k8s.io/docs/reference/ (v1alpha2).
"""

import json
import subprocess
from typing import Any

import yaml

from interaction.launching.job import Job, Serving
from interaction.launching.status import REQUEUE

PORT = 8476
GRACE_SECONDS = 180  # from SIGTERM to SIGKILL: to reach the next step's border and save
_WORKERS = "workers"
_CONTAINER = "run"
_PORT_NAME = "sessions"


def render(job: Job) -> str:
    """The manifests.

    Raises:
        ValueError: no image, or something that a pod cannot have.
    """
    if not job.image:
        raise ValueError("a JobSet needs --image, a container with this repository's environment")
    if job.resources.tasks > 1:
        raise ValueError(f"tasks={job.resources.tasks}: in a JobSet every node has one process")
    manifests = [_manifest(job, index) for index in range(len(job.commands))]
    return yaml.safe_dump_all(manifests, sort_keys=False, width=100)


def _manifest(job: Job, index: int) -> dict[str, Any]:
    name = job.name_of(index)
    labels = {"kueue.x-k8s.io/queue-name": job.queue} if job.queue else {}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},
            "failurePolicy": {
                "maxRestarts": job.restarts,
                "rules": [
                    {
                        # Only the rule below, on the pods, ends a job for this reason.
                        "name": "stopped_and_saved",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": _WORKERS, "replicas": 1, "template": {"spec": _job(job, index)}}
            ],
        },
    }


def _job(job: Job, index: int) -> dict[str, Any]:
    nodes = job.resources.nodes
    limit = {} if job.serving else {"activeDeadlineSeconds": 60 * job.resources.minutes}
    # By this label a Service finds the servers of all nodes.
    label = {"metadata": {"labels": {"app.kubernetes.io/name": job.name}}} if job.serving else {}
    return {
        "parallelism": nodes,
        "completions": nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        **limit,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": _CONTAINER,
                        "operator": "In",
                        "values": [REQUEUE],
                    },
                }
            ]
        },
        "template": {**label, "spec": _pod(job, index)},
    }


def _pod(job: Job, index: int) -> dict[str, Any]:
    need = job.resources
    is_tpu = bool(need.topology)
    amounts: dict[str, Any] = {"cpu": need.cpus}
    if need.memory:
        amounts["memory"] = f"{need.memory}Gi"
    if need.per_node:
        amounts["google.com/tpu" if is_tpu else "nvidia.com/gpu"] = need.per_node
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": job.image,
        "workingDir": job.root,
        "command": [job.python, "launch.py", *job.commands[index]],
        "resources": {"requests": amounts, "limits": amounts},
    }
    if need.nodes > 1 and not is_tpu:
        container["env"] = _rendezvous(job.name_of(index), need.nodes)
    grace = GRACE_SECONDS
    if job.serving:
        container |= _answering(job.serving)
        # A pod that is moved is told by SIGTERM: status 0 would end the job there.
        container["command"] += ["--sigterm-status", str(REQUEUE)]
        grace = job.serving.grace(GRACE_SECONDS)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "containers": [container],
    }
    if is_tpu:
        pod["nodeSelector"] = {
            "cloud.google.com/gke-tpu-accelerator": need.accelerator,
            "cloud.google.com/gke-tpu-topology": need.topology,
        }
    elif need.accelerator:
        pod["nodeSelector"] = {"cloud.google.com/gke-accelerator": need.accelerator}
    if job.volumes:
        pod["volumes"] = [
            {"name": f"volume-{i}", "persistentVolumeClaim": {"claimName": claim}}
            for i, (claim, _) in enumerate(job.volumes)
        ]
        container["volumeMounts"] = [
            {"name": f"volume-{i}", "mountPath": path} for i, (_, path) in enumerate(job.volumes)
        ]
    # A copy without shared parts: YAML would write these as anchors.
    return json.loads(json.dumps(pod))


def _answering(serving: Serving) -> dict[str, Any]:
    """A container's port and its probe: 503 while it is ending, no answer while it compiles."""
    probe = {"path": "/health", "port": _PORT_NAME}
    return {
        "ports": [{"name": _PORT_NAME, "containerPort": serving.port}],
        "readinessProbe": {"httpGet": probe, "periodSeconds": 5, "timeoutSeconds": 5},
    }


def _rendezvous(name: str, nodes: int) -> list[dict[str, Any]]:
    """What `train.processes` reads."""
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return [
        {"name": "COORDINATOR_ADDRESS", "value": f"{name}-{_WORKERS}-0-0.{name}:{PORT}"},
        {"name": "NUM_PROCESSES", "value": str(nodes)},
        {"name": "PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]


def submit(job: Job) -> str:
    """Hands the manifests to kubectl; what it says.

    Raises:
        ValueError: there is no kubectl, or it refuses.
    """
    return handed(["kubectl", "apply", "-f", "-"], render(job))


def handed(command: list[str], text: str) -> str:
    """Gives `text` to a command's standard input; what it says.

    Raises:
        ValueError: there is no such command, or it fails.
    """
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True)
    except FileNotFoundError:
        raise ValueError(
            f"{command[0]} was not found; print the text with --dry-run and take it there"
        ) from None
    if done.returncode:
        raise ValueError(f"{' '.join(command)} refused: {done.stderr.strip()}")
    return done.stdout.strip()
