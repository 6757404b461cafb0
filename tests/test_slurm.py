"""Jobs on a real SLURM of two nodes: found, signalled, killed, requeued, arrayed.

In: `tests/slurm_for_tests.py`. Out: what processes that act as told, and the training loop with a
model of seven numbers, leave behind; a server of a tiny model that answers a session, drains, is
begun again and ends. Training the interaction model itself on two nodes:
`experiments/two_nodes.py`.
"""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from interaction.eval.records import Kind
from interaction.eval.runner import play
from interaction.eval.systems.remote import Remote
from interaction.launching import slurm, submit
from interaction.launching.job import Job, Resources, Serving
from interaction.launching.submit import Target, Through
from interaction.models.checkpoint import save_model
from tests import server_for_tests, slurm_for_tests
from tests.jobs_for_tests import ACTS
from tests.models_for_tests import LIVE, LIVE_LANES, random_params
from tests.test_multiprocess import LAUNCH, column

ROOT = pathlib.Path(__file__).parents[1]
WHY_NOT = slurm_for_tests.missing()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_for_tests.two_nodes(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, environment[name])
        yield folder


def job_of(root: pathlib.Path, launch: str, *commands: tuple[str, ...], **changes) -> Job:
    root.mkdir(parents=True, exist_ok=True)
    (root / "launch.py").write_text(launch)
    (root / "noted").mkdir(exist_ok=True)
    values = {"name": root.name, "resources": Resources(nodes=2, minutes=30), "logs": "logs"}
    return Job(commands=commands, root=str(root), python=sys.executable, **{**values, **changes})


def until_gone(number: str, seconds: float = 400.0) -> None:
    """Waits until the job has left the queue."""
    end = time.monotonic() + seconds
    while subprocess.run(["squeue", "-h", "-j", number], capture_output=True, text=True).stdout:
        assert time.monotonic() < end, f"job {number} is still there after {seconds} s"
        time.sleep(0.3)


def state(number: str) -> str:
    """What SLURM says of a job."""
    words = ["scontrol", "show", "job", number]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def submitted(job: Job) -> str:
    number = slurm.submit(job)
    until_gone(number)
    return number


def starts(job: Job, process: int, point: int = 0) -> list[list[str]]:
    noted = pathlib.Path(job.root, "noted", f"{point}-{process}")
    return [line.split() for line in noted.read_text().splitlines()]


# ---------------------------------------------------------------- requeueing


@pytest.mark.parametrize(
    ("acts", "begun", "ends"),
    [
        ("0", 1, "COMPLETED"),
        ("75;0", 2, "COMPLETED"),  # stopped and saved
        ("0,kill;0", 2, "COMPLETED"),  # one process was killed
        ("3", 1, "FAILED"),  # an error that would come again
        ("kill;kill;0", 2, "FAILED"),  # one restart is allowed
    ],
)
def test_a_job_is_begun_again_when_it_should(cluster, tmp_path, acts, begun, ends):
    root = tmp_path / "acting"
    job = job_of(root, ACTS, (str(root / "noted"), acts), restarts=1)
    number = submitted(job)
    assert f"JobState={ends}" in state(number)
    assert [len(starts(job, p)) for p in (0, 1)] == [begun, begun]
    assert starts(job, 1)[0][3] == "2"  # SLURM's own count of processes
    # The script ends within the job that is requeued, so it says so in the job's one log.
    log = pathlib.Path(job.root, "logs", f"acting-{number}.log").read_text()
    assert log.count(": requeued") == begun - 1


def test_a_signal_before_the_end_of_its_time(cluster, tmp_path):
    """What SLURM sends of itself shortly before the limit, sent by hand."""
    root = tmp_path / "told"
    job = job_of(root, ACTS, (str(root / "noted"), "signal;0"))
    number = slurm.submit(job)
    ready = [root / f"noted/ready-0-{p}" for p in (0, 1)]
    end = time.monotonic() + 120
    while not all(r.exists() for r in ready):
        assert time.monotonic() < end
        time.sleep(0.1)
    subprocess.run(["scancel", "--signal=USR2", number], check=True)
    until_gone(number)
    assert "JobState=COMPLETED" in state(number)
    assert [len(starts(job, p)) for p in (0, 1)] == [2, 2]


def test_a_sweep_is_an_array_whose_points_live_apart(cluster, tmp_path):
    root = tmp_path / "swept"
    acts = ("0", "75;0", "kill;0")
    commands = [(str(root / "noted"), act, str(point)) for point, act in enumerate(acts)]
    job = job_of(root, ACTS, *commands, resources=Resources(nodes=1))
    submitted(job)
    assert [len(starts(job, 0, point)) for point in range(3)] == [1, 2, 2]


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="extra cluster is missing")
@pytest.mark.filterwarnings("default")
def test_submitit_does_the_same(cluster, tmp_path):
    root = tmp_path / "handed"
    command = (str(root / "noted"), "75;kill,0;0")
    job = job_of(root, ACTS, command)
    os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", str(pathlib.Path.cwd()))
    (given,) = slurm.submit_with_submitit(job)
    until_gone(given.job_id)
    said = state(given.job_id)
    assert "JobState=COMPLETED" in said
    assert "Restarts=2" in said
    # srun may end the second process of a start before it noted anything.
    begun = {start[0] for p in (0, 1) for start in starts(job, p)}
    assert begun == {"0", "1", "2"}


