"""A human figure in motion: forward kinematics of motion captures.

In: time within the motion. Out: positions of the figure's 15 joints in metres, x forward, y up,
z to the figure's right. The motions are `humanoid3d_*` of DeepMimic (Peng et al. 2018, MIT
licence; capture by CMU's graphics laboratory), rounded; their rows are seconds, root position, and
one rotation per joint. Training shows kicks alone; `jump` is kept for evaluation.
"""

import functools
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parent / "motions"
MOTIONS = ("kick", "punch", "jump")

JOINTS = (
    "root", "chest", "neck", "head", "right_hip", "right_knee", "right_ankle", "right_shoulder",
    "right_elbow", "right_wrist", "left_hip", "left_knee", "left_ankle", "left_shoulder",
    "left_elbow", "left_wrist",
)  # fmt: skip
# (joint, parent, offset in the parent's frame, numbers of its rotation in a row: 4, 1 or 0)
_SKELETON = (
    ("root", None, (0, 0, 0), 4),
    ("chest", "root", (0, 0.236, 0), 4),
    ("neck", "chest", (0, 0.224, 0), 4),
    ("right_hip", "root", (0, 0, 0.085), 4),
    ("right_knee", "right_hip", (0, -0.422, 0), 1),
    ("right_ankle", "right_knee", (0, -0.410, 0), 4),
    ("right_shoulder", "chest", (-0.024, 0.244, 0.183), 4),
    ("right_elbow", "right_shoulder", (0, -0.275, 0), 1),
    ("left_hip", "root", (0, 0, -0.085), 4),
    ("left_knee", "left_hip", (0, -0.422, 0), 1),
    ("left_ankle", "left_knee", (0, -0.410, 0), 4),
    ("left_shoulder", "chest", (-0.024, 0.244, -0.183), 4),
    ("left_elbow", "left_shoulder", (0, -0.275, 0), 1),
    ("head", "neck", (0, 0.175, 0), 0),
    ("right_wrist", "right_elbow", (0, -0.259, 0), 0),
    ("left_wrist", "left_elbow", (0, -0.259, 0), 0),
)
# Bones as (joint, joint, radius in metres, part of the colouring).
BONES = (
    ("root", "chest", 0.11, "shirt"), ("chest", "neck", 0.10, "shirt"),
    ("neck", "head", 0.10, "skin"),
    ("right_shoulder", "right_elbow", 0.05, "shirt"), ("right_elbow", "right_wrist", 0.04, "skin"),
    ("left_shoulder", "left_elbow", 0.05, "shirt"), ("left_elbow", "left_wrist", 0.04, "skin"),
    ("left_hip", "left_knee", 0.07, "trousers"), ("left_knee", "left_ankle", 0.055, "trousers"),
    ("right_hip", "right_knee", 0.07, "trousers"), ("right_knee", "right_ankle", 0.055, "trousers"),
)  # fmt: skip


def _columns() -> dict[str, slice]:
    found, column = {}, 4
    for joint, _, _, numbers in _SKELETON:
        if numbers:
            found[joint] = slice(column, column + numbers)
            column += numbers
    return found


COLUMNS = _columns()  # where in a row the rotation of a joint stands: a quaternion, or an angle


def _matrix(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrices ``[F, 3, 3]`` of quaternions ``[F, 4]`` (w first) or angles ``[F, 1]``."""
    if rotation.shape[1] == 1:
        half = rotation[:, 0] / 2
        zero = np.zeros_like(half)
        rotation = np.stack([np.cos(half), zero, zero, np.sin(half)], axis=1)
    w, x, y, z = (rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


@functools.cache
def captured(name: str) -> np.ndarray:
    """Rows ``[F, 44]`` of one of `MOTIONS`: seconds, root position, rotations (see `COLUMNS`)."""
    return np.loadtxt(_FOLDER / f"humanoid3d_{name}.txt", comments="#", delimiter=",")


def joints_of(rows: np.ndarray) -> np.ndarray:
    """Joints ``[F, 16, 3]`` in metres of rows ``[F, 44]``: forward kinematics."""
    place, turn = {}, {}
    for joint, parent, offset, numbers in _SKELETON:
        if parent is None:
            place[joint] = rows[:, 1:4]
        else:
            place[joint] = place[parent] + turn[parent] @ np.asarray(offset, float)
        if numbers:
            local = _matrix(rows[:, COLUMNS[joint]])
            turn[joint] = local if parent is None else turn[parent] @ local
    return np.stack([place[joint] for joint in JOINTS], axis=1)


def kick_motion() -> tuple[np.ndarray, np.ndarray]:
    """Times ``[F]`` in seconds and joints ``[F, 16, 3]`` of one kick, from stand to stand."""
    return motion("kick")


@functools.cache
def motion(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times ``[F]`` in seconds and joints ``[F, 16, 3]`` of one of `MOTIONS`, once.

    The last third of a second is blended into the first pose, so that repetitions can follow each
    other without a jerk.

    Raises:
        ValueError: no such motion.
    """
    if name not in MOTIONS:
        raise ValueError(f"motion {name!r} is none of {', '.join(MOTIONS)}")
    rows = captured(name)
    times = np.concatenate([[0.0], np.cumsum(rows[:-1, 0])])
    joints = joints_of(rows)
    joints[:, :, [0, 2]] -= joints[:1, :1, [0, 2]]
    last = times >= times[-1] - 1 / 3
    share = np.linspace(0.0, 1.0, last.sum())[:, None, None]
    share = share * share * (3 - 2 * share)
    joints[last] = (1 - share) * joints[last] + share * joints[0]
    return times, joints


@functools.cache
def kick_end() -> float:
    """Seconds from a kick's start to its end: the kicking foot is back below half its height."""
    times, joints = kick_motion()
    feet = [joints[:, JOINTS.index(f"{side}_ankle"), 1] for side in ("right", "left")]
    foot = max(feet, key=np.max)
    height = foot - foot[0]
    return float(times[np.flatnonzero(height > height.max() / 2)[-1]])


def pose(times: np.ndarray, motion: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Joints ``[F, 16, 3]`` at `times` within a motion, clamped to its first and last pose."""
    grid, joints = motion
    index = np.clip(np.searchsorted(grid, times, side="right") - 1, 0, len(grid) - 2)
    share = np.clip((times - grid[index]) / (grid[index + 1] - grid[index]), 0, 1)
    share = share[:, None, None]
    return (1 - share) * joints[index] + share * joints[index + 1]
