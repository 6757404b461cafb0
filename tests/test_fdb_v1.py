"""Full-Duplex-Bench v1: thresholds on both sides, layouts, oracle and silence, two modes."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
import soundfile
from scipy.interpolate import interp1d
from scipy.spatial.distance import jensenshannon

from interaction.eval.records import Clock
from interaction.eval.suite import Hearing, Mode, Scoring
from interaction.eval.suites.fdb import layout, timing, v1_rules
from interaction.eval.suites.fdb.v1 import FullDuplexBenchV1
from interaction.eval.transcribed import Transcripts
from tests.fdb_for_tests import (
    ContainsJudge,
    TextEars,
    assert_anchors,
    figure,
    oracle_runs,
    run_of,
    say,
    scored_by,
    silent_runs,
    tree_of,
    words,
)

COMPAT, STRICT, INSTANT = Mode.COMPAT, Mode.STRICT, Clock.INSTANT
NAN = math.nan
SUITE = FullDuplexBenchV1()


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("spoken", "turn"),
    [
        ([], False),
        (words((0.0, 0.999)), False),
        (words((0.0, 1.0)), True),
        (words((0.0, 0.3), (0.3, 0.6), (0.6, 0.9)), False),
        (words((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8)), True),
        (words((0.0, 0.1), (5.0, 5.1)), True),
        (words((0.0, 0.3), (0.9, NAN)), False),
        (words((0.0, 0.3), (1.0, NAN)), True),
    ],
)
def test_a_turn_lasts_a_second_or_has_four_words(spoken, turn):
    assert timing.takes_turn(spoken) is turn


def test_an_answer_after_the_users_end_is_a_takeover_only_in_compat():
    answer = words((4.0, 5.5))
    assert v1_rules.pause(answer, 3.9, COMPAT) == v1_rules.Pause(True)
    assert v1_rules.pause(answer, 3.9, STRICT) == v1_rules.Pause(False, True)
    assert v1_rules.pause(answer, 4.1, STRICT) == v1_rules.Pause(True, False)


def test_talking_over_the_user_has_latency_0_in_compat_and_is_premature_in_strict():
    early = words((1.0, 3.0))
    compat = v1_rules.turn_taking(early, 2.0, COMPAT)
    assert (compat.takeover, compat.clipped, compat.unclipped) == (True, 0.0, -1.0)
    strict = v1_rules.turn_taking(early, 2.0, STRICT)
    assert (strict.takeover, strict.premature, strict.unclipped) == (False, True, -1.0)


def test_a_backchannel_before_the_end_is_no_turn_in_strict():
    spoken = words((1.0, 1.3), (2.5, 4.0))
    assert v1_rules.turn_taking(spoken, 2.0, COMPAT).clipped == 0.0
    strict = v1_rules.turn_taking(spoken, 2.0, STRICT)
    assert (strict.takeover, strict.premature, strict.unclipped) == (True, False, 0.5)
    assert v1_rules.turn_taking(words((2.0, 3.0)), 2.0, STRICT).unclipped == 0.0


def test_an_agent_that_never_stops_gets_no_takeover_in_strict():
    talk = [(t, t + 0.4) for t in np.arange(0.0, 10.0, 0.5)]
    compat = v1_rules.interruption(words(*[w for w in talk if w[0] >= 6]), [], (4.0, 6.0), COMPAT)
    assert (compat.takeover, compat.clipped) == (True, 0.0)
    strict = v1_rules.interruption(words(*talk), [(0.0, 9.9)], (4.0, 6.0), STRICT)
    assert (strict.takeover, strict.premature, strict.unclipped) == (False, True, None)


def test_interruption_needs_an_agent_that_speaks_and_counts_from_its_end():
    spoken = words((1.0, 2.0), (4.0, 4.2), (6.7, 8.0))
    result = v1_rules.interruption(spoken, [(1.0, 4.2), (6.7, 8.0)], (4.0, 6.0), STRICT)
    assert (result.takeover, result.premature, result.applicable) == (True, False, True)
    assert result.unclipped == pytest.approx(0.7)
    quiet = v1_rules.interruption(spoken, [(1.0, 2.0), (6.7, 8.0)], (4.0, 6.0), STRICT)
    assert not quiet.applicable


@pytest.mark.parametrize(
    ("speech", "spoken", "compat", "strict"),
    [
        # (stretches, words, (takeover, backchannels)) in each mode
        ([], [], (False, 0), (False, 0)),
        ([(1.0, 4.0)], words((1.0, 4.0)), (True, 1), (True, 0)),  # 3.0 s: no more than 3 s
        ([(1.0, 4.1)], words((1.0, 4.1)), (True, 0), (True, 0)),
        ([(1.0, 1.9)], words((1.0, 1.9)), (False, 1), (False, 1)),
        ([(1.0, 2.0)], words((1.0, 2.0)), (True, 1), (True, 0)),
        ([(1.0, 1.8)], words((1.0, 1.3), (1.3, 1.8)), (False, 1), (False, 1)),
        ([(1.0, 1.8)], words((1.0, 1.2), (1.3, 1.5), (1.5, 1.8)), (True, 1), (True, 0)),
        # the last short stretch decides in COMPAT, any turn in STRICT
        ([(1.0, 2.5), (4.0, 4.5)], words((1.0, 2.5), (4.0, 4.5)), (False, 2), (True, 1)),
        # a long stretch ends the reading in COMPAT
        ([(1.0, 1.5), (2.0, 6.0), (7.0, 7.5)], [], (True, 1), (True, 2)),
        # 0.96 s is 1.0 s once rounded to tenths, as the authors read it: 1.04..2.0 -> 1.0..2.0
        ([(1.04, 2.0)], words((1.04, 2.0)), (True, 1), (False, 1)),
    ],
)
def test_backchannel_thresholds(speech, spoken, compat, strict):
    people = np.ones(50) / 50
    for mode, (takeover, count) in ((COMPAT, compat), (STRICT, strict)):
        result = v1_rules.backchannels(speech, spoken, 10.0, people, mode)
        assert result.takeover is takeover, mode
        assert result.frequency == pytest.approx(count / 10)


def test_no_backchannel_is_distance_1_in_compat_and_the_maximum_in_strict():
    people = np.ones(50) / 50
    assert v1_rules.backchannels([], [], 10.0, people, COMPAT).distance == 1.0
    assert v1_rules.backchannels([], [], 10.0, people, STRICT).distance == math.sqrt(math.log(2))


def rederived(speech, spoken, seconds, people):
    """The authors' reading of a file, written down again step by step, with scipy."""
    decision, kept = 0, []
    for start, end in ((round(s, 1), round(e, 1)) for s, e in speech):
        if end - start > 3:
            decision = 1
            break
        inside = 0
        for word in spoken:
            a, b = word.start, word.end
            if math.isnan(b) and a < end:
                continue
            b = a if math.isnan(b) else b
            if (a >= start and b <= end) or (a <= end and b > end) or (a <= start and b > start):
                inside += 1
        decision = 0 if (end - start < 1 and inside <= 2) else 1
        kept.append((start, end))
    if not kept:
        return bool(decision), 0.0, 1.0
    bins = [0] * (int(seconds / 0.2) + 1)
    for start, end in kept:
        for place in range(int(start / 0.2), int(end / 0.2) + 1):
            if place < len(bins):
                bins[place] += 1
    ours = np.array(bins) + 1e-10
    ours = ours / ours.sum()
    stretch = interp1d(np.linspace(0, 1, len(people)), people, fill_value="extrapolate")
    theirs = stretch(np.linspace(0, 1, len(ours)))
    return bool(decision), len(kept) / seconds, float(jensenshannon(ours, theirs))


