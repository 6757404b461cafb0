"""Processes: how they find each other, which rows are whose, and what they decide together.

In: environments, shardings and signals made up here, in one process. Out: arguments, rows, states
of the data, decisions. What several processes do with them: `tests/test_multiprocess.py`.
"""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest

from interaction.data.order import GlobalBatches, Slices
from interaction.launching.status import REQUEUE
from interaction.train import border, checkpointing, processes
from interaction.train.border import Border, Decision, Interruption

OWN = {"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": "3", "PROCESS_ID": "2"}
OWN_ARGUMENTS = {"coordinator_address": "a:1", "num_processes": 3, "process_id": 2}
STEP = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
SKY = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}


# ---------------------------------------------------------------- start-up


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (OWN, OWN_ARGUMENTS),
        ({**OWN, **STEP}, OWN_ARGUMENTS),
        (STEP, {}),
        ({**STEP, "SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # a batch script outside of any step
        ({"TPU_WORKER_HOSTNAMES": "h0,h1", "TPU_WORKER_ID": "0"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "h0"}, None),
        ({"NUM_PROCESSES": "auto"}, {}),
        ({**SKY, "SKYPILOT_NUM_NODES": "1"}, None),
        (
            {**SKY, "SKYPILOT_NUM_NODES": "2"},
            {"coordinator_address": "10.0.0.1:8476", "num_processes": 2, "process_id": 1},
        ),
    ],
)
def test_the_environment_says_which_process_this_is(environment, expected):
    assert processes.arguments(environment) == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"PROCESS_ID": ""}, "PROCESS_ID is not"),
        ({"PROCESS_ID": "3"}, "PROCESS_ID=3 must lie in 0..2"),
        ({"NUM_PROCESSES": "many"}, "'many'"),
        ({"NUM_PROCESSES": "auto"}, "'auto'"),
    ],
)
def test_variables_that_do_not_fit_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        processes.arguments({**OWN, **change})


def test_one_alone_starts_nothing(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("it is alone"))
    assert processes.start({}) == 1


@pytest.mark.parametrize(("environment", "count"), [(OWN, 3), (STEP, 2)])
def test_a_job_is_joined_with_nothing_but_what_is_known(monkeypatch, environment, count):
    given = {}
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: given.update(kwargs))
    assert processes.start(environment) == count
    beat = given.pop("heartbeat_timeout_seconds")
    assert beat == processes.HEARTBEAT_SECONDS
    assert given == processes.arguments(environment)


# ---------------------------------------------------------------- rows


def sharding_of(*stretches):
    """What `rows` looks at, of a sharding that gives these rows to the devices of a process."""
    places = {device: (slice(*s),) for device, s in enumerate(stretches)}
    return types.SimpleNamespace(addressable_devices_indices_map=lambda shape: places)


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ([(None,)], slice(0, 6)),
        ([(2, 3), (3, 4)], slice(2, 4)),
        ([(4, 6), (4, 6)], slice(4, 6)),  # devices that split something else share rows
        ([(3, 6), (0, 3)], slice(0, 6)),
    ],
)
def test_rows_of_a_process(stretches, expected):
    assert processes.rows(sharding_of(*stretches), 6) == expected


def test_rows_with_a_gap_are_refused():
    with pytest.raises(ValueError, match="not one stretch"):
        processes.rows(sharding_of((0, 1), (3, 4)), 6)


def test_a_mesh_that_leaves_a_process_out_is_refused(monkeypatch):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    processes.check_mesh(mesh)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="reaches 1 of 2 processes"):
        processes.check_mesh(mesh)


# ---------------------------------------------------------------- the order of the data


def read(rows, *, size=6, steps=3, workers=0, record=0):
    slices = Slices(range(1000), np.asarray, size, rows, record)
    batches = GlobalBatches(slices, workers=workers)
    return np.stack([next(batches) for _ in range(steps)]), batches


