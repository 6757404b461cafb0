"""The generated Full-Duplex-Bench sets with real voices: the oracle's sound scores the maximum."""

import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest

from interaction.data import voices
from interaction.eval import choose
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


@pytest.mark.parametrize("name", ["fdb_v1", "fdb_v15", "fdb_v2", "fdb_v3"])
def test_other_engines_speak_the_same_dialogues(tmp_path, name):
    """No silence, no clipping, other sounds than espeak-ng's; the same seed, the same sound."""
    if shutil.which("flite") is None:
        pytest.skip("needs the program flite")
    suite: Any = dataclasses.replace(load_suite(name), speakers=("flite",))
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        suite.generate(folder, size=1, seed=11)
        found.append([sample.audio for sample in suite.load(folder)])
    for sound, again in zip(*found, strict=True):
        assert np.array_equal(sound, again)
        assert np.sqrt(np.mean(sound**2)) > 0.01 and np.abs(sound).max() < 1.5
    scenes = [sample.scene for sample in suite.load(tmp_path / "one")]
    pytest.importorskip("espeakng_loader")
    load_suite(name).generate(tmp_path / "espeak", size=1, seed=11)
    others = load_suite(name).load(tmp_path / "espeak")
    assert scenes == [sample.scene for sample in others]
    for sound, other in zip(found[0], others, strict=True):
        assert not np.array_equal(sound, other.audio)


def test_voices_that_are_not_there_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"'festival' is none of espeak, piper, flite"):
        choose.voices("espeak,festival")
    with pytest.raises(ValueError, match=r"name='kal' is none of slt, rms"):
        voices.FliteVoice("kal")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ImportError, match=r"flite.*apt-get install flite"):
        voices.flite("Hello.", voices.FliteVoice("slt"))
