"""Jobs: what is submitted, what is printed, and what is begun again when it dies.

In: jobs made up here, and a `launch.py` that does as it is told. Out: batch scripts that a shell
accepts, manifests that hold against a schema, processes on this machine that are killed and begun
again. What SLURM itself makes of it: `tests/test_slurm.py`.
"""

import copy
import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys
import time

import jsonschema
import pytest
import yaml

import launch
from interaction.launching import jobset, local, skypilot, slurm, submit
from interaction.launching.job import Job, Resources, sweep
from interaction.launching.status import REQUEUE, Outcome, outcome
from interaction.launching.submit import Target, Through

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


@pytest.fixture
def acting(tmp_path):
    """A job whose processes act; the starts that each of them noted."""
    return acting_in(tmp_path)


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


# ---------------------------------------------------------------- manifests


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


# ---------------------------------------------------------------- on this machine


def test_processes_are_told_of_each_other(acting):
    assert local.run(acting("0")) == 0
    first, second = (acting.starts(p)[0] for p in (0, 1))
    assert first[1] == second[1] and first[1].startswith("127.0.0.1:")
    assert first[2] == second[2] == "2"
    assert local.run(acting("0;0", tasks=1)) == 0
    assert acting.starts(0)[1][1:3] == ["-", "-"]  # one alone needs no address


def test_a_killed_process_ends_the_others_and_all_begin_again(acting, capsys):
    """The second one would wait for ten minutes for the first, which is dead."""
    assert local.run(acting("kill,wait;0,0")) == 0
    assert [len(acting.starts(p)) for p in (0, 1)] == [2, 2]
    assert "[-9, -9]: restart" in capsys.readouterr().out


def test_it_gives_up_after_so_many(acting):
    assert local.run(acting("kill,0;0,kill;kill,kill", restarts=2)) == 1
    assert len(acting.starts(0)) == 3


def test_stopping_by_itself_counts_for_nothing(acting):
    assert local.run(acting("75;75;75;0", restarts=0)) == 0
    assert len(acting.starts(1)) == 4


def test_an_error_is_not_repeated(acting):
    assert local.run(acting("3,0")) == 3
    assert len(acting.starts(0)) == 1


def test_a_signal_goes_on_to_the_processes(acting, tmp_path):
    """They save and end with 75; the launcher is stopped too, so it ends with 75 itself."""
    job = acting("signal;0")
    code = (
        "import sys, pickle; from interaction.launching import local; "
        "sys.exit(local.run(pickle.load(open(sys.argv[1], 'rb'))))"
    )
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "job")])
    ready = [tmp_path / f"noted/ready-0-{p}" for p in (0, 1)]
    for _ in range(1200):
        if all(r.exists() for r in ready):
            break
        time.sleep(0.05)
    child.terminate()
    assert child.wait(60) == REQUEUE
    assert len(acting.starts(0)) == 1
