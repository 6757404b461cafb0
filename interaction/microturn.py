"""The 200 ms grid.

In: rates. Out: how many samples, dMel frames and mel frames one micro-turn holds, and the
conversions between seconds and micro-turns. No arrays.

Micro-turn ``m`` takes the input of ``[0.2 m, 0.2 (m + 1))`` seconds; what it puts out exists no
earlier than ``0.2 (m + 1)`` s plus the measured time of the step.
"""

import dataclasses
import math

MICRO_TURN_SECONDS = 0.2
# A sound that starts is held this long, so that a slower step does not tear the next chunk off.
ONSET_MARGIN_SECONDS = 0.03


@dataclasses.dataclass(frozen=True)
class Grid:
    """Rates of every stream on the 200 ms grid.

    Attributes:
        sample_rate: audio samples per second, in and out.
        audio_hop: samples between two heard (dMel) frames.
        mel_hop: samples between two spoken (output mel) frames.
        video_rate: video frames per second that the model sees.
    """

    sample_rate: int = 16_000
    audio_hop: int = 800
    mel_hop: int = 200
    video_rate: int = 10

    def __post_init__(self):
        samples = self.sample_rate * MICRO_TURN_SECONDS
        if abs(samples - round(samples)) > 1e-6:
            raise ValueError(
                f"sample_rate={self.sample_rate} does not give a whole number of samples in "
                f"{MICRO_TURN_SECONDS} s ({samples})"
            )
        for name in ("audio_hop", "mel_hop"):
            hop = getattr(self, name)
            if hop <= 0 or round(samples) % hop:
                raise ValueError(
                    f"{name}={hop} does not divide the {round(samples)} samples of a micro-turn"
                )
        frames = self.video_rate * MICRO_TURN_SECONDS
        if abs(frames - round(frames)) > 1e-6 or round(frames) % 2:
            raise ValueError(
                f"video_rate={self.video_rate} gives {frames} frames per micro-turn; tubelets "
                "need a whole even number"
            )

    @property
    def samples(self) -> int:
        """Audio samples in one micro-turn (3,200 at 16 kHz)."""
        return round(self.sample_rate * MICRO_TURN_SECONDS)

    @property
    def audio_frames(self) -> int:
        """Heard dMel frames in one micro-turn (4)."""
        return self.samples // self.audio_hop

    @property
    def mel_frames(self) -> int:
        """Spoken mel frames in one micro-turn (16); dimension ``R``."""
        return self.samples // self.mel_hop

    @property
    def video_frames(self) -> int:
        """Video frames in one micro-turn (2, one tubelet)."""
        return round(self.video_rate * MICRO_TURN_SECONDS)


def micro_turn_of(seconds: float) -> int:
    """The micro-turn whose input interval holds ``seconds`` (tolerant of float rounding)."""
    return math.floor(seconds / MICRO_TURN_SECONDS + 1e-6)


def start_seconds(micro_turn: int) -> float:
    """When the input interval of ``micro_turn`` begins."""
    return micro_turn * MICRO_TURN_SECONDS


def output_seconds(micro_turn: int) -> float:
    """The earliest moment at which the outputs of ``micro_turn`` can exist (compute time 0)."""
    return (micro_turn + 1) * MICRO_TURN_SECONDS


def first_border_after(seconds: float) -> int:
    """The first micro-turn whose outputs may exist at or after ``seconds``."""
    return max(0, math.ceil(seconds / MICRO_TURN_SECONDS - 1e-6) - 1)