def drawn_sample(random):
    seconds = float(random.uniform(20, 40))
    edges = np.sort(random.uniform(0, seconds, 2 * int(random.integers(0, 9))))
    speech = [(a, min(b, a + random.exponential(1.2))) for a, b in edges.reshape(-1, 2).tolist()]
    spoken = []
    for start, end in speech:
        cuts = np.sort(random.uniform(start, end, int(random.integers(1, 5))))
        cuts = [start, *cuts, end + random.uniform(-0.1, 0.3)]
        spoken += words(*itertools.pairwise(cuts))
    if spoken and random.random() < 0.2:
        spoken[-1] = words((spoken[-1].start, NAN))[0]
    people = random.random(int(random.integers(115, 230))) + 1e-10
    return speech, spoken, seconds, people / people.sum()


def test_backchannels_agree_with_an_independent_derivation_in_scipy():
    random = np.random.default_rng(0)
    for _ in range(300):
        sample = drawn_sample(random)
        result = v1_rules.backchannels(*sample, COMPAT)
        takeover, frequency, distance = rederived(*sample)
        assert result.takeover is takeover
        assert result.frequency == frequency
        assert result.distance == pytest.approx(distance, abs=1e-12)


def test_a_broken_backchannel_rule_is_noticed(monkeypatch):
    monkeypatch.setattr(v1_rules, "SHORT_WORDS", 3)
    random = np.random.default_rng(0)
    samples = [drawn_sample(random) for _ in range(300)]
    wrong = [v1_rules.backchannels(*s, COMPAT).takeover != rederived(*s)[0] for s in samples]
    assert any(wrong)


# ---------------------------------------------------------------- the suite


tree = tree_of(SUITE, size=3, seed=5)
scored = functools.partial(scored_by, SUITE)


@pytest.mark.parametrize("mode", list(Mode))
def test_oracle_scores_the_maximum_and_silence_the_floor(tree, mode):
    suite = FullDuplexBenchV1()
    samples = suite.load(tree)
    assert len(samples) == len({s.id for s in samples}) == 12
    figures = scored(samples, oracle_runs(suite, samples), mode)
    assert_anchors(figures, "oracle")
    for name in ("turn_taking", "user_interruption"):
        late = figure(figures, name, "latency, clipped at 0 (s)").measured
        assert 0.05 <= late.value <= 0.25 and late.count == 3
    silence = scored(samples, silent_runs(samples), mode)
    assert_anchors(silence, "silent")
    assert math.isnan(figure(silence, "turn_taking", "latency, clipped at 0 (s)").measured.value)
    distance = "Jensen-Shannon distance to people"
    best, worst = figure(figures, "backchannel", distance), figure(silence, "backchannel", distance)
    assert best.measured.value < 0.6 < worst.measured.value


