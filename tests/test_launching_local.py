"""Several processes on this machine: told of each other, killed, and begun again.

In: the acting jobs of `tests/jobs_for_tests.py`. Out: their starts and the launcher's status.
"""

import pickle
import subprocess
import sys
import time

import pytest

from interaction.launching import local
from interaction.launching.status import REQUEUE
from tests.jobs_for_tests import acting_in


@pytest.fixture
def acting(tmp_path):
    """A job whose processes act; the starts that each of them noted."""
    return acting_in(tmp_path)


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
