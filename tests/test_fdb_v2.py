"""Full-Duplex-Bench v2: what judges write, their sums, the scripted conversations."""

import functools
import json

import pytest

from interaction.eval.records import Clock
from interaction.eval.suite import Hearing, Mode
from interaction.eval.suites.fdb import layout, v2_rules
from interaction.eval.suites.fdb.v2 import FullDuplexBenchV2, score_results
from interaction.eval.suites.fdb.v2_rules import EVENTS, TASK, parse_judgement
from tests.fdb_for_tests import (
    TextEars,
    assert_anchors,
    figure,
    oracle_runs,
    run_of,
    say,
    scored_by,
    silent_runs,
    tone,
    tree_of,
)

COMPAT, STRICT, INSTANT = Mode.COMPAT, Mode.STRICT, Clock.INSTANT
SUITE = FullDuplexBenchV2()
ONE = [[[1.2, 3.4], 4, 5]]


@pytest.mark.parametrize(
    ("reply", "events", "task"),
    [
        ('{"Turn-taking event and score": [[[1.2, 3.4], 4, 5]], "Task-specific score": 3}', ONE, 3),
        ('Here:\n```json\n{"Turn-taking event and score": [[[1.2, 3.4], 4, 5]]}\n```', ONE, None),
        ('{"Turn-taking event and score": [[{1.2, 3.4}, 4, 5]]}', ONE, None),
        ('{"Turn-taking event and score": [[{"start": 1.2, "end": 3.4}, "4", 5.9]]}', ONE, None),
        ('{"Turn-taking event and score": [[{"end": 3.4, "start": 1.2}, 4, 5]]}', ONE, None),
        (
            '{"Turn-taking event and score": [[["0:01.2", "1:03.5"], null, 5]]}',
            [[[1.2, 63.5], None, 5]],
            None,
        ),
        (
            '{"Turn-taking event and score": [[[1, 2], [3, 4], 4, 5]]}',
            [[[1.0, 2.0], 4, 5], [[3.0, 4.0], 4, 5]],
            None,
        ),
        ('{"Turn-taking event and score": [[1.2, 3.4]: 4, 5], "Task-specific score": 2}', ONE, 2),
        (
            '{"Turn-taking event and score": [[[1, 2], [3, 4]]: 4, 5, [6, 7]: 2, null]}',
            [[[1.0, 2.0], 4, 5], [[3.0, 4.0], 4, 5], [[6.0, 7.0], 2, None]],
            None,
        ),
        ('{"Turn-taking event and score": [], "Task-specific score": 1}', [], 1),
        ("I cannot judge this.", [], None),
    ],
)
def test_a_judges_reply_is_read(reply, events, task):
    content = parse_judgement(reply)
    assert content[EVENTS] == events
    assert content.get(TASK) == task


def test_blocks_are_added_up_and_the_last_task_score_holds():
    block = lambda score: f'```json\n{{"{EVENTS}": [[[1.2, 3.4], 4, 5]], "{TASK}": {score}}}\n```'
    content = parse_judgement(f"{block(2)}\n and \n{block(5)}")
    assert content == {EVENTS: ONE * 2, TASK: 5}


def test_an_event_needs_both_scores_in_compat_only():
    processed = {EVENTS: [[[0, 5], 4, 5], [[5, 9], 2, None], [[9, 9], 1, 1]], TASK: 4}
    compat = v2_rules.task_scores(processed, COMPAT)
    assert (compat.turn_taking, compat.instructions, compat.events) == (2.5, 3.0, 2)
    strict = v2_rules.task_scores(processed, STRICT)
    assert (strict.turn_taking, strict.instructions, strict.events) == (3.0, 5.0, 2)
    assert compat.task == strict.task == 4.0


@pytest.mark.parametrize(("score", "counts"), [(0, False), (1, True), (5, True), (6, False)])
def test_scores_off_the_scale_count_in_compat_only(score, counts):
    processed = {EVENTS: [[[0, 5], score, 3]], TASK: score}
    assert v2_rules.task_scores(processed, COMPAT).task == float(score)
    strict = v2_rules.task_scores(processed, STRICT)
    assert (strict.task is not None) is counts
    assert (strict.turn_taking is not None) is counts


