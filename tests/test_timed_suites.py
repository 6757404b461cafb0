"""The timed suites end to end: real voices, the oracle's voice, its text timed on the sound."""

import pytest

from interaction.eval.ears import FromText
from interaction.eval.judges import ClosedAnswer
from interaction.eval.records import Clock, MicroTurnInput, Run
from interaction.eval.suite import Better, Mode, Scoring
from interaction.eval.suites import load_suite
from interaction.eval.systems.oracle import Oracle

NAMES = ("timespeak", "cuespeak", "repcount", "proactive_video_qa", "charades")


def voiced_run(oracle: Oracle, sample) -> Run:
    """The oracle's run of a sample, its text voiced."""
    conversation, events = oracle.converse(sample), []
    for micro_turn in range(sample.micro_turns):
        events += conversation.step(MicroTurnInput(micro_turn))
    conversation.close()
    return Run(sample.suite, sample.scene, sample.id, "oracle", sample.seconds, tuple(events))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_voiced_oracle_scores_the_maximum(name, tmp_path, monkeypatch):
    monkeypatch.delenv("INTERACTION_MEDIA", raising=False)
    suite = load_suite(name)
    assert suite.name == name
    suite.generate(tmp_path, size=3, seed=2)
    samples, oracle = suite.load(tmp_path), Oracle(load_suite, voiced=True)
    runs = {sample.id: voiced_run(oracle, sample) for sample in samples}
    for mode in Mode:
        how = Scoring(FromText(), Clock.INSTANT, ClosedAnswer(), mode)
        figures = suite.score(samples, runs, how)
        assert figures
        for figure in figures:
            if figure.better is Better.HIGHER:
                # Onsets are measured 10 ms at a time; COMPAT rounds a reply up to whole seconds.
                least = 85 if (name, mode) == ("proactive_video_qa", Mode.COMPAT) else 98
                assert figure.measured.value >= least, (mode, figure.name)
            elif figure.oracle is not None:
                assert figure.measured.value == pytest.approx(figure.oracle, abs=0.05), figure.name
