"""Trains the vocoder.

In: a `VocoderTrainConfig` and a folder to work in. Out: `vocoder.safetensors` (the moving average
of the weights) and `metrics.jsonl` in that folder, with a checkpoint every few hundred steps from
which the same call resumes; batches are drawn from the seed and the step alone.

The loss is a spectral energy distance (Gritsenko et al., 2020, "A spectral energy distance for
parallel text to speech"): two waveforms are synthesised from one mel with different noise and
phase; each is pulled towards the recording and both are pushed apart. Unlike a plain spectral
loss, which rewards harmonics where the recording has noise, its minimum is the distribution of
the recordings, without an adversary.
"""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from interaction.models import declare
from interaction.models import vocoder as synthesis
from interaction.models import vocoder_source as source
from interaction.streams.filterbank import periodic_hann
from interaction.streams.mel import mel_spectrogram_BW
from interaction.train.vocoder_audio import AudioConfig, gather
from interaction.train.vocoder_pitch import measure_pitch

WARM_UP_FRAMES = 8


@dataclasses.dataclass(frozen=True)
class VocoderTrainConfig:
    """Everything a run of `train` depends on.

    Attributes:
        model: sizes of the vocoder.
        audio: what it hears.
        steps: optimiser steps; the last `decay_share` of them decay the rate to zero.
        batch: segments per step.
        frames: mel frames per segment, the first 8 of which carry no loss.
        learning_rate, warm_up_steps, decay_share: of the schedule.
        teacher_steps: over how many steps the source goes from measured to predicted pitch.
        average: decay of the moving average of the weights.
        windows: samples of the spectrogram windows of the loss; multiples of 4.
        gain_decibels: range of the random gain.
        mel_noise: half of the segments get noise of up to this deviation on their mel, so that
            the vocoder stands the errors of a generated mel.
        log_every, save_every: steps.
        seed: of parameters and batches.
    """

    model: synthesis.VocoderConfig = dataclasses.field(default_factory=synthesis.VocoderConfig)
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    steps: int = 16_000
    batch: int = 12
    frames: int = 64
    learning_rate: float = 1.5e-3
    warm_up_steps: int = 200
    decay_share: float = 0.3
    teacher_steps: int = 3_000
    average: float = 0.999
    windows: tuple[int, ...] = (128, 256, 512, 1024)
    gain_decibels: tuple[float, float] = (-20.0, 6.0)
    mel_noise: float = 0.12
    log_every: int = 50
    save_every: int = 400
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch", "teacher_steps", "log_every", "save_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.frames <= 2 * WARM_UP_FRAMES:
            raise ValueError(f"frames={self.frames} must exceed {2 * WARM_UP_FRAMES}")
        if any(window % 4 or window <= 0 for window in self.windows):
            raise ValueError(f"windows={self.windows} must be positive multiples of 4")
        if not 0.0 < self.decay_share <= 1.0:
            raise ValueError(f"decay_share={self.decay_share} must lie in (0, 1]")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """All recordings end to end on the hop grid, with the pitch of every hop (NaN unvoiced)."""

    samples: np.ndarray
    pitch: np.ndarray


def build_corpus(config: VocoderTrainConfig, workdir: pathlib.Path) -> Corpus:
    """Gather the recordings, measure their pitch and lay them end to end; kept in `workdir`."""
    cache = workdir / "corpus.npz"
    if cache.exists():
        with np.load(cache) as stored:
            return Corpus(stored["samples"], stored["pitch"])
    hop = config.model.mel.hop
    waves, pitches = [], []
    for recording in gather(config.audio, workdir / "audio.npz"):
        wave = np.pad(recording.wave, (0, 8 * hop - len(recording.wave) % hop))
        waves.append(np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16))
        pitches.append(measure_pitch(wave, config.model))
    corpus = Corpus(np.concatenate(waves), np.concatenate(pitches))
    np.savez(cache, samples=corpus.samples, pitch=corpus.pitch)
    return corpus


