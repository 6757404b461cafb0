"""Rendered films with exact times: repetitions, an action that starts and stops, appearances.

In: a random generator. Out: uint8 frames ``[F, 80, 80, 3]`` at 10 a second, with what happens
when. Camera angles, hues and sizes are those of the held-out split, and training never shows the
motion `jump`.
"""

import dataclasses

import numpy as np

from interaction.data import video
from interaction.data.clips import Split
from interaction.data.figure import motion

# Motion -> what it is called in an instruction.
ACTIONS = {"kick": "kicks", "punch": "punches", "jump": "jumps"}
DOING = {"kick": "kicking", "punch": "punching", "jump": "jumping"}
COLOURS = {
    "red": (220, 30, 30), "green": (30, 190, 60), "blue": (40, 70, 230), "yellow": (240, 220, 40),
    "white": (250, 250, 250),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
_GREY = 70


@dataclasses.dataclass(frozen=True)
class Repetitions:
    """Frames, and start and end in seconds of each repetition."""

    frames: np.ndarray
    cycles: tuple[tuple[float, float], ...]

    @property
    def span(self) -> tuple[float, float]:
        """From the start of the first one to the end of the last one."""
        return self.cycles[0][0], self.cycles[-1][1]


def repetitions(
    random: np.random.Generator,
    name: str,
    count: int,
    *,
    lead: float = 0.8,
    tail: float = 0.5,
    pause: float = 0.3,
) -> Repetitions:
    """A figure that does a motion `count` times with short pauses, and else stands.

    Args:
        random: of everything that is drawn.
        name: one of `ACTIONS`.
        count: of repetitions, at least 1.
        lead, tail: seconds before the first and after the last.
        pause: seconds that the figure stands at most before each.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    speed = float(random.uniform(1.2, 1.6))
    whole = float(motion(name)[0][-1]) / speed
    starts = lead + np.arange(count) * whole + np.cumsum(random.uniform(0.0, pause, count))
    starts = np.round(starts * video.FRAMES_PER_SECOND) / video.FRAMES_PER_SECOND
    total = int(np.ceil((starts[-1] + whole + tail) * video.FRAMES_PER_SECOND))
    frames = video.figure_video(random, Split.TEST, starts, speed, total, motion=motion(name))
    return Repetitions(frames, tuple((float(s), float(s + whole)) for s in starts))


@dataclasses.dataclass(frozen=True)
class Appearances:
    """Frames, and what appears when: (seconds, "a red circle")."""

    frames: np.ndarray
    events: tuple[tuple[float, str], ...]


def appearances(
    random: np.random.Generator, times: tuple[float, ...], *, seconds: float
) -> Appearances:
    """A still grey scene with a slow light, in which a coloured shape appears at each time.

    A shape stays until the next one comes.
    """
    total = round(seconds * video.FRAMES_PER_SECOND)
    clock = np.arange(total) / video.FRAMES_PER_SECOND
    level = _GREY + 12 * np.sin(0.5 * clock + random.uniform(0, 6))
    frames = np.repeat(level[:, None, None, None], video.SIZE, axis=1)
    frames = np.broadcast_to(frames, (total, video.SIZE, video.SIZE, 3)).copy()
    names, colours = random.permutation(list(COLOURS)), random.permutation(SHAPES)
    events = []
    ends = (*times[1:], seconds)
    for index, (start, end) in enumerate(zip(times, ends, strict=True)):
        colour, shape = str(names[index % len(names)]), str(colours[index % len(SHAPES)])
        mask = _shape(random, shape)
        shown = (clock >= start - 1e-6) & (clock < end - 1e-6)
        frames[np.ix_(shown.nonzero()[0])] = np.where(
            mask[None, :, :, None], np.asarray(COLOURS[colour], float), frames[shown]
        )
        events.append((float(start), f"a {colour} {shape}"))
    noise = random.normal(0, 3, (4, video.SIZE, video.SIZE, 1))
    frames += noise[np.arange(total) % 4]
    return Appearances(np.clip(frames, 0, 255).astype(np.uint8), tuple(events))


def _shape(random: np.random.Generator, name: str) -> np.ndarray:
    """bool ``[80, 80]`` mask of a shape somewhere in the picture."""
    radius = random.uniform(12, 20)
    x0, y0 = random.uniform(radius + 2, video.SIZE - radius - 2, 2)
    y, x = np.mgrid[0 : video.SIZE, 0 : video.SIZE]
    if name == "circle":
        return (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
    if name == "square":
        return np.maximum(abs(x - x0), abs(y - y0)) <= 0.85 * radius
    down = y - (y0 - radius)
    return (down >= 0) & (down <= 1.8 * radius) & (abs(x - x0) <= down * 0.6)
