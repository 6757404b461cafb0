"""Full-Duplex-Bench v3: calls, arguments, passes and times; layouts; oracle and silence."""

import dataclasses
import functools
import itertools
import json
import math

import numpy as np
import pytest

from interaction.eval.records import Clock, Kind, OutputEvent
from interaction.eval.suite import Hearing, Mode, Word
from interaction.eval.suites.fdb import layout, v3_rules
from interaction.eval.suites.fdb.tools import TOOLS
from interaction.eval.suites.fdb.v3 import FullDuplexBenchV3, score_results
from interaction.eval.suites.fdb.v3_rules import Result, exact_arguments, strict_arguments
from interaction.eval.systems.recorded import Recorded
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
)

COMPAT, STRICT, INSTANT = Mode.COMPAT, Mode.STRICT, Clock.INSTANT
SUITE = FullDuplexBenchV3()


def calls(*names, **args):
    return [{"function": name, "args": args} for name in names]


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("expected", "actual", "f1"),
    [
        ("ab", "ab", 1.0),
        ("ab", "ba", 1.0),
        ("ab", "a", 2 / 3),  # recall 1/2, precision 1
        ("a", "ab", 2 / 3),
        ("aab", "ab", 0.8),  # as often as it stands there
        ("a", "aa", 2 / 3),
        ("a", "b", 0.0),
        ("a", "", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
    ],
)
def test_tool_selection(expected, actual, f1):
    assert v3_rules.selection(calls(*expected), calls(*actual)).f1 == pytest.approx(f1)


@pytest.mark.parametrize(
    ("expected", "actual", "compat", "strict"),
    [
        ({"a": "New York"}, {"a": " new york "}, True, True),
        ({"a": "driver_license"}, {"a": "driver license"}, True, True),
        ({"a": "new  york"}, {"a": "new york"}, False, True),
        ({"a": "London"}, {"a": "Paris"}, False, False),
        ({"a": 3}, {"a": 3.0}, True, True),
        ({"a": 3}, {"a": "3"}, False, True),
        ({"a": 100}, {"a": 101}, False, False),
        ({"a": "x"}, {}, False, False),
        ({"a": "$RESULT_0.id"}, {"a": "F1"}, True, True),
        ({"a": "$RESULT_0.id"}, {"a": ""}, True, False),
        ({"a": "$RESULT_0.id"}, {}, False, False),
        ({"a": "x"}, {"a": "x", "b": "y"}, True, False),
        ({"a": "x"}, {"a": "x", "b": None}, True, True),
        ({}, {}, True, True),
    ],
)
def test_arguments(expected, actual, compat, strict):
    assert exact_arguments(expected, actual, "f") is compat
    assert strict_arguments(expected, actual, "f") is strict


def test_a_tools_default_is_no_extra_argument():
    expected = {"product_id": "P1"}
    assert strict_arguments(expected, {"product_id": "P1", "quantity": 1}, "add_to_cart")
    assert not strict_arguments(expected, {"product_id": "P1", "quantity": 2}, "add_to_cart")


def test_calls_of_one_name_are_paired_in_order_or_best():
    expected = [*calls("f", a="x"), *calls("f", a="y"), *calls("g", b=1)]
    actual = [*calls("f", a="y"), *calls("f", a="x")]
    match = lambda mode: v3_rules.argument_matches(expected, actual, exact_arguments, mode)
    assert match(COMPAT) == [False, False, False]
    assert match(STRICT) == [True, True, False]


def test_best_pairs_are_as_many_as_any_order_gives():
    random = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = random.integers(1, 5, 2)
        right = random.random((rows, columns)) < 0.4
        pairs = v3_rules._best_pairs(right.tolist())
        assert all(right[row, column] for row, column in pairs.items())
        assert len(set(pairs.values())) == len(pairs)
        size = max(rows, columns)
        padded = np.zeros((size, size), bool)
        padded[:rows, :columns] = right
        orders = itertools.permutations(range(size))
        most = max(sum(padded[k, c] for k, c in enumerate(order)) for order in orders)
        assert len(pairs) == most


@pytest.mark.parametrize(
    ("actual", "matches", "passed"),
    [
        ("ab", [True, True], True),
        ("ab", [True, False], False),
        ("a", [True, False], False),
        ("abc", [True, True], False),
        ("", [False, False], False),
    ],
)
def test_pass_needs_every_call_no_other_and_every_argument(actual, matches, passed):
    assert v3_rules.passes(calls("a", "b"), calls(*actual), matches) is passed


