"""Slots to states: stems of every stream, gathered into the woven order.

In: `Slots` and `Payloads`. Out: ``[B, T, D]``. Heard audio is a bag of dMel level embeddings
(Bai et al. 2024), video goes through the hMLP stem (Touvron et al. 2022) as in the Inkling
release, text through its embedding, own speech through a projection of its mel. Time is added at
the first slot of each micro-turn.
"""

import functools

import jax
import jax.numpy as jnp

from interaction import sharding
from interaction.kernels.streamed import project
from interaction.models import transformer
from interaction.models.attention import rms_norm, spread
from interaction.models.config import InteractionConfig
from interaction.shapes import Array, Bool, Float, Int, UInt8
from interaction.streams.image import normalise_patches
from interaction.types import Payloads, Slots, Stream

# The reference's stems keep this epsilon whatever the backbone's.
STEM_EPSILON = 1e-6
# Tubelets of a block of `used_tubelets`.
TUBELETS = 32


def audio_stem(
    params: dict, bins: Int[Array, "... Z"], config: InteractionConfig
) -> Float[Array, "... D"]:
    """dMel levels to one state per frame: a table row per (band, level), summed, normalised.

    The sum is a product with one-hot levels, which trains several times faster than gathering
    80 rows per frame and adds the same numbers.
    """
    levels = jax.nn.one_hot(bins, config.audio.levels, dtype=params["table"].dtype)
    flat = levels.reshape(*bins.shape[:-1], -1)
    return rms_norm(project(flat, params["table"]), params["norm"], STEM_EPSILON)


