"""Recorded streams as live input.

In: samples, frames, typed text, and which chunks come late or never. Out: for each micro-turn what
has arrived by its end (`LaneInput`), with chunks that came too late counted and left out.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.microturn import micro_turn_of
from interaction.models.config import InteractionConfig
from interaction.streams.events import TextEvent, TextInQueue, VideoFrames
from interaction.streams.image import frame_at, tubelets
from interaction.streams.text import Tokenizer
from interaction.streams.weave import LaneInput


@dataclasses.dataclass(frozen=True)
class Arrived:
    """What one micro-turn brings.

    Attributes:
        lane: goes into the step.
        dropped: chunks that came later than the configuration allows.
        frame: uint8 last frame seen, or None.
        text: the text as typed.
    """

    lane: LaneInput
    dropped: int = 0
    frame: np.ndarray | None = None
    text: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recording:
    """Streams of one session.

    Attributes:
        audio: float32 ``[W]`` at 16 kHz from session time 0 on, or None for no sound.
        video: frames with times, or None.
        text: text that comes in.
        late: chunk's micro-turn -> micro-turns by which it comes late.
        lost: micro-turns whose chunk never comes.
        seconds: length; None: as long as the longest stream.
    """

    audio: np.ndarray | None = None
    video: VideoFrames | None = None
    text: Sequence[TextEvent] = ()
    late: Mapping[int, int] = dataclasses.field(default_factory=dict)
    lost: frozenset[int] = frozenset()
    seconds: float | None = None

    def __post_init__(self):
        early = {time: late for time, late in self.late.items() if late < 0}
        if early:
            raise ValueError(f"late={early}: a chunk cannot come before its own micro-turn")

    def micro_turns(self, config: InteractionConfig) -> int:
        """Micro-turns until every stream has ended."""
        samples = config.grid.samples
        ends = [0.0 if self.audio is None else len(self.audio) / config.grid.sample_rate]
        if self.video is not None and len(self.video.times):
            ends.append(float(self.video.times[-1]) + 1 / config.grid.video_rate)
        ends += [event.seconds + 0.2 for event in self.text]
        seconds = max(ends) if self.seconds is None else self.seconds
        return -(-round(seconds * config.grid.sample_rate) // samples)

    def arrivals(self, config: InteractionConfig, tokenizer: Tokenizer) -> list[Arrived]:
        """What each micro-turn brings, in order."""
        count = self.micro_turns(config)
        chunks, dropped = self._chunks(config, count)
        frames = self._frames(config, count)
        queue, texts = (
            TextInQueue(tokenizer, config.weave),
            sorted(self.text, key=lambda event: event.seconds),
        )
        result, typed = [], 0
        for now in range(count):
            shown = []
            while typed < len(texts) and micro_turn_of(texts[typed].seconds) <= now:
                queue.put(texts[typed].source, texts[typed].text)
                shown.append(texts[typed].text)
                typed += 1
            seen = frames.get(now)
            video = None
            if seen is not None:
                video = tubelets(
                    seen, max_patches=config.vision.max_patches, patch=config.vision.patch
                )
            lane = LaneInput(
                micro_turn=now, video=video, text_in=queue.take(), audio=tuple(chunks.get(now, ()))
            )
            frame = None if seen is None else seen[-1]
            result.append(Arrived(lane, dropped.get(now, 0), frame, tuple(shown)))
        return result

    def _chunks(self, config, count):
        """Arrival micro-turn -> chunks in order of their own time, and numbers dropped.

        Of more chunks than one micro-turn may take the newest are kept.
        """
        chunks: dict[int, list[tuple[int, np.ndarray]]] = {}
        dropped: dict[int, int] = {}
        if self.audio is None:
            return chunks, dropped
        size = config.grid.samples
        padded = np.zeros(-(-len(self.audio) // size) * size, np.float32)
        padded[: len(self.audio)] = self.audio
        for time in range(min(count, len(padded) // size)):
            if time in self.lost:
                continue
            late = self.late.get(time, 0)
            if late > config.max_lateness:
                dropped[time + late] = dropped.get(time + late, 0) + 1
                continue
            arrives = chunks.setdefault(time + late, [])
            arrives.append((time, padded[time * size : (time + 1) * size]))
            if len(arrives) > config.max_audio_chunks:
                del arrives[0]
                dropped[time + late] = dropped.get(time + late, 0) + 1
        return chunks, dropped

    def _frames(self, config, count) -> dict[int, np.ndarray]:
        """Micro-turn -> uint8 ``[2, h, w, 3]`` frames seen in it."""
        if self.video is None or not len(self.video.times):
            return {}
        per = config.grid.video_frames
        index = frame_at(self.video.times, config.grid.video_rate, count * per)
        result = {}
        for now in range(count):
            mine = index[now * per : (now + 1) * per]
            if (mine >= 0).all():
                result[now] = self.video.frames[mine]
        return result