def test_slices_of_all_processes_are_the_global_batches():
    whole, _ = read(slice(None))
    np.testing.assert_array_equal(whole.ravel(), np.arange(18))
    for cuts in ([0, 2, 4, 6], [0, 1, 6]):
        parts = [read(slice(a, b))[0] for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_the_state_is_one_number_that_anyone_goes_on_from():
    _, batches = read(slice(0, 2), steps=3)
    state = batches.get_state()
    assert state == {"record": 18}
    # By another process, in smaller batches.
    _, other = read(slice(2, 4), size=4, steps=1)
    other.set_state(state)
    np.testing.assert_array_equal(next(other), [20, 21])
    assert other.get_state() == {"record": 22}


def test_a_process_without_rows_is_refused():
    with pytest.raises(ValueError, match="are none"):
        read(slice(6, 8))


# ---------------------------------------------------------------- signals and borders


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_is_heard_and_ends_nothing(name):
    before = signal.getsignal(getattr(signal, name))
    with Interruption() as interruption:
        assert not interruption.heard
        os.kill(os.getpid(), getattr(signal, name))
        for _ in range(400):
            if interruption.heard:
                break
            time.sleep(0.01)
        assert interruption.heard and interruption.name == name
        assert Border(interruption, 1e9).cross() == Decision(save=False, stop=True)
    assert signal.getsignal(getattr(signal, name)) is before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(border.SIGNALS)


def test_processes_begun_meanwhile_do_not_see_the_signals():
    """Those that prepare data are sent them too, by schedulers that signal all of a job."""
    code = "import time; print('up', flush=True); time.sleep(0.5)"
    status = pathlib.Path("/proc")

    def blocked() -> bool:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"up\n"
            lines = (status / str(child.pid) / "status").read_text().splitlines()
            mask = int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16)
            child.kill()
        return all(mask >> (number - 1) & 1 for number in border.SIGNALS)

    with Interruption():
        assert blocked()
    assert not blocked()


def test_outside_the_main_thread_it_hears_nothing_and_breaks_nothing():
    heard = []

    def run():
        with Interruption() as interruption:
            heard.append(interruption.heard)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]


def test_a_checkpoint_is_due_after_its_time():
    with Interruption() as interruption:
        slow, quick = Border(interruption, 1e9), Border(interruption, 0.0)
        assert slow.cross() == Decision()
        assert quick.cross() == quick.cross() == Decision(save=True)


def test_the_end_has_a_status_of_its_own():
    end = border.Stopped(5)
    assert end.step == 5 and end.code == REQUEUE
    assert REQUEUE not in (0, 1, 2) and REQUEUE < 128


# ---------------------------------------------------------------- checkpoints


class Place:
    """Batches of which nothing is known but where they are."""

    def __init__(self, state):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def test_saving_goes_on_behind_and_the_state_may_be_given_away(tmp_path):
    """When `save` is back the files are not there yet, and the arrays are needed no more."""
    state = {"a": jax.numpy.arange(4 << 20, dtype=np.float32), "b": jax.numpy.int32(3)}
    blank = jax.tree.map(jax.numpy.zeros_like, state)
    with checkpointing.manager(tmp_path / "kept") as manager:
        checkpointing.save(manager, 5, state, Place({"record": 40}))
        assert manager.is_saving_in_progress()
        state["a"].delete()
        checkpointing.save(manager, 5, blank, Place({"record": 0}))  # it is there already
        manager.wait_until_finished()
        assert manager.all_steps() == [5]
    place = Place(None)
    with checkpointing.manager(tmp_path / "kept") as manager:
        restored = checkpointing.restore(manager, blank, place, size=8)
    np.testing.assert_array_equal(restored["a"], np.arange(4 << 20))
    assert int(restored["b"]) == 3 and place.state == {"record": 40}


def test_without_a_checkpoint_all_stays(tmp_path):
    state, place = {"b": jax.numpy.int32(3)}, Place({"record": 7})
    with checkpointing.manager(tmp_path / "none") as manager:
        assert checkpointing.restore(manager, state, place, size=8) is state
    assert place.state == {"record": 7}


@pytest.mark.parametrize("old", [{"next_index": 31}, {"workers_state": {"0": {}}, "last": 0}])
def test_places_kept_by_grain_are_gone_on_from_by_the_step(tmp_path, old):
    state, place = {"b": jax.numpy.int32(3)}, Place(None)
    with checkpointing.manager(tmp_path / "old") as manager:
        checkpointing.save(manager, 6, state, Place(old))
        manager.wait_until_finished()
        checkpointing.restore(manager, state, place, size=8)
    assert place.state == {"record": 48}
