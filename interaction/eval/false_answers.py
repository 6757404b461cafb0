"""Does it stay silent when nothing was asked of it?

In: held-out noise, and held-out speech without digits. Out: false answers per minute, and the
share of clips that are answered, with intervals. Any number written, any word said and any start
of speech is a false answer.
"""

from collections.abc import Sequence

import numpy as np

from interaction.data import sounds
from interaction.data.clips import Clip, ClipBank, Sound, Split, to_float
from interaction.data.voices import SAMPLE_RATE
from interaction.eval.intervals import Measured, rate, share
from interaction.eval.respond import Reply, Stimulus, seconds_of

_SESSION = 60
_TAIL = 1.2


def noise_stimuli(
    bank: ClipBank, *, minutes: int, seed: int = 0, split: Split = Split.TEST
) -> list[Stimulus]:
    """Sessions of a minute: recorded backgrounds, animals, music, made-up noise, silence."""
    random = np.random.default_rng([seed, 31])
    kinds = [Sound.NOISE, Sound.CREATURE, Sound.MUSIC, None, Sound.NOISE, Sound.CREATURE, None]
    return [
        Stimulus(_noise(random, bank, kinds[index % len(kinds)], split), truth="noise")
        for index in range(minutes)
    ]


def _noise(random, bank: ClipBank, kind: Sound | None, split: Split) -> np.ndarray:
    length = _SESSION * SAMPLE_RATE
    clips = bank.select(split, kind) if kind else []
    pieces, total = [], 0
    while total < length:
        if clips:
            clip = clips[random.integers(len(clips))]
            size = min(len(clip.samples), int(random.uniform(3, 10) * SAMPLE_RATE))
            piece = sounds.excerpt(random, clip.samples, size)
        else:
            size = int(random.uniform(3, 10) * SAMPLE_RATE)
            make = random.choice([sounds.coloured_noise, sounds.tones])
            piece = make(random, size) if random.random() < 0.85 else np.zeros(size, np.float32)
        level = random.uniform(-50, -18)
        piece = sounds.set_level(piece, level) if piece.any() else piece
        gap = np.zeros(int(random.choice([0, 0.5]) * SAMPLE_RATE), np.float32)
        pieces += [piece, gap]
        total += len(piece) + len(gap)
    return np.concatenate(pieces)[:length].astype(np.float32)


def speech_stimuli(clips: Sequence[Clip], *, seed: int = 0) -> list[Stimulus]:
    """Each clip after 0.4 to 1.2 s of silence, with time for a false answer; truth: its name."""
    random = np.random.default_rng([seed, 37])
    stimuli = []
    for clip in clips:
        lead = int(random.uniform(0.4, 1.2) * SAMPLE_RATE)
        sound = np.pad(to_float(clip.samples), (lead, int(_TAIL * SAMPLE_RATE)))
        stimuli.append(Stimulus(sound, truth=clip.name))
    return stimuli


def held_out_speech(
    bank: ClipBank, sound: Sound, origin: str, *, at_most: int, seed: int = 0
) -> list[Clip]:
    """Held-out clips of words or sentences by people or voices, at most so many."""
    clips = bank.select(Split.TEST, sound, origin)
    if len(clips) <= at_most:
        return list(clips)
    chosen = np.random.default_rng([seed, 41]).choice(len(clips), at_most, replace=False)
    return [clips[index] for index in sorted(chosen)]


def per_minute(stimuli: Sequence[Stimulus], replies: Sequence[Reply]) -> Measured:
    """False answers per minute."""
    return rate(sum(len(reply.answers()) for reply in replies), seconds_of(stimuli) / 60)


def answered_share(replies: Sequence[Reply]) -> Measured:
    """Share of clips with at least one false answer."""
    return share(sum(bool(reply.answers()) for reply in replies), len(replies))
