"""ProactiveVideoQA: PAUC against hand-made areas, the rules of replies, anchors, broken scorers."""

import json

import numpy as np
import pytest

from interaction.eval.records import Clock
from interaction.eval.suite import Mode, Verdict
from interaction.eval.suites import pauc as pauc_module
from interaction.eval.suites import proactive_video_qa
from interaction.eval.suites.pauc import (
    Reply,
    Turn,
    outside,
    pauc,
    rated,
    replies_by_second,
    without_late_losses,
)
from interaction.eval.suites.proactive_video_qa import ProactiveVideoQA
from tests.timing_for_tests import assert_anchors, fake_voice, made_by, said, scored

MODES = (Mode.COMPAT, Mode.STRICT)
MAIN = "PAUC at omega 0.5, mean of turns"
OUTSIDE = "replies outside every reply span (per minute of video)"


folder, made = made_by(ProactiveVideoQA(), size=3, seed=2)


@pytest.mark.parametrize("mode", MODES)
def test_anchors(made, mode):
    suite, samples = made
    figures = assert_anchors(suite, samples, mode)
    for omega in ("0", "0.5", "1"):
        assert figures["spoken", f"PAUC at omega {omega}, mean of turns"].oracle == 100
        assert figures["typed", f"PAUC at omega {omega}, mean of turns"].silent == 25
    assert {name for _, name in figures} >= {
        "PAUC at omega 0.5 of WEB",
        "PAUC at omega 0.5 of VAD",
        "PAUC at omega 0.5 of TV",
        "PAUC at omega 0.5, mean of tasks",
    }


@pytest.mark.parametrize(
    ("scores", "omega", "expected"),
    [
        ({}, 0.5, 0.25),  # silence
        ({0.0: 2.0}, 0.5, 1.0),  # right at once
        ({0.0: 0.0}, 0.5, 0.0),  # wrong at once: worse than silence
        ({5.0: 2.0}, 0.0, (5 * 0.5 + 5 * 2) / 20),
        ({5.0: 2.0}, 0.5, (2.5 * 0.5 + 7.5 * 2) / 20),  # time counts half
        ({5.0: 2.0}, 1.0, 1.0),  # lateness does not count
        ({10.0: 2.0}, 0.0, 0.25),  # at the very end
        ({10.0: 2.0}, 0.5, (5 * 0.5 + 5 * 2) / 20),
        ({2.0: 1.0, 6.0: 2.0}, 0.5, (1 * 0.5 + 2 * 1 + 7 * 2) / 20),
        ({6.0: 2.0, 2.0: 1.0}, 0.5, (1 * 0.5 + 2 * 1 + 7 * 2) / 20),  # order is time's
        ({4.0: 0.0}, 0.0, 4 * 0.5 / 20),
        ({2.0: 1.0, 6.0: 2.0}, 1.0, 1.0),
    ],
)
def test_area(scores, omega, expected):
    assert pauc(scores, 10.0, omega) == pytest.approx(expected, abs=1e-12)


def test_area_of_an_empty_span_and_of_a_wrong_omega():
    assert pauc({}, 0.0) == 0.25
    assert pauc({0.0: 2.0}, 0.0) == 0.0
    with pytest.raises(ValueError, match=r"omega=1\.5"):
        pauc({}, 1.0, 1.5)


def test_wrong_is_worse_than_silent_and_late_worse_than_soon():
    values = [pauc({t: 2.0}, 10.0) for t in (0.0, 1.0, 4.0, 10.0)]
    assert values == sorted(values, reverse=True)
    assert pauc({9.0: 0.0}, 10.0) < 0.25


TURN = Turn("a red circle", (3.0, 5.0), (3.0, 8.0))
TRUTH = {"question": "Which?", "closed": False}


def rating(question: str, reference: str, answer: str, closed: bool) -> int:
    """3 with the reference in it, 2 with its colour, else 1."""
    return 3 if reference in answer else 2 if "red" in answer else 1


@pytest.mark.parametrize("mode", MODES)
def test_replies_add_up_and_repetition_adds_nothing(mode):
    replies = [Reply(3.0, "a"), Reply(4.0, "a red"), Reply(4.5, "a red"), Reply(5.0, "circle")]
    # At 5 s everything said is "a a red circle".
    assert rated(TURN, replies, TRUTH, rating, mode) == {3.0: 0.0, 4.0: 1.0, 5.0: 2.0}


