"""Mel filters and the analysis window, in float64 numpy.

In: rates and sizes. Out: `slaney_filterbank` (a matrix that maps a spectrum to mel bands) and
`periodic_hann` (a window). Both the heard dMel and the spoken mel are built from these two.
"""

import functools

import numpy as np

from interaction.shapes import Float

# Slaney's Auditory Toolbox: linear up to 1 kHz (3 mels per 200 Hz), logarithmic above it.
_HERTZ_PER_MEL = 200.0 / 3.0
_LOG_START_HERTZ = 1000.0
_LOG_START_MEL = _LOG_START_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def hertz_to_mel(hertz):
    """Slaney mels of a frequency in Hz (scalar or array)."""
    hertz = np.asarray(hertz, np.float64)
    above = _LOG_START_MEL + np.log(np.maximum(hertz, 1e-9) / _LOG_START_HERTZ) / _LOG_STEP
    return np.where(hertz < _LOG_START_HERTZ, hertz / _HERTZ_PER_MEL, above)


def mel_to_hertz(mel):
    """Frequency in Hz of Slaney mels (scalar or array)."""
    mel = np.asarray(mel, np.float64)
    above = _LOG_START_HERTZ * np.exp(
        _LOG_STEP * (np.maximum(mel, _LOG_START_MEL) - _LOG_START_MEL)
    )
    return np.where(mel < _LOG_START_MEL, mel * _HERTZ_PER_MEL, above)


@functools.lru_cache(maxsize=16)
def _cached_filterbank(sample_rate, n_fft, n_mels, fmin, fmax):
    edges = mel_to_hertz(np.linspace(hertz_to_mel(fmin), hertz_to_mel(fmax), n_mels + 2))
    bins = np.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1)
    distance = edges[:, None] - bins[None, :]
    width = np.diff(edges)[:, None]
    rising = -distance[:-2] / width[:-1]
    falling = distance[2:] / width[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    filters.setflags(write=False)
    return filters


def slaney_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float
) -> Float[np.ndarray, "Z bins"]:
    """Triangular mel filters, Slaney scale, each of unit area (Slaney, Auditory Toolbox, 1998).

    Args:
        sample_rate: samples per second.
        n_fft: transform size; there are `n_fft // 2 + 1` bins from 0 to half the sample rate.
        n_mels: number of bands.
        fmin: lower edge of the first band, Hz.
        fmax: upper edge of the last band, Hz; at most half the sample rate.

    Returns:
        float64 `[n_mels, n_fft // 2 + 1]`, read-only; equal to what librosa and transformers
        give for `norm="slaney", mel_scale="slaney"`.

    Raises:
        ValueError: sizes that are not positive, or edges out of order.
    """
    for name, value in (
        ("sample_rate", sample_rate),
        ("n_fft", n_fft),
        ("n_mels", n_mels),
    ):
        if value <= 0:
            raise ValueError(f"{name}={value} must be positive")
    if not 0.0 <= fmin < fmax <= sample_rate / 2.0:
        raise ValueError(
            f"fmin={fmin}, fmax={fmax} must satisfy 0 <= fmin < fmax <= {sample_rate / 2.0} "
            f"(half of sample_rate={sample_rate})"
        )
    return _cached_filterbank(int(sample_rate), int(n_fft), int(n_mels), float(fmin), float(fmax))


def periodic_hann(n: int) -> Float[np.ndarray, " W"]:
    """Hann window of period `n` (the one whose shifted copies add up to a constant), float64."""
    if n <= 0:
        raise ValueError(f"n={n} must be positive")
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)
