"""Evaluation: intervals against known values, scoring rules on made-up replies, the recogniser."""

import math

import numpy as np
import pytest

from interaction.data.clips import Clip, ClipBank, Sound, Split
from interaction.data.target_voice import recordings
from interaction.eval import averages, counting, digits, false_answers, intervals, respond
from interaction.eval.intervals import PERCENT, SHARE
from interaction.eval.recognise import recognise
from interaction.eval.table import table
from interaction.session.lanes import LaneOutput
from interaction.types import Control

CHUNK = 3_200
QUIET = np.zeros(CHUNK, np.float32)
LOUD = np.full(CHUNK, 0.1, np.float32)


def output(written="", said="", closer=Control.PASS, sound=QUIET) -> LaneOutput:
    return LaneOutput((), written, said, "", closer, np.zeros((16, 80), np.float32), sound)


PASS = output()
TALK = output(closer=Control.SPEAK, sound=LOUD)
STOP = output(closer=Control.YIELD)


def answer(written, said) -> LaneOutput:
    return output(written, said, Control.SPEAK, LOUD)


def reply(*outputs) -> respond.Reply:
    return respond.Reply(tuple(outputs))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(95, 100, 0.8882, 0.9785), (0, 20, 0.0, 0.1611), (7, 7, 0.6457, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_wilson(right, count, low, high):
    found = intervals.share(right, count)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.value == right / count and found.count == count


@pytest.mark.parametrize(
    ("events", "low", "high"), [(0, 0.0, 3.6889), (3, 0.6187, 8.7673), (25, 16.1787, 36.9049)]
)
def test_exact_poisson(events, low, high):
    found = intervals.rate(events, 10.0)
    assert (found.low * 10, found.high * 10) == pytest.approx((low, high), abs=1e-3)
    assert found.value == events / 10


def test_bootstrap_holds_the_median():
    samples = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = intervals.bootstrap(samples)
    assert found.low < 3.0 < found.high and found.high - found.low < 0.4
    assert intervals.bootstrap(samples) == found
    assert math.isnan(intervals.bootstrap([]).value)


@pytest.mark.parametrize(
    ("samples", "bounds", "low", "high"),
    [
        ([0.0] * 40, SHARE, 0.0, 0.0876),  # never "0 % (0 to 0), n = 40"
        ([1.0] * 7, SHARE, 0.6457, 1.0),
        ([100.0], PERCENT, 20.65, 100.0),
        ([3.0] * 4, (1.0, 5.0), 1.6, 4.4),  # the middle of a scale: half of it 0.35 either side
        ([0.1] * 3, SHARE, 0.0068, 0.6424),  # 0.1 adds up to another mean by a rounding
    ],
)
def test_equal_samples_within_bounds_get_wilsons_interval(samples, bounds, low, high):
    found = intervals.bootstrap(samples, np.mean, bounds=bounds)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4 * bounds[1])
    assert (found.value, found.count) == (samples[0], len(samples))
    share = (samples[0] - bounds[0]) / (bounds[1] - bounds[0])
    if share in (0.0, 1.0):
        counted = intervals.share(round(share * len(samples)), len(samples))
        wide = bounds[1] - bounds[0]
        assert (found.low, found.high) == pytest.approx((counted.low * wide, counted.high * wide))


@pytest.mark.parametrize("statistic", [np.mean, np.median])
@pytest.mark.parametrize("samples", [[0.0], [0.4], [0.2] * 40])
def test_equal_times_and_a_single_one_have_no_interval(samples, statistic):
    found = intervals.bootstrap(samples, statistic)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert (found.value, found.count) == (samples[0], len(samples))
    assert found.as_dict()["low"] is None
    assert "  -  " in table({"latency": found.as_dict()})


def test_samples_that_differ_keep_the_bootstrap():
    samples = [0.0] * 9 + [1.0]
    plain = intervals.bootstrap(samples, np.mean)
    assert intervals.bootstrap(samples, np.mean, bounds=SHARE) == plain
    assert (plain.low, plain.high) == pytest.approx((0.0, 0.3), abs=0.05)