def lead_frames(config: synthesis.VocoderConfig) -> int:
    """Frames of context before a segment: for the mel's window and the pitch network."""
    return max(config.mel.window // config.mel.hop, config.pitch_context) - 1


def draw_batch(corpus: Corpus, config: VocoderTrainConfig, step: int) -> dict[str, np.ndarray]:
    """Random segments with random gain; a function of the seed and the step alone.

    Returns:
        `wave_BW` `[batch, (frames + lead) hop]` (context for the first frames first), `noise_BTZ`
        for its mel, measured `pitch_BT`, start phase and sample count of both synthesised
        waveforms, and `teacher_B`: which segments use the measured pitch.
    """
    rng = np.random.default_rng((config.seed, step))
    hop, frames = config.model.mel.hop, config.frames
    lead = lead_frames(config.model)
    starts = rng.integers(0, len(corpus.samples) // hop - frames - lead, config.batch)
    rows = [corpus.samples[s * hop : (s + frames + lead) * hop] for s in starts]
    wave_BW = np.stack(rows).astype(np.float32) / 32767.0
    gain = 10.0 ** (rng.uniform(*config.gain_decibels, (config.batch, 1)) / 20.0)
    peak = np.abs(wave_BW).max(axis=1, keepdims=True)
    gain = np.minimum(gain, 0.99 / np.maximum(peak, 1e-3))
    pitch = [corpus.pitch[s + lead : s + lead + frames] for s in starts]
    shape = (config.batch, frames + lead, config.model.mel.bands)
    deviation = np.maximum(rng.uniform(-config.mel_noise, config.mel_noise, config.batch), 0.0)
    noise = rng.standard_normal(shape, np.float32) * deviation[:, None, None].astype(np.float32)
    return {
        "noise_BTZ": noise,
        "wave_BW": (wave_BW * gain).astype(np.float32),
        "pitch_BT": np.stack(pitch),
        "phase_B": rng.random((2, config.batch), np.float32),
        "frame_B": rng.integers(0, 2**20, (2, config.batch)).astype(np.int32),
        "teacher_B": rng.random(config.batch) > step / config.teacher_steps,
    }


def _spectrogram(wave_BW, size):
    """Magnitudes with a Hann window of unit energy, hop `size / 4`."""
    hop = size // 4
    blocks = wave_BW.shape[1] // hop
    split = wave_BW[:, : blocks * hop].reshape(wave_BW.shape[0], blocks, hop)
    framed = jnp.concatenate([split[:, k : blocks - 3 + k] for k in range(4)], axis=-1)
    window = periodic_hann(size)
    window = jnp.asarray(window / np.sqrt(np.sum(window**2)), jnp.float32)[None, None]
    spectrum = jnp.fft.rfft(framed * window)
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-10)


def _features(wave_BW, config):
    """What waveforms are compared by: `(log magnitude, magnitude)` per window, then the mel."""
    pairs = []
    for size in config.windows:
        magnitude = _spectrogram(wave_BW, size)
        pairs.append((jnp.log(magnitude + 1e-4), magnitude))
    return pairs, mel_spectrogram_BW(wave_BW, config.model.mel)


def _distance(a, b, scale_B):
    """Sum of mean absolute differences of two `_features`."""
    total = 0.0
    for (log_a, magnitude_a), (log_b, magnitude_b) in zip(a[0], b[0], strict=True):
        linear = jnp.mean(jnp.abs(magnitude_a - magnitude_b) / scale_B[:, None, None])
        total = total + jnp.mean(jnp.abs(log_a - log_b)) + linear
    return total / len(a[0]) + jnp.mean(jnp.abs(a[1] - b[1]))


def _pitch_loss(logits_BTC, pitch_BT, config):
    """Cross-entropy with a Gaussian around the measured pitch, over voiced frames."""
    ratio = np.log(config.pitch_high / config.pitch_low) / (config.pitch_classes - 1)
    voiced = jnp.isfinite(pitch_BT)
    index = jnp.log(jnp.where(voiced, pitch_BT, 100.0) / config.pitch_low) / ratio
    classes = jnp.arange(config.pitch_classes, dtype=jnp.float32)
    target = jax.nn.softmax(-0.5 * jnp.square(classes[None, None] - index[..., None]))
    entropy = -jnp.sum(target * jax.nn.log_softmax(logits_BTC), axis=-1)
    near = jnp.abs(jnp.argmax(logits_BTC, -1) - index) < 1.5
    count = jnp.maximum(jnp.sum(voiced), 1)
    return jnp.sum(entropy * voiced) / count, jnp.sum(near * voiced) / count


def loss_of(params: Mapping, batch: Mapping, config: VocoderTrainConfig):
    """Spectral energy distance plus pitch cross-entropy, and the parts of it to log."""
    sizes, hop = config.model, config.model.mel.hop
    lead = lead_frames(sizes)
    wave_BW = batch["wave_BW"]
    mel_BTZ = mel_spectrogram_BW(wave_BW, sizes.mel) + batch["noise_BTZ"] * sizes.mel.scale
    mel_BTZ = jnp.maximum(mel_BTZ, sizes.mel.silence)
    logits = source.pitch_logits(
        params["pitch"], mel_BTZ[:, lead - sizes.pitch_context + 1 :], sizes
    )
    pitch_loss, pitch_right = _pitch_loss(logits, batch["pitch_BT"], sizes)
    predicted_BT = jax.lax.stop_gradient(source.pitch_increments(logits, sizes))
    measured_BT = batch["pitch_BT"] / sizes.mel.sample_rate
    teacher = batch["teacher_B"][:, None] & jnp.isfinite(measured_BT)
    increment_BT = jnp.where(teacher, measured_BT, predicted_BT)
    state = synthesis.init_vocoder_state(sizes, wave_BW.shape[0])
    filters, _ = synthesis.filter_frames(
        params, state["convolution_LBKD"], mel_BTZ[:, lead:], sizes
    )

    skip = WARM_UP_FRAMES * hop
    target_BW = wave_BW[:, lead * hop + skip - sizes.delay_samples : -sizes.delay_samples]
    target = _features(target_BW, config)
    scale_B = jnp.mean(target[0][1][1], axis=(1, 2)) + 1e-3
    samples = []
    for k in range(2):
        started = {**state, "phase_B": batch["phase_B"][k], "frame_B": batch["frame_B"][k]}
        out_BW, _ = synthesis.synthesise(started, filters, increment_BT, sizes)
        samples.append(_features(out_BW[:, skip:], config))
    near = _distance(samples[0], target, scale_B) + _distance(samples[1], target, scale_B)
    apart = _distance(samples[0], samples[1], scale_B)
    mel_error = jnp.mean(jnp.abs(samples[0][1] - target[1]))
    parts = {
        "distance": near - apart,
        "near": 0.5 * near,
        "mel": mel_error,
        "pitch": pitch_loss,
        "pitch_right": pitch_right,
    }
    return near - apart + 0.2 * pitch_loss, parts


def _optimiser(config: VocoderTrainConfig):
    decay = max(1, int(config.steps * config.decay_share))
    flat = config.steps - decay
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warm_up_steps),
            optax.constant_schedule(config.learning_rate),
            optax.linear_schedule(config.learning_rate, 0.02 * config.learning_rate, decay),
        ],
        [config.warm_up_steps, flat],
    )
    return optax.chain(
        optax.clip_by_global_norm(2.0), optax.adamw(rate, b1=0.8, b2=0.99, weight_decay=1e-3)
    )


