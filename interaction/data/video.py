"""Videos to count in: flashes, kicks of a human figure, and videos where nothing counts happens.

In: a random generator and a split. Out: `Video`, uint8 frames at 10 per second, 80x80, with the
seconds at which each event ends. A flash ends when its light goes off; a kick ends when the
kicking foot is back below half its height (`figure.kick_end`).

Splits: camera angle, hue and size are drawn from disjoint bands (`banded`), and the seeds differ.
"""

import colorsys
import dataclasses

import numpy as np

from interaction.data.clips import Split
from interaction.data.figure import BONES, JOINTS, kick_end, kick_motion, pose
from interaction.data.made_up_motions import made_up_motion

SIZE = 80
FRAMES_PER_SECOND = 10
PATCH = 40
_FASTEST = 1.5  # kicks are up to so much faster than they were filmed
_GRID = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Video:
    """Rendered frames.

    Attributes:
        frames: uint8 ``[F, 80, 80, 3]``, 10 per second.
        event_ends: seconds at which each event that counts ends, rising.
        kind: ``flashes``, ``kicks`` or ``still``.
    """

    frames: np.ndarray
    event_ends: tuple[float, ...]
    kind: str


def banded(random, low: float, high: float, split: Split, *, bands: int = 5) -> float:
    """A number in [low, high): the last fifth of each of `bands` bands is kept for test."""
    band = random.integers(bands)
    place = random.uniform(0.8, 1.0) if split is Split.TEST else random.uniform(0.0, 0.8)
    return low + (high - low) * (band + place) / bands


def colour(random, split: Split, *, value: tuple[float, float]) -> np.ndarray:
    """RGB in 0..255 of a random hue and saturation and a value in a range."""
    hue = banded(random, 0.0, 1.0, split)
    rgb = colorsys.hsv_to_rgb(hue, random.uniform(0.0, 1.0), random.uniform(*value))
    return np.asarray(rgb, np.float32) * 255


def tubelets(frames: np.ndarray) -> np.ndarray:
    """uint8 ``[M, 4, 2, 40, 40, 3]`` (patches row by row) of frames ``[2 M, 80, 80, 3]``."""
    count, side = len(frames) // 2, SIZE // PATCH
    parts = frames[: 2 * count].reshape(count, 2, side, PATCH, side, PATCH, 3)
    parts = parts.transpose(0, 2, 4, 1, 3, 5, 6)
    return np.ascontiguousarray(parts.reshape(count, side * side, 2, PATCH, PATCH, 3))


def event_times(random, count: int, length: float, *, seconds: float, gap: float) -> np.ndarray:
    """Starts of `count` events of `length`, at least `gap` apart, the last ending 0.9 s early."""
    slack = seconds - 0.9 - 0.2 - count * length - max(0, count - 1) * gap
    if slack < 0:
        raise ValueError(f"{count} events of {length} s, {gap} s apart, need more than {seconds} s")
    parts = random.dirichlet(np.ones(count + 1)) * slack * random.uniform(0.3, 1.0)
    return 0.2 + np.cumsum(parts[:-1]) + np.arange(count) * (length + gap)


def background(random, frames: int, split: Split) -> np.ndarray:
    """int16 ``[F, 80, 80, 3]``: a smooth or rough texture, perhaps drifting or changing slowly."""
    base = colour(random, split, value=(0.05, 0.85))
    cells = int(random.integers(2, 9))
    coarse = random.normal(0, random.uniform(0, 28), (cells, cells, 3)).astype(np.float32)
    axis = np.linspace(0, cells - 1, SIZE + 24)
    low = np.clip(axis.astype(int), 0, cells - 2)
    part = (axis - low).astype(np.float32)
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    texture = rows[:, low] * (1 - part)[:, None] + rows[:, low + 1] * part[:, None]
    picture = (base + texture).astype(np.int16)
    time = np.arange(frames) / FRAMES_PER_SECOND
    result = np.empty((frames, SIZE, SIZE, 3), np.int16)
    turn, speed = random.uniform(0, 2 * np.pi), random.uniform(0.1, 0.6)
    if random.random() < 0.4:
        for index, now in enumerate(time):
            dx = round(12 + 11 * np.sin(speed * now + turn))
            dy = round(12 + 11 * np.sin(speed * 0.7 * now))
            result[index] = picture[dy : dy + SIZE, dx : dx + SIZE]
    else:
        result[:] = picture[12 : 12 + SIZE, 12 : 12 + SIZE]
    if random.random() < 0.4:
        swing = random.uniform(5, 35) * np.sin(random.uniform(0.2, 1.2) * time + turn)
        result += swing.astype(np.int16)[:, None, None, None]
    return result