def test_the_users_turn_ends_before_a_silence_of_more_than_two_seconds():
    word = lambda start, end: Word("w", start, end)
    assert v3_rules.user_end([]) == 0.0
    assert v3_rules.user_end([word(0, 1), word(3.0, 4)]) == 4
    assert v3_rules.user_end([word(0, 1), word(3.001, 4)]) == 1


def test_latency_is_below_0_where_the_agent_cut_in():
    base = Result((), "yes", user_end=10.0, agent_start=12.5)
    assert v3_rules.latency(base) == 2.5
    assert v3_rules.latency(dataclasses.replace(base, agent_start=8.0)) == -2.0
    assert v3_rules.latency(dataclasses.replace(base, agent_start=10.0004)) == 0.0
    assert v3_rules.latency(dataclasses.replace(base, agent_start=None)) is None
    assert v3_rules.latency(dataclasses.replace(base, user_end=None)) is None


def test_completion_is_when_the_last_key_word_has_been_said():
    said = (Word("shipped,", 3.0, 3.4), Word("at", 3.4, 3.5), Word("Noon.", 3.5, 4.0))
    result = Result((), "shipped, at Noon.", said, user_end=2.0)
    assert v3_rules.completion_latency(result, ["shipped"]) == pytest.approx(1.4)
    assert v3_rules.completion_latency(result, ["noon", "shipped"]) == 2.0
    assert v3_rules.completion_latency(result, ["noon", "gold"]) is None
    assert v3_rules.completion_latency(result, []) is None


def test_the_authors_four_dry_run_cases():
    """Two calls expected; the values their own script prints for its examples."""
    flights = calls("search_flights", destination="London", date="August 20")
    expected = [*flights, *calls("book_flight", passenger_name="Alice")]
    day = calls("search_flights", destination="London", date="2026-08-20")
    perfect = [*day, *expected[1:]]
    match = lambda actual: v3_rules.argument_matches(expected, actual, exact_arguments, COMPAT)
    assert v3_rules.selection(expected, perfect).f1 == 1.0
    assert match(perfect) == [False, True]  # without a language model the date is another text
    missing = v3_rules.selection(expected, flights)
    assert (round(missing.f1, 3), missing.recall, missing.precision) == (0.667, 0.5, 1.0)
    assert match(flights) == [True, False]
    extra = [*expected, *calls("update_identity_doc", doc_type="passport")]
    chosen = v3_rules.selection(expected, extra)
    assert (round(chosen.f1, 3), chosen.unexpected) == (0.8, ("update_identity_doc",))
    assert not v3_rules.passes(expected, extra, match(extra))


def rederived(expected, actual):
    """The authors' loops: names taken off two lists, calls taken off queues by name."""
    left, matched = [c["function"] for c in actual], 0
    for call in expected:
        if call["function"] in left:
            left.remove(call["function"])
            matched += 1
    recall = matched / len(expected) if expected else 1.0
    precision = matched / len(actual) if actual else 1.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    queues: dict = {}
    for call in actual:
        queues.setdefault(call["function"], []).append(call)
    right = []
    for call in expected:
        queue = queues.get(call["function"])
        made = queue.pop(0) if queue else None
        right.append(made is not None and made["args"] == call["args"])
    return f1, right, bool(matched == len(expected) and not left and all(right))


def drawn_calls(random):
    names = random.choice(["f", "g", "h"], int(random.integers(0, 5)))
    return [{"function": str(n), "args": {"a": int(random.integers(2))}} for n in names]


def test_calls_agree_with_an_independent_derivation():
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(1500):
        expected, actual = drawn_calls(random), drawn_calls(random)
        matches = v3_rules.argument_matches(expected, actual, exact_arguments, COMPAT)
        f1 = v3_rules.selection(expected, actual).f1
        got = (f1, matches, v3_rules.passes(expected, actual, matches))
        assert got == rederived(expected, actual)
        passed += got[2]
    assert passed > 50


