"""The mel the model speaks.

In: a 16 kHz waveform. Out: one frame of 80 log-magnitude mel bands every 200 samples (12.5 ms),
16 per micro-turn, normalised for the flow head. Frame `t` covers samples
`[200 (t + 1) - 800, 200 (t + 1))`: nothing after its own hop, zeros before the start.

A band's level is `log10` of its magnitude relative to `10 ** reference`, clamped to
`+-half_range` (full-scale speech just reaches the top) and times `scale`, a power of two: so
normalising is exact both ways. Over speech its mean is near 0 and its standard deviation near 1.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from interaction.shapes import Array, Float
from interaction.streams.filterbank import periodic_hann, slaney_filterbank


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """The spoken mel; every number is part of a checkpoint's meaning.

    Attributes:
        sample_rate: samples per second.
        hop: samples per frame.
        window: samples under the Hann window (also the transform size); a multiple of `hop`.
        bands: mel bands (dimension `Z`).
        fmin, fmax: edges of the filterbank, Hz.
        reference: log10 magnitude that becomes level 0. Magnitudes are divided by the window's
            sum, so they do not depend on the window's length for a steady tone.
        half_range: levels are clamped to `+-half_range` decades around the reference.
        scale: normalised value per decade; a power of two.
    """

    sample_rate: int = 16_000
    hop: int = 200
    window: int = 800
    bands: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    reference: float = -4.5
    half_range: float = 2.5
    scale: float = 1.0

    def __post_init__(self):
        if self.hop <= 0 or self.window <= 0 or self.window % self.hop:
            raise ValueError(f"window={self.window} must be a positive multiple of hop={self.hop}")
        if self.half_range <= 0:
            raise ValueError(f"half_range={self.half_range} must be positive")
        if self.scale <= 0 or math.frexp(self.scale)[0] != 0.5:
            raise ValueError(f"scale={self.scale} must be a power of two")
        slaney_filterbank(self.sample_rate, self.window, self.bands, self.fmin, self.fmax)

    @property
    def silence(self) -> float:
        """The normalised value of every band of a silent frame (the smallest there is)."""
        return -self.half_range * self.scale

    @property
    def filters(self) -> Float[np.ndarray, "Z bins"]:
        """Float64 filterbank `[bands, window // 2 + 1]`, for magnitudes."""
        return slaney_filterbank(self.sample_rate, self.window, self.bands, self.fmin, self.fmax)


def silence_mel(frames: int, config: MelConfig | None = None) -> Float[np.ndarray, "frames Z"]:
    """`frames` silent frames, normalised, float32."""
    config = config or MelConfig()
    return np.full((frames, config.bands), config.silence, np.float32)


def normalise(level, config: MelConfig | None = None):
    """Levels (decades above the reference) to model units; exact."""
    return level * (config or MelConfig()).scale


def denormalise(mel, config: MelConfig | None = None):
    """Model units to levels (decades above the reference); exact inverse of `normalise`."""
    return mel * (1.0 / (config or MelConfig()).scale)


def mel_spectrogram(
    wave: Float[np.ndarray, " W"], config: MelConfig | None = None
) -> Float[np.ndarray, "frames Z"]:
    """Normalised mel of a waveform, in numpy.

    Args:
        wave: `[W]` samples in [-1, 1]; a last partial hop is dropped.

    Returns:
        float32 `[W // hop, bands]`.

    Raises:
        ValueError: a waveform that is not one-dimensional or not finite.
    """
    config = config or MelConfig()
    wave = np.asarray(wave)
    if wave.ndim != 1:
        raise ValueError(f"wave has shape {wave.shape}; expected one dimension of samples")
    if not np.isfinite(wave).all():
        raise ValueError(f"wave has {np.sum(~np.isfinite(wave))} samples that are not finite")
    frames = len(wave) // config.hop
    if frames == 0:
        return np.zeros((0, config.bands), np.float32)
    padded = np.concatenate([np.zeros(config.window - config.hop), wave[: frames * config.hop]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.window)[:: config.hop]
    window = periodic_hann(config.window)
    magnitude = np.abs(np.fft.rfft(windows * window)) / window.sum()
    level = np.log10(np.maximum(magnitude @ config.filters.T, 1e-30)) - config.reference
    level = np.clip(level, -config.half_range, config.half_range)
    return normalise(level.astype(np.float32), config)


def mel_spectrogram_BW(
    wave_BW: Float[Array, "B W"], config: MelConfig | None = None
) -> Float[Array, "B frames Z"]:
    """The same as `mel_spectrogram`, batched, in jax and differentiable (for losses)."""
    config = config or MelConfig()
    batch, samples = wave_BW.shape
    frames = samples // config.hop
    overlap = config.window // config.hop
    padded = jnp.pad(
        wave_BW[:, : frames * config.hop], ((0, 0), (config.window - config.hop, 0))
    ).reshape(batch, frames + overlap - 1, config.hop)
    windows = jnp.concatenate([padded[:, k : k + frames] for k in range(overlap)], axis=-1)
    window = periodic_hann(config.window)
    window = jnp.asarray(window / window.sum(), jnp.float32)[None, None]
    spectrum = jnp.fft.rfft(windows * window)
    magnitude = jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-16)
    band_BTZ = jnp.einsum("btf,zf->btz", magnitude, jnp.asarray(config.filters, jnp.float32))
    level = jnp.log10(jnp.maximum(band_BTZ, 1e-12)) - config.reference
    return normalise(jnp.clip(level, -config.half_range, config.half_range), config)