@pytest.mark.parametrize(
    ("time", "mode", "counts"),
    [
        (3.0, Mode.COMPAT, True),
        (2.95, Mode.COMPAT, False),
        (2.95, Mode.STRICT, True),  # the ears may be that much wrong
        (2.9, Mode.STRICT, True),
        (2.89, Mode.STRICT, False),
        (8.0, Mode.COMPAT, True),
        (8.001, Mode.COMPAT, False),
        (8.0, Mode.STRICT, True),
        (8.001, Mode.STRICT, False),
    ],
)
def test_borders_of_the_reply_span(time, mode, counts):
    scores = rated(TURN, [Reply(time, "a red circle")], TRUTH, rating, mode)
    assert bool(scores) is counts
    assert all(3.0 <= t <= 8.0 and score == 2.0 for t, score in scores.items())
    assert outside([Reply(time, "x")], [TURN]) == (not (2.9 <= time <= 8.0))


def test_a_late_loss_is_left_out():
    assert without_late_losses({4.0: 2.0, 6.0: 1.0}, 5.0) == {4.0: 2.0}
    assert without_late_losses({4.0: 2.0, 5.0: 1.0}, 5.0) == {4.0: 2.0, 5.0: 1.0}  # still in view
    assert without_late_losses({4.0: 1.0, 6.0: 2.0}, 5.0) == {4.0: 1.0, 6.0: 2.0}
    assert without_late_losses({4.0: 2.0, 4.5: 1.0, 6.0: 1.0}, 5.0) == {
        4.0: 2.0,
        4.5: 1.0,
        6.0: 1.0,
    }
    assert without_late_losses({6.0: 0.0}, 5.0) == {6.0: 0.0}  # nothing before: kept
    assert without_late_losses({}, 5.0) == {}


@pytest.mark.parametrize(
    ("time", "second"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (3.0, 3), (3.2, 4), (6.9, 7)]
)
def test_seconds_of_the_published_code(time, second):
    assert replies_by_second([Reply(time, "x")], 9.5, 8.0) == [Reply(float(second), "x")]


def test_rounds_of_the_published_code():
    replies = [Reply(t, str(t)) for t in (0.5, 7.5, 8.2, 8.9)]
    assert [r.time for r in replies_by_second(replies, 9.5, 9.0)] == [1.0, 8.0, 9.0]
    assert replies_by_second(replies, 9.5, 9.0)[-1].text == "8.2 8.9"  # one reply a second
    assert [r.time for r in replies_by_second(replies, 9.5, 7.2)] == [1.0, 8.0]
    assert [r.time for r in replies_by_second(replies, 8.9, 20.0)] == [1.0, 8.0]


def test_lateness_costs_and_compat_rounds_it_up(made):
    suite, samples = made

    def late(sample):
        return [said(e.t + 1.2, e.payload["text"]) for e in suite.oracle(sample)]

    strict = scored(suite, samples, late, Mode.STRICT)["typed", MAIN].measured.value
    compat = scored(suite, samples, late, Mode.COMPAT)["typed", MAIN].measured.value
    lengths = [
        turn["reply_timespan"][1] - turn["reply_timespan"][0]
        for s in samples
        if s.scene == "typed"
        for turn in s.truth["answer"]
    ]
    assert max(lengths) == 4.0
    expected = np.mean([100 * (1 - 0.75 * 0.5 * 1.2 / length) for length in lengths])
    assert strict == pytest.approx(expected)
    expected = np.mean([100 * (1 - 0.75 * 0.5 * 2.0 / length) for length in lengths])
    assert compat == pytest.approx(expected)


@pytest.mark.parametrize("mode", MODES)
def test_wrong_answers_score_below_silence(made, mode):
    suite, samples = made

    def wrong(sample):
        return [said(event.t, "soup") for event in suite.oracle(sample)]

    figures = scored(suite, samples, wrong, mode)
    assert figures["spoken", MAIN].measured.value == pytest.approx(0, abs=1e-9)


def test_words_before_the_video_do_not_count(made):
    suite, samples = made

    def acknowledges(sample):
        return [said(sample.truth["video_start"] - 1.5, "okay"), *suite.oracle(sample)]

    figures = scored(suite, samples, acknowledges, Mode.STRICT)
    assert figures["typed", MAIN].measured.value == 100
    assert figures["typed", OUTSIDE].measured.value == 0


def test_talking_outside_every_span_shows(made):
    suite, samples = made

    def talks(sample):
        return [said(sample.truth["video_start"] + 0.2, "nothing yet"), *suite.oracle(sample)]

    figures = scored(suite, samples, talks, Mode.STRICT)
    assert figures["typed", MAIN].measured.value == 100  # the official figure does not mind
    assert figures["typed", OUTSIDE].measured.value > 2


