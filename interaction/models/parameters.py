"""Every parameter of the model: name, shape, logical axes, start.

In: the configuration. Out: a tree of `declare.Parameter`. Layers of a kind are stacked in a
leading ``layers`` axis in depth order, so the tree has the same leaves at any depth, and two
dense layers below a mixture of experts need no second tree. `init_params`, `abstract_params` and
`param_axes` are the three views of that one declaration.
"""

import jax
import jax.numpy as jnp

from interaction.models import declare
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    InteractionConfig,
    MlpKind,
    PositionScheme,
    QueryKeyNorm,
    TransformerConfig,
)
from interaction.models.declare import Parameter, fan_in, normal, ones, zeros
from interaction.models.vocoder import vocoder_specs


def init_params(key: jax.Array, config: InteractionConfig, *, dtype=jnp.float32) -> dict:
    """Fresh parameters of the whole interaction model."""
    return declare.init(key, interaction_specs(config), dtype=dtype)


def abstract_params(config: InteractionConfig, *, dtype=jnp.float32) -> dict:
    """The same tree as shapes."""
    return declare.abstract(interaction_specs(config), dtype=dtype)


def param_axes(config: InteractionConfig) -> dict:
    """The same tree as logical axis names."""
    return declare.axes(interaction_specs(config))


def interaction_specs(config: InteractionConfig) -> dict:
    """Backbone, stems, output heads and vocoder."""
    width = config.transformer.width
    features = 2 * config.time_scales
    return {
        "transformer": transformer_specs(config.transformer),
        "audio": {
            "table": Parameter(
                (config.audio.bands * config.audio.levels, width),
                (None, "width"),
                normal(config.audio.bands**-0.5),
            ),
            "norm": Parameter((width,), ("width",), ones),
        },
        "vision": vision_specs(config),
        "speech_in": {
            "projection": Parameter(
                (config.speech_features, width),
                (None, "width"),
                fan_in(config.speech_features),
            ),
            "norm": Parameter((width,), ("width",), ones),
        },
        "tags": {
            # Zero at the start, so that an imported backbone is unchanged by them.
            "time": Parameter((features, width), (None, "width"), zeros),
            "stream": Parameter((6, width), (None, "width"), zeros),
            "lateness": Parameter((config.max_lateness + 1, width), (None, "width"), zeros),
        },
        "flow": flow_specs(config),
        "vocoder": vocoder_specs(config.vocoder),
    }


def transformer_specs(config: TransformerConfig) -> dict:
    """The decoder stack with its text embedding and unembedding."""
    width, layers, taps = config.width, config.layers, config.convolution_width
    specs: dict = {
        "embed": {
            "table": Parameter((config.vocabulary, width), ("vocabulary", "width"), normal(1.0))
        },
        "block": {
            "attention_norm": Parameter((layers, width), ("layers", "width"), ones),
            "mlp_norm": Parameter((layers, width), ("layers", "width"), ones),
        },
        "final_norm": Parameter((width,), ("width",), ones),
    }
    if config.embedding_norm:
        specs["embed"]["norm"] = Parameter((width,), ("width",), ones)
    if not config.tied:
        specs["unembed"] = Parameter(
            (width, config.vocabulary), ("width", "vocabulary"), fan_in(width)
        )
    if taps:
        for name in ("attention_conv", "mlp_conv"):
            specs["block"][name] = Parameter(
                (layers, width, taps), ("layers", "width", None), normal(0.1)
            )
    for kind in AttentionKind:
        if config.count(kind):
            heads = config.attention(kind)
            assert heads is not None
            specs[f"attention_{kind.value}"] = _attention(config, heads, config.count(kind))
    if config.count(MlpKind.DENSE):
        specs["dense"] = _dense(config, config.count(MlpKind.DENSE))
    if config.count(MlpKind.MOE):
        specs["moe"] = _moe(config, config.count(MlpKind.MOE))
    return specs


def _attention(config: TransformerConfig, heads: AttentionConfig, layers: int) -> dict:
    width = config.width
    n, k, h = heads.heads, heads.kv_heads, heads.head_width
    kv_axes = ("layers", "width", "kv_heads", "head_width")
    specs = {
        "query": Parameter(
            (layers, width, n, h), ("layers", "width", "heads", "head_width"), fan_in(width)
        ),
        "key": Parameter((layers, width, k, h), kv_axes, fan_in(width)),
        "value": Parameter((layers, width, k, h), kv_axes, fan_in(width)),
        "output": Parameter(
            (layers, n, h, width),
            ("layers", "heads", "head_width", "width"),
            fan_in(n * h * 2 * config.layers),
        ),
    }
    if config.query_key_norm is QueryKeyNorm.PER_HEAD:
        # h ** 0.25 on both sides starts training at the usual 1 / sqrt(h) sharpness.
        start = declare.nn.initializers.constant(h**0.25)
        for name in ("query_norm", "key_norm"):
            specs[name] = Parameter((layers, h), ("layers", "head_width"), start)
    if config.position_scheme is PositionScheme.RELATIVE_BIAS:
        specs["relative"] = Parameter(
            (layers, width, n, config.bias_width),
            ("layers", "width", "heads", None),
            fan_in(width),
        )
        specs["bias_table"] = Parameter(
            (layers, config.bias_width, heads.bias_extent), ("layers", None, None), normal(0.02)
        )
    if config.convolution_width:
        for name in ("key_conv", "value_conv"):
            specs[name] = Parameter(
                (layers, k * h, config.convolution_width),
                ("layers", "kv_heads", None),
                normal(0.1),
            )
    return specs


