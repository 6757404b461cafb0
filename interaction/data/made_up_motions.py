"""Movements that nobody made: what there is to count in training beside kicks.

In: a random generator. Out: one repetition of a movement of `figure`'s skeleton, from stand to
stand. Every figure stands in a way of its own. In about half of the movements a few joints turn
away from rest and back, fast or slowly, at once or one after another, and the body sinks, rises or
travels with them; in the others the whole body goes through a few poses drawn at random, away from
where it stood, and returns within a third of a second or more, as captured movements do when they
are closed (`figure.motion`). There are as many as one wants, so that what is learnt is to count a
movement and not to know the kick; punches and jumps, which people made, stay unseen.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

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
_MOVED = tuple(joint for joints, _ in _GROUPS for joint in joints)
_RISE = (-0.35, 0.4)  # metres of the root
_TRAVEL = 1.2  # metres that the body goes at most before it comes back
_STANCE = 0.35  # radians, standard deviation of a joint at rest from the kicker's
_POSES = (2, 4)  # of a movement of the whole body
_RETURN = (0.3, 0.6)  # seconds
_LEAST = 0.6  # metres that some joint goes at least: less is hardly seen in a small picture


def made_up_motion(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """One repetition.

    Returns:
        Times ``[F]`` in seconds, joints ``[F, 16, 3]`` in metres, and the seconds from which every
        joint is nearer to rest than half of the way that one of them went.
    """
    while True:
        seconds = float(random.uniform(*_SECONDS))
        times = np.linspace(0.0, seconds, _FRAMES)
        rows = np.repeat(_stance(random), _FRAMES, axis=0)
        if random.random() < 0.5:
            _to_and_fro(random, rows)
        else:
            _through_poses(random, rows, times)
        joints = joints_of(rows)
        away = np.linalg.norm(joints - joints[0], axis=2).max(axis=1)
        if away.max() >= _LEAST:
            break
    joints[:, :, [0, 2]] -= joints[:1, :1, [0, 2]]
    end = times[np.flatnonzero(away > away.max() / 2)[-1]]
    return times, joints, float(end)


def _stance(random) -> np.ndarray:
    """A row ``[1, 44]``: how the figure stands; both feet stay near the ground."""
    rows = captured("kick")[:1].copy()
    for joint in _MOVED:
        still = 0.3 if joint.endswith(("hip", "knee")) else 1.0
        _turn(rows, joint, random.normal(0.0, still * _STANCE, 1), _axis(random))
    return rows


def _to_and_fro(random, rows: np.ndarray) -> None:
    """Turns a few joints of `rows` away and back again."""
    course = _course(random)
    chosen = random.choice(len(_GROUPS), int(random.integers(1, 4)), replace=False)
    for index in chosen:
        joints, (least, most) = _GROUPS[index]
        both = random.random() < 0.6
        moved = joints if both else (str(random.choice(joints)),)
        angle = float(random.uniform(least, most))
        axis = _axis(random)
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


def _through_poses(random, rows: np.ndarray, times: np.ndarray) -> None:
    """Takes all joints of `rows` through poses drawn at random, then back to rest."""
    poses = int(random.integers(*_POSES, endpoint=True))
    at = np.concatenate([[0.0], np.sort(random.uniform(0.15, 1.0, poses)), [1.0]])
    share = np.clip((times[-1] - times) / float(random.uniform(*_RETURN)), 0.0, 1.0)
    share = share * share * (3 - 2 * share)

    def path(least: float, most: float) -> np.ndarray:
        # From 0 through the poses; the last one is held until the return.
        sizes = random.uniform(least, most, poses)
        values = np.concatenate([[0.0], sizes, sizes[-1:]])
        return share * PchipInterpolator(at, values)(times / times[-1])

    busy = float(random.uniform(0.3, 1.0))
    for joints, (least, most) in _GROUPS:
        for joint in joints:
            reach = busy * max(abs(least), abs(most)) * float(random.uniform(0.0, 0.7))
            _turn(rows, joint, path(-reach, reach), _axis(random))
    rows[:, 2] += path(-0.2, 0.2)
    way = float(random.uniform(0.0, _TRAVEL))
    towards = float(random.uniform(0.0, 2 * np.pi))
    along = path(0.3 * way, way)
    rows[:, 1] += np.cos(towards) * along
    rows[:, 3] += np.sin(towards) * along


def _axis(random) -> np.ndarray:
    axis = random.normal(0.0, 1.0, 3)
    return axis / np.linalg.norm(axis)


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
