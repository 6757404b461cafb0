"""The decoder stack alone: one micro-turn of text, 8 tokens in and 8 out, as one program.

In: sizes by name. Out: the configuration (ours, and `transformers`' field names for the peer),
and the compiled `(params, cache, tokens) -> (cache, tokens)` with the cache donated. It is the
same `transformer.run`, cache and logits that the live step calls; what the text-only peer has no
part for (dMel, flow head, vocoder) is left out.
"""

import functools

import jax
import jax.numpy as jnp

from interaction.kernels.implementation import Implementation
from interaction.models import cache as cache_of
from interaction.models import declare, transformer
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    MlpKind,
    TransformerConfig,
)
from interaction.models.parameters import transformer_specs

TOKENS_IN = TOKENS_OUT = 8
LAYERS = 6
WINDOW = 128
EXTENT = 512
GLOBAL_SLOTS = 4096

# width, experts, experts per slot, expert width, vocabulary, heads, kv heads (head width D / heads)
SIZES = {
    "toy": (128, 8, 2, 64, 512, 4, 2),
    "small": (512, 16, 4, 256, 8192, 8, 4),
}


def stack_config(
    size: str, implementation: Implementation = Implementation.REFERENCE
) -> TransformerConfig:
    """Our configuration of `size`: five sliding layers and a global one, all with experts."""
    width, experts, per_slot, expert_width, vocabulary, heads, kv_heads = SIZES[size]
    shape = {"heads": heads, "kv_heads": kv_heads, "head_width": width // heads}
    return TransformerConfig(
        vocabulary=vocabulary,
        width=width,
        attention_kinds=(AttentionKind.LOCAL,) * (LAYERS - 1) + (AttentionKind.GLOBAL,),
        mlp_kinds=(MlpKind.MOE,) * LAYERS,
        local=AttentionConfig(window=WINDOW, bias_extent=WINDOW, **shape),
        global_=AttentionConfig(window=None, bias_extent=EXTENT, **shape),
        expert_width=expert_width,
        experts=experts,
        experts_per_slot=per_slot,
        shared_experts=1,
        implementation=implementation,
    )


def peer_config(size: str) -> dict:
    """The same sizes as `InklingTextConfig` names them."""
    config = stack_config(size)
    assert config.local is not None
    heads, kv_heads, head_width = config.local.heads, config.local.kv_heads, config.local.head_width
    return {
        "model_type": "inkling_text",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_width,
        "swa_num_attention_heads": heads,
        "swa_num_key_value_heads": kv_heads,
        "swa_head_dim": head_width,
        "sliding_window_size": WINDOW,
        "rel_extent": EXTENT,
        "d_rel": config.bias_width,
        "sconv_kernel_size": config.convolution_width,
        "layer_types": ["hybrid_sliding"] * (LAYERS - 1) + ["hybrid"],
        "mlp_layer_types": ["sparse"] * LAYERS,
        "moe_intermediate_size": config.expert_width,
        "n_routed_experts": config.experts,
        "num_experts_per_tok": config.experts_per_slot,
        "n_shared_experts": config.shared_experts,
        "logits_mup_width_multiplier": 1.0,
    }


def init(config: TransformerConfig, *, seed: int = 0) -> dict:
    """Random parameters of the stack."""
    return declare.init(jax.random.key(seed), transformer_specs(config))


def init_cache(config: TransformerConfig, *, global_slots: int = GLOBAL_SLOTS) -> dict:
    """An empty cache of one lane."""
    return cache_of.init_cache(
        config,
        1,
        local_slots=WINDOW + TOKENS_IN,
        global_slots=global_slots,
        dtype=jnp.float32,
    )


def micro_turn(
    params: dict, cache: dict, tokens: jax.Array, config: TransformerConfig, put_out: int
):
    """Append the tokens that came in, then put out some, each the likeliest, each appended.

    Args:
        params: the `transformer` tree.
        cache: of one lane.
        tokens: int32 ``[1, T]``.
        config: static.
        put_out: tokens put out; static.

    Returns:
        The cache and int32 ``[put_out]`` tokens.
    """

    def decode(index, carry):
        cache, last, out = carry
        token = jnp.argmax(transformer.logits(params, last, config, live=True), axis=-1)
        token = token.astype(jnp.int32)
        cache, last = append(params, cache, token[:, None], config)
        return cache, last, out.at[index].set(token[0])

    cache, last = append(params, cache, tokens, config)
    out = jnp.zeros((put_out,), jnp.int32)
    cache, _, out = jax.lax.fori_loop(0, put_out, decode, (cache, last, out))
    return cache, out


def append(params: dict, cache: dict, tokens: jax.Array, config: TransformerConfig):
    """Slots through the stack; the cache and the last hidden state ``[1, D]``."""
    T = tokens.shape[1]
    hidden, cache, _ = transformer.run(
        params,
        transformer.embed_tokens(params, tokens, config),
        config,
        position_BT=cache["count"][:, None] + jnp.arange(T, dtype=jnp.int32)[None],
        valid_BT=jnp.ones((1, T), bool),
        cache=cache,
    )
    return cache, hidden[:, -1]


def compiled(config: TransformerConfig, *, put_out: int = TOKENS_OUT):
    """`micro_turn` jitted, the cache donated."""
    step = functools.partial(micro_turn, config=config, put_out=put_out)
    return jax.jit(step, donate_argnums=1)
