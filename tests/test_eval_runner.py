"""Evaluations: what is kept, what is not made again, what goes on after a break.

In: a toy suite, systems that break where they are told. Out: runs that are there once and figures
that are what the anchors must give.
"""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
import time

import pytest

import launch
from interaction.eval import choose
from interaction.eval.evaluate import Evaluation, evaluate
from interaction.eval.figure_files import figure_from_dict, figure_to_dict
from interaction.eval.impairment import Impairment
from interaction.eval.intervals import Measured
from interaction.eval.records import Clock
from interaction.eval.runner import Spec
from interaction.eval.suite import Better, Figure, Mode
from interaction.eval.suites import SUITES, load_suite, suite_names
from interaction.eval.worker import Players, SampleError
from tests.scripted_system import Scripted, text
from tests.toy_suite import PLACE, Toy

# ---------------------------------------------------------------- evaluations


def toy_samples(tmp_path, size=4):
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    Toy().generate(folder, size=size, seed=0)
    return Toy().load(folder)


class Counted:
    """Echoes, breaks where a file says so, and writes down every sample it plays."""

    name = "counted"

    def __init__(self, log, break_on="", slow=0.0):
        self.log, self.break_on, self.slow = pathlib.Path(log), break_on, slow

    def converse(self, sample):
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {sample.id}\n")
        if sample.id == self.break_on and not self.log.with_name("mended").exists():
            raise RuntimeError("out of order")
        time.sleep(self.slow)
        return Scripted({0: [text(0.2, sample.id)]})


def counted(tmp_path, **options):
    place = "tests.test_eval_runner:Counted"
    return Spec("counted", place, {"log": str(tmp_path / "log")} | options)


def log(tmp_path):
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def test_a_broken_system_names_the_sample_and_the_next_time_goes_on(tmp_path):
    samples = toy_samples(tmp_path)
    broken = pytest.raises(SampleError, match="counted on sample n/2 of toy: out of order")
    with Players(processes=1) as players, broken:
        players.run(counted(tmp_path, break_on="n/2"), samples, tmp_path / "runs")
    finished = []
    (tmp_path / "mended").touch()
    mended = counted(tmp_path, break_on="n/2")
    with Players(processes=1) as players:
        runs = players.run(
            mended, samples, tmp_path / "runs", finished=lambda s: finished.append(s.id)
        )
    assert [name for _, name in log(tmp_path)] == ["n/0", "n/1", "n/2", "n/2", "n/3"]
    assert sorted(finished) == sorted(runs) == ["n/0", "n/1", "n/2", "n/3"]
    assert runs["n/3"].text() == "n/3"
    with pytest.raises(ValueError, match="5 samples have 4 ids"), Players(processes=1) as players:
        players.run(mended, [*samples, samples[0]], tmp_path / "runs")


def test_a_sample_that_changed_is_played_again(tmp_path):
    samples = toy_samples(tmp_path)
    with Players(processes=1) as players:
        players.run(counted(tmp_path), samples, tmp_path / "runs")
        samples[1] = dataclasses.replace(samples[1], truth={"word": "other", "at": 0.7})
        players.run(counted(tmp_path), samples, tmp_path / "runs")
    assert [name for _, name in log(tmp_path)] == ["n/0", "n/1", "n/2", "n/3", "n/1"]


def evaluation(tmp_path, wanted="silent,oracle", **changes):
    given = choose.Given(suites={"toy": PLACE})
    values = {
        "suites": {"toy": PLACE},
        "systems": choose.systems(wanted, given),
        "out": tmp_path / "out",
        "processes": 1,
        "size": 3,
    }
    return Evaluation(**values | changes)


def test_the_anchors_score_what_they_must_and_nothing_is_done_twice(tmp_path, monkeypatch):
    outcomes = {o.system: o for o in evaluate(evaluation(tmp_path))}
    assert len(outcomes["oracle"].figures) == 4  # two modes, two clocks
    for name, wanted in (("oracle", 1.0), ("silent", 0.0)):
        assert {f.measured.value for f in outcomes[name].figures} == {wanted}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("data", "runs", "scores", "report.json", "report.html", "report_samples")
    }
    made = (tmp_path / "out" / "runs" / "oracle" / "toy" / "n%2F0" / "run.json").stat().st_mtime_ns
    monkeypatch.setattr(Toy, "score", None)  # a score that still holds is read
    again = {o.system: o for o in evaluate(evaluation(tmp_path))}
    assert [f.measured for f in again["oracle"].figures] == [
        f.measured for f in outcomes["oracle"].figures
    ]
    file = tmp_path / "out" / "runs" / "oracle" / "toy" / "n%2F0" / "run.json"
    assert file.stat().st_mtime_ns == made


def test_a_broken_scorer_would_be_noticed(tmp_path, monkeypatch):
    """The anchors' assertion above is no tautology."""
    score = Toy.score

    def backwards(self, samples, runs, how):
        return score(self, samples, {s.id: runs[samples[0].id] for s in samples}, how)

    monkeypatch.setattr(Toy, "score", backwards)
    (oracle,) = evaluate(evaluation(tmp_path, "oracle"))
    assert oracle.figures[0].measured.value < 1.0


