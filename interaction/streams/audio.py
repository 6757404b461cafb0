"""Heard audio to dMel levels: whole file, chunk by chunk, and inside the compiled step.

In: mono samples at 16 kHz, float32 in [-1, 1). Out: `log_mel` (float32 ``[frames, 80]``), `dmel`
(uint8 levels), `DMelStream` (numpy, 3,200 samples at a time) and `dmel_chunk` (jax, every lane of
the live step). All of them give the same levels.

dMel (Bai et al. 2024, arXiv 2407.15835) as the Inkling release has it: hop 50 ms, window 100 ms,
causal (the file is padded with 800 zeros at the left), so that frame t needs samples up to
``800 (t + 1)`` and 3,200 new samples with a carry of 800 give exactly four frames.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from interaction.shapes import Array, Float, Int, UInt8
from interaction.streams.filterbank import slaney_filterbank

SAMPLE_RATE = 16_000
HOP = 800
WINDOW = 1_600
CARRY = WINDOW - HOP
BANDS = 80
LEVELS = 16
LOWEST, HIGHEST = -7.0, 2.0  # log10 of the magnitude, first and last level
CHUNK = 3_200
_FLOOR = 1e-10  # of the power before its root, and of a band before its logarithm


@functools.lru_cache(maxsize=1)
def _window() -> Float[np.ndarray, "window"]:
    """Periodic Hann window rounded as the reference does it (angles in float32).

    Far from a pure tone the rounding of the window decides what leaks into a band, so the exact
    window would give other levels there.
    """
    angle = np.arange(WINDOW, dtype=np.float32) * np.float32(2 * np.pi / WINDOW)
    cosine = np.cos(angle.astype(np.float64)).astype(np.float32)
    return np.float32(0.5) - np.float32(0.5) * cosine


@functools.lru_cache(maxsize=1)
def _filters() -> Float[np.ndarray, "Z bins"]:
    filters = slaney_filterbank(SAMPLE_RATE, WINDOW, BANDS, 0.0, SAMPLE_RATE / 2)
    return filters.astype(np.float32)


def level_values() -> Float[np.ndarray, "levels"]:
    """The log10 magnitude that each of the 16 levels stands for, float32, rising."""
    return np.linspace(LOWEST, HIGHEST, LEVELS, dtype=np.float64).astype(np.float32)


# ---------------------------------------------------------------- numpy


def _framed_log_mel(padded: Float[np.ndarray, "W"]) -> Float[np.ndarray, "frames Z"]:
    """Log-mel of samples that begin with their carry and end on a hop."""
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames.astype(np.float64) * _window(), axis=-1)
    power = np.maximum(spectrum.real**2 + spectrum.imag**2, _FLOOR)
    bands = np.maximum(np.sqrt(power) @ _filters().T.astype(np.float64), _FLOOR)
    return np.log10(bands).astype(np.float32)


def _checked(samples) -> Float[np.ndarray, "W"]:
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples must be mono floating point [W], not {samples.dtype}{list(samples.shape)}"
        )
    if not np.isfinite(samples).all():
        raise ValueError("samples hold a number that is not finite")
    return samples.astype(np.float32)


def log_mel(samples: Float[np.ndarray, "W"]) -> Float[np.ndarray, "frames Z"]:
    """Log-mel of a whole file.

    Args:
        samples: mono, 16 kHz.

    Returns:
        float32 ``[ceil(W / 800), 80]``, log10 of the mel magnitude, not yet clamped. The end is
        padded with zeros to a whole hop.

    Raises:
        ValueError: samples that are not mono, not floating point or not finite.
    """
    samples = _checked(samples)
    padded = np.pad(samples, (CARRY, -len(samples) % HOP))
    if len(padded) < WINDOW:
        return np.zeros((0, BANDS), np.float32)
    return _framed_log_mel(padded)


def quantise(log_mel: Float[np.ndarray, "... Z"]) -> UInt8[np.ndarray, "... Z"]:
    """Nearest of the 16 levels, the lower one at a tie; uint8."""
    clamped = np.clip(log_mel, np.float32(LOWEST), np.float32(HIGHEST))
    return np.abs(clamped[..., None] - level_values()).argmin(-1).astype(np.uint8)


def dmel(samples: Float[np.ndarray, "W"]) -> UInt8[np.ndarray, "frames Z"]:
    """dMel levels of a whole file, uint8 ``[ceil(W / 800), 80]`` in 0..15 (see `log_mel`)."""
    return quantise(log_mel(samples))


class DMelStream:
    """dMel levels 3,200 samples at a time, equal to `dmel` of the samples joined together.

    A chunk that never came is told with `missing`, or shows by the time of the next one: it gives
    no levels, and the next chunk is heard after silence (as `session.step` does it).
    """

    def __init__(self):
        self._carry = np.zeros(CARRY, np.float32)
        self._heard = -1

    def push(
        self, samples: Float[np.ndarray, "W"], chunk_time: int | None = None
    ) -> UInt8[np.ndarray, "frames Z"]:
        """Levels uint8 ``[4, 80]`` of a chunk of 3,200 samples.

        Args:
            samples: the chunk.
            chunk_time: micro-turn the chunk belongs to; None: it follows the last one. One that
                does not follow the last one heard starts from silence.

        Raises:
            ValueError: another number of samples, or samples `log_mel` would not take.
        """
        samples = _checked(samples)
        if len(samples) != CHUNK:
            raise ValueError(f"a chunk holds {CHUNK} samples, not {len(samples)}")
        chunk_time = self._heard + 1 if chunk_time is None else chunk_time
        if chunk_time != self._heard + 1:
            self._carry = np.zeros(CARRY, np.float32)
        padded = np.concatenate([self._carry, samples])
        self._carry, self._heard = samples[-CARRY:].copy(), chunk_time
        return quantise(_framed_log_mel(padded))

    def missing(self) -> None:
        """The next chunk did not come: what is carried over becomes silence."""
        self._carry = np.zeros(CARRY, np.float32)
        self._heard += 1


# ---------------------------------------------------------------- inside the compiled step


def log_mel_chunk(
    carry_BW: Float[Array, "B carry"], chunk_BW: Float[Array, "B W"]
) -> Float[Array, "B frames Z"]:
    """Log-mel of one chunk of every lane, float32 ``[B, 4, 80]``; see `dmel_chunk`."""
    padded = jnp.concatenate([carry_BW, chunk_BW], axis=-1).astype(jnp.float32)
    starts = np.arange(0, padded.shape[-1] - WINDOW + 1, HOP)
    frames = jnp.stack([padded[:, start : start + WINDOW] for start in starts], axis=1)
    spectrum = jnp.fft.rfft(frames * _window()[None, None, :], axis=-1)
    power = jnp.maximum(spectrum.real**2 + spectrum.imag**2, _FLOOR)
    bands = jnp.einsum(
        "...k,zk->...z", jnp.sqrt(power), _filters(), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.log10(jnp.maximum(bands, _FLOOR))


def dmel_chunk(
    carry_BW: Float[Array, "B carry"], chunk_BW: Float[Array, "B W"]
) -> tuple[Int[Array, "B frames Z"], Float[Array, "B carry"]]:
    """dMel levels of one chunk of every lane.

    Args:
        carry_BW: float32 ``[B, 800]``, the samples before the chunk; zeros at the beginning and
            after a missing chunk.
        chunk_BW: float32 ``[B, 3200]``.

    Returns:
        int32 levels ``[B, 4, 80]`` and the new carry.
    """
    values = jnp.clip(log_mel_chunk(carry_BW, chunk_BW), LOWEST, HIGHEST)
    distance = jnp.abs(values[..., None] - level_values()[None, None, None, :])
    return jnp.argmin(distance, axis=-1).astype(jnp.int32), chunk_BW[:, -CARRY:]
