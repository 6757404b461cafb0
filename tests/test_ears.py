"""Ears: words from text events and from sound, and how far their times are from the truth."""

import importlib.metadata

import numpy as np
import pytest

from interaction.eval import ears, whisper
from interaction.eval.ears import FromText, Path, TwoPass, audible, spread
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run
from interaction.eval.suite import Word
from interaction.eval.word_alignment import pronounced
from interaction.eval.word_time_truth import errors_of, truth_clips

BOUND = 0.08


def tone(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)


def run_of(*events: OutputEvent, seconds: float = 10.0) -> Run:
    return Run("suite", "scene", "id", "system", seconds, tuple(sorted(events, key=lambda e: e.t)))


def say(t: float, text: str, channel: str = "say", delay: float = 0.0) -> OutputEvent:
    return OutputEvent(t, Kind.TEXT, {"channel": channel, "text": text}, delay)


def sound(t: float, seconds: float, delay: float = 0.0) -> OutputEvent:
    return OutputEvent(t, Kind.AUDIO, tone(seconds), delay)


def timed(words: list[Word]) -> list[tuple[str, float, float]]:
    return [(w.text, round(w.start, 3), round(w.end, 3)) for w in words]


FROM_TEXT = (
    # no sound: 0.3 s a word from the event on
    ([say(1.0, "yes")], [("yes", 1.0, 1.3)]),
    ([say(1.0, "oh yes")], [("oh", 1.0, 1.24), ("yes", 1.24, 1.6)]),
    # but never beyond the next event
    ([say(1.0, "go on"), say(1.3, "now")],
     [("go", 1.0, 1.15), ("on", 1.15, 1.3), ("now", 1.3, 1.6)]),
    # written text is not spoken, and text without words is none
    ([say(1.0, "5", "write"), say(2.0, "  ")], []),
    # the sound that follows
    ([say(1.0, "three"), sound(1.4, 0.5)], [("three", 1.4, 1.9)]),
    ([say(1.0, "two"), sound(1.0, 0.5)], [("two", 1.0, 1.5)]),
    # at the limit of patience, and beyond it
    ([say(1.0, "three"), sound(2.0, 0.5)], [("three", 2.0, 2.5)]),
    ([say(1.0, "three"), sound(2.02, 0.5)], [("three", 1.0, 1.3)]),
    # inside a stretch that plays already (0.9 s a word at most); two before one share it
    ([sound(1.0, 2.0), say(1.5, "cats")], [("cats", 1.5, 2.4)]),
    ([say(1.0, "a"), say(1.2, "b"), sound(1.4, 1.0)], [("a", 1.4, 1.9), ("b", 1.9, 2.4)]),
    ([say(1.0, "aa"), sound(1.0, 2.0), say(2.0, "bb")], [("aa", 1.0, 1.9), ("bb", 2.0, 2.9)]),
    # a long text goes on in the next stretch, a single word does not
    ([say(1.0, "aa bb cc dd"), sound(1.0, 0.6), sound(3.0, 0.6)],
     [("aa", 1.0, 1.3), ("bb", 1.3, 1.6), ("cc", 3.0, 3.3), ("dd", 3.3, 3.6)]),
    ([say(1.0, "aa"), sound(1.0, 0.6), sound(3.0, 0.6)], [("aa", 1.0, 1.6)]),
)  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), FROM_TEXT)
def test_words_from_text_events(events, expected):
    assert timed(FromText().words(run_of(*events), Clock.INSTANT)) == expected


def test_words_from_text_follow_the_clock():
    run = run_of(say(1.0, "yes", delay=0.25), sound(1.0, 0.5, delay=0.5))
    assert timed(FromText().words(run, Clock.INSTANT)) == [("yes", 1.0, 1.5)]
    assert timed(FromText().words(run, Clock.MEASURED)) == [("yes", 1.5, 2.0)]


def test_speech_of_a_run_is_its_sound_or_where_it_has_none_its_words():
    heard = FromText().speech(
        run_of(sound(1.0, 0.5), sound(1.6, 0.4), sound(4.0, 0.5)), Clock.INSTANT
    )
    assert heard == [(1.0, 2.0), (4.0, 4.5)]
    silent = FromText().speech(run_of(say(1.0, "a b"), say(5.0, "c")), Clock.INSTANT)
    assert np.allclose(silent, [(1.0, 1.6), (5.0, 5.3)])
    assert FromText().speech(run_of(), Clock.INSTANT) == []


@pytest.mark.parametrize("settings", [{"patience": -1.0}, {"per_word": 0.0}])
def test_ears_from_text_refuse_bad_settings(settings):
    with pytest.raises(ValueError, match="patience="):
        FromText(**settings)


