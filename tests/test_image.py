"""Tubelets, their grid and normalisation, resampling in time, and the reference picture layout."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from interaction.streams.image import (
    MEAN,
    STANDARD_DEVIATION,
    choose_grid,
    frame_at,
    letterbox,
    normalise_patches,
    reference_patches,
    tubelets,
)


@pytest.mark.parametrize(
    ("height", "width", "most", "grid"),
    [
        (480, 640, 4, (2, 2)),
        (1080, 1920, 4, (2, 2)),
        (90, 90, 1, (1, 1)),
        (100, 400, 4, (1, 4)),
        (400, 100, 4, (4, 1)),
        (100, 200, 4, (1, 2)),
        (300, 310, 3, (1, 1)),
        (480, 640, 12, (3, 4)),
        (5, 9_000, 3, (1, 3)),
    ],
)
def test_grid_follows_the_aspect_ratio(height, width, most, grid):
    assert choose_grid(height, width, most) == grid


def quarters(height, width):
    """Four colours: red, green / blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = 255
    return picture


def test_tubelets_are_row_major_and_keep_time():
    frames = np.stack([quarters(160, 160), quarters(160, 160)[::-1]])
    found = tubelets(frames, max_patches=4)
    assert found.shape == (4, 2, 40, 40, 3)
    assert found.dtype == np.uint8
    middle = found[:, :, 20, 20].tolist()
    red, green, blue, white = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
    assert middle == [[red, blue], [green, white], [blue, red], [white, green]]


def test_tubelets_of_the_right_size_are_the_pixels_themselves():
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 24, 3), np.uint8)
    found = tubelets(frames, max_patches=3, patch=8)
    assert found.shape == (3, 3, 8, 8, 3)
    for column in range(3):
        np.testing.assert_array_equal(found[column], frames[:, :, 8 * column : 8 * column + 8])


def test_letterbox_keeps_all_of_the_picture_and_its_shape():
    boxed = letterbox(np.full((30, 90, 3), 200, np.uint8), 80, 80)
    lit = boxed[..., 0] > 100
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert (columns[0], columns[-1]) == (0, 79)
    assert abs((rows[-1] - rows[0] + 1) - 80 / 3) < 1
    assert abs(rows[0] - (79 - rows[-1])) <= 1


def test_shrinking_is_antialiased():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255  # plain subsampling by 10 would give black or white
    inner = letterbox(stripes, 40, 40)[2:-2, 2:-2].astype(float)
    assert abs(inner.mean() - 127.5) < 3
    assert inner.std() < 5


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 5, 6, 4), np.uint8), r"uint8\[5, 6, 4\]"),
        (np.zeros((2, 5, 6, 3), np.float32), r"float32\[5, 6, 3\]"),
        (np.zeros((5, 6, 3), np.uint8), r"\[5, 6, 3\]"),
        (np.zeros((2, 0, 6, 3), np.uint8), r"uint8\[0, 6, 3\]"),
    ],
)
def test_bad_frames_are_named(frames, message):
    with pytest.raises(ValueError, match=message):
        tubelets(frames, max_patches=4)


def test_normalisation():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 2, 4, 4, 3), np.uint8)
    found = normalise_patches(jnp.asarray(pixels))
    assert found.dtype == jnp.float32
    expected = (pixels / 255.0 - np.array(MEAN)) / np.array(STANDARD_DEVIATION)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_frames_in_time():
    times = np.array([0.05, 0.14, 0.31, 0.399, 1.0])
    assert frame_at(times, 10, 5).tolist() == [0, 1, 1, 3, 3]
    # Nothing before the first frame; an old one is not shown for ever.
    assert frame_at(times[2:], 10, 16, hold=0.5).tolist() == [-1] * 3 + [1] * 5 + [-1] * 2 + [
        2, 2, 2, 2, 2, -1
    ]  # fmt: skip
    assert frame_at(times[:0], 10, 3).tolist() == [-1, -1, -1]
    # 0.3 * 10 is below 3 in floating point: times on the border belong to what begins there.
    assert frame_at(np.arange(40) * 0.1, 10, 40).tolist() == list(range(40))


# ---------------------------------------------------------------- reference layout


def by_hand(image, patch):
    """The layout in words: cut at every `patch`, one column too many where it divides."""
    height, width = image.shape[:2]
    patches = []
    for top in range(0, height, patch):
        for column in range(width // patch + 1):
            block = np.full((patch, patch, 3), -1.0)
            part = image[top : top + patch, column * patch : (column + 1) * patch]
            block[: part.shape[0], : part.shape[1]] = part
            patches.append([block, block])
    return (np.array(patches) / 255 - np.array(MEAN)) / np.array(STANDARD_DEVIATION)


@pytest.mark.parametrize(
    ("height", "width", "patch", "count"),
    [(80, 120, 40, 8), (81, 119, 40, 9), (1, 1, 40, 1), (39, 40, 40, 2), (50, 7, 8, 7)],
)
def test_reference_layout(height, width, patch, count):
    image = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    found = reference_patches(image, patch=patch)
    assert found.shape == (count, 2, patch, patch, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(image, patch), atol=3e-6)


@pytest.mark.parametrize(
    ("height", "width", "rescale", "limit", "size"),
    [
        (30, 50, 2.0, 2_048, (60, 100)),
        (30, 50, 2.0, 80, (48, 80)),  # only growth is limited ...
        (30, 50, 2.0, 20, (30, 50)),  # ... a larger picture stays as it is
        (30, 51, 0.5, None, (15, 26)),  # 25.5 rounds up
        (30, 50, None, 2_048, (30, 50)),
    ],
)
def test_reference_rescale(height, width, rescale, limit, size):
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    small = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
    found = reference_patches(image, rescale=rescale, longest_upscaled_edge=limit, patch=16)
    np.testing.assert_allclose(found, by_hand(small, 16), atol=3e-6)
