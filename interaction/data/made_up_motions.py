"""Movements that nobody made: what there is to count in training beside kicks.

In: a random generator. Out: one repetition of a movement of `figure`'s skeleton, from stand to
stand. A few joints turn away from rest and back, fast or slowly, at once or one after another; the
body sinks, rises or travels with them. There are as many as one wants, so that what is learnt is to
count a movement and not to know the kick; punches and jumps, which people made, stay unseen.
"""

import numpy as np

from interaction.data.figure import COLUMNS, captured, joints_of

_FRAMES = 33
_SECONDS = (0.9, 2.4)
# Groups of joints that move together, and how far they turn, in radians.
_ARMS = (("right_shoulder", "left_shoulder"), (0.7, 2.2))
_LEGS = (("right_hip", "left_hip"), (0.4, 1.3))
_ELBOWS = (("right_elbow", "left_elbow"), (0.6, 2.0))
_KNEES = (("right_knee", "left_knee"), (-1.6, -0.5))
_BACK = (("chest",), (0.3, 0.9))
_GROUPS = (_ARMS, _LEGS, _ELBOWS, _KNEES, _BACK)
_RISE = (-0.35, 0.4)  # metres of the root
_TRAVEL = 1.2  # metres that the body goes at most before it comes back


def made_up_motion(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """One repetition.

    Returns:
        Times ``[F]`` in seconds, joints ``[F, 16, 3]`` in metres, and the seconds from which every
        joint is nearer to rest than half of the way that one of them went.
    """
    seconds = float(random.uniform(*_SECONDS))
    times = np.linspace(0.0, seconds, _FRAMES)
    rows = np.repeat(captured("kick")[:1], _FRAMES, axis=0)
    course = _course(random)
    chosen = random.choice(len(_GROUPS), int(random.integers(1, 4)), replace=False)
    for index in chosen:
        joints, (least, most) = _GROUPS[index]
        both = random.random() < 0.6
        moved = joints if both else (str(random.choice(joints)),)
        angle = float(random.uniform(least, most))
        axis = random.normal(0.0, 1.0, 3)
        axis /= np.linalg.norm(axis)
        own = course if random.random() < 0.6 else _course(random)
        for joint in moved:
            # The two sides of the body mirror each other in the plane of x and y.
            mirrored = axis * (-1, -1, 1) if joint.startswith("left") else axis
            _turn(rows, joint, angle * own, mirrored)
    if random.random() < 0.5 or {_BACK} == {_GROUPS[i] for i in chosen}:
        rows[:, 2] += float(random.uniform(*_RISE)) * course
    if random.random() < 0.5:
        way = float(random.uniform(0.2, _TRAVEL))
        towards = float(random.uniform(0.0, 2 * np.pi))
        rows[:, 1] += way * np.cos(towards) * course
        rows[:, 3] += way * np.sin(towards) * course
    joints = joints_of(rows)
    joints[:, :, [0, 2]] -= joints[:1, :1, [0, 2]]
    away = np.linalg.norm(joints - joints[0], axis=2).max(axis=1)
    end = times[np.flatnonzero(away > away.max() / 2)[-1]]
    return times, joints, float(end)


def _course(random) -> np.ndarray:
    """``[F]`` from 0 to 1 and back to 0: soon or late, at once or with a rest on the way."""
    place = np.linspace(0.0, 1.0, _FRAMES) ** float(random.uniform(0.6, 1.7))
    wave = np.sin(np.pi * place)
    return np.clip(wave * float(random.uniform(1.0, 1.6)), 0.0, 1.0) ** 2


def _turn(rows: np.ndarray, joint: str, angles: np.ndarray, axis: np.ndarray) -> None:
    """Turns a joint by `angles` ``[F]`` further, about `axis` where it is a ball joint."""
    here = COLUMNS[joint]
    if here.stop - here.start == 1:
        rows[:, here] += angles[:, None]
        return
    w, v = rows[:, here.start : here.start + 1], rows[:, here.start + 1 : here.stop]
    cosine = np.cos(angles / 2)[:, None]
    vector = np.sin(angles / 2)[:, None] * axis
    rows[:, here] = np.concatenate(
        [
            w * cosine - np.sum(v * vector, axis=1, keepdims=True),
            w * vector + cosine * v + np.cross(v, vector),
        ],
        axis=1,
    )
