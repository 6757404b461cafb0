"""The losses of the interaction model.

In: parameters, a batch, a key. Out: one number to go down, and its parts. Text is cross-entropy on
the model's own output tokens (control tokens included); speech is the flow-matching loss on every
chunk of mel, conditioned on the hidden state at its SPEAK slot. What is heard next may be learnt to
be expected too, from the hidden state of each heard frame. Losses are float32.

All are means over a batch. What they are taken over (`Counts`) and all that is drawn (`Drawn`) is
known before the model is run, so the losses of a batch's parts (`part`) add up to those of the
whole.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from interaction import sharding
from interaction.models import flow, interaction_model, transformer
from interaction.models.config import InteractionConfig, Recompute
from interaction.types import Batch, Control, Payloads, Stream, pytree


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        text: weight of the text loss.
        speech: weight of the flow loss.
        heard: weight of the loss on the next heard frame; 0: there is none.
        flow_draws: (noise, time) pairs drawn per chunk and step (as in MAR).
        own_speech_noise: greatest standard deviation of the noise put on the own speech that is
            fed back; each conversation draws its own, uniformly from 0.
        text_slots: slots of a conversation whose scores are there at once; they are computed again
            in the backward pass. 0: all. Where slots are split over devices, all are there.
    """

    text: float = 1.0
    speech: float = 1.0
    heard: float = 0.0
    flow_draws: int = 4
    own_speech_noise: float = 0.3
    text_slots: int = 0

    def __post_init__(self):
        for name in ("text", "speech", "heard", "text_slots"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


@pytree
class Counts:
    """What the means of a batch are taken over; float32 scalars, at least 1.

    Attributes:
        text: weight of all output tokens.
        tokens: output tokens.
        acts: those that begin a micro-turn in which the model should do something.
        speech: weight of all chunks, once for each draw.
        heard: heard frames that have a next one.
        slots: valid slots.
    """

    text: Any
    tokens: Any
    acts: Any
    speech: Any
    heard: Any
    slots: Any


@pytree
class Drawn:
    """A batch with all that is drawn for it; every leaf begins with the axis of conversations.

    Attributes:
        batch: with noise on the own speech that is fed back.
        noise: float32 ``[B, draws, C, R, Z]``, where the flow begins.
        time: float32 ``[B, draws, C]``, how far it has come.
    """

    batch: Batch
    noise: Any
    time: Any


def total(
    params: dict,
    batch: Batch,
    key: jax.Array,
    config: InteractionConfig,
    weights: LossConfig,
    *,
    capacity_factor: float | None = None,
) -> tuple[jax.Array, dict]:
    """Weighted sum of the losses, and a dict of scalars and the expert load.

    ``dropped`` is the share of (slot, expert) pairs that found no room (`moe.mixture`).
    """
    whole = counts(batch, config, weights)
    drawn = draw(batch, key, weights)
    return part(params, drawn, whole, config, weights, capacity_factor=capacity_factor)


def counts(batch: Batch, config: InteractionConfig, weights: LossConfig) -> Counts:
    """What the means of `batch` are taken over."""
    there = batch.targets.token >= 0
    rows = jnp.arange(1, batch.payloads.audio.shape[1])[None]
    listed = {
        "text": jnp.where(there, batch.targets.token_weight, 0.0),
        "tokens": there,
        "acts": _acts(batch, config),
        "speech": weights.flow_draws * batch.targets.chunk_weight,
        "heard": rows < jnp.sum(_heard(batch), axis=1, keepdims=True),
        "slots": batch.slots.valid,
    }
    sums = {name: jnp.sum(each, dtype=jnp.float32) for name, each in listed.items()}
    return Counts(**{name: jnp.maximum(one, 1.0) for name, one in sums.items()})


def draw(batch: Batch, key: jax.Array, weights: LossConfig) -> Drawn:
    """What is random in a step; a conversation's draws do not depend on the parts of its batch."""
    feedback_key, flow_key = jax.random.split(key)
    noise_key, time_key = jax.random.split(flow_key)
    lanes, chunks, *mel = batch.targets.chunk.shape
    draws = weights.flow_draws
    noise = jax.random.normal(noise_key, (draws, lanes * chunks, *mel))
    noise = noise.reshape(draws, lanes, chunks, *mel)
    time = jax.random.uniform(time_key, (draws, lanes * chunks)).reshape(draws, lanes, chunks)
    return Drawn(
        batch=noisy_feedback(batch, feedback_key, weights.own_speech_noise),
        noise=sharding.constrain(noise.swapaxes(0, 1), "batch", *[None] * (2 + len(mel))),
        time=sharding.constrain(time.swapaxes(0, 1), "batch", None, None),
    )


def part(
    params: dict,
    drawn: Drawn,
    whole: Counts,
    config: InteractionConfig,
    weights: LossConfig,
    *,
    capacity_factor: float | None = None,
) -> tuple[jax.Array, dict]:
    """What some conversations of a batch contribute to its `total`: all parts add up to it.

    Args:
        params: the model's.
        drawn: the conversations.
        whole: of all of the batch.
        config: the model.
        weights: of the losses.
        capacity_factor: as of `moe.mixture`; the room is that of this part.
    """
    batch = drawn.batch
    hidden, load = interaction_model.hidden_states(
        params, batch, config, capacity_factor=capacity_factor
    )
    text, text_metrics = text_loss(
        lambda hidden: transformer.logits(params["transformer"], hidden, config.transformer),
        hidden,
        batch,
        whole,
        config,
        slots=0 if sharding.mesh_sizes().get(sharding.SEQUENCE, 1) > 1 else weights.text_slots,
    )
    again = config.transformer.recompute is not Recompute.NONE
    speech = flow_loss(params["flow"], hidden, drawn, whole, recomputed=again)
    loss = weights.text * text + weights.speech * speech
    parts = {"text": text, "speech": speech, **text_metrics}
    if weights.heard:
        parts["heard"] = heard_loss(params["audio"]["table"], hidden, batch, whole)
        loss = loss + weights.heard * parts["heard"]
    parts["loss"] = loss
    share = jnp.sum(batch.slots.valid) / whole.slots
    if capacity_factor is not None:
        parts["dropped"] = jnp.mean(load.dropped) * share
    return loss, {**parts, "load": load.share * share}


def noisy_feedback(batch: Batch, key: jax.Array, greatest: float) -> Batch:
    """The batch with noise on the own speech that is fed back."""
    speech = batch.payloads.speech
    level_key, noise_key = jax.random.split(key)
    level = greatest * jax.random.uniform(level_key, (speech.shape[0], 1, 1))
    noise = level * jax.random.normal(noise_key, speech.shape)
    payloads = Payloads(
        audio=batch.payloads.audio, patches=batch.payloads.patches, speech=speech + noise
    )
    return dataclasses.replace(batch, payloads=payloads)


def text_loss(
    scores: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    batch: Batch,
    whole: Counts,
    config: InteractionConfig,
    *,
    slots: int = 0,
) -> tuple[jax.Array, dict]:
    """Mean cross-entropy over output tokens, and how often the best token is the right one.

    ``decision_accuracy`` looks only at the first token of micro-turns in which the model should
    do something (anything but PASS): does it act, and rightly, when it should?

    Args:
        scores: states ``[B, t, D]`` to logits ``[B, t, V]``.
        hidden: ``[B, T, D]``.
        batch: targets, and the slots' tokens.
        whole: what the means are taken over.
        config: the model.
        slots: of a row whose logits are there at once (`LossConfig.text_slots`); 0: all.
    """

    def sums(part):
        hidden, target, weight, acts = part
        logits, there = scores(hidden), target >= 0
        logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        nll = -jnp.take_along_axis(logp, jnp.where(there, target, 0)[..., None], axis=-1)[..., 0]
        right = there & (jnp.argmax(logits, axis=-1) == target)
        nll = jnp.sum(nll * jnp.where(there, weight, 0.0))
        return nll, jnp.sum(right), jnp.sum(right & acts)

    everything = (hidden, batch.targets.token, batch.targets.token_weight, _acts(batch, config))
    if 0 < slots < hidden.shape[1]:
        parts = jax.tree.map(lambda x, fill: _cut(x, slots, fill), everything, (0, -1, 0, False))
        found = jax.lax.map(jax.checkpoint(sums), parts)
        found = jax.tree.map(lambda one: jnp.sum(one, axis=0), found)
    else:
        found = sums(everything)
    nll, right, right_acts = found
    return nll / whole.text, {
        "token_accuracy": right / whole.tokens,
        "decision_accuracy": right_acts / whole.acts,
    }


def _acts(batch: Batch, config: InteractionConfig) -> jax.Array:
    """bool ``[B, T]``: the first token of a micro-turn in which the model should do something."""
    begins = batch.slots.token == config.ordinary_tokens + int(Control.BEGIN)
    passes = config.ordinary_tokens + int(Control.PASS)
    return begins & (batch.targets.token >= 0) & (batch.targets.token != passes)


def _heard(batch: Batch) -> jax.Array:
    """bool ``[B, T]``: slots of heard frames."""
    return batch.slots.valid & (batch.slots.stream == Stream.AUDIO)


def _cut(x: jax.Array, size: int, fill) -> jax.Array:
    """``[B, T, ...]`` to ``[parts, B, size, ...]``, filled up."""
    parts = -(-x.shape[1] // size)
    pad = [(0, 0), (0, parts * size - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, pad, constant_values=fill)
    return x.reshape(x.shape[0], parts, size, *x.shape[2:]).swapaxes(0, 1)


def heard_loss(table: jax.Array, hidden: jax.Array, batch: Batch, whole: Counts) -> jax.Array:
    """Mean cross-entropy of the next heard frame's levels, over frames that have a next one.

    The readout is the audio stem's own table, as output embeddings are tied to input embeddings
    (Press and Wolf 2017), so a model that trains with this loss has no further parameters.

    Args:
        table: ``[bands * levels, D]``.
        hidden: ``[B, T, D]``, of all slots.
        batch: gives the heard frames ``[B, rows, bands]`` in the order of their slots.
        whole: what the mean is taken over.
    """
    frames = batch.payloads.audio.astype(jnp.int32)
    _, rows, bands = frames.shape
    if rows < 2:
        return jnp.float32(0.0)
    heard = _heard(batch)
    count = jnp.sum(heard, axis=1, keepdims=True)
    place = jnp.argsort(~heard, axis=1, stable=True)[:, : rows - 1]
    state = jnp.take_along_axis(hidden, place[..., None], axis=1)
    logits = (state @ table.T).reshape(*state.shape[:2], bands, -1)
    logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    nll = -jnp.take_along_axis(logp, frames[:, 1:, :, None], axis=-1)[..., 0].mean(axis=2)
    follows = jnp.arange(1, rows)[None] < count
    return jnp.sum(jnp.where(follows, nll, 0.0)) / whole.heard


def flow_loss(
    params: dict, hidden: jax.Array, drawn: Drawn, whole: Counts, *, recomputed: bool = False
) -> jax.Array:
    """Mean squared error of the predicted mel over all chunks and their (noise, time) pairs.

    It is the flow-matching loss on the velocity weighted by ``(1 - t) ** 2``: the same minimum,
    without the weight that goes to infinity at t = 1. Draws stand in an axis of their own: the
    chunks of a conversation stay on the device that has it.

    Args:
        params: the flow head.
        hidden: ``[B, T, D]``.
        drawn: targets, noises and times.
        whole: what the mean is taken over.
        recomputed: one draw after the other, computed again in the backward pass.
    """
    targets = drawn.batch.targets
    condition = jnp.take_along_axis(hidden, jnp.maximum(targets.chunk_slot, 0)[..., None], axis=1)
    rows = targets.chunk.shape[0] * targets.chunk.shape[1]
    mel = targets.chunk.reshape(rows, *targets.chunk.shape[2:])
    condition = condition.reshape(rows, -1)

    def per_chunk(pair):
        # Said here as well: of the loop's slices the compiler does not know it, and would make the
        # time features of the whole batch on every device.
        noise = sharding.constrain(pair[0], "batch", None, None)
        time = sharding.constrain(pair[1], "batch")
        x_t, _ = flow.interpolate(noise, mel, time)
        error = flow.predict(params, x_t, time, condition) - mel
        return jnp.mean(jnp.square(error.astype(jnp.float32)), axis=(1, 2))

    noise, time = (
        each.swapaxes(0, 1).reshape(each.shape[1], rows, *each.shape[3:])
        for each in (drawn.noise, drawn.time)
    )
    pairs = (
        sharding.constrain(noise, None, "batch", None, None),
        sharding.constrain(time, None, "batch"),
    )
    if recomputed:
        errors = jax.lax.map(jax.checkpoint(per_chunk), pairs)
    else:
        errors = jax.vmap(per_chunk)(pairs)
    return jnp.sum(errors * targets.chunk_weight.reshape(rows)[None]) / whole.speech
