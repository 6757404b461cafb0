"""What happens to a clip before it is heard: speed, tilt, telephone band, level; and noise.

In: clips and a random generator. Out: float32 samples at 16 kHz.
"""

import dataclasses

import numpy as np
import soxr

from interaction.data.clips import Clip, to_float
from interaction.data.voices import SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Heard:
    """A clip as it will be heard.

    Attributes:
        samples: float32 ``[samples]``.
        end: seconds from its start to the end of speech.
    """

    samples: np.ndarray
    end: float


def telephone(samples: np.ndarray) -> np.ndarray:
    """The samples with nothing above 4 kHz."""
    narrow = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2, quality="LQ")
    wide = soxr.resample(narrow, SAMPLE_RATE // 2, SAMPLE_RATE, quality="LQ")
    return np.pad(wide, (0, max(0, len(samples) - len(wide))))[: len(samples)]


def set_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Scales so that the loudest half of the 20 ms frames has this level (dB of full scale)."""
    hop = SAMPLE_RATE // 50
    count = max(1, len(samples) // hop)
    part = np.pad(samples, (0, max(0, count * hop - len(samples))))[: count * hop]
    power = np.sort(np.mean(np.square(part.reshape(count, hop)), axis=1))[-max(1, count // 2) :]
    level = np.sqrt(power.mean()) + 1e-6
    factor = min(10 ** (decibels / 20) / level, 0.95 / (np.max(np.abs(samples)) + 1e-6))
    return samples * np.float32(factor)


def coloured_response(random, samples: np.ndarray, *, decibels: float = 4.0) -> np.ndarray:
    """The samples through a smooth random frequency response, as of some microphone and room."""
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) + 60.0)
    points = np.linspace(octave[0], octave[-1], 8)
    gain = np.interp(octave, points, random.normal(0, decibels, len(points)))
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples)).astype(np.float32)


def varied(random, clip: Clip, *, speeds=(0.86, 1.18), levels=(-50.0, -12.0)) -> Heard:
    """A clip with its speed, frequency response, bandwidth and level varied.

    Levels span what microphones give, from a person far away to one close by.
    """
    samples, end = to_float(clip.samples), clip.end
    if random.random() < 0.7:
        speed = random.uniform(*speeds)
        samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="LQ")
        end = end / speed
    if random.random() < 0.5:
        tilt = np.float32(random.uniform(-0.5, 0.6))
        samples = samples + tilt * np.concatenate([samples[:1] * 0, samples[:-1]])
    if random.random() < 0.5:
        samples = coloured_response(random, samples)
    if random.random() < 0.35:
        samples = telephone(samples)
    return Heard(set_level(samples.astype(np.float32), random.uniform(*levels)), end)


def coloured_noise(random, samples: int) -> np.ndarray:
    """Noise with a random spectral slope (white to brown), a hum or slow swells now and then."""
    spectrum = np.fft.rfft(random.normal(0, 1, samples).astype(np.float32))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0)
    wave = np.fft.irfft(spectrum * frequency ** -random.uniform(0.0, 1.0), samples)
    wave = wave / (wave.std() + 1e-9)
    time = np.arange(samples) / SAMPLE_RATE
    if random.random() < 0.3:
        hum = random.choice([50, 60, 100, 120]) * random.integers(1, 4)
        wave += random.uniform(0.3, 2) * np.sin(2 * np.pi * hum * time)
    if random.random() < 0.4:
        pace, phase = random.uniform(0.1, 4), random.uniform(0, 6)
        wave *= 0.55 + 0.45 * np.sin(2 * np.pi * pace * time + phase)
    return wave.astype(np.float32)


def tones(random, samples: int) -> np.ndarray:
    """Notes, beeps and clicks: sounds with edges that are no speech."""
    wave = np.zeros(samples, np.float32)
    here = 0
    while here < samples:
        length = min(int(random.uniform(0.05, 0.7) * SAMPLE_RATE), samples - here)
        time = np.arange(length) / SAMPLE_RATE
        pitch = 55 * 2 ** random.uniform(0, 5)
        note = sum(
            random.uniform(0, 1) * np.sin(2 * np.pi * pitch * (k + 1) * time) for k in range(4)
        )
        edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.005)
        wave[here : here + length] = note * edge * np.exp(-time * random.uniform(0, 8))
        here += length + int(random.choice([0, 0, random.uniform(0, 0.6)]) * SAMPLE_RATE)
    return wave / (wave.std() + 1e-9)


def excerpt(random, samples: np.ndarray, length: int) -> np.ndarray:
    """`length` samples of a recording from a random place, repeated where it is too short."""
    if len(samples) < length:
        samples = np.tile(samples, -(-length // max(1, len(samples))))
    start = random.integers(0, len(samples) - length + 1)
    return to_float(samples[start : start + length])


def fragment(random, heard: np.ndarray) -> np.ndarray:
    """0.15 to 0.7 s out of the middle of something, faded over 10 ms."""
    length = min(len(heard), int(random.uniform(0.15, 0.7) * SAMPLE_RATE))
    part = excerpt(random, heard, length).copy()
    fade = min(SAMPLE_RATE // 100, length // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    part[:fade] *= ramp
    part[length - fade :] *= ramp[::-1]
    return part
