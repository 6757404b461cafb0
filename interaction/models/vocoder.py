"""The vocoder: spoken mel to waveform, causal and streaming.

In: parameters and normalised mel frames (`streams/mel.py`), whole (`vocode`) or in chunks of any
number of frames with a carried state (`vocode_chunk`). Out: 200 samples per frame, delayed by
`VocoderConfig.delay_samples`.

A source and a filter, after the neural source-filter models (Wang et al., 2019) with the inverse
transform of Vocos (Siuzdak, 2023):

* a small network with *quantised* weights and activations reads the pitch of each frame. All its
  sums are exact in float32, so pitch, and the phase accumulated from it, are the same bits for
  any chunking: a float network would drift apart between streaming and whole-file;
* the source is a train of harmonics of that pitch and white noise from a counter hash;
* causal ConvNeXt blocks give, per frame and frequency bin, the gain of both and the phase of the
  first, on top of a magnitude interpolated from the mel itself: a silent mel is exact silence;
* source times filter, back through the inverse transform, overlap-add of two half-overlapping
  windows of 400 samples.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from interaction.models import declare
from interaction.models.vocoder_source import (
    counter_noise,
    harmonic_source,
    on_increment_grid,
    pitch_increments,
    pitch_logits,
)
from interaction.shapes import Array, Float
from interaction.streams.filterbank import hertz_to_mel, mel_to_hertz, periodic_hann
from interaction.streams.mel import MelConfig


@dataclasses.dataclass(frozen=True)
class VocoderConfig:
    """Sizes of the vocoder.

    Attributes:
        mel: the mel it reads.
        width: channels of the blocks (`D`).
        feed_forward: inner channels of the blocks (`F`).
        layers: blocks (`L`).
        kernel: taps of the depth-wise causal convolutions.
        pitch_bands: lowest mel bands the pitch network reads.
        pitch_context: frames it reads, the newest included.
        pitch_width: its hidden channels.
        pitch_classes: its outputs, spaced evenly in log frequency.
        pitch_low, pitch_high: Hz of the first and last class.
        gain_limit: largest correction of a magnitude, in nepers (e-folds).
    """

    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    width: int = 192
    feed_forward: int = 512
    layers: int = 6
    kernel: int = 5
    pitch_bands: int = 48
    pitch_context: int = 8
    pitch_width: int = 160
    pitch_classes: int = 97
    pitch_low: float = 55.0
    pitch_high: float = 440.0
    gain_limit: float = 4.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "mel" and value <= 0:
                raise ValueError(f"{field.name}={value} must be positive")
        if self.pitch_bands > self.mel.bands:
            raise ValueError(f"pitch_bands={self.pitch_bands} exceeds mel.bands={self.mel.bands}")
        if not self.pitch_low < self.pitch_high < self.mel.sample_rate / 2:
            raise ValueError(
                f"pitch_low={self.pitch_low} and pitch_high={self.pitch_high} are out of order"
            )

    @property
    def n_fft(self) -> int:
        """Samples of the synthesis window: two hops."""
        return 2 * self.mel.hop

    @property
    def bins(self) -> int:
        """Frequency bins of the filter."""
        return self.n_fft // 2 + 1

    @property
    def delay_samples(self) -> int:
        """How far the output lags: sample `n` of the speech comes out as sample `n + delay`.

        The synthesis window of frame `t` ends one hop before the last sample that its mel frame
        saw, so that pitch and spectrum are read from the middle of the mel's window, and its
        second half waits for the next frame: two hops, 400 samples (25 ms).
        """
        return 2 * self.mel.hop


def vocoder_specs(config: VocoderConfig) -> dict:
    """Parameter tree; blocks are stacked in a leading layer axis (11 leaves)."""
    Z, D, F, L = config.mel.bands, config.width, config.feed_forward, config.layers
    k = config.kernel
    pitch_inputs = config.pitch_bands * config.pitch_context + 1
    p = declare.Parameter

    return {
        "embed": {
            "kernel": p((Z + 1, D), (None, "embed"), declare.fan_in(Z)),
        },
        "blocks": {
            "convolution": p((L, k, D), ("layers", None, "embed"), declare.normal(k**-0.5)),
            "norm": p((L, 2, D), ("layers", None, "embed"), _scale_and_bias),
            "up": p((L, D, F), ("layers", "embed", "mlp"), declare.normal(D**-0.5)),
            "up_bias": p((L, F), ("layers", "mlp"), declare.zeros),
            "down": p((L, F, D), ("layers", "mlp", "embed"), declare.normal(0.3 * F**-0.5)),
        },
        "head": {
            "norm": p((2, D), (None, "embed"), _scale_and_bias),
            "kernel": p((D + 1, 3 * config.bins), ("embed", None), declare.normal(0.02)),
        },
        "pitch": {
            "first": p((pitch_inputs, config.pitch_width), (None, None), declare.normal(0.1)),
            "second": p(
                (config.pitch_width + 1, config.pitch_width), (None, None), declare.normal(0.12)
            ),
            "third": p(
                (config.pitch_width + 1, config.pitch_classes), (None, None), declare.normal(0.1)
            ),
        },
    }


def _scale_and_bias(key, shape, dtype=jnp.float32):
    """Initialiser of `[..., 2, D]`: scale 1, bias 0."""
    del key
    return jnp.zeros(shape, dtype).at[..., 0, :].set(1.0)


def init_vocoder_state(config: VocoderConfig, batch: int) -> dict:
    """State before the first frame, as if silence had gone before.

    Leaves: `mel_BTZ` the last frames (pitch context), `convolution_LBKD` the last inputs of every
    convolution, `source_BW` the last hop of harmonics, `tail_BW` the half window still to be
    completed, `phase_B` in cycles, `increment_B` cycles per sample of the last frame, `frame_B`.
    """
    hop = config.mel.hop
    return {
        # Typed strongly: a weak type would make the second step of a session compile again.
        "mel_BTZ": jnp.full(
            (batch, config.pitch_context - 1, config.mel.bands), config.mel.silence, jnp.float32
        ),
        "convolution_LBKD": jnp.zeros((config.layers, batch, config.kernel - 1, config.width)),
        "source_BW": jnp.zeros((batch, hop)),
        "tail_BW": jnp.zeros((batch, hop)),
        "phase_B": jnp.zeros((batch,)),
        "increment_B": jnp.full(
            (batch,), on_increment_grid(120.0 / config.mel.sample_rate), jnp.float32
        ),
        "frame_B": jnp.zeros((batch,), jnp.int32),
    }


def vocode(
    params: Mapping, mel_BTZ: Float[Array, "B T Z"], config: VocoderConfig
) -> Float[Array, "B W"]:
    """A whole mel at once: `[B, T, Z]` to `[B, 200 T]`, delayed by `config.delay_samples`."""
    state = init_vocoder_state(config, mel_BTZ.shape[0])
    return vocode_chunk(params, state, mel_BTZ, config)[0]


def vocode_chunk(
    params: Mapping, state: Mapping, mel_BTZ: Float[Array, "B T Z"], config: VocoderConfig
) -> tuple[Float[Array, "B W"], dict]:
    """The next frames of a stream.

    Args:
        params: as declared by `vocoder_specs`.
        state: of `init_vocoder_state` or of the chunk before.
        mel_BTZ: one or more normalised frames.

    Returns:
        `[B, 200 T]` samples and the state after them. For any chunking the samples are those of
        `vocode` on the whole mel.
    """
    check_mel(mel_BTZ, config)
    mel_BTZ = mel_BTZ.astype(jnp.float32)
    history_BTZ = jnp.concatenate([state["mel_BTZ"], mel_BTZ], axis=1)
    increment_BT = pitch_increments(pitch_logits(params["pitch"], history_BTZ, config), config)
    filters, convolution_LBKD = filter_frames(params, state["convolution_LBKD"], mel_BTZ, config)
    wave_BW, carried = synthesise(state, filters, increment_BT, config)
    new_state = {
        "mel_BTZ": history_BTZ[:, history_BTZ.shape[1] - (config.pitch_context - 1) :],
        "convolution_LBKD": convolution_LBKD,
        **carried,
    }
    return wave_BW, new_state


def check_mel(mel_BTZ, config: VocoderConfig) -> None:
    """Raise unless `mel_BTZ` is three-dimensional with the configured bands."""
    if mel_BTZ.ndim != 3 or mel_BTZ.shape[-1] != config.mel.bands:
        raise ValueError(f"mel_BTZ has shape {mel_BTZ.shape}; expected [B, T, {config.mel.bands}]")


# --- filter: the blocks ------------------------------------------------------------------------


def _layer_norm(x, scale_and_bias):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    normal = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
    return normal * scale_and_bias[0][None, None] + scale_and_bias[1][None, None]


def _causal_convolution(x_BTD, past_BKD, kernel_KD):
    """Depth-wise; returns the output and the last `k - 1` inputs."""
    padded = jnp.concatenate([past_BKD, x_BTD], axis=1)
    frames = x_BTD.shape[1]
    taps = kernel_KD.shape[0]
    out = sum(padded[:, k : k + frames] * kernel_KD[k][None, None] for k in range(taps))
    return out, padded[:, frames:]


def filter_frames(params, convolution_LBKD, mel_BTZ, config: VocoderConfig):
    """Blocks and head: `(harmonic gain, harmonic phase, noise gain)`, each `[B, T, bins]`.

    Gains are linear magnitudes, the mel's own magnitude included. Also returns the new history of
    the convolutions.
    """
    embed = params["embed"]["kernel"]
    x_BTD = mel_BTZ / config.mel.scale @ embed[:-1] + embed[-1][None, None]

    def block(x_BTD, layer):
        weights, past_BKD = layer
        mixed, past_BKD = _causal_convolution(x_BTD, past_BKD, weights["convolution"])
        mixed = _layer_norm(mixed, weights["norm"])
        hidden = jax.nn.gelu(
            mixed @ weights["up"] + weights["up_bias"][None, None], approximate=True
        )
        return x_BTD + hidden @ weights["down"], past_BKD

    x_BTD, convolution_LBKD = jax.lax.scan(block, x_BTD, (params["blocks"], convolution_LBKD))
    head = params["head"]
    raw = _layer_norm(x_BTD, head["norm"]) @ head["kernel"][:-1] + head["kernel"][-1][None, None]
    harmonic, phase, noise = jnp.split(raw, 3, axis=-1)
    prior = prior_magnitude(mel_BTZ, config)
    limit = config.gain_limit

    def gain(correction):
        return prior * jnp.exp(limit * jnp.tanh(correction / limit))

    return (gain(harmonic), phase, gain(noise)), convolution_LBKD


def prior_magnitude(mel_BTZ, config: VocoderConfig) -> Float[Array, "B T bins"]:
    """Gain per bin that gives white noise about the mel's level; 0 at silence.

    Levels are interpolated between band centres in mel frequency and divided by the magnitude
    that white noise of unit variance has in each band.
    """
    mel = config.mel
    edges = np.linspace(hertz_to_mel(mel.fmin), hertz_to_mel(mel.fmax), mel.bands + 2)
    centres = mel_to_hertz(edges[1:-1])
    bins = np.linspace(0.0, mel.sample_rate / 2, config.bins)
    interpolate = np.stack([np.interp(bins, centres, row) for row in np.eye(mel.bands)])
    window = periodic_hann(mel.window)
    noise = math.sqrt(math.pi / 4 * np.sum(window**2)) / window.sum() * mel.filters.sum(axis=1)
    level = jnp.asarray(mel_BTZ / mel.scale, jnp.float32) @ jnp.asarray(interpolate, jnp.float32)
    offset = (mel.reference - np.log10(noise)) @ interpolate
    ten = math.log(10.0)
    constant = jnp.asarray(np.exp(ten * offset), jnp.float32)[None, None]
    magnitude = jnp.exp(ten * jnp.maximum(level, -mel.half_range)) - math.exp(-ten * mel.half_range)
    # The product of the interpolation may round to just above the floor: that is silence too.
    return constant * jnp.where(level <= -mel.half_range + 1e-4, 0.0, magnitude)


# --- synthesis ---------------------------------------------------------------------------------


def _transforms(n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Windowed real transform and its windowed inverse as float32 matrices (real parts first).

    Matrices, not a transform of the backend: 400 points cost nothing, every platform has them,
    and the CPU backend's transform hands work to a thread pool inside the live step.
    """
    window = np.sqrt(periodic_hann(n_fft))
    bins = n_fft // 2 + 1
    angle = 2 * np.pi * np.outer(np.arange(n_fft), np.arange(bins)) / n_fft
    analysis = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1) * window[:, None]
    weight = np.full(bins, 2.0 / n_fft)
    weight[[0, -1]] = 1.0 / n_fft
    inverse = np.concatenate([np.cos(angle) * weight, -np.sin(angle) * weight], axis=1).T
    return analysis.astype(np.float32), (inverse * window).astype(np.float32)