def _shape(random, split: Split) -> np.ndarray:
    """float32 ``[80, 80]`` mask of a flash: the whole frame, a rectangle or a disc."""
    y, x = _GRID
    pick = random.random()
    if pick < 0.35:
        return np.ones((SIZE, SIZE), np.float32)
    width, height = (banded(random, 16, 64, split) for _ in range(2))
    left, top = random.uniform(0, SIZE - width), random.uniform(0, SIZE - height)
    if pick < 0.75:
        inside = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
        return inside.astype(np.float32)
    radius = min(width, height) / 2
    distance = np.hypot(x - left - radius, y - top - radius)
    return np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)


def _distractors(random, frames: np.ndarray, split: Split) -> None:
    """Paints slow things that do not count: a wandering disc, a steady lamp."""
    y, x = _GRID
    for _ in range(random.integers(0, 3)):
        radius, tint = random.uniform(4, 12), colour(random, split, value=(0.1, 1.0))
        place, pace = random.uniform(10, 70, 2), random.uniform(-8, 8, 2)
        for index in range(len(frames)):
            now = place + pace * index / FRAMES_PER_SECOND
            now = 40 + 40 * np.sin((now - 40) / 40)
            low = np.maximum(np.floor(now - radius - 1), 0).astype(int)
            high = np.minimum(np.ceil(now + radius + 2), SIZE).astype(int)
            box = np.s_[low[1] : high[1], low[0] : high[0]]
            inside = (x[box] - now[0]) ** 2 + (y[box] - now[1]) ** 2 < radius**2
            frames[index][box][inside] = tint


def finish(random, frames: np.ndarray) -> np.ndarray:
    """Sensor noise, then uint8."""
    sigma = random.uniform(0, 6)
    if sigma > 1:
        noise = random.normal(0, sigma, (4, SIZE, SIZE, 1)).astype(np.int16)
        for shift in range(4):
            frames[shift::4] += noise[shift]
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def flashes(random, split: Split, *, seconds: float, count: int | None = None) -> Video:
    """A video with `count` flashes (1 to 6, as many as fit, if not given)."""
    total = round(seconds * FRAMES_PER_SECOND)
    frames = background(random, total, split)
    if random.random() < 0.5:
        _distractors(random, frames, split)
    length = random.uniform(0.1, 0.3)
    mask = _shape(random, split)
    tint = colour(random, split, value=(0.8, 1.0))
    behind = frames[::8].mean(axis=(0, 1, 2))
    if np.abs(tint - behind).max() < 90:
        tint = np.where(behind.mean() > 128, 10.0, 250.0).astype(np.float32) + 0 * tint
    same = random.random() < 0.6
    fits = int((seconds - 0.2) / (length + 0.9))
    count = int(random.integers(1, min(6, fits) + 1)) if count is None else count
    starts = event_times(random, count, length, seconds=seconds, gap=0.9)
    times = np.arange(total) / FRAMES_PER_SECOND
    for start in starts:
        if not same:
            mask = _shape(random, split)
        alpha = mask[..., None] * random.uniform(0.85, 1.0)
        for index in np.flatnonzero((times >= start - 1e-9) & (times < start + length)):
            mixed = frames[index] + alpha * (tint - frames[index])
            frames[index] = mixed.astype(np.int16)
    return Video(finish(random, frames), tuple(float(s + length) for s in starts), "flashes")


def _project(random, joints: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray, float]:
    """Joints ``[F, 16, 3]`` to pixels ``[F, 16, 2]``, depths ``[F, 16]`` and pixels per metre."""
    yaw = np.deg2rad(banded(random, -70, 70, split))
    pitch = np.deg2rad(random.uniform(-5, 20))
    scale = banded(random, 24, 38, split)
    x, y, z = np.moveaxis(joints, 2, 0)
    across = x * np.cos(yaw) + z * np.sin(yaw)
    depth = -x * np.sin(yaw) + z * np.cos(yaw)
    up = y * np.cos(pitch) - depth * np.sin(pitch)
    if random.random() < 0.5:
        across = -across
    low, high = across.min() * scale, across.max() * scale
    room = SIZE - (high - low) - 8
    middle = random.uniform(4, 4 + room) if room > 0 else (SIZE - (high - low)) / 2
    foot = random.uniform(70, 78)
    pixels = np.stack([across * scale - low + middle, foot - up * scale], axis=2)
    return pixels.astype(np.float32), depth, float(scale)


