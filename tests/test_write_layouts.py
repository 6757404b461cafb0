"""Runs in the authors' layouts: what the command writes is what they and we read.

In: a generated set of Full-Duplex-Bench v1 in a steady tone, and runs of the oracle and of silence.
Out: trees that hold data and runs, score the same, and are never written over.
"""

import pathlib

import pytest

from interaction.eval import choose
from interaction.eval.evaluate import Evaluation, evaluate
from interaction.eval.records import Clock
from interaction.eval.suite import Mode, Scoring
from interaction.eval.suites.fdb import generate
from interaction.eval.transcribed import Transcripts
from interaction.eval.write_layouts import write_layouts
from tests.fdb_for_tests import ContainsJudge, TextEars, tone
from tests.toy_suite import PLACE

SUITES = {"fdb_v1": "interaction.eval.suites.fdb.v1:FullDuplexBenchV1", "toy": PLACE}


def evaluation(out: pathlib.Path, wanted: str, names=("fdb_v1", "toy")) -> Evaluation:
    suites = {name: SUITES[name] for name in names}
    return Evaluation(
        suites=suites,
        systems=choose.systems(wanted, choose.Given(suites=suites)),
        out=out,
        size=1,
        modes=(Mode.COMPAT,),
        processes=1,
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(generate.voices, "say", tone)
    made = evaluation(tmp_path / "out", "silent,oracle")
    return made, evaluate(made)


def test_the_authors_files_lie_beside_their_data_and_score_the_same(made, tmp_path):
    evaluation_, outcomes = made
    trees = write_layouts(evaluation_, outcomes, tmp_path / "trees")
    assert trees == [tmp_path / "trees" / name / "fdb_v1" for name in ("silent", "oracle")]
    for tree in trees:
        for scene in generate.V1_SCENES:
            held = {path.name for path in (tree / scene / "1").iterdir()}
            assert {"input.wav", "output.wav", "output.json"} <= held
    (outcome,) = [o for o in outcomes if (o.system, o.part.name) == ("oracle", "fdb_v1")]
    suite = outcome.part.suite
    samples = suite.load(trees[1])
    runs = suite.read(trees[1], samples, "oracle")
    ears = Transcripts(TextEars())
    how = Scoring(ears, Clock.MEASURED, ContainsJudge(), Mode.COMPAT)
    again = {(f.scene, f.name): f for f in suite.score(samples, runs, how)}
    taken = [f for f in outcome.figures if f.clock is Clock.MEASURED and "takeover" in f.name]
    assert len(taken) == 4
    for figure in taken:
        if "backchannel" not in figure.scene:  # that one goes by sound, the others by transcripts
            assert again[figure.scene, figure.name].measured.value == figure.measured.value
    with pytest.raises(ValueError, match="is there already"):
        write_layouts(evaluation_, outcomes, tmp_path / "trees")


def test_a_suite_without_such_files_is_told(tmp_path):
    made = evaluation(tmp_path / "out", "silent", names=("toy",))
    with pytest.raises(ValueError, match="no layout for runs in toy"):
        write_layouts(made, evaluate(made), tmp_path / "trees")
