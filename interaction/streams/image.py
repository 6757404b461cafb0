"""Pictures to patches: video tubelets for the live model, and the reference still-image layout.

In: uint8 frames ``[h, w, 3]`` of any size. Out: uint8 tubelets ``[P, 2, 40, 40, 3]`` (patches in
row-major order over a small grid), the float32 pixels that the vision stem takes
(`normalise_patches`), and, for imported checkpoints, `reference_patches` of a still picture.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from PIL import Image

from interaction.shapes import Array, Float, Int, UInt8

PATCH = 40
TUBELET_FRAMES = 2
# Mean and standard deviation of the pictures that CLIP was trained on (Radford et al. 2021).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_PADDING = -1.0  # fill beyond the picture in the reference layout, before the division by 255


def normalise_patches(
    patches: UInt8[Array, "*rest p p 3"],
) -> Float[Array, "*rest p p 3"]:
    """Pixels 0..255 to float32 of about zero mean and unit deviation per colour (jax)."""
    mean = np.asarray(MEAN, np.float32).reshape((1,) * (patches.ndim - 1) + (3,))
    deviation = np.asarray(STANDARD_DEVIATION, np.float32).reshape(mean.shape)
    return (patches.astype(jnp.float32) * np.float32(1 / 255) - mean) / deviation


# ---------------------------------------------------------------- video


def frame_at(
    times: Float[np.ndarray, "F"], rate: float, count: int, *, hold: float = 1.0
) -> Int[np.ndarray, "count"]:
    """Which frame to show in each of `count` intervals of ``1 / rate`` s from time 0 on.

    Args:
        times: rising times of the frames, s; any rate, constant or not.
        rate: intervals per second.
        count: intervals.
        hold: how long a frame is shown when no newer one comes, s; may be infinite.

    Returns:
        int64 ``[count]``: index of the newest frame that came before the interval's end, -1 where
        there is none or it is older than `hold`.
    """
    interval = np.floor(np.asarray(times, np.float64) * rate + 1e-6).astype(np.int64)
    index = np.searchsorted(interval, np.arange(count), side="right") - 1
    if len(interval) == 0:
        return np.full(count, -1)
    age = np.arange(count) - interval[np.maximum(index, 0)]
    return np.where((index >= 0) & (age < max(1.0, hold * rate - 1e-6)), index, -1)


@functools.lru_cache(maxsize=256)
def choose_grid(height: int, width: int, max_patches: int) -> tuple[int, int]:
    """Rows and columns of square patches for a picture, at most `max_patches` in all.

    Of the grids that show the whole picture at no less than 90 % of the largest possible scale,
    the one with the fewest patches, then the one with the largest scale.

    Raises:
        ValueError: sizes below one.
    """
    if min(height, width, max_patches) < 1:
        raise ValueError(
            f"height={height}, width={width}, max_patches={max_patches} must all be at least 1"
        )
    grids = [
        (rows, columns)
        for rows in range(1, max_patches + 1)
        for columns in range(1, max_patches // rows + 1)
    ]
    scales = {grid: min(grid[0] / height, grid[1] / width) for grid in grids}
    good = [grid for grid in grids if scales[grid] >= 0.9 * max(scales.values())]
    return min(good, key=lambda grid: (math.prod(grid), -scales[grid]))


def letterbox(frame: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> np.ndarray:
    """The whole frame, antialiased, inside a black uint8 ``[height, width, 3]`` picture."""
    frame = _checked_frame(frame)
    scale = min(height / frame.shape[0], width / frame.shape[1])
    size = (
        min(height, max(1, round(frame.shape[0] * scale))),
        min(width, max(1, round(frame.shape[1] * scale))),
    )
    small = frame
    if frame.shape[:2] != size:
        picture = Image.fromarray(frame)
        # Shrinking by whole numbers first costs little and leaves the result nearly the same.
        small = np.asarray(
            picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=3.0)
        )
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    out[top : top + size[0], left : left + size[1]] = small
    return out


def on_patches(frame: UInt8[np.ndarray, "h w 3"], *, max_patches: int, patch: int = PATCH):
    """The frame at the size of its grid of patches; one that has that size is left as it is."""
    frame = _checked_frame(frame)
    rows, columns = choose_grid(frame.shape[0], frame.shape[1], max_patches)
    return letterbox(frame, rows * patch, columns * patch)


def tubelets(
    frames: UInt8[np.ndarray, "F h w 3"], *, max_patches: int, patch: int = PATCH
) -> UInt8[np.ndarray, "P F p p 3"]:
    """Cuts the frames of one micro-turn into tubelets.

    Args:
        frames: the F frames of one tubelet (two), all of one size.
        max_patches: P at most; 4 gives 80 x 80 pixels for a picture that is about square.
        patch: pixels on a side of a patch.

    Returns:
        uint8 ``[P, F, patch, patch, 3]``, row-major over the grid.

    Raises:
        ValueError: frames that are not uint8 ``[F, h, w, 3]``.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) == 0:
        raise ValueError(f"frames are {list(frames.shape)}, expected [F, h, w, 3] with F >= 1")
    boxed = np.stack([on_patches(frame, max_patches=max_patches, patch=patch) for frame in frames])
    rows, columns = boxed.shape[1] // patch, boxed.shape[2] // patch
    split = boxed.reshape(len(frames), rows, patch, columns, patch, 3)
    return np.ascontiguousarray(
        split.transpose(1, 3, 0, 2, 4, 5).reshape(-1, len(frames), patch, patch, 3)
    )


