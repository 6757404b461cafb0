"""Jobs: what is submitted, what is printed, and what is refused.

In: jobs made up here. Out: batch scripts that a shell accepts, sweeps, the command and its
mistakes. Manifests, processes on this machine and what SLURM itself makes of it:
`tests/test_launching_manifests.py`, `tests/test_launching_local.py`, `tests/test_slurm.py`.
"""

import pathlib
import subprocess

import pytest

import launch
from interaction.launching import slurm, submit
from interaction.launching.job import Resources, sweep
from interaction.launching.status import REQUEUE, Outcome, outcome
from interaction.launching.submit import Target, Through
from tests.jobs_for_tests import TRAIN, job_of, requeued_by_the_script

# ---------------------------------------------------------------- what statuses mean


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([0, 0], Outcome.DONE),
        ([REQUEUE, REQUEUE], Outcome.REQUEUE),
        ([REQUEUE, 1], Outcome.REQUEUE),
        ([1, 0], Outcome.FAILED),
        ([2], Outcome.FAILED),
        ([-9, 1], Outcome.RESTART),
        ([137, REQUEUE], Outcome.RESTART),
        ([134, 1], Outcome.RESTART),
    ],
)
def test_what_exit_statuses_mean(statuses, expected):
    assert outcome(statuses) is expected
    assert outcome(reversed(statuses)) is expected


# ---------------------------------------------------------------- sweeps


def test_a_sweep_has_every_combination_in_a_folder_of_its_own():
    points = sweep(TRAIN, ["optimizer.learning_rate=1e-3,3e-4", "recall.facts=(1, 2),(3, 4)"])
    assert len(points) == len(set(points)) == 4
    assert [p[4] for p in points] == [f"runs/a b/point-{i}" for i in range(4)]
    assert points[1][5:] == (
        "--set", "optimizer.learning_rate=1e-3", "--set", "recall.facts=(3, 4)",
    )  # fmt: skip
    assert sweep(TRAIN, []) == (TRAIN,)
    joined = sweep(("train", "--workdir=w"), ["a=1,2"])
    assert [p[1] for p in joined] == ["--workdir=w/point-0", "--workdir=w/point-1"]