def test_words_are_spread_by_letters_over_the_time_of_speech():
    words = spread(["a", "bbb"], [(0.0, 1.0), (5.0, 6.0)])
    assert timed(words) == [("a", 0.0, 0.5), ("bbb", 0.5, 6.0)]
    halves = spread(["aa", "bb"], [(0.0, 1.0), (5.0, 6.0)])
    assert timed(halves) == [("aa", 0.0, 1.0), ("bb", 5.0, 6.0)]
    assert spread([], []) == []
    with pytest.raises(ValueError, match="at least one span"):
        spread(["a"], [])


def test_audible_stretches():
    wave = np.zeros(3 * SAMPLE_RATE, np.float32)
    assert audible(wave) == []
    wave[SAMPLE_RATE : 2 * SAMPLE_RATE] = tone(1.0)
    assert audible(wave) == [(1.0, 2.0)]
    faint = wave + np.random.default_rng(0).normal(0, 1e-4, len(wave)).astype(np.float32)
    assert audible(faint) == [(1.0, 2.0)]
    assert audible(np.zeros(0, np.float32)) == []


SPOKEN = (
    ("Hello,", ["hello"]),
    ("It's", ["it's"]),
    ("'tis", ["tis"]),
    ("21,", ["twenty", "one"]),
    ("1,250", ["one", "thousand", "two", "hundred", "fifty"]),
    ("3.5", ["three", "point", "five"]),
    ("$5", ["five", "dollars"]),
    ("3rd", ["three"]),
    ("well-known", ["well", "known"]),
    ("...", []),
)


@pytest.mark.parametrize(("word", "expected"), SPOKEN)
def test_written_words_as_they_are_said(word, expected):
    assert pronounced(word) == expected


def test_short_clips_share_a_call_up_to_its_length():
    second = SAMPLE_RATE
    assert whisper.packs([second] * 30) == [[*range(12)], [*range(12, 24)], [*range(24, 30)]]
    assert whisper.packs([40 * second, second]) == [[0], [1]]
    assert whisper.packs([]) == []
    assert whisper.nearest([(0, 1), (3, 4)], 1.9) == 0
    assert whisper.nearest([(0, 1), (3, 4)], 2.1) == 1


def test_a_pack_that_leaves_a_clip_empty_is_heard_one_by_one(monkeypatch):
    calls = []

    def timed_words(wave, threads):
        calls.append(len(wave))
        return [whisper.TimedText(f"call{len(calls)}", 0.5, 0.6)]

    monkeypatch.setattr(whisper, "timed_words", timed_words)
    apart = [whisper.Written(["call2"], alone=True), whisper.Written(["call3"], alone=True)]
    assert whisper.hear([tone(1.0), tone(1.0)]) == apart
    assert whisper.hear([tone(1.0)]) == [whisper.Written(["call4"], alone=True)]


@pytest.fixture
def listening(monkeypatch, tmp_path):
    """Two-pass ears on a made-up recogniser; gives (ears, what was asked, answers to change).

    Its times are those of a sound with half a second of silence on either side.
    """
    asked: list[str] = []
    answers = {"speech": [(0.5, 1.5)], "text": ["one", "two"], "times": [(0.5, 0.9), (1.0, 1.4)]}
    answers["alone"] = False

    def speech(wave):
        asked.append("speech")
        return answers["speech"]

    def hear(clips, threads):
        asked.append("text")
        return [whisper.Written(answers["text"], answers["alone"]) for _ in clips]

    monkeypatch.setattr(ears.silero, "speech_segments", speech)
    monkeypatch.setattr(ears.whisper, "hear", hear)
    monkeypatch.setattr(ears.word_alignment, "align", lambda clip, text: answers["times"])
    monkeypatch.setattr(ears, "_versions", lambda: ["1"])
    return TwoPass(tmp_path), asked, answers


RUN = run_of(sound(2.0, 1.0))


def test_aligned_words_are_in_the_time_of_the_session(listening):
    two_pass, _, _ = listening
    assert timed(two_pass.words(RUN, Clock.INSTANT)) == [("one", 2.0, 2.4), ("two", 2.5, 2.9)]
    assert two_pass.speech(RUN, Clock.INSTANT) == [pytest.approx((2.0, 3.0), abs=1e-3)]
    assert two_pass.paths() == {Path.ALIGNED: 2, Path.EDGES: 0, Path.TEXT: 0}