def vision_stem(
    params: dict, pixels: Float[Array, "n t p q c"], config: InteractionConfig
) -> Float[Array, "n D"]:
    """Tubelets to one state each by the hMLP: fold time and space into depth, then a linear map.

    Args:
        params: ``linear_i``, ``norm_i``, ``final_norm``.
        pixels: normalised tubelets ``[n, 2, 40, 40, 3]``.
        config: gives the folds.
    """
    x = pixels
    plan = config.vision.plan(config.transformer.width)
    for index, (time, space, _, _) in enumerate(plan):
        n, t, h, w, c = x.shape
        x = x.reshape(n, t // time, time, h // space, space, w // space, space, c)
        x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
        x = x.reshape(n, t // time, h // space, w // space, time * space * space * c)
        x = project(x, params[f"linear_{index}"])
        if index < len(plan) - 1:
            x = jax.nn.gelu(rms_norm(x, params[f"norm_{index}"], STEM_EPSILON), approximate=False)
    return rms_norm(x.reshape(x.shape[0], x.shape[-1]), params["final_norm"], STEM_EPSILON)


def speech_stem(
    params: dict, speech: Float[Array, "... f"], config: InteractionConfig
) -> Float[Array, "... D"]:
    """A group of own mel frames to one state."""
    x = speech @ params["projection"]
    return rms_norm(x, params["norm"], config.transformer.norm_epsilon)


def time_features(micro_turn: Int[Array, "..."], scales: int) -> Float[Array, "... f"]:
    """Sine and cosine of session time at periods of 2, 4, ... ``2**scales`` micro-turns.

    The phase is taken by integer remainder, so an hour-old session is as exact as a fresh one.
    """
    period = spread(2 ** jnp.arange(1, scales + 1), micro_turn.ndim + 1)
    phase = (micro_turn[..., None] % period).astype(jnp.float32) / period.astype(jnp.float32)
    angle = 2 * jnp.pi * phase
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def used_tubelets(
    params: dict,
    patches: UInt8[Array, "n t p q c"],
    used_n: Bool[Array, "n"],
    config: InteractionConfig,
) -> Float[Array, "n D"]:
    """`vision_stem` of the tubelets that some slot holds, in blocks; zeros for the others.

    A batch reserves as many tubelets for each session as the longest film has, and most sessions
    have none. The backward pass computes a block's states again.
    """
    return _used_forward(params, patches, used_n, config)[0]


def _stem_of(params: dict, patches: Array, rows: Array, config: InteractionConfig) -> Array:
    taken = patches.at[rows].get(mode="fill", fill_value=0)
    return vision_stem(params, normalise_patches(taken), config)


def _used_forward(params, patches, used_n, config):
    number, used = used_n.size, jnp.sum(used_n, dtype=jnp.int32)
    order = jnp.argsort(~used_n, stable=True).astype(jnp.int32)
    order = jnp.where(jnp.arange(number) < used, order, number)
    order = jnp.pad(order, (0, -number % TUBELETS), constant_values=number)
    blocks = -(-used // TUBELETS)

    def turn(block, out):
        rows = jax.lax.dynamic_slice_in_dim(order, block * TUBELETS, TUBELETS)
        return out.at[rows].set(_stem_of(params, patches, rows, config), mode="drop")

    empty = jnp.zeros((number, config.transformer.width), params["final_norm"].dtype)
    out = jax.lax.fori_loop(0, blocks, turn, empty)
    return out, (params, patches, order, blocks)


def _used_backward(config, residual, gradient):
    params, patches, order, blocks = residual

    def turn(block, total):
        rows = jax.lax.dynamic_slice_in_dim(order, block * TUBELETS, TUBELETS)
        pull = jax.vjp(lambda params: _stem_of(params, patches, rows, config), params)[1]
        (into,) = pull(gradient.at[rows].get(mode="fill", fill_value=0))
        return jax.tree.map(jnp.add, total, into)

    total = jax.lax.fori_loop(0, blocks, turn, jax.tree.map(jnp.zeros_like, params))
    return total, None, None


used_tubelets.defvjp(_used_forward, _used_backward)


def _video(params: dict, slots: Slots, patches: Array, config: InteractionConfig) -> Array:
    """States of all tubelets of a batch, ``[B, rows, D]``."""
    lanes, rows = patches.shape[:2]
    at = jnp.where(slots.stream == Stream.VIDEO, slots.payload, rows)
    used = jnp.zeros((lanes, rows), bool).at[jnp.arange(lanes)[:, None], at].set(True, mode="drop")
    flat = patches.reshape(lanes * rows, *patches.shape[2:])

    def every(params, flat, used):
        del used
        return vision_stem(params, normalise_patches(flat), config)

    def seen(params, flat, used):
        return used_tubelets(params, flat, used.reshape(-1), config)

    if sharding.mesh_sizes() or lanes * rows <= TUBELETS:
        states = every(params, flat, used)
    else:
        states = jax.lax.platform_dependent(params, flat, used, cpu=seen, default=every)
    return states.reshape(lanes, rows, -1)


def _tables(params: dict, slots: Slots, payloads: Payloads, config: InteractionConfig) -> dict:
    """The states of every payload table that has rows, ``[B, rows, D]``."""
    tables = {}
    if payloads.audio.shape[1]:
        tables[Stream.AUDIO] = audio_stem(params["audio"], payloads.audio, config)
    if payloads.patches.shape[1]:
        tables[Stream.VIDEO] = _video(params["vision"], slots, payloads.patches, config)
    if payloads.speech.shape[1]:
        tables[Stream.SPEECH] = speech_stem(params["speech_in"], payloads.speech, config)
    return tables


def embed(
    params: dict, slots: Slots, payloads: Payloads, config: InteractionConfig
) -> Float[Array, "B T D"]:
    """States of woven slots; slots that are not there are zero."""
    text = transformer.embed_tokens(params["transformer"], slots.token, config.transformer)
    x = jnp.where(
        ((slots.stream == Stream.TEXT_IN) | (slots.stream == Stream.TEXT_OUT))[..., None], text, 0.0
    )
    tables = _tables(params, slots, payloads, config)
    if tables:
        rows = jnp.concatenate(list(tables.values()), axis=1)
        offset, index = 0, jnp.zeros_like(slots.payload)
        here = jnp.zeros_like(slots.valid)
        for stream, table in tables.items():
            mine = slots.stream == stream
            index = jnp.where(mine, slots.payload + offset, index)
            here = here | mine
            offset += table.shape[1]
        taken = jnp.take_along_axis(rows, index[..., None], axis=1)
        x = jnp.where(here[..., None], taken, x)
    tags = params["tags"]
    time = time_features(slots.micro_turn, config.time_scales) @ tags["time"]
    x = x + jnp.where(slots.first[..., None], time, 0.0)
    x = x + tags["stream"][slots.stream] + tags["lateness"][slots.lateness]
    return jnp.where(slots.valid[..., None], x, 0.0).astype(text.dtype)