def _checked_frame(frame) -> UInt8[np.ndarray, "h w 3"]:
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
        raise ValueError(
            f"a frame is {frame.dtype}{list(frame.shape)}, expected uint8 [h, w, 3], not empty"
        )
    return frame


# ---------------------------------------------------------------- reference still pictures


def reference_patches(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    rescale: float | None = None,
    longest_upscaled_edge: int | None = 2_048,
    patch: int = PATCH,
) -> Float[np.ndarray, "P 2 p p 3"]:
    """A still picture as the reference image processor of Inkling lays it out.

    Args:
        image: RGB picture.
        rescale: factor on the long edge before cutting (the release asks for 2.0); None: none.
        longest_upscaled_edge: limit, in pixels, of what `rescale` may enlarge the long edge to.
        patch: pixels on a side of a patch.

    Returns:
        float32 ``[rows * columns, 2, patch, patch, 3]``, normalised, every patch twice in time;
        ``rows = ceil(h / patch)`` and ``columns = w // patch + 1`` (one more than needed where
        the width divides). What lies beyond the picture is -1 before the division by 255.

    Raises:
        ValueError: a picture that is not uint8 ``[h, w, 3]``.
    """
    image = _checked_frame(image)
    if rescale is not None:
        image = _rescaled(image, rescale, longest_upscaled_edge)
    height, width = image.shape[:2]
    rows, columns = -(-height // patch), width // patch + 1
    padded = np.full((rows * patch, columns * patch, 3), _PADDING, np.float32)
    padded[:height, :width] = image
    mean, deviation = np.asarray(MEAN, np.float32), np.asarray(STANDARD_DEVIATION, np.float32)
    pixels = (padded / np.float32(255) - mean) / deviation
    split = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    return np.repeat(split.reshape(-1, 1, patch, patch, 3), TUBELET_FRAMES, axis=1)


def _rescaled(image, rescale, longest_upscaled_edge):
    """Long edge times `rescale`, within its limit, by Lanczos; sizes rounded half up."""
    height, width = image.shape[:2]
    edge = max(height, width)
    target = edge * rescale
    if longest_upscaled_edge is not None:
        target = min(target, max(longest_upscaled_edge, edge))
    ratio = target / edge
    if ratio == 1.0:
        return image
    size = (math.floor(width * ratio + 0.5), math.floor(height * ratio + 0.5))
    if min(size) < 1:
        raise ValueError(f"rescale={rescale} leaves nothing of a {height} x {width} picture")
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