def draw_figure(frames: np.ndarray, pixels: np.ndarray, depth: np.ndarray, scale: float, colours):
    """Paints the figure's bones as capsules into int16 frames ``[F, 80, 80, 3]``, far ones first.

    One bone is painted into all frames at once: a window of one size follows it, its pixels are
    labelled with the bone's part, and each part is coloured at the end.
    """
    index = {joint: i for i, joint in enumerate(JOINTS)}
    ordered = sorted(BONES, key=lambda b: depth[:, [index[b[0]], index[b[1]]]].mean(), reverse=True)
    parts = list(colours)
    labels = np.zeros((len(frames), SIZE, SIZE), np.uint8)
    for first, second, radius, part in ordered:
        a, b, r = pixels[:, index[first]], pixels[:, index[second]], np.float32(radius * scale)
        side = int(np.ceil(np.abs(b - a).max() + 2 * r)) + 2
        corner = np.floor(np.minimum(a, b) - r).astype(int)
        steps = np.arange(side)
        column, row = corner[:, :1] + steps, corner[:, 1:] + steps
        x = (column - a[:, :1]).astype(np.float32)[:, None, :]
        y = (row - a[:, 1:]).astype(np.float32)[:, :, None]
        dx, dy = ((b - a)[:, k, None, None] for k in (0, 1))
        along = x * dx + y * dy
        along /= dx * dx + dy * dy + np.float32(1e-6)
        np.clip(along, 0, 1, out=along)
        inside = np.square(x - along * dx) + np.square(y - along * dy) < r * r
        inside &= ((row >= 0) & (row < SIZE))[:, :, None] & ((column >= 0) & (column < SIZE))[
            :, None
        ]
        f, i, j = np.nonzero(inside)
        labels[f, row[f, i], column[f, j]] = 1 + parts.index(part)
    for number, part in enumerate(parts, start=1):
        frames[labels == number] = colours[part].astype(np.int16)


def _sway(random, joints: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A standing person is never quite still: the upper body leans, the arms move a little."""
    size, pace, phase = random.uniform(0, 0.06), random.uniform(0.5, 2.5), random.uniform(0, 6)
    lean = size * np.sin(pace * times + phase)
    joints = joints.copy()
    joints[:, :, 0] += lean[:, None] * joints[:, :, 1]
    for side in ("right", "left"):
        swing = random.uniform(0, 0.12) * np.sin(random.uniform(0.5, 3) * times + phase)
        for joint, share in (("elbow", 0.5), ("wrist", 1.0)):
            joints[:, JOINTS.index(f"{side}_{joint}"), 0] += share * swing
    return joints


def figure_video(
    random, split: Split, starts, speed: float, total: int, *, motion=None
) -> np.ndarray:
    """uint8 ``[total, 80, 80, 3]``: a figure that does a motion (a kick) at every start."""
    times = np.arange(total) / FRAMES_PER_SECOND
    within = np.zeros(total)
    for start in starts:
        within = np.where(times >= start, (times - start) * speed, within)
    joints = _sway(random, pose(within, motion or kick_motion()), times)
    frames = background(random, total, split)
    if random.random() < 0.3:
        _distractors(random, frames, split)
    behind = frames[::8].mean(axis=(0, 1, 2))
    colours = {}
    for part in ("shirt", "trousers", "skin"):
        tint = colour(random, split, value=(0.0, 1.0))
        if np.abs(tint - behind).max() < 70:
            tint = np.where(behind > 128, behind - 110, behind + 110).astype(np.float32)
        colours[part] = tint
    pixels, depth, scale = _project(random, joints, split)
    draw_figure(frames, pixels, depth, scale, colours)
    return finish(random, frames)


def kicks(
    random, split: Split, *, seconds: float, count: int | None = None, made_up: float = 0.0
) -> Video:
    """A video of a figure that kicks `count` times (1 to 6, as many as fit, if not given).

    Args:
        random: of everything that is drawn.
        split: whose colours and camera angles are used.
        seconds: its length.
        count: of repetitions.
        made_up: how often it repeats a movement that nobody ever made instead of a kick.
    """
    if made_up and random.random() < made_up:
        times, joints, end = made_up_motion(random)
    else:
        (times, joints), end = kick_motion(), kick_end()
    whole = float(times[-1])
    total = round(seconds * FRAMES_PER_SECOND)
    room = seconds - 1.1
    fits = min(6, int(room / (whole / _FASTEST + 0.1)))
    count = int(random.integers(1, fits + 1)) if count is None else count
    if count > fits:
        raise ValueError(f"{count} kicks need more than {seconds} s; at most {fits} fit")
    slowest = max(0.8, whole / (room / max(1, count) - 0.1)) if count else 0.8
    speed = float(random.uniform(min(slowest, _FASTEST), _FASTEST))
    starts = event_times(random, count, whole / speed, seconds=seconds, gap=0.1)
    frames = figure_video(random, split, starts, speed, total, motion=(times, joints))
    return Video(frames, tuple(float(s + end / speed) for s in starts), "kicks")


def still(random, split: Split, *, seconds: float, made_up: float = 0.0) -> Video:
    """A video in which nothing counts: a figure that stands, slow lights, a drifting camera.

    Args:
        random: of everything that is drawn.
        split: whose colours and camera angles are used.
        seconds: its length.
        made_up: how often the figure stands as one of a made-up movement does.
    """
    total = round(seconds * FRAMES_PER_SECOND)
    if random.random() < 0.6:
        shown = made_up and random.random() < made_up
        motion = made_up_motion(random)[:2] if shown else None
        frames = figure_video(random, split, (), 1.0, total, motion=motion)
    else:
        frames = background(random, total, split)
        _distractors(random, frames, split)
        frames = finish(random, frames)
    return Video(frames, (), "still")
