"""Tiny models with every feature of the real ones, and one way to build their inputs.

In: nothing. Out: configurations, parameters whose every leaf is random (so that no term is
silently zero), and padded batches. Every dimension differs from every other.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from interaction.models import parameters
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    FlowConfig,
    InteractionConfig,
    MlpKind,
    TransformerConfig,
    VisionConfig,
)
from interaction.models.vocoder import VocoderConfig
from interaction.streams.weave import batch, weave
from interaction.types import Batch, MicroTurn

LOCAL, GLOBAL = AttentionKind.LOCAL, AttentionKind.GLOBAL
DENSE, MOE = MlpKind.DENSE, MlpKind.MOE

VOCODER = VocoderConfig(
    width=6,
    feed_forward=10,
    layers=2,
    kernel=3,
    pitch_bands=11,
    pitch_context=4,
    pitch_width=7,
    pitch_classes=9,
)


def tiny(**changes) -> InteractionConfig:
    """A sliding layer (dense) and a global one (experts), twice; window 13, extents 9 and 19,
    scaling floor 23. One period, so that little is compiled.

    Args:
        **changes: fields of `TransformerConfig`, else of `InteractionConfig`.
    """
    names = {field.name for field in dataclasses.fields(TransformerConfig)}
    stack = TransformerConfig(
        vocabulary=275,
        unpadded_vocabulary=272,
        width=24,
        attention_kinds=(LOCAL, GLOBAL) * 2,
        mlp_kinds=(DENSE, MOE) * 2,
        local=AttentionConfig(heads=4, kv_heads=2, head_width=6, window=13, bias_extent=9),
        global_=AttentionConfig(heads=3, kv_heads=1, head_width=8, window=None, bias_extent=19),
        dense_width=14,
        expert_width=10,
        experts=5,
        experts_per_slot=2,
        shared_experts=1,
        route_scale=2.5,
        bias_width=3,
        scaling_floor=23,
        logits_divisor=1.5,
    )
    stack = dataclasses.replace(stack, **{k: v for k, v in changes.items() if k in names})
    return InteractionConfig(
        transformer=stack,
        vision=VisionConfig(patch=4, stages=((1, 2, 11), (2, 2, 0)), max_patches=3),
        flow=FlowConfig(width=16, blocks=2, time_features=12, steps=3),
        vocoder=VOCODER,
        max_text_out=5,
        max_text_in=7,
        max_audio_chunks=2,
        max_lateness=3,
        time_scales=5,
        **{"global_slots": 300} | {k: v for k, v in changes.items() if k not in names},
    )


# The model and the number of lanes of every file that compiles the whole live step: it is the same
# program in all of them, so a run of the tests compiles it once per bucket (`conftest`). The global
# store holds so few slots that it overflows within 14 micro-turns.
LIVE = tiny(global_slots=61)
LIVE_LANES = 3


def random_params(config: InteractionConfig, *, seed: int = 0, spread: float = 0.2) -> dict:
    """Parameters with noise on every leaf, drawn by numpy: nothing is compiled for them.

    Args:
        config: the model.
        seed: of all of them.
        spread: standard deviation of the noise about 1 (norms and scales) or 0 (all else, where
            the usual ``1 / sqrt(inputs)`` is added to it).
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = str(path[-1].key)
        noise = rng.normal(size=leaf.shape)
        if "norm" in name or name == "scale":
            return jnp.asarray(1.0 + spread * noise, jnp.float32)
        inputs = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        return jnp.asarray((spread + inputs**-0.5) * noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, parameters.abstract_params(config))


def padded(sequences: list[list[MicroTurn]], config: InteractionConfig, *, extra: int = 3) -> Batch:
    """Woven sequences as one batch with a few places of padding in every table."""
    wovens = [weave(turns, config.weave) for turns in sequences]

    def most(size):
        return max(size(woven) for woven in wovens) + extra

    numpy_batch = batch(
        wovens,
        slots=most(lambda w: len(w.slots.stream)),
        audio=most(lambda w: len(w.payloads.audio)),
        patches=most(lambda w: len(w.payloads.patches)),
        speech=most(lambda w: len(w.payloads.speech)),
        chunks=most(lambda w: len(w.targets.chunk)),
    )
    return jax.tree.map(jnp.asarray, numpy_batch)