def test_means_are_rounded_to_three_decimals_in_compat_only():
    processed = {EVENTS: [[[0, 1], 4, 5], [[1, 2], 4, 5], [[2, 3], 5, 5]]}
    assert v2_rules.task_scores(processed, COMPAT).turn_taking == 4.333
    assert v2_rules.task_scores(processed, STRICT).turn_taking == pytest.approx(13 / 3)


def test_scores_over_time_are_weighted_by_seconds():
    processed = {EVENTS: [[[10, 20], 5, 1], [[12, 15], 1, 5], [[130, 140], 3, 3], [[4, 4], 1, 1]]}
    binned = v2_rules.over_time(processed)
    assert len(binned) == 8
    assert binned[0] == pytest.approx(((5 * 5 + 1 * 3) / 8, (1 * 5 + 5 * 3) / 8))
    assert binned[1] == (5.0, 1.0)
    assert binned[2:] == [None] * 6


@pytest.mark.parametrize(
    ("latency", "score"),
    [(None, 1), (-0.51, 2), (-0.5, 5), (1.0, 5), (1.01, 4), (2.0, 4), (2.01, 3), (4.0, 3),
     (4.01, 2)],
)  # fmt: skip
def test_reply_scores(latency, score):
    assert v2_rules.reply_score(latency) == score


tree = tree_of(SUITE, size=2, seed=6)
scored = functools.partial(scored_by, SUITE)


@pytest.mark.parametrize("mode", list(Mode))
def test_oracle_scores_5_and_silence_1(tree, mode):
    samples = SUITE.load(tree)
    assert len(samples) == 6
    assert_anchors(scored(samples, oracle_runs(SUITE, samples), mode), "oracle")
    assert_anchors(scored(samples, silent_runs(samples), mode), "silent")


def test_keeping_the_corrected_colour_fails_the_task(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    for sample in samples:
        if sample.scene == "Correction":
            stale = sample.truth["script"][0]["key"]
            kept = runs[sample.id].events[:-1]
            last = say(runs[sample.id].events[-1].t, f"The colour is {stale}.")
            runs[sample.id] = run_of(sample, [*kept, last])
    rows = scored(samples, runs, STRICT)
    name = "task-specific score (1-5)"
    assert figure(rows, "Correction", name).measured.value == 1.0
    assert figure(rows, "EntityTracking", name).measured.value == 5.0


def test_written_results_are_read_back_with_the_judges_raw_replies(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    SUITE.write(tree, samples, runs, Hearing(TextEars(), INSTANT))
    prompts = json.loads((tree / "prompts_staged_generated.json").read_text())
    task = prompts["splits"]["Daily"]["tasks"][0]
    assert set(task["staged_reveal"]) == {"T1", "T2", "T3", "T4"}
    assert {p.name for p in (tree / "Daily" / task["id"]).glob("*.wav")} == {"A.wav", "B.wav"}
    raw = tree / "eval_results" / "Safety" / "Safety.privacy.001.json"
    raw.parent.mkdir()
    raw.write_text(f'```json\n{{"{EVENTS}": [[[1, 2], 2, 3]], "{TASK}": 4}}\n```')
    results = SUITE.results(tree)
    assert len(results) == 7
    rows = score_results(results, mode=COMPAT, clock=INSTANT, judged_by="somebody")
    assert figure(rows, "Safety", "turn-taking fluency (1-5)").measured.value == 2.0
    assert figure(rows, "all", "turn-taking fluency, 0-15 s (1-5)").measured.count == 7
    direct = scored(samples, runs, COMPAT)
    for name in ("Daily", "Correction"):
        ours = figure(direct, name, "instruction following (1-5)").measured
        again = figure(rows, name, "instruction following (1-5)").measured
        assert again.as_dict() == ours.as_dict()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"A\.wav"):
        SUITE.load(tmp_path)
    with pytest.raises(ValueError, match="judge"):
        SUITE.results(tmp_path)
    layout.write_sound(tmp_path / "Daily" / "1" / "A.wav", tone("one", None))
    with pytest.raises(ValueError, match=r"script\.json"):
        SUITE.load(tmp_path)
