"""TimeSpeak: the window on both sides, meaning and window, anchors, layout, a broken scorer."""

import json

import numpy as np
import pytest

from interaction.eval.records import Clock
from interaction.eval.suite import Hearing, Mode, Word
from interaction.eval.suites import timed_speech
from interaction.eval.suites.replies import numbers, put_out, utterances
from interaction.eval.suites.timed_speech import Example, answers_in, is_right, untimely
from interaction.eval.suites.timespeak import TimeSpeak
from tests.timing_for_tests import (
    ExactJudge,
    TextEars,
    assert_anchors,
    fake_voice,
    run_of,
    said,
    scored,
)

MODES = (Mode.COMPAT, Mode.STRICT)
MAIN = "macro accuracy, window of 1 s either side (%)"


@pytest.fixture
def made(tmp_path, monkeypatch):
    fake_voice(monkeypatch)
    suite = TimeSpeak()
    suite.generate(tmp_path, size=6, seed=3)
    return suite, suite.load(tmp_path), tmp_path


def same(answer: str, expected: str) -> bool:
    return answer == expected


EXAMPLE = Example("a", "delay", "a.wav", (), 20.0, "melon", 10.0, 9.5, (14.0,))


@pytest.mark.parametrize("mode", MODES)
def test_anchors(made, mode):
    suite, samples, _ = made
    figures = assert_anchors(suite, samples, mode)
    assert {scene for scene, _ in figures} == {"spoken", "typed"}
    widths = [name for scene, name in figures if scene == "typed" and name.startswith("macro")]
    assert len(widths) == len(timed_speech.SWEEP) == 4
    assert all(figures["spoken", name].measured.value == 100 for name in widths)


@pytest.mark.parametrize(
    ("time", "half", "right"),
    [
        (9.75, 0.25, True),
        (9.749, 0.25, False),
        (10.25, 0.25, True),
        (10.251, 0.25, False),
        (9.5, 0.5, True),
        (10.5, 0.5, True),
        (10.501, 0.5, False),
        (9.5, 1.0, True),
        (9.499, 1.0, False),  # before anybody can know
        (11.0, 1.0, True),
        (11.001, 1.0, False),
        (9.499, 2.0, False),
        (12.0, 2.0, True),
        (12.001, 2.0, False),
    ],
)
def test_window_on_both_sides(time, half, right):
    words = [Word("melon", time, time + 0.3)]
    for mode in MODES:
        # STRICT fails a word that is not due; here that coincides with the window.
        assert is_right(words, EXAMPLE, half, mode=mode, same=same) is right


def test_meaning_and_window_are_both_needed():
    wrong = [Word("lemon", 10.0, 10.3)]
    for mode in MODES:
        assert not is_right(wrong, EXAMPLE, 1.0, mode=mode, same=same)
        assert not is_right([], EXAMPLE, 1.0, mode=mode, same=same)


def test_words_before_the_window_are_not_part_of_the_answer():
    words = [Word("okay", 9.0, 9.3), Word("melon", 9.6, 9.9), Word("soup", 11.6, 11.9)]
    assert answers_in(words, (9.5, 11.0)) == ["melon"]
    late = [Word("a", 10.9, 11.0), Word("melon", 11.05, 11.3)]  # begun in time, said to the end
    assert answers_in(late, (9.5, 11.0)) == ["a melon"]


def test_strict_fails_one_who_never_stops_saying_it():
    babble = [Word("melon", t, t + 0.3) for t in np.arange(0.0, 19.0, 1.0)]
    assert is_right(babble, EXAMPLE, 0.5, mode=Mode.COMPAT, same=same)
    assert not is_right(babble, EXAMPLE, 0.5, mode=Mode.STRICT, same=same)
    due = [Word("melon", t, t + 0.3) for t in (10.0, 14.4)]
    assert not untimely(due, EXAMPLE, 0.5)
    assert untimely([*due, Word("melon", 16.0, 16.3)], EXAMPLE, 0.5)
    told = [Word(w, 1.0 + i * 0.3, 1.3 + i * 0.3) for i, w in enumerate("fine melon soon".split())]
    assert not untimely([*told, *due], EXAMPLE, 0.5)  # speaking about it is no mistake


@pytest.mark.parametrize("mode", MODES)
def test_lateness_moves_the_figures(made, mode):
    suite, samples, _ = made

    def late(sample):
        return [said(e.t + 0.7, e.payload["text"]) for e in suite.oracle(sample)]

    figures = scored(suite, samples, late, mode)
    assert figures["typed", MAIN].measured.value == 100
    assert figures["typed", MAIN.replace("1 s", "0.5 s")].measured.value == 0
    lateness = figures["typed", "median lateness of the right words within 2 s (s)"]
    assert lateness.measured.value == pytest.approx(0.7)


def test_computing_counts_under_the_measured_clock_alone(made):
    suite, samples, _ = made

    def slow(sample):
        return [said(e.t, e.payload["text"], delay=1.2) for e in suite.oracle(sample)]

    assert scored(suite, samples, slow, Mode.COMPAT)["typed", MAIN].measured.value == 100
    measured = scored(suite, samples, slow, Mode.COMPAT, Clock.MEASURED)
    assert measured["typed", MAIN].measured.value == 0


def test_written_words_count(made):
    suite, samples, _ = made

    def written(sample):
        return [said(e.t, e.payload["text"], "write") for e in suite.oracle(sample)]

    assert scored(suite, samples, written, Mode.STRICT)["typed", MAIN].measured.value == 100


