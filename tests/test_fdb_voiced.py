"""The generated Full-Duplex-Bench sets with real voices: the oracle's sound scores the maximum."""

import pytest

from interaction.eval.ears import FromText
from interaction.eval.records import Clock
from interaction.eval.runner import play
from interaction.eval.suite import Mode, Scoring
from interaction.eval.suites import SUITES, load_suite
from interaction.eval.systems.oracle import make_oracle
from tests.fdb_for_tests import ContainsJudge, assert_anchors


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fdb_v1", "fdb_v15", "fdb_v2", "fdb_v3"])
def test_the_voiced_oracle_scores_the_maximum(tmp_path, name):
    pytest.importorskip("espeakng_loader")
    suite = load_suite(name)
    suite.generate(tmp_path, size=2, seed=11)
    samples = suite.load(tmp_path)
    oracle = make_oracle(SUITES, voiced=True)
    runs = {sample.id: play(oracle, sample) for sample in samples}
    for mode in Mode:
        how = Scoring(FromText(), Clock.INSTANT, ContainsJudge(), mode)
        assert_anchors(suite.score(samples, runs, how), "oracle")
