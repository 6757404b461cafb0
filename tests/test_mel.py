"""The spoken mel: filterbank against published values, causality, exact normalisation, twins."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from interaction.microturn import Grid
from interaction.streams.filterbank import (
    hertz_to_mel,
    mel_to_hertz,
    periodic_hann,
    slaney_filterbank,
)
from interaction.streams.mel import (
    MelConfig,
    denormalise,
    mel_spectrogram,
    mel_spectrogram_BW,
    normalise,
    silence_mel,
)


def noise(samples, seed=0, gain=0.1):
    return (gain * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("hertz", "mel"), [(0.0, 0.0), (200.0, 3.0), (1000.0, 15.0), (6400.0, 42.0)]
)
def test_slaney_scale(hertz, mel):
    assert hertz_to_mel(hertz) == pytest.approx(mel, abs=1e-9)
    assert mel_to_hertz(mel) == pytest.approx(hertz, abs=1e-6)


def test_filterbank_values():
    # Of transformers 5.23.0: mel_filter_bank(401, 80, 0, 8000, 16000, "slaney", "slaney").
    filters = slaney_filterbank(16_000, 800, 80, 0.0, 8_000.0)
    assert filters.shape == (80, 401)
    assert filters.max() == pytest.approx(0.026367050208774546, rel=1e-12)
    area = filters.sum(axis=1) * 20.0
    assert np.all(np.abs(area - 1.0) < 0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16_000, 800, 0, 0.0, 8_000.0), "n_mels=0"),
        ((16_000, 800, 80, 0.0, 9_000.0), "fmax=9000"),
        ((16_000, 800, 80, 500.0, 400.0), "fmin=500"),
    ],
)
def test_filterbank_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        slaney_filterbank(*arguments)


def test_periodic_hann_overlaps_to_a_constant():
    window = periodic_hann(12)
    total = sum(np.roll(window, 3 * k) for k in range(4))
    np.testing.assert_allclose(total, 2.0, atol=1e-12)


def test_grid():
    config = MelConfig()
    grid = Grid()
    assert config.hop == grid.mel_hop
    assert grid.mel_frames == 16
    assert mel_spectrogram(noise(3_200 + 7)).shape == (16, 80)
    assert mel_spectrogram(noise(199)).shape == (0, 80)


def causal_reach(mel):
    """First frame that a change of sample 1,700 moves, and the last."""
    wave = noise(4_000)
    changed = wave.copy()
    changed[1_700] += 0.5
    moved = np.abs(mel(changed) - mel(wave)).max(axis=1) > 1e-6
    return int(np.argmax(moved)), int(len(moved) - 1 - np.argmax(moved[::-1]))


def test_causal():
    # Sample 1,700 lies in hop 8 and under the windows of frames 8 to 11.
    assert causal_reach(mel_spectrogram) == (8, 11)


def test_centred_window_is_caught():
    def centred(wave):
        return mel_spectrogram(np.concatenate([wave[300:], np.zeros(300, np.float32)]))

    assert causal_reach(centred)[0] < 8


def test_twins_agree():
    wave = np.stack([noise(2_600, 1), noise(2_600, 2, 0.001)])
    jax_mel = np.asarray(mel_spectrogram_BW(jnp.asarray(wave)))
    assert jax_mel.shape == (2, 13, 80)
    for row, one in zip(jax_mel, wave, strict=True):
        np.testing.assert_allclose(row, mel_spectrogram(one), atol=2e-4)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_normalisation_is_exact(scale):
    config = MelConfig(scale=scale)
    level = np.random.default_rng(0).uniform(-2.5, 2.5, (50, 80)).astype(np.float32)
    assert np.array_equal(denormalise(normalise(level, config), config), level)
    mel = mel_spectrogram(noise(4_000), config)
    assert np.array_equal(normalise(denormalise(mel, config), config), mel)


def test_levels():
    config = MelConfig()
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    loud = mel_spectrogram(0.3 * tone)[10:]
    assert 1.5 < loud.max() < config.half_range
    tenth = mel_spectrogram(0.03 * tone)[10:]
    assert loud.max() - tenth.max() == pytest.approx(1.0, abs=1e-3)
    silent = mel_spectrogram(np.zeros(1_000, np.float32))
    assert np.array_equal(silent, silence_mel(5))
    assert silent[0, 0] == config.silence == -2.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop": 300}, "window=800"),
        ({"scale": 0.3}, "scale=0.3"),
        ({"half_range": 0.0}, "half_range=0"),
        ({"fmax": 9_000.0}, "fmax=9000"),
    ],
)
def test_config_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MelConfig(), **fields)


@pytest.mark.parametrize(
    ("wave", "message"),
    [(np.zeros((2, 800)), r"\(2, 800\)"), (np.array([0.0, np.nan]), "1 samples")],
)
def test_wave_errors(wave, message):
    with pytest.raises(ValueError, match=message):
        mel_spectrogram(wave)
