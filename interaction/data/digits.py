"""Spoken digits: people (FSDD, from a folder or through TFDS) and synthetic voices.

In: recordings or voices. Out: `Clip`s labelled 0..9, each with the end of its speech by Silero.

Held out, fixed in advance: takes 0-4 of every speaker, and every take of the speaker `theo`.
FSDD: Jakobovski et al., Free Spoken Digit Dataset, CC-BY-SA-4.0.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from interaction.data.clips import Clip, Sound, Split
from interaction.data.config import SourceFolders
from interaction.data.speech_span import speech_span
from interaction.data.tfds_folder import TfdsFolder, locate
from interaction.data.voices import SAMPLE_RATE, EspeakVoice, espeak

HELD_OUT_SPEAKER = "theo"
HELD_OUT_TAKES = range(5)
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.(?:flac|wav)$")

# Espeak variants whose digits people understand; the second list is never heard in training.
TRAIN_VOICES = tuple(
    f"{language}+{variant}"
    for language, variants in (
        ("en-us", "max m1 m2 m3 m4 m5 m7 m8 f1 f2 f4 f5 steph steph2 Andy Annie Alex Mike Michael "
                  "Lee Gene paul klatt klatt2 klatt4 Marco Diogo aunty"),
        ("en", "max m3 f2 steph3 Andrea Hugo rob"),
        ("en-gb-x-rp", "max m1 f4 adam boris"),
        ("en-gb-scotland", "max m3"),
    )
    for variant in variants.split()
)  # fmt: skip
TEST_VOICES = (
    "en-us+Denis", "en-us+robert", "en-us+belinda", "en-us+edward", "en-us+klatt3",
    "en-gb-x-rp+benjamin", "en+anika", "en+john",
)  # fmt: skip


def split_of(speaker: str, take: int) -> Split:
    """The split of a recording of FSDD."""
    held_out = speaker == HELD_OUT_SPEAKER or take in HELD_OUT_TAKES
    return Split.TEST if held_out else Split.TRAIN


def read_folder(folder: Path) -> Iterator[tuple[int, str, int, np.ndarray, int]]:
    """(digit, speaker, take, samples, rate) of every file in a folder of FSDD, sorted by name."""
    for path in sorted(folder.iterdir()):
        match = _NAME.match(path.name)
        if match:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            yield int(match[1]), match[2], int(match[3]), samples.mean(axis=1), rate


def read_tfds() -> Iterator[tuple[int, str, int, np.ndarray, int]]:
    """The same from the folder in which TFDS prepared `spoken_digit`.

    Raises:
        FileNotFoundError: there is no such folder; says what else can be named.
    """
    try:
        folder = locate("spoken_digit")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "no folder of spoken digits is named (folders.spoken_digits or "
            f"INTERACTION_SPOKEN_DIGITS), and TFDS has not prepared one: {error}"
        ) from error
    examples = TfdsFolder(str(folder), "train", "audio", "audio/filename")
    for index in range(len(examples)):
        example = examples[index]
        match = _NAME.match(example.text)
        if not match:
            raise ValueError(f"spoken_digit has a file named {example.text!r}")
        yield int(match[1]), match[2], int(match[3]), example.samples, example.rate


def human_digits(folders: SourceFolders) -> Iterator[Clip]:
    """People's digits at 16 kHz, from the folder if there is one, else through TFDS."""
    folder = folders.folder("spoken_digits")
    recordings = read_folder(folder) if folder else read_tfds()
    for digit, speaker, take, samples, rate in recordings:
        wave = samples
        if rate != SAMPLE_RATE:
            wave = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)
        yield Clip(
            name=f"fsdd/{speaker}/{digit}_{take}",
            sound=Sound.DIGIT,
            origin="human",
            split=split_of(speaker, take),
            samples=wave,
            label=digit,
            end=speech_span(wave).end,
            group=speaker,
        )


def digit_clip(name: str, digit: int, wave: np.ndarray, *, origin: str, group: str, split: Split):
    """A clip of one digit, cut to its speech with 30 ms around it."""
    span = speech_span(wave)
    start = max(0, int((span.start - 0.03) * SAMPLE_RATE))
    part = wave[start : int((span.end + 0.03) * SAMPLE_RATE)]
    end = span.end - start / SAMPLE_RATE
    return Clip(name, Sound.DIGIT, origin, split, part, digit, end, group)


def synthetic_digits(*, seed: int, per_word: int = 2) -> Iterator[Clip]:
    """Digits of espeak voices, rate and pitch varied."""
    random = np.random.default_rng([seed, 17])
    for split, voices in ((Split.TRAIN, TRAIN_VOICES), (Split.TEST, TEST_VOICES)):
        for name in voices:
            for digit, word in enumerate(DIGIT_WORDS):
                for take in range(per_word):
                    voice = EspeakVoice(
                        name, int(random.integers(125, 190)), int(random.integers(25, 75)),
                        int(random.integers(30, 70)),
                    )  # fmt: skip
                    yield digit_clip(
                        f"espeak/{name}/{digit}_{take}", digit, espeak(word, voice),
                        origin="voice", group=name, split=split,
                    )  # fmt: skip
