"""The whole state of live sessions, as one pytree.

In: the configuration and a number of lanes. Out: `SessionState`, which goes into
`session.step.microturn_step` and comes out of it; nothing about a conversation is kept anywhere
else on the device, so saving it, forking it or moving it is copying it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from interaction.models import interaction_model, vocoder
from interaction.models.config import InteractionConfig
from interaction.types import pytree


@pytree
class SessionState:
    """State of B lanes.

    Attributes:
        cache: attention rings and convolution states (`models.transformer.init_cache`).
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


def init_state(
    config: InteractionConfig, lanes: int, *, seed: int = 0, dtype=jnp.float32
) -> SessionState:
    """Fresh sessions in every lane; lane i draws from its own fold of `seed`."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(lanes))
    return SessionState(
        cache=interaction_model.init_cache(config, lanes, dtype=dtype),
        micro_turn=jnp.zeros((lanes,), jnp.int32),
        audio_carry=jnp.zeros((lanes, config.grid.audio_hop), jnp.float32),
        heard=jnp.full((lanes,), -1, jnp.int32),
        vocoder=vocoder.init_vocoder_state(config.vocoder, lanes),
        key=keys,
    )
