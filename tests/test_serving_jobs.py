"""Jobs that answer sessions: a port, a probe, and what is begun again.

In: jobs made up here. Out: batch scripts and manifests as in `tests/test_launching.py`, with what a
server needs beside, and each node of several a server of its own.
"""

import jsonschema
import pytest
import yaml

import launch
from interaction.launching import jobset, local, skypilot, slurm, submit
from interaction.launching.job import Job, Resources, Serving
from interaction.launching.status import REQUEUE, Outcome, outcome
from interaction.launching.submit import Target, Through
from tests.jobs_for_tests import (
    JOBSETS,
    SCHEMA,
    acting_in,
    job_of,
    manifests,
    requeued_by_the_script,
)

SERVE = ("serve", "--checkpoint", "checkpoints/mini", "--host", "0.0.0.0", "--port", "9000")


def serving_of(**changes) -> Job:
    values = {"resources": Resources(), "serving": Serving("0.0.0.0", 9000, 30.0)}
    return job_of(SERVE, **{**values, **changes})


def test_a_server_that_failed_is_begun_again():
    assert outcome([1], serves=True) is outcome([-9], serves=True) is Outcome.RESTART
    assert outcome([0], serves=True) is Outcome.DONE
    assert outcome([REQUEUE], serves=True) is Outcome.REQUEUE


@pytest.mark.parametrize(
    ("status", "died_before", "requeued"),
    [(0, 0, False), (1, 0, True), (1, 2, False), (REQUEUE, 9, True), (137, 1, True)],
)
def test_the_batch_script_of_a_server_requeues_after_errors(
    tmp_path, status, died_before, requeued
):
    job = serving_of(restarts=2, root=str(tmp_path), logs=".")
    assert requeued_by_the_script(job, tmp_path, status, died_before) == requeued


def test_servers_on_several_nodes_are_an_array_of_servers():
    job = serving_of(resources=Resources(nodes=3), serving=Serving("0.0.0.0", 9000, 200.0))
    text = submit.plan(job, Target.SLURM)
    for option in ("nodes=1", "array=0-2", "exclusive", "requeue", "signal=USR2@260"):
        assert f"#SBATCH --{option}\n" in text
    assert text.count(" ".join(SERVE)) == 3
    one = slurm.script(serving_of())
    assert "array" not in one and "exclusive" not in one and "signal=USR2@120" in one
    submitit = submit.plan(job, Target.SLURM, Through.SUBMITIT)
    assert submitit.count("launch.py serve") == 3 and "{'exclusive': True}" in submitit
    assert "slurm_signal_delay_s = 260" in submitit and "nodes = 1" in submitit


def test_a_server_in_a_jobset_has_a_port_and_is_asked_whether_it_is_ready():
    need = Resources(nodes=2, accelerator="nvidia-l4", per_node=1)
    job = serving_of(resources=need, image="i", queue="team").apart()
    found = manifests(job)
    assert [m["metadata"]["name"] for m in found] == ["smoke-0", "smoke-1"]
    for manifest in found:
        jsonschema.validate(manifest, SCHEMA)
        spec = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert "activeDeadlineSeconds" not in spec and spec["parallelism"] == 1
        assert spec["template"]["metadata"]["labels"] == {"app.kubernetes.io/name": "smoke"}
        container = spec["template"]["spec"]["containers"][0]
        assert container["command"][2:] == [*SERVE, "--sigterm-status", str(REQUEUE)]
        (port,) = container["ports"]
        asked = container["readinessProbe"]["httpGet"]
        assert port["containerPort"] == 9000
        assert (asked["path"], asked["port"]) == ("/health", port["name"])
        assert "env" not in container  # no rendezvous: they know nothing of each other
    assert "ports" not in jobset.render(JOBSETS["gpus"])
    long = serving_of(image="i", serving=Serving("0.0.0.0", 9000, 600.0))
    assert "terminationGracePeriodSeconds: 660" in jobset.render(long)


def test_a_server_on_skypilot_has_its_port_opened():
    job = serving_of(resources=Resources(nodes=2)).apart()
    tasks = [yaml.safe_load(text) for text in skypilot.render(job)]
    assert [task["resources"]["ports"] for task in tasks] == [[9000], [9000]]
    assert all(task["num_nodes"] == 1 and "service" not in task for task in tasks)


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        (Target.LOCAL, {"resources": Resources(nodes=2)}, "give one server more --lanes"),
        (Target.JOBSET, {"serving": Serving("127.0.0.1", 9000, 9.0), "image": "i"}, "on 0.0.0.0"),
        (Target.SKYPILOT, {"serving": Serving("localhost", 9000, 9.0)}, "on 0.0.0.0"),
        (Target.JOBSET, {"resources": Resources(minutes=9), "image": "i"}, "--minutes 9"),
    ],
)
def test_what_a_server_cannot_do_there_is_said(target, changes, says):
    with pytest.raises(ValueError, match=says):
        submit.plan(serving_of(**changes), target)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--on", "local"], "1 process(es)"),
        (["--on", "slurm", "--nodes", "2"], "--array=0-1"),
        (["--on", "jobset", "--image", "i", "--nodes", "2"], "containerPort: 9000"),
        (["--on", "skypilot", "--nodes", "2"], "- 9000"),
    ],
)
def test_a_dry_run_of_a_server_prints_everything(options, found, capsys):
    assert launch.main(["submit", *options, "--dry-run", "--", *SERVE]) == 0
    said = capsys.readouterr().out
    assert found in said and "checkpoints/mini" in said


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: serving_of(resources=Resources(tasks=2)), "cannot share port=9000"),
        (lambda: Serving("0.0.0.0", 0, 30.0), "port=0 of a job"),
    ],
)
def test_what_a_server_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_server_is_not_swept(capsys):
    words = ["submit", "--on", "slurm", "--sweep", "a=1", "--dry-run", "--", *SERVE]
    assert launch.main(words) == 1
    assert "the command is 'serve'" in capsys.readouterr().err


def test_an_error_of_a_server_is_repeated_a_few_times(tmp_path):
    acting = acting_in(tmp_path)
    serving = Serving("0.0.0.0", 9000, 30.0)
    assert local.run(acting("3;1;0", tasks=1, serving=serving, restarts=2)) == 0
    assert len(acting.starts(0)) == 3