def _dense(config: TransformerConfig, layers: int) -> dict:
    width, ffn = config.width, config.dense_width
    specs = {
        "gate": Parameter((layers, width, ffn), ("layers", "width", "ffn"), fan_in(width)),
        "up": Parameter((layers, width, ffn), ("layers", "width", "ffn"), fan_in(width)),
        "down": Parameter(
            (layers, ffn, width), ("layers", "ffn", "width"), fan_in(ffn * 2 * config.layers)
        ),
    }
    if config.position_scheme is PositionScheme.RELATIVE_BIAS:
        specs["scale"] = Parameter((layers,), ("layers",), ones)
    return specs


def _moe(config: TransformerConfig, layers: int) -> dict:
    width, ffn, experts = config.width, config.expert_width, config.experts
    shared = config.shared_experts
    down = fan_in(ffn * 2 * config.layers)

    def stacked(number: int, axis: str, shape: tuple[int, int], init) -> Parameter:
        names = ("width", "expert_ffn") if shape[0] == width else ("expert_ffn", "width")
        return Parameter((layers, number, *shape), ("layers", axis, *names), init)

    specs = {
        "router": Parameter(
            (layers, width, experts + shared), ("layers", "inner", None), fan_in(width)
        ),
        "bias": Parameter((layers, experts), ("layers", None), zeros),
        "scale": Parameter((layers,), ("layers",), ones),
        "gate": stacked(experts, "experts", (width, ffn), fan_in(width)),
        "up": stacked(experts, "experts", (width, ffn), fan_in(width)),
        "down": stacked(experts, "experts", (ffn, width), down),
    }
    if shared:
        specs["shared_gate"] = stacked(shared, "shared_experts", (width, ffn), fan_in(width))
        specs["shared_up"] = stacked(shared, "shared_experts", (width, ffn), fan_in(width))
        specs["shared_down"] = stacked(shared, "shared_experts", (ffn, width), down)
    return specs


def vision_specs(config: InteractionConfig) -> dict:
    """The hMLP stem: one linear map per stage, a norm between stages, a final norm."""
    width = config.transformer.width
    plan = config.vision.plan(width)
    specs = {}
    for index, (_, _, inputs, outputs) in enumerate(plan):
        axes = ("inner", "inner")  # the first that the mesh divides
        specs[f"linear_{index}"] = Parameter((inputs, outputs), axes, fan_in(inputs))
        if index < len(plan) - 1:
            specs[f"norm_{index}"] = Parameter((outputs,), (None,), ones)
    specs["final_norm"] = Parameter((width,), ("width",), ones)
    return specs


def flow_specs(config: InteractionConfig) -> dict:
    """The AdaLN MLP of the flow head; blocks stacked."""
    flow, width = config.flow, config.transformer.width
    inner, blocks = flow.width, flow.blocks
    chunk = config.grid.mel_frames * config.mel.bands
    return {
        "input": Parameter((chunk, inner), (None, "inner"), fan_in(chunk)),
        "condition": Parameter((width, inner), ("inner", None), fan_in(width)),
        "time_in": Parameter(
            (flow.time_features, inner), (None, "inner"), fan_in(flow.time_features)
        ),
        "time_out": Parameter((inner, inner), ("inner", None), fan_in(inner)),
        "blocks": {
            "modulation": Parameter(
                (blocks, inner, 3 * inner), ("layers", "inner", None), normal(0.02)
            ),
            "modulation_bias": Parameter((blocks, 3 * inner), ("layers", None), zeros),
            "up": Parameter((blocks, inner, 2 * inner), ("layers", "inner", None), fan_in(inner)),
            "down": Parameter(
                (blocks, 2 * inner, inner), ("layers", "inner", None), fan_in(2 * inner)
            ),
        },
        "final_modulation": Parameter((inner, 2 * inner), ("inner", None), normal(0.02)),
        "output": Parameter((inner, chunk), ("inner", None), zeros),
    }
