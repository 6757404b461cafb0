"""dMel: equal to the reference on speech, whole, in chunks, and in the compiled step."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from interaction.streams import audio
from interaction.streams.audio import (
    DMelStream,
    dmel,
    dmel_chunk,
    level_values,
    log_mel,
    log_mel_chunk,
    quantise,
)

TESTDATA = pathlib.Path(__file__).parent / "testdata"
SPEECH = ["cards_001", "cards_002", "librivox_0880"]
SYNTHETIC = ["silence", "one_sample", "impulse", "noise", "sweep"]


@functools.cache
def golden():
    with np.load(TESTDATA / "parity" / "dmel.npz") as file:
        return dict(file)


def samples_of(clip):
    if clip in SPEECH:
        return soundfile.read(TESTDATA / "audio" / f"{clip}.flac", dtype="float32")[0]
    return golden()[f"{clip}/waveform"]


def chunks_of(samples):
    """Whole chunks, the last one filled up with silence."""
    return np.pad(samples, (0, -len(samples) % 3_200)).reshape(-1, 3_200)


def in_the_step(chunks):
    """Log-mel and levels by the compiled functions, chunk by chunk."""
    step, values = jax.jit(dmel_chunk), jax.jit(log_mel_chunk)
    carry, bins, logs = jnp.zeros((1, 800)), [], []
    for chunk in chunks:
        logs.append(values(carry, chunk[None])[0])
        levels, carry = step(carry, chunk[None])
        assert levels.dtype == jnp.int32
        bins.append(levels[0])
    return np.concatenate(logs), np.concatenate(bins)


@pytest.mark.parametrize("clip", SPEECH + SYNTHETIC)
def test_whole_file_equals_the_reference(clip):
    expected, bins = golden()[f"{clip}/log_mel"], golden()[f"{clip}/bins"]
    found = log_mel(samples_of(clip))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    if clip != "sweep":  # a pure tone: far bands hold the reference's own float32 rounding
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(dmel(samples_of(clip)), bins)


@pytest.mark.parametrize("clip", SPEECH + SYNTHETIC)
def test_chunk_by_chunk_equals_the_whole_file(clip):
    chunks, stream = chunks_of(samples_of(clip)), DMelStream()
    pushed = np.concatenate([stream.push(chunk) for chunk in chunks])
    assert pushed.dtype == np.uint8
    assert pushed.shape == (4 * len(chunks), 80)
    # The reference ends on a hop, the stream on a chunk: beyond it there is silence.
    bins = golden()[f"{clip}/bins"]
    np.testing.assert_array_equal(pushed[: len(bins)], bins)
    np.testing.assert_array_equal(pushed, dmel(chunks.ravel()))


@pytest.mark.parametrize("clip", SPEECH)
def test_compiled_step_equals_the_reference_on_speech(clip):
    expected, bins = golden()[f"{clip}/log_mel"], golden()[f"{clip}/bins"]
    logs, levels = in_the_step(chunks_of(samples_of(clip)))
    # 1e-4 but for a few quiet cells, where two float32 transforms differ by up to 2e-4.
    error = np.abs(logs[: len(expected)] - expected)
    assert error.max() < 3e-4
    assert (error < 1e-4).mean() > 0.999
    np.testing.assert_array_equal(levels[: len(bins)], bins)


def test_a_lane_does_not_hear_another():
    rng = np.random.default_rng(2)
    carry = rng.uniform(-1, 1, (3, 800)).astype(np.float32)
    chunk = rng.uniform(-1, 1, (3, 3_200)).astype(np.float32)
    bins, after = dmel_chunk(jnp.asarray(carry), jnp.asarray(chunk))
    np.testing.assert_array_equal(after, chunk[:, -800:])
    for lane in range(3):
        whole = dmel(np.concatenate([carry[lane], chunk[lane]]))[1:]
        np.testing.assert_array_equal(bins[lane], whole)


def test_no_frame_looks_ahead():
    samples = samples_of("cards_001")
    whole = dmel(samples)
    for frames in (1, 3, 7):
        np.testing.assert_array_equal(dmel(samples[: frames * 800]), whole[:frames])
    later = samples.copy()
    later[2_400:] = 0.7
    changed = (dmel(later) != whole).any(-1)
    assert not changed[:3].any()
    assert changed[3]


def test_a_missing_chunk_is_heard_as_silence_before_the_next():
    chunks = chunks_of(samples_of("cards_002"))[2:6]
    told, timed, kept = DMelStream(), DMelStream(), DMelStream()
    told.push(chunks[0])
    told.missing()
    timed.push(chunks[0], 0)
    kept.push(chunks[0])
    expected = dmel(chunks[2])
    np.testing.assert_array_equal(told.push(chunks[2]), expected)
    np.testing.assert_array_equal(timed.push(chunks[2], 2), expected)
    assert (kept.push(chunks[2]) != expected).any()  # the carry must not be kept
    # A late chunk does not follow what was heard last either, and the next one does not it.
    np.testing.assert_array_equal(timed.push(chunks[1], 1), dmel(chunks[1]))
    np.testing.assert_array_equal(timed.push(chunks[3], 3), dmel(chunks[3]))


def test_levels():
    values = level_values()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, -7 + 0.6 * np.arange(16), atol=1e-6)
    np.testing.assert_array_equal(quantise(values), np.arange(16))
    np.testing.assert_array_equal(quantise(np.float32([-99, -6.71, -6.69, 1.69, 1.71, 9])),
                                  [0, 0, 1, 14, 15, 15])  # fmt: skip


def test_constants_equal_the_reference():
    np.testing.assert_allclose(audio._filters(), golden()["mel_filters"], atol=1e-8)
    np.testing.assert_allclose(audio._window(), golden()["window"], atol=1e-7)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((7, 2), np.float32), r"float32\[7, 2\]"),
        (np.zeros(7, np.int16), r"int16\[7\]"),
        (np.array([0, np.nan]), "not finite"),
    ],
)
def test_bad_samples_are_named(samples, message):
    with pytest.raises(ValueError, match=message):
        dmel(samples)


def test_empty_and_wrong_sizes():
    assert dmel(np.zeros(0, np.float32)).shape == (0, 80)
    with pytest.raises(ValueError, match="3200 samples, not 3199"):
        DMelStream().push(np.zeros(3_199, np.float32))
