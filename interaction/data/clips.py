"""Prepared clips: everything that is heard in a conversation, at 16 kHz, with its place in a split.

In: clips from `digits` and `negatives`. Out: `ClipBank`, whose clips are drawn by split, kind and
group, and one file in the cache that holds it, so that runs start at once and hear the same.
"""

import dataclasses
import enum
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Split(enum.Enum):
    """Train, or held out; held-out clips are never heard, looked at or tuned on in training."""

    TRAIN = "train"
    TEST = "test"


class Sound(enum.Enum):
    """What a clip holds."""

    DIGIT = "digit"
    WORD = "word"
    SENTENCE = "sentence"
    NOISE = "noise"
    MUSIC = "music"
    CREATURE = "creature"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        name: unique, source first: ``fsdd/theo/3_7``.
        sound: what it holds.
        origin: ``human``, ``voice`` (synthetic) or ``none`` (no speech).
        split: train or test.
        samples: float32 or int16 ``[samples]`` at 16 kHz (see `to_float`).
        label: the digit, -1 for none.
        end: seconds from the clip's start to the end of speech (digits only).
        group: speaker or voice.
    """

    name: str
    sound: Sound
    origin: str
    split: Split
    samples: np.ndarray
    label: int = -1
    end: float = 0.0
    group: str = ""

    def __post_init__(self):
        if (self.sound is Sound.DIGIT) != (0 <= self.label <= 9):
            raise ValueError(f"clip {self.name!r}: sound={self.sound} with label={self.label}")
        if self.origin not in ("human", "voice", "none"):
            raise ValueError(f"clip {self.name!r}: origin={self.origin!r}")


def hashed_share(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone; splits are chosen by it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


class ClipBank:
    """Clips by split, sound and origin."""

    def __init__(self, clips: Iterable[Clip]):
        self.clips = tuple(clips)
        names = [clip.name for clip in self.clips]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two clips are named {twice!r}")
        self._groups: dict[tuple, list[Clip]] = {}
        for clip in self.clips:
            for origin in (clip.origin, None):
                self._groups.setdefault((clip.split, clip.sound, origin), []).append(clip)

    def select(self, split: Split, sound: Sound, origin: str | None = None) -> list[Clip]:
        """All clips of a split and sound (and origin), in the bank's order."""
        return self._groups.get((split, sound, origin), [])

    def save(self, path: Path) -> None:
        """Writes the bank; the file appears whole or not at all."""
        meta = [
            {
                **{f.name: getattr(clip, f.name) for f in dataclasses.fields(Clip)},
                "sound": clip.sound.value,
                "split": clip.split.value,
                "samples": len(clip.samples),
            }
            for clip in self.clips
        ]
        pcm = np.concatenate([to_pcm(clip.samples) for clip in self.clips])
        # A name of its own: others may be writing the same bank.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            part = Path(folder) / path.name
            np.savez(part, pcm=pcm, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))
            part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "ClipBank":
        """Reads a bank; samples stay 16-bit in memory until `Clip.samples` is used."""
        with np.load(path) as data:
            pcm, meta = data["pcm"], json.loads(data["meta"].tobytes())
        clips, start = [], 0
        for entry in meta:
            stop = start + entry["samples"]
            entry |= {"sound": Sound(entry["sound"]), "split": Split(entry["split"])}
            clips.append(Clip(**(entry | {"samples": pcm[start:stop]})))
            start = stop
        return cls(clips)


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """16-bit samples."""
    if samples.dtype == np.int16:
        return samples
    return np.clip(np.round(samples * 32_767), -32_768, 32_767).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """float32 samples in -1..1."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32_767
    return samples