def test_another_network_gets_runs_of_its_own(tmp_path):
    evaluate(
        evaluation(tmp_path, "silent", impairments=[Impairment(), Impairment(loss=0.5, delay=1)])
    )
    names = sorted(p.name for p in (tmp_path / "out" / "runs").iterdir())
    assert names == ["silent", "silent [loss=0.5,delay=1]"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [system["name"] for system in report["systems"]] == names


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 0}, "size=0"),
        ({"processes": 0}, "processes=0"),
        ({"systems": []}, "systems is empty"),
        ({"impairments": [Impairment(), Impairment()]}, "one is there twice"),
        ({"systems": choose.systems("silent,silent", choose.Given())}, "a name is there twice"),
    ],
)
def test_an_evaluation_checks_itself(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluation(tmp_path, **changes)


def test_figures_come_back_from_json():
    figure = Figure(
        scene="s",
        name="n",
        measured=Measured(float("nan"), 0.0, 1.0, 0.0),
        mode=Mode.STRICT,
        clock=Clock.MEASURED,
        better=Better.LOWER,
        samples={"a": 1.0, "b": float("nan")},
    )
    found = figure_from_dict(json.loads(json.dumps(figure_to_dict(figure))))
    assert str(found) == str(figure)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", list(SUITES))
def test_every_suite_is_there_under_its_own_name(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.source.title
    assert callable(suite.score)


def test_names_of_suites():
    assert suite_names("all") == list(SUITES)
    with pytest.raises(ValueError, match="suite 'nothing' is none of fdb_v1"):
        suite_names("fdb_v1,nothing")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: choose.systems("wrong", choose.Given()), "system 'wrong' is none of silent"),
        (lambda: choose.systems("model", choose.Given()), "needs --checkpoint"),
        (
            lambda: choose.systems("model", choose.Given(checkpoint="/no/where")),
            "there is no such folder",
        ),
        (lambda: choose.ears("big"), "ears 'big' is none of listen, text"),
        (lambda: choose.judge("me"), "judge 'me' is none of closed"),
    ],
)
def test_what_is_not_there_is_told(call, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        call()


def test_names_make_specifications(tmp_path):
    found = choose.systems(f"silent, echo,recorded:{tmp_path},remote:ws://host:9/x", choose.Given())
    assert [spec.name for spec in found] == ["silent", "echo", tmp_path.name, "host_9"]
    assert choose.systems("live:ws://h/x", choose.Given())[0].options["tempo"] == "live"
    judge = choose.judge("endpoint:gpt@https://host/v1").build()
    assert judge.name == "gpt at host"
    assert choose.modes("both") == (Mode.COMPAT, Mode.STRICT)
    assert choose.modes("compat") == (Mode.COMPAT,)


def test_the_command_says_what_is_wrong_in_one_line(capsys):
    assert launch.main(["eval", "--suite", "nothing", "--system", "silent"]) == 1
    assert capsys.readouterr().err.startswith("error: suite 'nothing' is none of")


def test_every_data_set_says_its_licence_its_size_and_how_to_get_it(capsys):
    with pytest.raises(SystemExit) as ended:
        launch.main(["eval", "--list"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    page = (pathlib.Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    for name in SUITES:
        source = load_suite(name).source
        assert f"{name}: {source.title}\n" in told
        for field in dataclasses.fields(source):
            assert getattr(source, field.name) in told
        assert f"| `{name}` | {source.title} | {source.licence} | {source.size} |" in page


def test_data_that_is_not_there_is_told_with_where_to_get_it(capsys, tmp_path):
    given = ["eval", "--suite", "repcount", "--system", "silent", "--data", str(tmp_path / "no")]
    assert launch.main([*given, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "is no folder. RepCount-A (1,041 videos" in told
    assert "licence: annotation Apache-2.0" in told


# ---------------------------------------------------------------- processes


def evaluate_slowly(folder: str) -> None:
    root = pathlib.Path(folder)
    with Players(processes=2) as players:
        players.run(counted(root, slow=0.3), toy_samples(root, 12), root / "runs")


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_and_leaves_no_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=evaluate_slowly, args=(str(tmp_path),))
    first.start()
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*/run.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    workers = {int(pid) for pid, _ in log(tmp_path)}
    assert workers
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = {p.parent.name for p in tmp_path.glob("runs/*/run.json")}
    before = len(log(tmp_path))
    assert 3 <= len(kept) < 12
    with Players(processes=1) as players:
        runs = players.run(
            counted(tmp_path, slow=0.3), toy_samples(tmp_path, 12), tmp_path / "runs"
        )
    assert len(runs) == 12
    assert len(log(tmp_path)) - before == 12 - len(kept)


def _alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_checkpoint_that_was_trained_on_is_another_system(tmp_path):
    (tmp_path / "params").write_bytes(b"old")
    spec = Spec("model", "a:b", {"checkpoint": str(tmp_path)})
    before = spec.fingerprint()
    assert spec.fingerprint() == before
    (tmp_path / "params").write_bytes(b"newer")
    assert spec.fingerprint() != before
    assert Spec("model", "a:c", {"checkpoint": str(tmp_path)}).fingerprint() != spec.fingerprint()