def test_macro_average_weighs_kinds_not_examples(made):
    suite, samples, _ = made
    typed = [s for s in samples if s.scene == "typed"]
    chosen = [s for s in typed if s.truth["kind"] != "delay"] + [
        next(s for s in typed if s.truth["kind"] == "delay")
    ]
    right = {"delay"}
    figures = scored(
        suite,
        chosen,
        lambda s: suite.oracle(s) if s.truth["kind"] in right else (),
        Mode.STRICT,
    )
    assert figures["typed", MAIN].measured.value == pytest.approx(100 / 3)
    assert figures["typed", MAIN].measured.count == 5


def test_the_judge_is_asked_and_named(made):
    suite, samples, _ = made
    judge = ExactJudge()
    figures = scored(suite, samples, suite.oracle, Mode.STRICT, judge=judge)
    assert judge.asked
    assert all(q.task == "same meaning" and q.choices == ("yes", "no") for q in judge.asked)
    assert all(q.reference in q.prompt and q.answer in q.prompt for q in judge.asked)
    assert {figure.judge for figure in figures.values()} == {"exact"}


def test_a_scorer_without_the_window_fails(made, monkeypatch):
    suite, samples, _ = made
    early = {s.id: [said(0.1, s.truth["expected"])] for s in samples}
    assert (
        scored(suite, samples, lambda s: early[s.id], Mode.COMPAT)["typed", MAIN].measured.value
        == 0
    )
    monkeypatch.setattr(Example, "window", lambda self, half=1.0: (0.0, self.seconds))
    broken = scored(suite, samples, lambda s: early[s.id], Mode.COMPAT)
    assert broken["typed", MAIN].measured.value == 100


def test_layout_round_trip_and_seed(made, tmp_path_factory):
    suite, samples, folder = made
    again = tmp_path_factory.mktemp("again")
    suite.generate(again, size=6, seed=3)
    assert (again / "examples.jsonl").read_text() == (folder / "examples.jsonl").read_text()
    other = tmp_path_factory.mktemp("other")
    suite.generate(other, size=6, seed=4)
    assert (other / "examples.jsonl").read_text() != (folder / "examples.jsonl").read_text()
    assert len({s.id for s in samples}) == len(samples) == 12
    for sample in samples:
        assert (sample.audio is None) is (sample.scene == "typed") is bool(sample.text)
        assert sample.truth == json.loads(json.dumps(sample.truth)) or sample.truth["typed"]
        low, high = sample.truth["window"]
        assert sample.truth["earliest"] <= low <= sample.truth["target"] <= high
        assert sample.seconds > sample.truth["target"] + max(timed_speech.SWEEP)


def test_errors_name_what_is_missing(made, tmp_path_factory):
    suite, _, folder = made
    with pytest.raises(ValueError, match=r"has no examples\.jsonl"):
        suite.load(tmp_path_factory.mktemp("empty"))
    lines = (folder / "examples.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    del entry["target"]
    (folder / "examples.jsonl").write_text(json.dumps(entry))
    with pytest.raises(ValueError, match="has no target"):
        suite.load(folder)
    with pytest.raises(ValueError, match="earliest=11"):
        Example("a", "delay", "a.wav", (), 20.0, "melon", 10.0, 11.0)


# ---------------------------------------------------------------- words, utterances, numbers


def test_utterances_part_at_a_pause():
    words = [Word("a", 0.0, 0.3), Word("b", 0.9, 1.0), Word("c", 1.601, 1.8)]
    assert [u.text for u in utterances(words)] == ["a b", "c"]
    assert utterances([]) == []
    stretched = [Word("a", 0.0, 5.0), Word("b", 5.0, 5.3)]  # no word lasts that long
    assert [u.text for u in utterances(stretched)] == ["a", "b"]


def test_put_out_takes_said_and_written_words_in_order(made):
    _, samples, _ = made
    run = run_of(samples[0], [said(0.4, "three four", "write"), said(0.2, "one two")])
    assert [w.text for w in put_out(run, Hearing(TextEars(), Clock.INSTANT))] == [
        "one",
        "three",
        "four",
        "two",
    ]


@pytest.mark.parametrize(
    ("text", "gap", "expected"),
    [
        ("one two three", 0.0, [1, 2, 3]),
        ("twenty one", 0.0, [21]),
        ("twenty one", 0.5, [20, 1]),
        ("Twenty, twenty one.", 0.0, [20, 21]),
        ("that is 7, well done", 0.0, [7]),
        ("hundred and two reps", 0.0, [102]),
        ("no numbers", 0.0, []),
    ],
)
def test_numbers_with_times(text, gap, expected):
    parts = text.split()
    words = [Word(p, i * (0.3 + gap), i * (0.3 + gap) + 0.3) for i, p in enumerate(parts)]
    found = numbers(words)
    assert [number.value for number in found] == expected
    assert all(any(number.time == word.start for word in words) for number in found)


@pytest.mark.slow
def test_real_voices(tmp_path):
    suite = TimeSpeak()
    suite.generate(tmp_path, size=4, seed=0)  # the fourth is piper's
    samples = suite.load(tmp_path)
    for mode in MODES:
        assert_anchors(suite, samples, mode)
    for sample in samples:
        if sample.audio is not None:
            assert 0.1 < np.abs(sample.audio).max() <= 0.51
            assert len(sample.audio) == round(sample.seconds * 16_000)