@functools.lru_cache(maxsize=2)
def _compiled(config: VocoderTrainConfig):
    """The optimiser and the compiled step `update(carry, batch, step) -> (carry, metrics)`."""
    optimiser = _optimiser(config)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(carry, batch, step):
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, parts), gradient = grad(carry["params"], batch, config)
        change, state = optimiser.update(gradient, carry["optimiser"], carry["params"])
        params = optax.apply_updates(carry["params"], change)
        decay = jnp.minimum(config.average, (1.0 + step) / (10.0 + step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, carry["average"], params)
        carry = {"params": params, "average": average, "optimiser": state}
        return carry, {"loss": loss, **parts}

    return optimiser, update


def train(config: VocoderTrainConfig, workdir: str | pathlib.Path) -> dict:
    """Train, resuming from `workdir` if it holds a checkpoint.

    Returns:
        the last logged metrics.

    Raises:
        FloatingPointError: a loss that is not finite, with its step.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(config, workdir)
    optimiser, update = _compiled(config)
    params = declare.init(jax.random.key(config.seed), synthesis.vocoder_specs(config.model))
    carry = {
        "params": params,
        "average": jax.tree.map(jnp.copy, params),
        "optimiser": optimiser.init(params),
    }
    carry, first = _restore(workdir / "checkpoint.npz", carry)

    began, logged, metrics = time.monotonic(), [], {}
    for step in range(first, config.steps):
        carry, parts = update(carry, draw_batch(corpus, config, step), np.float32(step))
        logged.append(parts)
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            logged = [{name: float(value) for name, value in row.items()} for row in logged]
            means = {name: float(np.mean([row[name] for row in logged])) for name in parts}
            metrics = {"step": step + 1, **{name: round(v, 5) for name, v in means.items()}}
            metrics["seconds"] = round(time.monotonic() - began, 1)
            logged = []
            if not np.isfinite(metrics["loss"]):
                raise FloatingPointError(f"loss={metrics['loss']} by step {step + 1}")
            with open(workdir / "metrics.jsonl", "a") as file:
                file.write(json.dumps(metrics) + "\n")
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(workdir / "checkpoint.npz", carry, step + 1)
            synthesis.save_vocoder(workdir / "vocoder.safetensors", carry["average"], config.model)
    return metrics


def _save(path: pathlib.Path, carry, step: int) -> None:
    """Write all leaves in order, then move into place."""
    leaves = {f"{i:03d}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(carry))}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, step=np.asarray(step), **leaves)
    os.replace(partial, path)


def _restore(path: pathlib.Path, carry):
    """Leaves from `path` in the structure of `carry`, and the step to go on from."""
    if not path.exists():
        return carry, 0
    with np.load(path) as stored:
        leaves, structure = jax.tree.flatten(carry)
        found = [stored[f"{i:03d}"] for i in range(len(leaves))]
        for old, new in zip(leaves, found, strict=True):
            if old.shape != new.shape:
                raise ValueError(f"{path}: an array is {new.shape}, this config has {old.shape}")
        found = [jnp.asarray(new, old.dtype) for old, new in zip(leaves, found, strict=True)]
        return jax.tree.unflatten(structure, found), int(stored["step"])