def test_a_broken_pass_is_noticed(monkeypatch):
    broken = lambda expected, actual, matches: not v3_rules.selection(expected, actual).missing
    monkeypatch.setattr(v3_rules, "passes", broken)
    random = np.random.default_rng(0)
    pairs = [(drawn_calls(random), drawn_calls(random)) for _ in range(300)]
    assert any(v3_rules.passes(e, a, []) != rederived(e, a)[2] for e, a in pairs)


# ---------------------------------------------------------------- the suite


tree = tree_of(SUITE, size=2, seed=4)
scored = functools.partial(scored_by, SUITE)


def test_the_generated_set_asks_for_one_to_three_of_the_twelve_tools(tree):
    samples = SUITE.load(tree)
    assert len(TOOLS) == 12
    expected = [s.truth["expected_tool_calls"] for s in samples]
    assert sorted({len(e) for e in expected}) == [1, 2, 3]
    for call in (c for e in expected for c in e):
        tool = TOOLS[call["function"]]
        assert set(tool["required"]) <= set(call["args"]) <= set(tool["properties"])
        assert tool["result"]
    assert sum(s.truth["state_rollback_test"] for s in samples) == 4
    for sample in samples:
        for old in sample.truth["superseded_tool_calls"]:
            assert old not in sample.truth["expected_tool_calls"]
    content = json.loads((tree / "benchmark_data_generated.json").read_text())
    assert {entry["id"] for entry in content["scenarios"]} == {s.truth["id"] for s in samples}


@pytest.mark.parametrize("mode", list(Mode))
def test_oracle_scores_the_maximum_and_silence_the_floor(tree, mode):
    samples = SUITE.load(tree)
    figures = scored(samples, oracle_runs(SUITE, samples), mode)
    assert_anchors(figures, "oracle")
    late = figure(figures, "all", "latency without interruptions (s)").measured
    assert 0.05 <= late.value <= 0.45 and late.count == 8
    assert_anchors(scored(samples, silent_runs(samples), mode), "silent")