@pytest.mark.parametrize(
    ("command", "axes", "says"),
    [
        (TRAIN, ["steps"], "section.field=value"),
        (TRAIN, ["steps=1,,2"], "section.field=value"),
        (TRAIN, ["steps=1,1"], "twice"),
        (TRAIN, ["steps=1", "steps=2"], "twice"),
        (("eval", "--suite", "all"), ["steps=1,2"], "'eval'"),
        (("train", "--config", "c"), ["steps=1,2"], "--workdir"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(command, axes, says):
    with pytest.raises(ValueError, match=says):
        sweep(command, axes)


# ---------------------------------------------------------------- SLURM's script


def test_the_batch_script_says_what_was_asked():
    need = Resources(nodes=3, tasks=4, cpus=5, memory=60, accelerator="h100", per_node=8, minutes=7)
    text = slurm.script(job_of(resources=need, queue="big", account="us", restarts=2))
    for option in (
        "nodes=3", "ntasks-per-node=4", "cpus-per-task=5", "mem=60G", "gpus-per-node=h100:8",
        "time=7", "partition=big", "account=us", "requeue", "open-mode=append", "signal=USR2@120",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in text
    assert "array" not in text
    assert "'runs/a b'" in text
    assert text.startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    plain = slurm.script(job_of())
    assert "--mem" not in plain and "gpus" not in plain and "partition" not in plain


@pytest.mark.parametrize(
    ("status", "killed_before", "requeued"),
    [(0, 0, False), (1, 0, False), (REQUEUE, 9, True), (137, 0, True), (137, 1, True),
     (143, 2, False), (2, 0, False)],
)  # fmt: skip
def test_the_batch_script_requeues_by_the_same_rule(tmp_path, status, killed_before, requeued):
    job = job_of(restarts=2, root=str(tmp_path), logs=".")
    assert requeued_by_the_script(job, tmp_path, status, killed_before) == requeued
    what = outcome([status])
    expected = what is Outcome.REQUEUE or (what is Outcome.RESTART and killed_before < job.restarts)
    assert expected == requeued


def test_a_sweep_is_an_array(tmp_path):
    job = job_of(*sweep(TRAIN, ["steps=3,4,5"]), root=str(tmp_path), logs=".")
    text = slurm.script(job)
    assert "#SBATCH --array=0-2\n" in text and "%A_%a" in text
    (tmp_path / "srun").write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    said = subprocess.run(["bash"], input=text, text=True, capture_output=True, env=env).stdout
    assert 'requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in text
    assert "launch.py|train|" in said and "|runs/a b/point-2|--set|steps=5|" in said


def test_submitit_is_given_the_same():
    need = Resources(nodes=2, tasks=3, cpus=4, memory=5, accelerator="a100", per_node=6, minutes=7)
    values = slurm.parameters(job_of(resources=need, queue="big", account="us"))
    assert values["nodes"] == 2 and values["tasks_per_node"] == 3 and values["cpus_per_task"] == 4
    assert values["timeout_min"] == 7 and values["mem_gb"] == 5
    assert values["slurm_partition"] == "big"
    assert values["slurm_additional_parameters"] == {"gpus-per-node": "a100:6", "account": "us"}


# ---------------------------------------------------------------- what has no meaning


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        (Target.SLURM, {"image": "i"}, "--image i has no meaning on slurm"),
        (Target.LOCAL, {"resources": Resources(nodes=2)}, "one node"),
        (Target.LOCAL, {"queue": "q"}, "--queue q"),
        (Target.LOCAL, {"resources": Resources(memory=3)}, "--memory 3"),
        (Target.LOCAL, {"resources": Resources(minutes=5)}, "--minutes 5"),
        (Target.JOBSET, {}, "needs --image"),
        (Target.JOBSET, {"image": "i", "resources": Resources(tasks=2)}, "one process"),
        (Target.SKYPILOT, {"account": "a"}, "--account a"),
        (Target.SKYPILOT, {"resources": Resources(nodes=2, minutes=5)}, "--minutes 5"),
        (Target.SKYPILOT, {"resources": Resources(tasks=2)}, "one process"),
    ],
)
def test_what_a_target_cannot_do_is_said(target, changes, says):
    with pytest.raises(ValueError, match=says):
        submit.plan(job_of(**changes), target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Resources(nodes=0), "nodes=0"),
        (lambda: Resources(accelerator="h100"), "per_node=0"),
        (lambda: job_of(name="Big Job"), "'Big Job'"),
        (lambda: job_of(restarts=-1), "restarts=-1"),
        (lambda: job_of(()), "needs a command"),
        (lambda: submit.plan(job_of(image="i"), Target.JOBSET, Through.SUBMITIT), "submitit"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--on", "local", "--tasks", "2"], "2 process(es)"),
        (["--on", "slurm", "--sweep", "steps=1,2", "--minutes", "9"], "--array=0-1"),
        (["--on", "slurm", "--through", "submitit", "--nodes", "2"], "nodes = 2"),
        (["--on", "jobset", "--image", "i", "--volume", "c=/runs"], "claimName: c"),
        (["--on", "skypilot", "--accelerator", "L4", "--per-node", "1"], "accelerators: L4:1"),
    ],
)
def test_a_dry_run_prints_everything_and_touches_nothing(
    options, found, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def forbidden(*_, **__):
        raise AssertionError("a dry run starts nothing")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(pathlib.Path, "mkdir", forbidden)
    words = ["submit", *options, "--root", str(tmp_path), "--dry-run", "--", *TRAIN]
    assert launch.main(words) == 0
    said = capsys.readouterr().out
    assert found in said and "configs/smoke.py:2" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--on", "slurm", "--dry-run", "--"], "comes a command"),
        (["--on", "slurm", "--dry-run", "--", "submit", "--on", "local"], "other than submit"),
        (["--on", "slurm", "--volume", "x", "--dry-run", "--", *TRAIN], "SOURCE=PATH"),
        (["--on", "local", "--image", "i", "--dry-run", "--", *TRAIN], "no meaning on local"),
    ],
)
def test_mistakes_are_said_in_a_sentence(words, says, capsys):
    assert launch.main(["submit", *words]) == 1
    assert says in capsys.readouterr().err


def test_a_wrong_command_is_found_before_it_is_queued():
    with pytest.raises(SystemExit) as end:
        launch.main(["submit", "--on", "slurm", "--dry-run", "--", "train", "--confg", "x"])
    assert end.value.code == 2


@pytest.mark.parametrize("target", ["slurm", "jobset", "skypilot"])
def test_without_the_site_s_own_program_it_says_so(target, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = job_of(image="" if target == "slurm" else "i")
    with pytest.raises(ValueError, match="not found"):
        submit.submit(job, Target(target))
