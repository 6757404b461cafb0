"""A bank of made-up clips, and a configuration whose conversations are short.

In: nothing. Out: tones in place of digits, words, sentences and noise, in both splits.
"""

import numpy as np

from interaction.data import voices
from interaction.data.clips import Clip, ClipBank, Sound, Split
from interaction.data.config import DataConfig, SourceFolders

RATE = voices.SAMPLE_RATE


def burst(seconds: float, *, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    count = int(seconds * RATE)
    tone = np.sin(2 * np.pi * random.uniform(150, 900) * np.arange(count) / RATE)
    return (0.2 * tone * np.hanning(count)).astype(np.float32)


def tiny_bank() -> ClipBank:
    clips = []
    for split in Split:
        for digit in range(10):
            for origin in ("human", "voice"):
                name = f"{split.value}/{origin}/{digit}"
                length = 0.3 + 0.02 * digit
                wave = burst(length, seed=digit)
                clips.append(
                    Clip(name, Sound.DIGIT, origin, split, wave, digit, length - 0.05, origin)
                )
        for sound, seconds in ((Sound.WORD, 0.5), (Sound.SENTENCE, 1.7), (Sound.NOISE, 3.1)):
            origin = "none" if sound is Sound.NOISE else "human"
            name = f"{split.value}/{sound.value}"
            clips.append(Clip(name, sound, origin, split, burst(seconds, seed=50)))
    return ClipBank(clips)


SMALL = DataConfig(
    slip_share=0.0,
    audio_micro_turns=31,
    video_micro_turns=23,
    silent_video_micro_turns=29,
    slots=300,
    folders=SourceFolders(media="/nowhere"),
)