def test_calling_what_was_taken_back_fails(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    for sample in samples:
        for old in sample.truth["superseded_tool_calls"]:
            early = OutputEvent(1.0, Kind.TOOL, {"function": old["function"], "args": old["args"]})
            runs[sample.id] = run_of(sample, [early, *runs[sample.id].events])
    rows = scored(samples, runs, STRICT)
    assert figure(rows, "not taken back", "Pass@1, exact").measured.value == 1.0
    taken_back = [f for f in rows if f.scene == "taken back"]
    values = {f.name: f.measured.value for f in taken_back}
    assert values["Pass@1, exact"] == 0.0
    assert values["called what was taken back (rate)"] == 1.0


def test_silent_recordings_are_left_out_in_compat_and_count_in_strict(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    first = samples[0]
    runs[first.id] = run_of(first, [])
    name = "tool selection F1"
    assert figure(scored(samples, runs, COMPAT), "all", name).measured.value == 1.0
    assert figure(scored(samples, runs, STRICT), "all", name).measured.value == 7 / 8
    for mode in Mode:
        rows = scored(samples, runs, mode)
        assert figure(rows, "all", "turn taken (rate)").measured.value == 7 / 8


def test_an_interruption_is_left_out_of_the_mean_latency_and_shown_in_strict(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    first = samples[0]
    runs[first.id] = run_of(first, [*runs[first.id].events, say(0.2, "well")])
    rows = scored(samples, runs, STRICT)
    assert figure(rows, "all", "interrupted the user (rate)").measured.value == 1 / 8
    polite = figure(rows, "all", "latency without interruptions (s)").measured
    every = figure(rows, "all", "latency, unclipped (s)").measured
    assert polite.count == 7 and every.count == 8 and every.value < polite.value


def test_figures_are_rounded_to_three_decimals_in_compat_only(tree):
    samples = [s for s in SUITE.load(tree) if len(s.truth["expected_tool_calls"]) == 2]
    runs = oracle_runs(SUITE, samples)
    for sample in samples:
        events = runs[sample.id].events
        runs[sample.id] = run_of(sample, events[1:])  # without its first call: F1 is 2/3
    value = lambda mode: figure(scored(samples, runs, mode), "all", "tool selection F1").measured
    assert value(COMPAT).value == 0.667
    assert value(STRICT).value == pytest.approx(2 / 3, abs=1e-12)


@pytest.fixture
def official(tmp_path):
    """One recording in the released layout with a stranger's result beside it."""
    place = tmp_path / "travel_07_5e3c1fbece3a7b000a6fd95a"
    place.mkdir()
    layout.write_sound(place / "input.wav", np.zeros(16_000 * 3, np.float32))
    entry = {
        "id": "travel_07",
        "domain": "travel_identity",
        "title": "Search",
        "difficulty": "easy",
        "dialogue": [{"user": "Hi", "ai": "Hello"}, {"user": "Find", "ai": "I found a flight."}],
        "expected_tool_calls": calls("search_flights", destination="London", date="May 3"),
    }
    layout.write_json(place / "metadata.json", entry)
    result = {
        "example_id": "travel_07",
        "actual_tool_calls": calls("search_flights", destination="london", date="may 3"),
        "transcript": "I found a flight.",
        "asr_chunks": [{"text": "I", "timestamp": [4.25, 4.5]}],
        "user_speech_end_rel": 2.5,
        "audio_agent_speech_start": 4.25,
    }
    layout.write_json(place / "result_stranger.json", result)
    return tmp_path


def test_a_strangers_result_is_read_and_scored(official):
    samples = SUITE.load(official)
    results = SUITE.read(official, samples, "stranger")
    judge = ContainsJudge()
    rows = score_results(samples, results, mode=COMPAT, clock=INSTANT, judge=judge)
    assert figure(rows, "all", "Pass@1, exact").measured.value == 1.0
    assert figure(rows, "all", "response quality").measured.value == 1.0
    assert figure(rows, "all", "latency without interruptions (s)").measured.value == 1.75
    assert [q.reference for q in judge.seen] == ["I found a flight."]
    assert SUITE.read(official, samples, "nobody") == {}


def test_a_strangers_result_is_a_recorded_run_too(official):
    (sample,) = SUITE.load(official)
    run = Recorded(str(official), name="stranger").recall(sample)
    assert [event.payload["function"] for event in run.of(Kind.TOOL)] == ["search_flights"]
    assert run.text("say") == "I"
    assert Recorded(str(official), name="anybody").recall(sample).events == run.events
    other = official / sample.truth["folder"] / "result_second.json"
    layout.write_json(other, {"example_id": "travel_07"})
    with pytest.raises(FileNotFoundError, match="travel_07"):
        Recorded(str(official), name="anybody").recall(sample)


def test_a_written_result_is_read_back(tree):
    samples = SUITE.load(tree)
    runs = oracle_runs(SUITE, samples)
    SUITE.write(tree, samples, runs, Hearing(TextEars(), INSTANT))
    results = SUITE.read(tree, samples, "oracle")
    for mode in Mode:
        direct = scored(samples, runs, mode)
        again = score_results(samples, results, mode=mode, clock=INSTANT, judge=ContainsJudge())
        for ours, theirs in zip(direct, again, strict=True):
            same = ours.measured == theirs.measured
            assert same or math.isnan(ours.measured.value), ours.name
    first = samples[0]
    content = json.loads(
        (tree / first.truth["folder"] / "result_oracle.json").read_text(encoding="utf-8")
    )
    wanted = {"example_id", "actual_tool_calls", "transcript", "asr_chunks"}
    assert wanted | {"user_speech_end_rel", "audio_agent_speech_start"} <= set(content)
    assert content["example_id"] == first.truth["id"]


def test_the_judge_is_asked_only_where_arguments_differ(official):
    samples = SUITE.load(official)
    (result,) = SUITE.read(official, samples, "stranger").values()
    other = calls("search_flights", destination="LHR", date="May 3")
    judge = ContainsJudge()
    changed = {samples[0].id: dataclasses.replace(result, calls=tuple(other))}
    rows = score_results(samples, changed, mode=COMPAT, clock=INSTANT, judge=judge)
    assert figure(rows, "all", "Pass@1, judged").measured.value == 0.0
    assert sum("search_flights" in q.prompt for q in judge.seen) == 1


def test_what_is_missing_is_named(official):
    (place,) = official.iterdir()
    (place / "metadata.json").unlink()
    with pytest.raises(ValueError, match=r"metadata\.json"):
        SUITE.load(official)
    (place / "input.wav").unlink()
    with pytest.raises(ValueError, match="24 hex digits"):
        SUITE.load(official)