def test_always_answering_and_never_stopping_is_seen_in_strict_only(tree):
    samples = FullDuplexBenchV1().load(tree)
    talk = [say(0.5 * k, "blah") for k in range(60)]
    runs = {s.id: run_of(s, [e for e in talk if e.t < s.seconds]) for s in samples}
    compat, strict = scored(samples, runs, COMPAT), scored(samples, runs, STRICT)
    assert figure(compat, "turn_taking", "takeover rate").measured.value == 1.0
    assert figure(compat, "turn_taking", "latency, clipped at 0 (s)").measured.value == 0.0
    assert figure(compat, "user_interruption", "takeover rate").measured.value == 1.0
    assert figure(strict, "turn_taking", "takeover rate").measured.value == 0.0
    assert figure(strict, "turn_taking", "premature starts (rate)").measured.value == 1.0
    assert figure(strict, "turn_taking", "latency, unclipped (s)").measured.value < -1
    assert figure(strict, "user_interruption", "takeover rate").measured.value == 0.0
    assert figure(strict, "user_interruption", "talked on through it (rate)").measured.value == 1.0


def test_the_same_seed_gives_the_same_set(tree, tmp_path):
    again = tmp_path / "again"
    FullDuplexBenchV1().generate(again, size=3, seed=5)
    for path in again.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tree / path.relative_to(again)).read_bytes()


def test_a_written_tree_is_read_back_and_scores_the_same(tree):
    suite = FullDuplexBenchV1()
    samples = suite.load(tree)
    runs = oracle_runs(suite, samples)
    suite.write(tree, samples, runs, Hearing(TextEars(), INSTANT))
    for sample in samples:
        folder = tree / sample.scene / sample.truth["folder"]
        assert soundfile.info(folder / "output.wav").frames == len(sample.audio)
        content = json.loads((folder / "output.json").read_text())
        assert set(content) == {"text", "chunks"}
        assert all(set(chunk) == {"text", "timestamp"} for chunk in content["chunks"])
        if "interruption" in sample.scene:
            assert content["chunks"][0]["timestamp"][0] >= sample.truth["overlap"][1]
    ears = Transcripts(TextEars())
    read = suite.read(tree, samples, "somebody")
    direct = scored(samples, runs, COMPAT)
    recorded = suite.score(samples, read, Scoring(ears, INSTANT, ContainsJudge(), COMPAT))
    for ours, theirs in zip(direct, recorded, strict=True):
        if "backchannel" not in ours.scene:  # written without sound: no stretches of speech
            assert ours.measured.as_dict() == theirs.measured.as_dict(), ours.name


def test_an_official_tree_needs_only_its_own_files(tmp_path):
    place = tmp_path / "candor_turn_taking" / "7"
    layout.write_sound(place / "input.wav", np.zeros(16_000 * 6, np.float32))
    entry = {"text": "[TURN-TAKING]", "timestamp": [2.5, 2.9]}
    layout.write_json(place / "turn_taking.json", [entry])
    layout.write_sound(place / "output.wav", np.zeros(16_000 * 6, np.float32))
    chunks = [{"text": "so", "timestamp": [3.25, 3.5]}, {"text": "yes", "timestamp": [4.0, 4.5]}]
    layout.write_json(place / "output.json", {"text": "so yes", "chunks": chunks})
    suite = FullDuplexBenchV1()
    (sample,) = suite.load(tmp_path)
    ears = Transcripts(TextEars())
    runs = suite.read(tmp_path, [sample], "somebody")
    rows = suite.score([sample], runs, Scoring(ears, INSTANT, ContainsJudge(), COMPAT))
    assert figure(rows, "taking", "takeover rate").measured.value == 1.0
    assert figure(rows, "taking", "latency, clipped at 0 (s)").measured.value == 0.75
    assert suite.load(tmp_path / "candor_turn_taking")[0].truth["folder"] == "7"


@pytest.mark.parametrize(
    ("scene", "wanted"),
    [
        ("candor_pause_handling", "pause.json"),
        ("candor_turn_taking", "turn_taking.json"),
        ("icc_backchannel", "gt_distribution.json"),
        ("synthetic_user_interruption", "interrupt.json"),
    ],
)
def test_what_is_missing_is_named(tmp_path, scene, wanted):
    layout.write_sound(tmp_path / scene / "1" / "input.wav", np.zeros(1600, np.float32))
    with pytest.raises(ValueError, match=wanted):
        FullDuplexBenchV1().load(tmp_path)


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pause_handling"):
        FullDuplexBenchV1().load(tmp_path)
