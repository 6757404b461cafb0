"""Manifests for clusters that start containers: JobSet and SkyPilot.

In: the jobs of `tests/jobs_for_tests.py`. Out: manifests that hold against a schema, in which a
misspelt field would be noticed.
"""

import copy
import importlib.util

import jsonschema
import pytest
import yaml

from interaction.launching import jobset, skypilot
from interaction.launching.job import Resources
from interaction.launching.status import REQUEUE
from tests.jobs_for_tests import JOBSETS, SCHEMA, job_of, manifests


@pytest.mark.parametrize("which", JOBSETS)
def test_jobsets_hold_against_the_schema(which):
    job = JOBSETS[which]
    found = manifests(job)
    assert len(found) == len(job.commands)
    for index, manifest in enumerate(found):
        jsonschema.validate(manifest, SCHEMA)
        spec = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert spec["parallelism"] == spec["completions"] == job.resources.nodes
        container = spec["template"]["spec"]["containers"][0]
        assert container["command"][2:] == list(job.commands[index])
        # The policies of job and pods name what is there.
        rule = spec["podFailurePolicy"]["rules"][0]["onExitCodes"]
        assert rule["containerName"] == container["name"] and rule["values"] == [REQUEUE]


def test_pods_find_each_other_but_on_a_tpu_slice_jax_does():
    container = manifests(JOBSETS["gpus"])[0]["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    # <jobset>-<replicated job>-<job index>-<pod index>.<subdomain>
    assert env["COORDINATOR_ADDRESS"] == "smoke-workers-0-0.smoke:8476"
    assert env["NUM_PROCESSES"] == "3" and env["PROCESS_ID"] is None
    for which in ("tpu slice", "one pod"):
        assert "env:" not in jobset.render(JOBSETS[which])
    assert "google.com/tpu: 4" in jobset.render(JOBSETS["tpu slice"])


@pytest.mark.parametrize(
    "path",
    [("spec", "replicatedJob"), ("spec", "failurePolicy", "maxRestart"), ("metadata", "label"),
     ("spec", "replicatedJobs", 0, "template", "spec", "completion")],
)  # fmt: skip
def test_a_misspelt_field_would_be_noticed(path):
    manifest = copy.deepcopy(manifests(JOBSETS["gpus"])[0])
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


def test_skypilot_tasks():
    need = Resources(nodes=2, cpus=8, memory=32, accelerator="H100", per_node=8)
    (text,) = skypilot.render(job_of(resources=need, volumes=(("gs://bucket", "/runs"),)))
    task = yaml.safe_load(text)
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == "H100:8"
    assert task["resources"]["cpus"] == "8+" and task["resources"]["memory"] == "32+"
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [REQUEUE]
    assert task["file_mounts"] == {"/runs": {"source": "gs://bucket", "mode": "MOUNT"}}
    assert task["run"].startswith("exec .venv/bin/python launch.py train ")
    assert "ports" not in task["resources"]
    image = yaml.safe_load(skypilot.render(job_of(image="i"))[0])
    assert image["resources"]["image_id"] == "docker:i" and "setup" not in image


@pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="skypilot is not installed")
@pytest.mark.filterwarnings("default")
def test_skypilot_itself_accepts_the_tasks(tmp_path):
    import sky

    need = Resources(nodes=2, cpus=8, memory=32, accelerator="H100", per_node=8)
    (text,) = skypilot.render(job_of(resources=need, root=str(tmp_path)))
    task = sky.Task.from_yaml_config(yaml.safe_load(text))
    assert task.num_nodes == 2
    with pytest.raises(ValueError, match="num_node"):
        sky.Task.from_yaml_config({**yaml.safe_load(text), "num_node": 2})
