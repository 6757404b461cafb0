"""Full-Duplex-Bench v1.5: merges and latencies on both sides of their limits, behaviours, pairs."""

import functools
import json
import math

import numpy as np
import pytest

from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run
from interaction.eval.suite import Hearing, Mode, Scoring
from interaction.eval.suites.fdb import layout, timing
from interaction.eval.suites.fdb.v15 import FullDuplexBenchV15
from interaction.eval.suites.fdb.v15_rules import (
    Behaviour,
    Overlap,
    at_overlap,
    behaviour_question,
    judged_words,
    latencies,
    told_by_key_words,
    wanted,
)
from interaction.eval.systems.recorded import Recorded
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
SUITE = FullDuplexBenchV15()


# ---------------------------------------------------------------- speech as theirs


def test_speech_is_cut_as_silero_does_by_default():
    """Not longer than 250 ms is left out; 30 ms around, shared where two are near."""
    cut = lambda *stretches: timing.as_silero_cuts(stretches, 10.0)
    assert cut((1.0, 1.25)) == [] and cut() == []
    assert cut((1.0, 1.26)) == [pytest.approx((0.97, 1.29))]
    assert cut((0.01, 1.0), (1.04, 9.99)) == [
        pytest.approx((0.0, 1.02)), pytest.approx((1.02, 10.0)),
    ]  # fmt: skip
    assert cut((1.0, 2.0), (2.02, 2.2), (2.5, 3.0)) == [
        pytest.approx((0.97, 2.03)), pytest.approx((2.47, 3.03)),
    ]  # fmt: skip


@pytest.mark.parametrize("silero", [True, False])
def test_only_what_silero_found_is_cut(tree, silero):
    """A sound of 240 ms is speech to other ears, and none to the authors' code."""
    ears = TextEars()
    ears.is_silero = silero
    ears.speech = lambda run, clock: [(1.0, 1.24), (3.0, 4.0)]
    run = Run("fdb_v15", "scene", "1", "test", 9.0, ())
    found = layout.official_speech(run, Hearing(ears, INSTANT))
    assert found == ([pytest.approx((2.97, 4.03))] if silero else [(1.0, 1.24), (3.0, 4.0)])


@pytest.mark.parametrize(
    ("stretches", "gap", "wanted_stretches"),
    [
        ([], 0.5, []),
        ([(0.0, 1.0), (1.5, 2.0)], 0.5, [(0.0, 2.0)]),
        ([(0.0, 1.0), (1.501, 2.0)], 0.5, [(0.0, 1.0), (1.501, 2.0)]),
        ([(2.0, 3.0), (0.0, 1.5)], 0.5, [(0.0, 3.0)]),
        ([(0.0, 3.0), (1.0, 2.0)], 0.5, [(0.0, 3.0)]),
        ([(0.0, 1.0), (1.59, 2.0)], 0.6, [(0.0, 2.0)]),
        ([(0.0, 1.0), (1.61, 2.0)], 0.6, [(0.0, 1.0), (1.61, 2.0)]),
    ],
)
def test_merging_joins_up_to_and_with_the_gap(stretches, gap, wanted_stretches):
    assert timing.merged(stretches, gap) == wanted_stretches


def test_the_user_is_merged_at_0_6_and_the_model_at_0_5_seconds():
    pieces = [(0.0, 1.0), (1.55, 3.0)]
    assert latencies(pieces, [(2.0, 5.0)]).stop == [(2.0, 3.0)]
    assert latencies([(0.0, 5.0)], pieces).stop == [(0.0, 1.0), (1.55, 3.0)]
    assert latencies(pieces, [(3.5, 5.0)]).response == [(3.0, 3.5)]


def test_response_starts_strictly_after_and_the_latest_user_end_is_kept():
    assert latencies([(0.0, 1.0)], [(1.0, 2.0)]).response == []
    assert latencies([(0.0, 1.0)], [(1.001, 2.0)]).response == [(1.0, 1.001)]
    assert latencies([(0.0, 1.0), (2.0, 3.0)], [(3.5, 4.0)]).response == [(3.0, 3.5)]
    assert latencies([(0.0, 1.0)], []).response == []