def test_judges_are_asked_three_grades_of_open_answers_and_two_of_closed_ones(made):
    suite, samples = made
    asked = []

    class Strict:
        name = "fake"

        def verdict(self, question):
            asked.append(question)
            return Verdict(question.choices[-1])

    figures = scored(suite, samples, suite.oracle, Mode.STRICT, judge=Strict())
    assert figures["typed", MAIN].measured.value == 0
    assert {q.choices for q in asked} == {("3", "1")}
    assert {q.task for q in asked} == {"rating"}
    open_rater = pauc_module.rater(Strict())
    assert open_rater("q", "r", "a", False) == 1
    assert asked[-1].choices == ("3", "2", "1")


def test_scorers_that_are_wrong_fail(made, monkeypatch):
    suite, samples = made
    monkeypatch.setattr(pauc_module, "START", 0.0)  # the curve's start forgotten
    figures = scored(suite, samples, lambda s: (), Mode.STRICT)
    assert figures["typed", MAIN].measured.value != 25
    monkeypatch.undo()
    fake_voice(monkeypatch)
    monkeypatch.setattr(proactive_video_qa, "turn_pauc", lambda turn, scores, omega: 0.0)
    with pytest.raises(AssertionError):
        assert_anchors(suite, samples, Mode.STRICT)


# ---------------------------------------------------------------- layout


def test_official_layout(folder, made):
    _, samples = made
    for task in ("WEB", "VAD", "TV"):
        (entry,) = json.loads((folder / task / "anno.json").read_text())
        assert {"video", "question_id", "duration", "conversation", "answer"} <= entry.keys()
        assert (folder / task / "videos" / entry["video"]).is_file()
        for answer in entry["answer"]:
            assert {"content", "related_timespan", "reply_timespan"} <= answer.keys()
    assert not (folder / "EGO").exists()
    for sample in samples:
        assert sample.id.endswith(sample.scene)
        begin = sample.truth["video_start"]
        assert sample.video.times[0] == pytest.approx(begin)
        if sample.audio is not None:
            last = np.flatnonzero(sample.audio)[-1] / 16_000
            assert begin - last == pytest.approx(2.0, abs=0.01)
        else:
            assert sample.text[0].text.startswith("Watch the video and stay quiet until")


def test_what_appears_appears_then(made):
    _, samples = made
    for sample in samples:
        if sample.scene == "typed" and sample.truth["task"] == "WEB":
            frames = np.asarray(sample.video.frames).astype(int)
            change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
            for turn in sample.truth["answer"]:
                at = round(turn["reply_timespan"][0] * 10)
                assert change[at - 1] > 3 * np.median(change)


def test_subtitles_are_burnt_in(folder, made):
    _, samples = made
    typed = {s.truth["task"]: s for s in samples if s.scene == "typed"}
    foot = np.asarray(typed["TV"].video.frames)[:, -14:].astype(int)
    assert np.abs(foot[7] - foot[2]).mean() > 20  # from 0.5 s on
    assert np.abs(np.asarray(typed["WEB"].video.frames)[7, -14:].astype(int) - foot[7]).mean() > 5


def test_errors_name_what_is_missing(tmp_path, monkeypatch):
    fake_voice(monkeypatch)
    with pytest.raises(ValueError, match=r"no TASK/anno\.json"):
        ProactiveVideoQA().load(tmp_path)
    (tmp_path / "EGO").mkdir()
    path = tmp_path / "EGO" / "anno.json"
    entry = {"video": "gone.mp4", "question_id": "7", "conversation": [{"content": "?"}]}
    path.write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match="'7' has no answer"):
        ProactiveVideoQA().load(tmp_path)
    path.write_text(json.dumps([entry | {"answer": [{"content": "x", "reply_timespan": [0, 1]}]}]))
    with pytest.raises(ValueError, match=r"gone\.mp4 is missing"):
        ProactiveVideoQA().load(tmp_path)
    with pytest.raises(ValueError, match="no reply_timespan"):
        Turn.of({"content": "x"})
    with pytest.raises(ValueError, match="ends before"):
        Turn("x", (0.0, 1.0), (2.0, 1.0))


@pytest.mark.slow
def test_the_filmed_hand(tmp_path, media_dir):
    suite = ProactiveVideoQA()
    suite.generate(tmp_path, size=0, seed=0)
    samples = suite.load(tmp_path)
    assert {sample.truth["task"] for sample in samples} == {"EGO"}
    for mode in MODES:
        assert_anchors(suite, samples, mode)
    frames = np.asarray(samples[0].video.frames).astype(int)
    before, after = frames[:25].mean(0), frames[40]
    assert frames.shape[2] == 160
    assert np.abs(after - before).mean() > 3 * np.abs(frames[24] - before).mean()
    runs = {s.id: s for s in samples}
    assert len(runs) == 2
    assert suite.oracle(samples[0])[0].at(Clock.INSTANT) > samples[0].truth["video_start"]