def synthesise(state, filters, increment_BT, config: VocoderConfig, seed=0):
    """Source times filter, inverse transform, overlap-add: `[B, hop * T]` and the carried state."""
    hop = config.mel.hop
    batch, frames = increment_BT.shape
    analysis, synthesis = _transforms(config.n_fft)
    source_BTW, phase_B = harmonic_source(
        state["phase_B"], state["increment_B"], increment_BT, config
    )
    source_BTW = jnp.concatenate([state["source_BW"][:, None], source_BTW], axis=1)
    index = (state["frame_B"][:, None] - 1 + np.arange(frames + 1)[None])[..., None] * hop
    noise_BTW = counter_noise(index + np.arange(hop)[None, None], seed)

    def spectrum(hops_BTW):
        framed = jnp.concatenate([hops_BTW[:, :-1], hops_BTW[:, 1:]], axis=-1)
        product = jnp.einsum("btw,wf->btf", framed, analysis, precision="highest")
        return jnp.split(product, 2, axis=-1)

    harmonic_gain, harmonic_phase, noise_gain = filters
    cosine, sine = harmonic_gain * jnp.cos(harmonic_phase), harmonic_gain * jnp.sin(harmonic_phase)
    (real, imaginary), (noise_real, noise_imaginary) = spectrum(source_BTW), spectrum(noise_BTW)
    total_real = real * cosine - imaginary * sine + noise_real * noise_gain
    total_imaginary = real * sine + imaginary * cosine + noise_imaginary * noise_gain
    total = jnp.concatenate([total_real, total_imaginary], axis=-1)
    out_BTW = jnp.einsum("btf,fw->btw", total, synthesis, precision="highest")
    tails = jnp.concatenate([state["tail_BW"][:, None], out_BTW[..., hop:]], axis=1)
    wave_BW = (out_BTW[..., :hop] + tails[:, :-1]).reshape(batch, frames * hop)
    return wave_BW, {
        "source_BW": source_BTW[:, -1],
        "tail_BW": tails[:, -1],
        "phase_B": phase_B,
        "increment_B": increment_BT[:, -1],
        "frame_B": state["frame_B"] + frames,
    }