def test_overlaps_that_touch_are_none_and_the_shortest_per_end_is_kept():
    assert latencies([(0.0, 1.0)], [(1.0, 2.0)]).stop == []
    assert timing.overlaps([(0.0, 2.0)], [(0.5, 1.9996), (1.0, 2.0)]) == [(1.0, 2.0)]


def rederived(user, model):
    """Overlaps and gaps by looking at every pair, as lists written down another way."""

    def joined(stretches, gap):
        stretches = sorted(stretches)
        while True:
            for k in range(len(stretches) - 1):
                (a, b), (c, d) = stretches[k], stretches[k + 1]
                if c - b <= gap:
                    stretches[k : k + 2] = [(a, max(b, d))]
                    break
            else:
                return stretches

    user, model = joined(user, 0.6), joined(model, 0.5)
    both = [(max(a, c), min(b, d)) for a, b in user for c, d in model if max(a, c) < min(b, d)]
    stop = {}
    for start, end in sorted(both, key=lambda x: x[1] - x[0], reverse=True):
        stop[round(end * 1000)] = (round(start, 3), round(end, 3))
    response = {}
    for _, end in user:
        later = [start for start, _ in model if start > end]
        if later:
            response[round(min(later) * 1000)] = (round(end, 3), round(min(later), 3))
    return (
        sorted(stop.values(), key=lambda x: x[1]),
        sorted(response.values(), key=lambda x: x[1]),
    )


