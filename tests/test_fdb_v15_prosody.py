"""Full-Duplex-Bench v1.5, the voice around an overlap: splits, rates, trimmed means, Praat.

In: words with times, sounds of known pitch and level. Out: figures worked out by hand.
"""

import math

import numpy as np
import pytest

from interaction.eval import speech_segments
from interaction.eval.board import Board
from interaction.eval.records import SAMPLE_RATE, Clock, Run, Sample
from interaction.eval.suite import Hearing, Mode
from interaction.eval.suites.fdb import layout, v15_prosody
from interaction.eval.suites.fdb.v15_prosody import Prosody, Sides
from tests.fdb_for_tests import figure, words


@pytest.mark.parametrize(
    ("end", "split"),
    [
        (0.5, 1.0),  # before every word: the first one's start
        (1.0, 1.0),
        (1.2, 1.0),  # inside a word: its start
        (1.39, 1.0),
        (1.4, 2.0),  # at its end: the next one's start
        (2.7, 2.6),
        (2.9, 2.9),  # behind all: the last one's end
        (7.0, 2.9),
    ],
)
def test_the_split_is_moved_to_a_word(end, split):
    said = words((1.0, 1.4), (2.0, 2.5), (2.6, 2.9))
    assert v15_prosody.split_time(said, end) == split
    assert v15_prosody.split_time([], end) == end


def test_words_per_minute_go_from_the_first_start_to_the_last_end():
    assert v15_prosody.words_per_minute(words((1.0, 1.5), (3.5, 4.0))) == 40.0
    assert v15_prosody.words_per_minute(words((1.0, 1.0))) == 0.0
    assert v15_prosody.words_per_minute([]) == 0.0


def test_a_twentieth_is_left_out_at_either_end_of_three_or_more():
    values = np.array([1.0, *[10.0] * 18, 100.0])
    assert v15_prosody.trimmed_mean(values) == 10.0
    assert v15_prosody.trimmed_mean(np.array([1.0, 3.0])) == 2.0
    assert v15_prosody.trimmed_mean(np.array([1.0, 3.0, 8.0])) == 3.0
    rows = np.stack([values, values + 1])
    np.testing.assert_allclose(v15_prosody.trimmed_mean(rows, axis=1), [10.0, 11.0])


MEASURED = {
    "a": Sides({"rate": 120.0, "pitch": 100.0}, {"rate": 150.0, "pitch": 110.0}),
    "b": Sides({"rate": 100.0, "pitch": 100.0}, {"rate": 110.0, "pitch": 0.0}),
    "mute": Sides({"rate": 0.0, "pitch": 0.0}, {"rate": 90.0, "pitch": 120.0}),
}


def scored(mode, responded):
    board = Board(mode, Clock.INSTANT)
    v15_prosody.score(board, "user_interruption", MEASURED, responded)
    return board.figures


def test_compat_averages_each_side_and_takes_silence_for_a_rate_of_0():
    rows = scored(Mode.COMPAT, set())
    assert len(rows) == 4
    before = figure(rows, "interruption", "speaking rate before the overlap's end (words/min)")
    assert before.measured.value == 100.0  # of 0, 100 and 120 the middle one is left
    assert before.samples == {"a": 120.0, "b": 100.0, "mute": 0.0}
    after = figure(rows, "interruption", "pitch after the overlap's end, mean (Hz)")
    assert after.measured.value == 110.0


def test_strict_takes_the_difference_where_it_responded_and_there_was_a_voice():
    title = "speaking rate, after minus before, where it responded (words/min)"
    rows = scored(Mode.STRICT, {"a", "b", "mute"})
    assert figure(rows, "interruption", title).samples == {"a": 30.0, "b": 10.0}
    pitch = figure(rows, "interruption", "pitch, after minus before, where it responded, mean (Hz)")
    assert pitch.samples == {"a": 10.0}
    assert figure(scored(Mode.STRICT, {"b"}), "interruption", title).measured.value == 10.0
    assert not scored(Mode.STRICT, {"mute"})


def hum(hertz, level, seconds=1.5):
    """A voice-like sound: ten harmonics of a steady pitch."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 11))
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def test_praat_hears_pitch_and_level_of_either_side(monkeypatch):
    pytest.importorskip("parselmouth")
    monkeypatch.setattr(speech_segments, "speech_segments", lambda wave, wanted: [])
    wave = np.concatenate([hum(120, 0.2), hum(180, 0.4)])
    sample = Sample("fdb_v15", "user_interruption", "x", 3.0, truth={"overlap": (1.0, 1.4)})
    run = layout.spoken_run(sample, wave, "somebody")

    class Ears:
        name = "fixed"

        def words(self, run, clock):
            return words((0.2, 0.6), (0.8, 1.2), (1.5, 1.8), (2.0, 2.5))

        def speech(self, run, clock):
            return []

    found = v15_prosody.sides(sample, run, Hearing(Ears(), Clock.INSTANT), Prosody.PRAAT)
    assert found.before["rate"] == 120.0 and found.after["rate"] == 120.0
    assert found.before["pitch"] == pytest.approx(120, abs=1)
    assert found.after["pitch"] == pytest.approx(180, abs=1)
    assert found.before["pitch_spread"] < 2
    louder = found.after["loudness"] - found.before["loudness"]
    assert louder == pytest.approx(20 * math.log10(2), abs=0.3)
    rate = v15_prosody.sides(sample, run, Hearing(Ears(), Clock.INSTANT), Prosody.RATE)
    assert set(rate.before) == {"rate"}
    quiet = v15_prosody.voice(np.zeros(SAMPLE_RATE, np.float32))
    assert quiet["pitch"] == 0.0 and math.isnan(quiet["loudness"])


def test_a_recording_that_ends_before_the_overlap_has_one_side():
    sample = Sample("fdb_v15", "user_interruption", "x", 1.0, truth={"overlap": (1.5, 2.0)})
    run = Run("fdb_v15", "user_interruption", "x", "somebody", 1.0, ())

    class Ears:
        name = "nothing"

        def words(self, run, clock):
            return []

        def speech(self, run, clock):
            return []

    found = v15_prosody.sides(sample, run, Hearing(Ears(), Clock.INSTANT), Prosody.RATE)
    assert found == Sides({"rate": 0.0}, {})