# --- files -------------------------------------------------------------------------------------


def save_vocoder(path: str | pathlib.Path, params: Mapping, config: VocoderConfig) -> None:
    """Write float32 safetensors; names joined by "/", the configuration in the metadata."""
    from safetensors.numpy import save_file

    flat = {
        "/".join(str(key.key) for key in keys): np.asarray(value, np.float32)
        for keys, value in jax.tree_util.tree_leaves_with_path(dict(params))
    }
    metadata = {"config": json.dumps(dataclasses.asdict(config), sort_keys=True)}
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(flat, str(path), metadata=metadata)


def load_vocoder(path: str | pathlib.Path) -> tuple[dict, VocoderConfig]:
    """Read what `save_vocoder` wrote: parameters as numpy arrays, and the configuration.

    Raises:
        ValueError: a missing, extra or misshapen array, naming it and both shapes.
    """
    from safetensors import safe_open

    with safe_open(str(path), "np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fields = json.loads(file.metadata()["config"])
    config = VocoderConfig(**{**fields, "mel": MelConfig(**fields["mel"])})
    params: dict = {}
    expected = jax.tree_util.tree_leaves_with_path(declare.abstract(vocoder_specs(config)))
    for keys, shape in expected:
        names = [str(key.key) for key in keys]
        array = stored.pop("/".join(names), None)
        if array is None or array.shape != shape.shape:
            found = None if array is None else array.shape
            raise ValueError(f"{path}: {'/'.join(names)} is {found}, expected {shape.shape}")
        node = params
        for name in names[:-1]:
            node = node.setdefault(name, {})
        node[names[-1]] = array
    if stored:
        raise ValueError(f"{path}: unexpected arrays {sorted(stored)}")
    return params, config