def drawn(random):
    edges = np.sort(random.uniform(0, 20, 2 * int(random.integers(0, 8)))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_latencies_agree_with_an_independent_derivation():
    random = np.random.default_rng(1)
    for _ in range(400):
        user, model = drawn(random), drawn(random)
        got = latencies(user, model)
        assert (got.stop, got.response) == rederived(user, model)


def test_a_broken_merge_is_noticed(monkeypatch):
    monkeypatch.setattr("interaction.eval.suites.fdb.v15_rules.USER_MERGE_GAP", 0.3)
    random = np.random.default_rng(1)
    pairs = [(drawn(random), drawn(random)) for _ in range(400)]
    assert any(latencies(*pair).stop != rederived(*pair)[0] for pair in pairs)


@pytest.mark.parametrize(
    ("model", "wanted_overlap"),
    [
        ([], Overlap(False)),
        ([(0.0, 4.0)], Overlap(False)),  # stopped as the overlap began: it was not speaking
        ([(0.0, 4.001)], Overlap(True, 0.001, True)),
        ([(4.0, 4.5)], Overlap(True, 0.5, True)),
        ([(0.0, 6.0)], Overlap(True, 2.0, True)),
        ([(0.0, 9.0)], Overlap(True, 5.0, False)),  # the authors' stop latency would be 2 s
        ([(0.0, 3.8), (4.3, 4.6), (7.0, 8.0)], Overlap(True, 0.6, True, 1.0)),
        ([(6.5, 8.0)], Overlap(False, response=0.5)),
    ],
)
def test_at_the_overlap(model, wanted_overlap):
    got = at_overlap(model, (4.0, 6.0))
    assert (got.applicable, got.stopped) == (wanted_overlap.applicable, wanted_overlap.stopped)
    for ours, theirs in ((got.stop, wanted_overlap.stop), (got.response, wanted_overlap.response)):
        assert ours == (None if theirs is None else pytest.approx(theirs))


def test_the_judged_words_are_the_first_new_stretch_or_the_rest_of_talk_that_ran_on():
    starts = lambda found: [word.start for word in found]
    spoken = words((1.0, 1.5), (4.1, 4.3), (6.5, 7.0), (7.2, 7.5), (9.0, 9.5))
    assert starts(judged_words(spoken, (4.2, 6.0))) == [6.5, 7.2]
    ran_on = words(*[(t, t + 0.4) for t in (3.0, 3.5, 4.0, 4.5, 5.0)])
    assert starts(judged_words(ran_on, (3.2, 4.2))) == [4.5, 5.0]
    assert judged_words(words((1.0, 2.0)), (4.0, 5.0)) == []


@pytest.mark.parametrize(
    ("answer", "behaviour"),
    [
        ("The answer is green.", Behaviour.RESPOND),
        ("seven. green", Behaviour.RESPOND),
        ("seven, eight", Behaviour.RESUME),
        ("Sorry, seven what?", Behaviour.UNCERTAIN),
        ("Could you repeat that", Behaviour.UNCERTAIN),
        ("seventy", Behaviour.UNKNOWN),
        ("evergreen", Behaviour.UNKNOWN),
        ("7 8", Behaviour.RESUME),
        ("", Behaviour.UNKNOWN),
    ],
)
def test_behaviours_by_key_words(answer, behaviour):
    got = told_by_key_words(answer, ["green"], ["seven", "eight"])
    assert got is behaviour


def test_a_judge_sees_all_four_transcripts_and_the_right_class_first():
    empty = {"text": "", "chunks": []}
    for scene, first in (("user_interruption", "C_RESPOND"), ("background_speech", "C_RESUME")):
        question = behaviour_question([empty] * 4, "", (1.0, 2.0), scene)
        assert question.choices[0] == first == wanted(scene).value
        assert set(question.choices) == {behaviour.value for behaviour in Behaviour}
        for key in ("input_clean", "input_noisy", "output_clean", "output_noisy"):
            assert key in question.prompt


# ---------------------------------------------------------------- the suite


tree = tree_of(SUITE, size=2, seed=3)
scored = functools.partial(scored_by, SUITE)


@pytest.mark.parametrize("mode", list(Mode))
def test_oracle_scores_the_maximum_and_silence_the_floor(tree, mode):
    samples = SUITE.load(tree)
    assert len(samples) == len({s.id for s in samples}) == 16
    assert_anchors(scored(samples, oracle_runs(SUITE, samples), mode), "oracle")
    silence = scored(samples, silent_runs(samples), mode)
    assert_anchors(silence, "silent")
    if mode is STRICT:
        average = figure(silence, "all", "right behaviour, mean of scenes (%)")
        assert math.isnan(average.measured.value)


def test_stop_and_response_latencies_of_the_oracle_are_short(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    strict = scored(samples, runs, STRICT)
    name = "stop latency from the overlap's start (s)"
    assert figure(strict, "user_interruption", name).measured.value <= 0.6
    name = "response latency from the overlap's end (s)"
    assert 0 < figure(strict, "user_interruption", name).measured.value <= 0.25
    compat = scored(samples, runs, COMPAT)
    stop = figure(compat, "user_interruption", "stop latency (s)").measured
    response = figure(compat, "user_interruption", "response latency (s)").measured
    assert 0 < stop.value <= 0.6
    assert response.count == 4  # both the first answer and the one after the overlap


def test_always_counting_on_is_right_but_for_the_interruption(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    for sample in samples:
        if "interruption" in sample.scene and not sample.truth["clean"]:
            events = runs[f"{sample.id}/clean"].events
            runs[sample.id] = run_of(sample, events)
    strict = scored(samples, runs, STRICT)
    assert figure(strict, "interruption", "C_RESUME (share)").measured.value == 1.0
    stopped = figure(strict, "interruption", "stopped within the overlap (rate)")
    assert stopped.measured.value == 0.0
    assert figure(strict, "all", "right behaviour, mean of scenes (%)").measured.value == 75.0


def test_a_sample_in_which_the_agent_was_silent_is_not_applicable_in_strict(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    quiet = next(s for s in samples if "user_interruption" in s.scene and not s.truth["clean"])
    end = quiet.truth["overlap"][1]
    runs[quiet.id] = run_of(quiet, [say(end + 0.4, quiet.truth["answer"])])
    strict = scored(samples, runs, STRICT)
    assert figure(strict, "interruption", "C_RESPOND (share)").measured.count == 1
    name = "not applicable: not speaking then (rate)"
    assert figure(strict, "interruption", name).measured.value == 0.5
    assert figure(scored(samples, runs, COMPAT), "interruption", "C_RESPOND (share)").measured == (
        figure(
            scored(samples, oracle_runs(SUITE, samples), COMPAT),
            "interruption",
            "C_RESPOND (share)",
        ).measured
    )


def test_shares_are_rounded_to_two_decimals_in_compat_only(tree):
    samples = [s for s in SUITE.load(tree) if "backchannel" in s.scene]
    extra = []
    for sample in samples:  # a third recording: shares of a third
        if sample.id.startswith("generated_user_backchannel/1"):
            name = sample.id.replace("/1", "/3")
            extra.append(type(sample)(**{**vars(sample), "id": name}))
    samples = [*samples, *extra]
    runs = oracle_runs(SUITE, samples)
    first = next(s for s in samples if s.id.endswith("/2"))
    start = first.truth["overlap"][0]
    kept = [event for event in runs[first.id].events if event.t < start + 0.35]
    runs[first.id] = run_of(first, kept)
    resume = lambda mode: figure(scored(samples, runs, mode), "backchannel", "C_RESUME (share)")
    assert resume(COMPAT).measured.value == 0.67
    assert resume(STRICT).measured.value == pytest.approx(2 / 3)


def test_a_written_tree_has_the_authors_files_and_scores_the_same(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    for sample in samples:  # sound where words are, so that the tree holds the same stretches
        sound = [
            OutputEvent(s, Kind.AUDIO, np.full(round((e - s) * SAMPLE_RATE), 0.2, np.float32))
            for s, e in TextEars().speech(runs[sample.id], INSTANT)
        ]
        runs[sample.id] = run_of(sample, [*runs[sample.id].events, *sound])
    SUITE.write(tree, samples, runs, Hearing(TextEars(), INSTANT))
    folder = tree / "generated_user_interruption" / "1"
    names = {path.name for path in folder.iterdir()}
    wavs = {"input.wav", "clean_input.wav", "output.wav", "clean_output.wav"}
    texts = {name.replace(".wav", ".json") for name in wavs}
    assert names == wavs | texts | {"metadata.json", "latency_intervals.json"}
    intervals = json.loads((folder / "latency_intervals.json").read_text())
    assert set(intervals) == {"latency_stop_list", "latency_resp_list"}
    assert all(len(pair) == 2 for pair in intervals["latency_stop_list"])
    ears = Transcripts(TextEars())
    read = SUITE.read(tree, samples, "somebody")
    recorded = Recorded(str(tree))
    for sample in samples:  # as `--system recorded:FOLDER` finds them
        heard = recorded.recall(sample).waveform()
        np.testing.assert_allclose(heard, read[sample.id].waveform(), atol=1e-4)
    for mode in Mode:
        direct = scored(samples, runs, mode)
        again = SUITE.score(samples, read, Scoring(ears, INSTANT, ContainsJudge(), mode))
        for ours, theirs in zip(direct, again, strict=True):
            assert ours.measured.value == pytest.approx(theirs.measured.value, abs=1e-3), ours.name
            assert ours.measured.count == theirs.measured.count


def test_without_key_words_the_judge_that_is_given_tells_behaviours(tree):
    for path in tree.rglob("metadata.json"):
        entry = json.loads(path.read_text())
        layout.write_json(path, {k: v for k, v in entry.items() if k not in ("key", "answer")})
    samples = SUITE.load(tree)
    judge = ContainsJudge()
    rows = scored(samples, silent_runs(samples), COMPAT, judge)
    assert len(judge.seen) == 8
    assert {question.task for question in judge.seen} == {"behaviour"}
    assert figure(rows, "background_speech", "C_RESUME (share)").judge == "contains"


@pytest.mark.parametrize("missing", ["metadata.json", "clean_input.wav"])
def test_what_is_missing_is_named(tree, missing):
    (tree / "generated_background_speech" / "2" / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        SUITE.load(tree)
