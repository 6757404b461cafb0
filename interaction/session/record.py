"""What a session leaves behind: one record per micro-turn.

In: nothing. Out: the dataclasses that the loop fills and that terminal, report and evaluation
read. Times are session seconds.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class MicroTurnRecord:
    """One micro-turn, in and out.

    Attributes:
        micro_turn: session time m; its input is that of [0.2 m, 0.2 (m + 1)) s.
        heard_audio: float32 ``[3200]`` samples of the newest chunk that came (zeros if none).
        lateness: micro-turns by which each chunk woven in came late.
        dropped: chunks that came too late and were not woven in.
        video_frame: uint8 ``[h, w, 3]`` last frame seen, or None.
        text_in: text that came in.
        written, said, delegated: text put out on each channel.
        closer: ``pass``, ``end``, ``speak`` or ``yield``.
        spoken_audio: float32 ``[3200]`` what the vocoder gave for this micro-turn.
        play_start_seconds: when those samples start to play.
        step_milliseconds: measured wall time of the step.
        forgotten_text: text slots that gave way to it, because memory held nothing else to let go.
    """

    micro_turn: int
    heard_audio: np.ndarray
    lateness: tuple[int, ...]
    video_frame: np.ndarray | None
    text_in: tuple[str, ...]
    written: str
    said: str
    delegated: str
    closer: str
    spoken_audio: np.ndarray
    play_start_seconds: float
    step_milliseconds: float
    dropped: int = 0
    forgotten_text: int = 0


@dataclasses.dataclass(frozen=True)
class SessionRecord:
    """A whole session.

    Attributes:
        sample_rate: of heard and spoken audio.
        micro_turns: in order.
        pace: which clock it ran against.
        checkpoint: what was run.
    """

    sample_rate: int
    micro_turns: tuple[MicroTurnRecord, ...]
    pace: str
    checkpoint: str
