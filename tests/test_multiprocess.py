"""Training in several processes: the same losses, the same data, and nothing lost when one dies.

In: `tests/training_for_tests.py`, in processes of their own on this machine. Out: metrics and
parameters compared between 1, 2 and 4 processes, before and after stops, kills and moves.
"""

import json
import pathlib
import sys

import numpy as np
import pytest

from interaction.checkpoints import native
from interaction.launching import local
from interaction.launching.job import Job, Resources
from interaction.launching.status import REQUEUE

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
STEPS, BATCH = 50, 8
# What `launch.py` is to a job: here it trains the model of the test.
LAUNCH = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.training_for_tests import main
main(json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Run the loop in some processes; gives exit statuses, metrics by step, and the folder."""
    root = tmp_path_factory.mktemp("jobs")
    (root / "launch.py").write_text(LAUNCH)

    def call(name: str, processes: int, *, watched: bool = False, **act):
        act = {"steps": STEPS, "batch": BATCH, "devices": 4, "workdir": str(root / name), **act}
        pathlib.Path(act["workdir"]).mkdir(exist_ok=True)
        job = Job(
            name=name, commands=((json.dumps(act),),), resources=Resources(tasks=processes),
            root=str(root), python=sys.executable, logs="logs",
        )  # fmt: skip
        ended = [local.run(job)] if watched else local.once(job, 0)
        lines = (root / name / "metrics.jsonl").read_text().splitlines()
        return ended, [json.loads(line) for line in lines], root / name

    return call


@pytest.fixture(scope="module")
def one(train):
    """One process with four devices, all steps."""
    ended, metrics, folder = train("one", 1)
    assert ended == [0]
    return metrics, final(folder)


def final(folder: pathlib.Path) -> np.ndarray:
    return np.asarray(native.load_params(folder / "final")["weight"])


def column(metrics: list[dict], name: str) -> list:
    return [line[name] for line in sorted(metrics, key=lambda line: line["step"])]


def test_one_process_learns_and_reads_in_order(one):
    metrics, _ = one
    assert column(metrics, "step") == list(range(1, STEPS + 1))
    assert column(metrics, "first") == [BATCH * step for step in range(STEPS)]
    assert metrics[-1]["loss"] < 0.1 * metrics[0]["loss"]


@pytest.mark.parametrize("processes", [2, 4])
def test_losses_and_data_are_the_same_in_several_processes(train, one, processes):
    ended, metrics, folder = train(f"of-{processes}", processes)
    assert ended == [0] * processes
    for name in ("step", "first", "order"):
        assert column(metrics, name) == column(one[0], name)
    np.testing.assert_allclose(column(metrics, "loss"), column(one[0], "loss"), rtol=1e-4)
    np.testing.assert_allclose(final(folder), one[1], rtol=1e-4)


def test_stopped_in_two_processes_resumed_in_two_bit_for_bit(train):
    """The signal goes to the second process alone; both save at the same border and say so."""
    whole, metrics, folder = train("whole", 2, devices=2, steps=20)
    assert whole == [0, 0]
    ended, before, stopped = train(
        "stopped", 2, devices=2, steps=20, signal="SIGUSR2", process=1, at=7
    )
    assert ended == [REQUEUE, REQUEUE]
    assert 8 <= len(before) <= 10  # the next border, or the one after it
    ended, after, _ = train("stopped", 2, devices=2, steps=20)
    assert ended == [0, 0]
    assert column(after, "step") == list(range(1, 21))  # no step twice, none left out
    assert column(after, "loss") == column(metrics, "loss")
    np.testing.assert_array_equal(final(stopped), final(folder))


@pytest.mark.parametrize(("first", "then", "devices"), [(2, 1, 1), (1, 4, 4)])
def test_a_checkpoint_moves_to_other_processes_and_meshes(train, one, first, then, devices):
    """From 2 processes with 2 devices each to one device; from one process to four."""
    name = f"moved-{first}-{then}"
    ended, before, _ = train(name, first, signal="SIGTERM", process=first - 1, at=11)
    assert ended == [REQUEUE] * first and len(before) < 15
    ended, metrics, folder = train(name, then, devices=devices)
    assert ended == [0] * then
    for column_name in ("step", "first", "order"):
        assert column(metrics, column_name) == column(one[0], column_name)
    np.testing.assert_allclose(column(metrics, "loss"), column(one[0], "loss"), rtol=1e-4)
    np.testing.assert_allclose(final(folder), one[1], rtol=1e-4)


def test_a_killed_process_costs_no_more_than_the_last_interval(train, one):
    """Checkpoints at every border; the job is begun again by the launcher, by itself."""
    ended, metrics, folder = train(
        "killed", 2, watched=True, minutes=1e-9, signal="SIGKILL", process=0, at=13
    )
    assert ended == [0]
    steps = [line["step"] for line in metrics]
    again = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
    assert len(again) == 1 and steps[again[0] - 1] - steps[again[0]] <= 4
    kept = metrics[: again[0]]
    kept = [line for line in kept if line["step"] < steps[again[0]]] + metrics[again[0] :]
    for name in ("step", "first", "order"):
        assert column(kept, name) == column(one[0], name)
    np.testing.assert_allclose(column(kept, "loss"), column(one[0], "loss"), rtol=1e-4)
    np.testing.assert_allclose(final(folder), one[1], rtol=1e-4)