def test_a_macro_average_of_equal_kinds():
    """By hand: 1 of 1 begins at 0.2065, and 0 of 4 ends at 0.4899 (Wilson)."""
    found = averages.macro({"a": [1.0], "b": [0.0] * 4, "none": []}, bounds=SHARE)
    assert found.value == 0.5 and found.count == 5
    assert found.low == pytest.approx(0.5 - 0.7935 / 2, abs=1e-4)
    assert found.high == pytest.approx(0.5 + 0.4899 / 2, abs=1e-4)
    one = averages.macro({"a": [0.0] * 40}, bounds=SHARE)
    assert (one.low, one.high) == pytest.approx((0.0, 0.0876), abs=1e-4)
    assert math.isnan(averages.macro({"a": [0.2], "b": [0.4]}).low)
    assert averages.macro({"a": [0.0, 1.0], "b": [1.0]}).low == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals.share(3, 2), "right=3"),
        (lambda: intervals.rate(1, 0.0), r"minutes=0\.0"),
        (lambda: intervals.bootstrap([0.5, 1.2], np.mean, bounds=SHARE), r"mean=1\.2"),
        (lambda: intervals.bootstrap([0.5], bounds=SHARE), "are of a mean"),
    ],
)
def test_intervals_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_counted_is_no_number():
    found = intervals.share(0, 0).as_dict()
    assert found["value"] is None and found["count"] == 0


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ((PASS, PASS, PASS), []),
        ((PASS, answer("3", "four"), TALK, STOP, PASS), [(1, "3", "four", 3)]),
        (
            (answer("3", "four"), answer("5", "six"), STOP),
            [(0, "3", "four", 2), (1, "5", "six", 2)],
        ),
        ((PASS, TALK, TALK, STOP), [(1, "", "", 3)]),
        ((output("7", closer=Control.END), PASS), [(0, "7", "", 1)]),
    ],
)
def test_answers_are_found(outputs, expected):
    found = reply(*outputs).answers()
    assert [(a.micro_turn, a.written, a.said, len(a.sound) // CHUNK) for a in found] == expected


def test_onset_is_the_first_audible_sample():
    sound = np.concatenate([np.zeros(600, np.float32), LOUD])
    assert respond.audible_from(sound) == pytest.approx(600 / 16_000)
    assert respond.audible_from(np.zeros(900, np.float32)) is None


# ---------------------------------------------------------------- digits

TRUTH = digits.Digit(3, 0.75, "fsdd/theo/3_0")
STIMULUS = respond.Stimulus(np.zeros(11 * CHUNK, np.float32), truth=TRUTH)


@pytest.mark.parametrize(
    ("outputs", "right", "latency"),
    [
        ((PASS,) * 4 + (answer("3", "four"), TALK, STOP), True, 0.25),
        ((PASS,) * 3 + (answer("3", "four"), TALK, STOP), True, 0.05),
        ((PASS,) * 4 + (answer("8", "nine"), TALK, STOP), False, 0.25),
        ((PASS,) * 4 + (answer("3", "four"), STOP, answer("3", "four"), STOP), False, 0.25),
        ((PASS,) * 9 + (answer("3", "four"), STOP), False, 1.25),
        ((PASS,) * 11, False, None),
    ],
)
def test_a_digit_is_right_only_if_written_once_and_in_time(outputs, right, latency):
    found = digits.score_digit(STIMULUS, reply(*outputs), lambda sound: "four")
    assert found.right is right
    assert found.latency == (None if latency is None else pytest.approx(latency))


def test_digit_figures():
    good = digits.score_digit(
        STIMULUS, reply(*(PASS,) * 4, answer("3", "four"), STOP), lambda sound: "four"
    )
    deaf = digits.score_digit(
        STIMULUS, reply(*(PASS,) * 4, answer("3", "four"), STOP), lambda sound: "five"
    )
    none = digits.score_digit(STIMULUS, reply(*(PASS,) * 9), lambda sound: "four")
    found = digits.summarise([good, deaf, none, none])
    assert found["written_right"].value == 0.5
    assert found["spoken_recognised"].value == 0.25
    assert found["spoken_recognised_where_written_right"].value == 0.5
    assert found["nothing_written"].value == 0.5
    assert found["sound_within_0.4_seconds"].value == 0.5  # silence counts as too late
    assert digits.by_digit([good, none]) == {"3": "3x1 nothingx1"}


def test_digit_stimuli_leave_time_for_an_answer():
    wave = np.full(5_000, 0.1, np.float32)
    clips = [Clip(f"c{i}", Sound.DIGIT, "human", Split.TEST, wave, i, 0.28, "x") for i in range(4)]
    stimuli = digits.digit_stimuli(clips, seed=3)
    for stimulus, clip in zip(stimuli, clips, strict=True):
        assert stimulus.truth.label == clip.label
        start = np.argmax(stimulus.sound > 0) / 16_000
        assert 0.4 <= start < 1.2
        assert stimulus.truth.end == pytest.approx(start + 0.28, abs=1e-4)
        assert stimulus.micro_turns * 0.2 >= stimulus.truth.end + 1.8
    assert len({len(s.sound) for s in stimuli}) > 1


# ---------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("ends", "outputs", "exact", "in_order"),
    [
        ((0.5,), (PASS, PASS, answer("1", "one"), STOP), True, True),
        ((0.5, 1.2), (PASS, PASS, answer("1", "one"), STOP, PASS, PASS, answer("2", "two")),
         True, True),
        ((0.5, 1.2), (PASS,) * 6 + (answer("2", "two"),), True, False),
        ((0.5, 1.2), (PASS, PASS, answer("1", "one"), STOP, PASS), False, False),
        ((0.5,), (PASS,) * 5, False, False),
        ((), (PASS,) * 5, True, True),
        ((), (PASS, answer("1", "one")), False, False),
        ((0.5,), (PASS, PASS, answer("x", "one")), False, False),
    ],
)  # fmt: skip
def test_counts(ends, outputs, exact, in_order):
    stimulus = respond.Stimulus(tubelets=np.zeros((9, 4, 2, 40, 40, 3), np.uint8), truth=ends)
    found = counting.score_count(stimulus, reply(*outputs))
    assert (found.exact, found.in_order) == (exact, in_order)


def test_count_figures_name_chance():
    results = [
        counting.CountResult(n, (str(w),), False) for n, w in ((1, 1), (1, 2), (3, 3), (4, 1))
    ]
    found = counting.summarise(results)
    assert found["exact"].value == 0.5 and found["exact"].chance == 0.5
    assert found["within_one"].value == 0.75


def test_test_videos_are_their_own():
    one, two = counting.video_stimuli("flashes", 2, seed=1), counting.video_stimuli("flashes", 2)
    assert not np.array_equal(one[0].tubelets, two[0].tubelets)
    again = counting.video_stimuli("flashes", 2, seed=1)
    np.testing.assert_array_equal(one[1].tubelets, again[1].tubelets)
    assert one[0].micro_turns == 42


# ---------------------------------------------------------------- false answers


def test_false_answers():
    stimuli = [respond.Stimulus(np.zeros(300 * CHUNK, np.float32)) for _ in range(2)]
    replies = [reply(PASS, TALK, STOP, PASS, answer("1", "two"), STOP), reply(PASS, PASS)]
    found = false_answers.per_minute(stimuli, replies)
    assert (found.value, found.count) == (1.0, 2.0)
    assert false_answers.answered_share(replies).value == 0.5


def test_noise_is_a_minute_and_held_out():
    wave = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    bank = ClipBank([Clip("n", Sound.NOISE, "none", Split.TEST, wave)])
    stimuli = false_answers.noise_stimuli(bank, minutes=4)
    assert [s.micro_turns for s in stimuli] == [300] * 4
    assert all(np.max(np.abs(s.sound)) < 1 for s in stimuli)


# ---------------------------------------------------------------- playing


class FakeLanes:
    """Writes how many micro-turns its lane has had, in the last one it is given."""

    made = 0

    def __init__(self, params, config, *, lanes, seed):
        type(self).made += 1
        self.lanes, self.counts = lanes, [0] * lanes

    def step(self, inputs):
        assert len(inputs) == self.lanes
        found = []
        for lane, item in enumerate(inputs):
            if item is None:
                found.append(None)
                continue
            assert item.micro_turn == self.counts[lane]
            self.counts[lane] += 1
            found.append(output(str(self.counts[lane]), closer=Control.END))
        return found


def test_every_stimulus_gets_its_own_reply(monkeypatch):
    monkeypatch.setattr(respond, "Lanes", FakeLanes)
    lengths = [5, 2, 9, 3, 7]
    stimuli = [respond.Stimulus(np.zeros(n * CHUNK - 7, np.float32)) for n in lengths]
    replies = respond.respond({}, None, stimuli, lanes=2)
    assert [len(r.outputs) for r in replies] == lengths
    assert [r.outputs[-1].written for r in replies] == [str(n) for n in lengths]
    assert FakeLanes.made == 3


def test_lane_input_cuts_and_pads():
    tubelets = np.arange(2 * 9600, dtype=np.int64).astype(np.uint8).reshape(2, 1, 2, 40, 40, 3)[:2]
    sound = np.ones(CHUNK + 100, np.float32)
    stimulus = respond.Stimulus(sound, tubelets)
    second = stimulus.lane_input(1)
    assert second.audio[0][0] == 1 and second.audio[0][1].sum() == 100
    np.testing.assert_array_equal(second.video, tubelets[1])
    assert respond.Stimulus(tubelets=tubelets).lane_input(0).audio == ()


def test_recogniser_knows_the_recordings_and_not_noise():
    pytest.importorskip("pocketsphinx")
    for word in ("three", "eight", "ten"):
        assert recognise(recordings()[word][0].samples) == word
    assert recognise(np.zeros(9_000, np.float32)) is None


def test_table_shows_every_figure():
    text = table({"a": {"b": intervals.share(9, 10, chance=0.1).as_dict()}, "note": {"c": "x"}})
    assert "a b" in text and "0.900" in text and "0.10" in text and len(text.splitlines()) == 3