def test_what_sbatch_refuses_is_said(cluster, tmp_path):
    job = job_of(tmp_path / "refused", ACTS, ("x",), queue="nowhere")
    with pytest.raises(ValueError, match=r"sbatch refused.*partition"):
        submit.submit(job, Target.SLURM, Through.SBATCH)


# ---------------------------------------------------------------- training


def test_training_on_two_nodes_killed_signalled_and_requeued(cluster, tmp_path):
    """JAX finds its processes from SLURM alone. One is killed at step 5; nothing is lost but the
    last interval, no record is left out, and the losses are those of one process."""
    root = tmp_path / "training"
    act = {"steps": 20, "batch": 8, "devices": 2, "minutes": 1e-9}
    two = {**act, "workdir": str(root / "two"), "signal": "SIGKILL", "process": 1, "at": 5}
    job = job_of(root, LAUNCH, (json.dumps(two),))
    (root / "two").mkdir()
    number = submitted(job)
    log = (root / "logs" / f"training-{number}.log").read_text()
    assert "JobState=COMPLETED" in state(number), log[-3000:]
    assert "exit status 137: requeued" in log and "Restarts=1" in state(number)
    one = {**act, "workdir": str(root / "one")}
    (root / "one").mkdir()
    subprocess.run([sys.executable, "launch.py", json.dumps(one)], cwd=root, check=True)
    lines = {
        name: [json.loads(x) for x in (root / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    steps = [line["step"] for line in lines["two"]]
    # Where the first records are made again; nowhere, if none was made after the last checkpoint.
    repeats = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
    assert len(repeats) <= 1
    again = repeats[0] if repeats else len(steps) - 1
    assert steps[again - 1] - steps[again] <= 4
    kept = [x for x in lines["two"][:again] if x["step"] < steps[again]] + lines["two"][again:]
    for name in ("step", "first", "order"):
        assert column(kept, name) == column(lines["one"], name)
    assert column(kept, "loss") == pytest.approx(column(lines["one"], "loss"), rel=1e-4)


# ---------------------------------------------------------------- serving


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until_healthy(port: int, status: int, seconds: float = 300.0) -> dict:
    """What ``/health`` says once it answers with `status`; 0: once nothing answers."""
    end = time.monotonic() + seconds
    while (found := server_for_tests.health(port))[0] != status:
        assert time.monotonic() < end, f"port={port} answers {found} after {seconds} s"
        time.sleep(0.2)
    return found[1]


def test_a_server_answers_drains_is_begun_again_and_ends(cluster, tmp_path):
    """By `launch.py serve` itself: SIGUSR2 as before the end of its time, then scancel."""
    save_model(tmp_path / "tiny", random_params(LIVE, seed=server_for_tests.TALKS), LIVE)
    port = free_port()
    command = (
        "serve", "--checkpoint", str(tmp_path / "tiny"), "--lanes", str(LIVE_LANES),
        "--port", str(port), "--drain-seconds", "120",
    )  # fmt: skip
    job = Job(
        name="serving", commands=(command,), root=str(ROOT), python=sys.executable,
        logs=str(tmp_path / "logs"), resources=Resources(minutes=30),
        serving=Serving("127.0.0.1", port, 120.0),
    )  # fmt: skip
    number = slurm.submit(job)
    until_healthy(port, 200)
    client = Remote(f"ws://127.0.0.1:{port}/", timeout=300)
    assert {event.kind for event in play(client, server_for_tests.sample()).events} >= {Kind.AUDIO}
    session = client.converse(server_for_tests.sample())
    subprocess.run(["scancel", "--signal=USR2", number], check=True)
    assert until_healthy(port, 503)["status"] == "ending"
    server_for_tests.play_on(session)  # what runs is let go on
    with pytest.raises(ConnectionError, match="is ending and takes no more sessions"):
        client.converse(server_for_tests.sample())
    session.close()
    client.shut_down()
    until_healthy(port, 0)
    assert until_healthy(port, 200)["steps"] == 0  # requeued, and begun again
    assert "Restarts=1" in state(number)
    subprocess.run(["scancel", number], check=True)
    until_gone(number)
    assert "JobState=CANCELLED" in state(number)
    log = (tmp_path / "logs" / f"serving-{number}.log").read_text()
    assert log.count("listening on ") == log.count("ending: ") == 2, log
    assert log.count("exit status 75: requeued") == 1
