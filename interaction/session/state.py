"""The whole state of live sessions, as one pytree.

In: the configuration and a number of lanes. Out: `SessionState`, which goes into
`session.step.microturn_step` and comes out of it; nothing about a conversation is kept anywhere
else on the device, so saving it, forking it or moving it is copying it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from interaction import sharding
from interaction.models import interaction_model, vocoder
from interaction.models.cache import store_axes
from interaction.models.config import AttentionKind, InteractionConfig
from interaction.types import pytree


@pytree
class SessionState:
    """State of B lanes.

    Attributes:
        cache: attention rings and convolution states (`models.cache.init_cache`).
        micro_turn: int32 ``[B]`` session time of the next micro-turn.
        audio_carry: float32 ``[B, 800]`` last heard samples, which the next dMel window needs.
        heard: int32 ``[B]`` micro-turn of the last heard chunk, -1 before any.
        vocoder: state of the causal vocoder.
        key: typed PRNG keys ``[B]``, one stream per lane.
    """

    cache: Any
    micro_turn: Any
    audio_carry: Any
    heard: Any
    vocoder: Any
    key: Any


def init_state(config: InteractionConfig, lanes: int, *, seed: int = 0) -> SessionState:
    """Fresh sessions in every lane; lane i draws from its own fold of `seed`."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(lanes))
    return SessionState(
        cache=interaction_model.init_cache(config, lanes),
        micro_turn=jnp.zeros((lanes,), jnp.int32),
        audio_carry=jnp.zeros((lanes, config.grid.audio_hop), jnp.float32),
        heard=jnp.full((lanes,), -1, jnp.int32),
        vocoder=vocoder.init_vocoder_state(config.vocoder, lanes),
        key=keys,
    )


@functools.cache
def lane_axes(config: InteractionConfig) -> SessionState:
    """Which axis of every leaf of the state counts the lanes."""
    two, three = (jax.eval_shape(functools.partial(init_state, config, lanes)) for lanes in (2, 3))

    def axis(a, b) -> int:
        (found,) = [i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n]
        return found

    return jax.tree.map(axis, two, three)


def state_specs(config: InteractionConfig, lanes: int, mesh: sharding.MeshConfig) -> SessionState:
    """Partition specs of the state of `lanes` sessions.

    Lanes go over ``data``, ``fsdp`` and ``expert``, kv heads over ``tensor`` where it divides
    them, keys and values of global layers over ``sequence`` as well.

    Raises:
        ValueError: lanes are no multiple of the devices that share them.
    """
    if lanes % mesh.batch_shards:
        raise ValueError(f"lanes={lanes} is no multiple of batch_shards={mesh.batch_shards}")
    state = jax.eval_shape(functools.partial(init_state, config, lanes))

    def spec(path, leaf, lane_axis):
        names = tuple("batch" if axis == lane_axis else None for axis in range(len(leaf.shape)))
        if len(path) == 3 and path[0].name == "cache":  # cache, kind of attention, name
            heads = config.transformer.attention(AttentionKind(path[1].key))
            if path[2].key in ("key", "value"):
                names = store_axes(heads.window)
            elif path[2].key in ("key_conv", "value_conv"):
                names = (*names[:-1], "kv_heads")
        return sharding.resolve(names, leaf.shape, sharding.sizes(mesh))

    return jax.tree_util.tree_map_with_path(spec, state, lane_axes(config))


def take_lane(state: SessionState, lane: int, config: InteractionConfig) -> SessionState:
    """A copy of one lane's state, as a state of one lane."""
    return _take(state, jnp.int32(lane), config)


@functools.partial(jax.jit, static_argnums=2)
def _take(state, lane, config):
    return jax.tree.map(
        lambda leaf, axis: jax.lax.dynamic_slice_in_dim(leaf, lane, 1, axis),
        state,
        lane_axes(config),
    )


def put_lane(
    state: SessionState, one: SessionState, lane: int, config: InteractionConfig
) -> SessionState:
    """The state with one lane replaced; `state` is given away, `one` is of one lane."""
    return _put(state, one, jnp.int32(lane), config)


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def _put(state, one, lane, config):
    return jax.tree.map(
        lambda leaf, part, axis: jax.lax.dynamic_update_slice_in_dim(leaf, part, lane, axis),
        state,
        one,
        lane_axes(config),
    )