@pytest.mark.parametrize(
    ("times", "path"),
    [
        (None, Path.EDGES),
        ([(0.21, 0.9), (1.0, 1.4)], Path.ALIGNED),  # 0.29 s before Silero's edge
        ([(0.19, 0.9), (1.0, 1.4)], Path.EDGES),  # 0.31 s
        ([(0.5, 0.9), (1.0, 1.79)], Path.ALIGNED),
        ([(0.5, 0.9), (1.0, 1.81)], Path.EDGES),
    ],
)
def test_an_alignment_far_from_the_edges_is_not_believed(listening, times, path):
    two_pass, asked, answers = listening
    answers["times"] = times
    assert {heard.path for heard in two_pass.heard(RUN, Clock.INSTANT)} == {path}
    if path is Path.EDGES:
        assert timed(two_pass.words(RUN, Clock.INSTANT)) == [("one", 2.0, 2.5), ("two", 2.5, 3.0)]
        assert asked == ["speech", "text", "text"]  # its text is heard once more, alone


def test_what_was_heard_alone_is_not_heard_again(listening):
    two_pass, asked, answers = listening
    answers |= {"times": None, "alone": True}
    assert {heard.path for heard in two_pass.heard(RUN, Clock.INSTANT)} == {Path.EDGES}
    assert asked == ["speech", "text"]


def test_a_second_scoring_costs_nothing_and_gives_the_same(listening, tmp_path):
    two_pass, asked, _ = listening
    first = two_pass.heard(RUN, Clock.INSTANT)
    count = len(asked)
    again = TwoPass(tmp_path)
    assert again.heard(RUN, Clock.INSTANT) == first
    assert again.speech(RUN, Clock.INSTANT) == two_pass.speech(RUN, Clock.INSTANT)
    assert len(asked) == count
    again.words(run_of(sound(2.0, 1.01)), Clock.INSTANT)
    assert len(asked) > count


def test_another_release_of_the_recogniser_hears_anew(listening, tmp_path, monkeypatch):
    two_pass, asked, _ = listening
    two_pass.words(RUN, Clock.INSTANT)
    count = len(asked)
    monkeypatch.setattr(ears, "_versions", lambda: ["2"])
    TwoPass(tmp_path).words(RUN, Clock.INSTANT)
    assert len(asked) > count


def test_silence_has_no_words(listening):
    two_pass, _, answers = listening
    answers["speech"] = []
    assert two_pass.words(run_of(), Clock.INSTANT) == []


def test_utterances_do_not_reach_into_each_other(listening):
    two_pass, _, answers = listening
    answers["speech"] = [(1.0, 2.0), (2.6, 3.0), (3.8, 4.0)]
    first, second = two_pass._utterances(0, answers["speech"], 10.0)
    assert first.spans == ((1.0, 2.0), (2.6, 3.0)) and second.spans == ((3.8, 4.0),)
    assert first.around == pytest.approx((0.5, 3.4))
    assert second.around == pytest.approx((3.4, 4.5))


def test_missing_ears_are_named_with_the_way_to_get_them(monkeypatch, tmp_path):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"faster-whisper.*interaction\[eval\]"):
        TwoPass(tmp_path)


@pytest.fixture(scope="module")
def clips():
    """16 utterances of two voices, 1.2 to 5 s after the start of their sessions."""
    return truth_clips(("en-us+max", "piper joe"))


def onset_error(clips, heard) -> float:
    errors = [errors_of(clip, words).onset for clip, words in zip(clips, heard, strict=True)]
    return float(np.median(np.abs(errors)))


@pytest.mark.slow
def test_two_passes_find_the_first_word(clips, tmp_path):
    two_pass = TwoPass(tmp_path)
    two_pass.prepare([clip.run for clip in clips], [Clock.INSTANT])
    heard = [two_pass.words(clip.run, Clock.INSTANT) for clip in clips]
    errors = [errors_of(clip, words) for clip, words in zip(clips, heard, strict=True)]
    assert len(errors) == 16 and onset_error(clips, heard) < BOUND
    assert sum(e.understood for e in errors) >= 0.9 * sum(e.words for e in errors)
    assert sum(two_pass.paths().values()) == sum(len(words) for words in heard)


@pytest.mark.slow
def test_whispers_own_first_word_is_early(clips):
    some = clips[::4]
    own = [whisper.timed_words(clip.wave) for clip in some]
    heard = [[Word(w.text, w.start, w.end) for w in words] for words in own]
    assert onset_error(some, heard) > 0.3 > BOUND


@pytest.mark.slow
def test_without_the_first_pass_the_bound_is_missed(clips, tmp_path, monkeypatch):
    everything = lambda wave: [(0.0, len(wave) / SAMPLE_RATE)]
    monkeypatch.setattr(ears.silero, "speech_segments", everything)
    some = clips[::8]
    deaf = TwoPass(tmp_path)
    assert onset_error(some, [deaf.words(clip.run, Clock.INSTANT) for clip in some]) > BOUND
