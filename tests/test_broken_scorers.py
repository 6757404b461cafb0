"""A scorer that is broken on purpose is noticed, in every suite.

In: the suites' names, the tests that break each. Out: that none is without such a test; and the
ones that have no better place.
"""

import pathlib

import pytest

from interaction.eval.records import Clock
from interaction.eval.suite import Mode, Scoring, Word
from interaction.eval.suites import SUITES
from interaction.eval.suites import small_world_rules as rules
from interaction.eval.suites.fdb import generate, v2_rules, world
from interaction.eval.suites.fdb.v2 import FullDuplexBenchV2
from tests.fdb_for_tests import (
    ContainsJudge,
    TextEars,
    assert_anchors,
    oracle_runs,
    silent_runs,
    tone,
)

HERE = pathlib.Path(__file__).parent
# Suite -> file and test in which its scorer is broken.
BROKEN = {
    "fdb_v1": "test_fdb_v1:test_a_broken_backchannel_rule_is_noticed",
    "fdb_v15": "test_fdb_v15:test_a_broken_merge_is_noticed",
    "fdb_v2": "test_broken_scorers:test_a_key_word_that_is_always_found_is_noticed",
    "fdb_v3": "test_fdb_v3:test_a_broken_pass_is_noticed",
    "timespeak": "test_timespeak:test_a_scorer_without_the_window_fails",
    "cuespeak": "test_cuespeak:test_a_scorer_that_ignores_meaning_fails",
    "repcount": "test_repcount:test_a_scorer_off_by_two_fails",
    "qivd": "test_qivd:test_broken_containment_is_noticed",
    "audio_multichallenge": "test_audio_multichallenge:test_a_broken_rubric_is_noticed",
    "bigbench_audio": "test_bigbench_audio:test_a_broken_rule_is_noticed",
    "proactive_video_qa": "test_proactive_video_qa:test_scorers_that_are_wrong_fail",
    "charades": "test_charades:test_a_scorer_that_forgets_the_union_fails",
    "harmbench": "test_harmbench:test_a_broken_matcher_is_noticed",
    "ifeval": "test_ifeval:test_a_broken_part_is_noticed",
    "ifeval_spoken": "test_ifeval:test_a_broken_part_is_noticed",  # the same checkers
    "small_world": "test_broken_scorers:test_a_window_that_is_forgotten_is_noticed",
}


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_a_test_that_breaks_its_scorer(suite):
    file, name = BROKEN[suite].split(":")
    assert f"\ndef {name}(" in (HERE / f"{file}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_key_word_that_is_always_found_is_noticed(tmp_path, monkeypatch, mode):
    """Full-Duplex-Bench v2: silence would follow every instruction."""
    monkeypatch.setattr(generate.voices, "say", tone)
    suite = FullDuplexBenchV2()
    suite.generate(tmp_path, size=1, seed=6)
    samples = suite.load(tmp_path)

    def scored(runs):
        how = Scoring(TextEars(), Clock.INSTANT, ContainsJudge(), mode)
        return suite.score(samples, runs, how)

    silent = silent_runs(samples)
    assert_anchors(scored(silent), "silent")
    with monkeypatch.context() as patch:
        patch.setattr(world, "says", lambda answer, key: True)
        with pytest.raises(AssertionError, match="instruction following"):
            assert_anchors(scored(silent), "silent")
    with monkeypatch.context() as patch:
        patch.setattr(v2_rules, "reply_score", lambda latency: 1)
        with pytest.raises(AssertionError, match="turn-taking"):
            assert_anchors(scored(oracle_runs(suite, samples)), "oracle")


def test_a_window_that_is_forgotten_is_noticed(monkeypatch):
    """The small world: a word a second late would be in time."""
    moment = {"name": "in seconds", "start": 4.0, "end": 4.0, "detail": "now"}
    truth, late = {"due": [], "moments": [moment]}, [Word("now", 5.0, 5.3)]

    def held():
        assert rules.timed(truth, late, [], [])["TimeSpeak"] == 0.0

    held()
    monkeypatch.setattr(rules, "WINDOW", 2.0)
    with pytest.raises(AssertionError):
        held()
