"""Which released tensor goes where in our parameter tree.

In: a configuration. Out: for every released name its shape and its `Part`s: the place in our tree
and how to look at the released tensor so that it is that place. `Part.view` gives a numpy view,
never a copy, so reading through it imports and assigning through it exports.
"""

import dataclasses
import enum

import numpy as np

from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    InteractionConfig,
    MlpKind,
    TransformerConfig,
)


class Rows(enum.Enum):
    """Which rows (second to last axis) of a released tensor a part holds.

    Released files store gate and up projections row by row in turn; the module names of
    `transformers` store one after the other.
    """

    ALL = "all"
    EVEN = "even"
    ODD = "odd"
    FIRST_HALF = "first_half"
    SECOND_HALF = "second_half"


class Axes(enum.Enum):
    """Whether the last two axes are exchanged: released matrices are [outputs, inputs]."""

    KEEP = "keep"
    SWAP = "swap"


class Names(enum.Enum):
    """Which of the published sets of names a checkpoint uses."""

    RELEASED = "released"
    MODULES = "modules"
    LLAMA = "llama"


@dataclasses.dataclass(frozen=True)
class Part:
    """One place in our tree that a released tensor fills.

    Attributes:
        target: path in our tree, joined by "/".
        shape: of the place: one layer's where `layer` is given.
        layer: row of the stack of its kind; None: not stacked.
        rows, axes: how the released tensor is seen; then it is reshaped to `shape`.
    """

    target: str
    shape: tuple[int, ...]
    layer: int | None = None
    rows: Rows = Rows.ALL
    axes: Axes = Axes.KEEP

    def view(self, released: np.ndarray) -> np.ndarray:
        """A view of a released tensor, or of some rows of its first axis, with our axes."""
        half = released.shape[-2] // 2 if self.rows is not Rows.ALL else 0
        cut = {
            Rows.ALL: slice(None),
            Rows.EVEN: slice(0, None, 2),
            Rows.ODD: slice(1, None, 2),
            Rows.FIRST_HALF: slice(0, half),
            Rows.SECOND_HALF: slice(half, None),
        }[self.rows]
        seen = released if self.rows is Rows.ALL else released[..., cut, :]
        if self.axes is Axes.SWAP:
            seen = seen.swapaxes(-1, -2)
        shape = self.shape
        by_rows = self.axes is Axes.KEEP and released.ndim == len(shape)
        if shape and (by_rows or released.ndim == 3):
            shape = (released.shape[0], *shape[1:])
        return seen.reshape(shape, copy=False)


@dataclasses.dataclass(frozen=True)
class Released:
    """A released tensor: its shape and the parts it is cut into."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]


Table = dict[str, Released]


def released_table(config: InteractionConfig | TransformerConfig, names: Names) -> Table:
    """Every tensor a checkpoint of this configuration must hold, by released name."""
    transformer = getattr(config, "transformer", config)
    assert isinstance(transformer, TransformerConfig)
    table = _text_table(transformer, names)
    if isinstance(config, InteractionConfig):
        table |= _stem_table(config)
    return table


def _stem_table(config: InteractionConfig) -> Table:
    """Audio and video stems."""
    width = config.transformer.width
    rows = config.audio.bands * config.audio.levels
    table = {
        "model.audio.encoder.weight": _same("audio/table", (rows, width)),
        "model.audio.final_norm.weight": _same("audio/norm", (width,)),
        "model.visual.final_norm.weight": _same("vision/final_norm", (width,)),
    }
    plan = config.vision.plan(width)
    for index, (_, _, inputs, outputs) in enumerate(plan):
        table[f"model.visual.layers.linear_{index}.weight"] = _matrix(
            f"vision/linear_{index}", inputs, outputs
        )
        if index < len(plan) - 1:
            table[f"model.visual.layers.norm_{index}.weight"] = _same(
                f"vision/norm_{index}", (outputs,)
            )
    return table


# ---------------------------------------------------------------------------- the decoder

# Our word -> the name in each set, after the layer's prefix.
_LAYER_NAMES = {
    Names.RELEASED: {
        "attention_norm": "attn_norm.weight",
        "mlp_norm": "mlp_norm.weight",
        "attention_conv": "attn_sconv.weight",
        "mlp_conv": "mlp_sconv.weight",
        "query": "attn.wq_du.weight",
        "key": "attn.wk_dv.weight",
        "value": "attn.wv_dv.weight",
        "relative": "attn.wr_du.weight",
        "output": "attn.wo_ud.weight",
        "bias_table": "attn.rel_logits_proj.proj",
        "query_norm": "attn.q_norm.weight",
        "key_norm": "attn.k_norm.weight",
        "key_conv": "attn.k_sconv.weight",
        "value_conv": "attn.v_sconv.weight",
        "dense_gate_up": "mlp.w13_dn.weight",
        "dense_down": "mlp.w2_md.weight",
        "dense_scale": "mlp.global_scale",
        "router": "mlp.gate.weight",
        "router_bias": "mlp.gate.bias",
        "router_scale": "mlp.gate.global_scale",
        "gate_up": "mlp.experts.w13_weight",
        "down": "mlp.experts.w2_weight",
        "shared_gate_up": "mlp.shared_experts.shared_w13_weight",
        "shared_down": "mlp.shared_experts.shared_w2_weight",
    },
    Names.MODULES: {
        "attention_norm": "input_layernorm.weight",
        "mlp_norm": "post_attention_layernorm.weight",
        "attention_conv": "attn_sconv.conv1d.weight",
        "mlp_conv": "mlp_sconv.conv1d.weight",
        "query": "self_attn.q_proj.weight",
        "key": "self_attn.k_proj.weight",
        "value": "self_attn.v_proj.weight",
        "relative": "self_attn.r_proj.weight",
        "output": "self_attn.o_proj.weight",
        "bias_table": "self_attn.rel_logits_proj.proj",
        "query_norm": "self_attn.q_norm.weight",
        "key_norm": "self_attn.k_norm.weight",
        "key_conv": "self_attn.k_sconv.conv1d.weight",
        "value_conv": "self_attn.v_sconv.conv1d.weight",
        "dense_gate": "mlp.gate_proj.weight",
        "dense_up": "mlp.up_proj.weight",
        "dense_down": "mlp.down_proj.weight",
        "dense_scale": "mlp.global_scale",
        "router": "mlp.gate.weight",
        "router_bias": "mlp.gate.e_score_correction_bias",
        "router_scale": "mlp.gate.global_scale",
        "gate_up": "mlp.experts.gate_up_proj",
        "down": "mlp.experts.down_proj",
        "shared_gate": "mlp.shared_experts.gate_proj",
        "shared_up": "mlp.shared_experts.up_proj",
        "shared_down": "mlp.shared_experts.down_proj",
    },
}
_LAYER_NAMES[Names.LLAMA] = _LAYER_NAMES[Names.MODULES]
_TOP_NAMES = {
    Names.RELEASED: {
        "layers": "model.llm.layers",
        "table": "model.llm.embed.weight",
        "norm": "model.llm.embed_norm.weight",
        "final_norm": "model.llm.norm.weight",
        "unembed": "model.llm.unembed.weight",
    },
    Names.MODULES: {
        "layers": "model.layers",
        "table": "model.embed_tokens.weight",
        "norm": "model.embed_tokens.embed_norm.weight",
        "final_norm": "model.norm.weight",
        "unembed": "lm_head.weight",
    },
}
_TOP_NAMES[Names.LLAMA] = _TOP_NAMES[Names.MODULES]


def _same(target: str, shape: tuple[int, ...], layer: int | None = None) -> Released:
    return Released(shape, (Part(target, shape, layer),))


def _matrix(target: str, inputs: int, outputs: int, layer: int | None = None) -> Released:
    return Released((outputs, inputs), (Part(target, (inputs, outputs), layer, axes=Axes.SWAP),))


def _text_table(config: TransformerConfig, names: Names) -> Table:
    top, width = _TOP_NAMES[names], config.width
    table = {
        top["table"]: _same("transformer/embed/table", (config.vocabulary, width)),
        top["final_norm"]: _same("transformer/final_norm", (width,)),
    }
    if config.embedding_norm:
        table[top["norm"]] = _same("transformer/embed/norm", (width,))
    if not config.tied:
        table[top["unembed"]] = _matrix("transformer/unembed", width, config.vocabulary)
    seen: dict[AttentionKind | MlpKind, int] = {}
    for layer, kinds in enumerate(zip(config.attention_kinds, config.mlp_kinds, strict=True)):
        attention, mlp = kinds
        heads = config.attention(attention)
        assert heads is not None
        parts = _block(config, layer)
        parts |= _attention(config, heads, attention, seen.get(attention, 0))
        if mlp is MlpKind.MOE:
            parts |= _moe(config, names, seen.get(mlp, 0))
        else:
            parts |= _dense(config, names, seen.get(mlp, 0))
        for kind in kinds:
            seen[kind] = seen.get(kind, 0) + 1
        for word, released in parts.items():
            table[f"{top['layers']}.{layer}.{_LAYER_NAMES[names][word]}"] = released
    return table


def _convolution(target: str, channels: int, taps: int, layer: int) -> Released:
    return Released((channels, 1, taps), (Part(target, (channels, taps), layer),))


def _block(config: TransformerConfig, layer: int) -> Table:
    width, taps = config.width, config.convolution_width
    prefix = "transformer/block"
    table = {
        name: _same(f"{prefix}/{name}", (width,), layer) for name in ("attention_norm", "mlp_norm")
    }
    if taps:
        for name in ("attention_conv", "mlp_conv"):
            table[name] = _convolution(f"{prefix}/{name}", width, taps, layer)
    return table


def _attention(
    config: TransformerConfig, heads: AttentionConfig, kind: AttentionKind, layer: int
) -> Table:
    width, taps = config.width, config.convolution_width
    n, k, h = heads.heads, heads.kv_heads, heads.head_width
    prefix = f"transformer/attention_{kind.value}"

    def into_heads(name: str, number: int, size: int) -> Released:
        part = Part(f"{prefix}/{name}", (width, number, size), layer, axes=Axes.SWAP)
        return Released((number * size, width), (part,))

    output = Part(f"{prefix}/output", (n, h, width), layer, axes=Axes.SWAP)
    table = {
        "query": into_heads("query", n, h),
        "key": into_heads("key", k, h),
        "value": into_heads("value", k, h),
        "output": Released((width, n * h), (output,)),
    }
    if heads.bias_extent:
        table["relative"] = into_heads("relative", n, config.bias_width)
        shape = (config.bias_width, heads.bias_extent)
        table["bias_table"] = _same(f"{prefix}/bias_table", shape, layer)
        for name in ("query_norm", "key_norm"):
            table[name] = _same(f"{prefix}/{name}", (h,), layer)
    if taps:
        for name in ("key_conv", "value_conv"):
            table[name] = _convolution(f"{prefix}/{name}", k * h, taps, layer)
    return table


def _dense(config: TransformerConfig, names: Names, layer: int) -> Table:
    width, ffn = config.width, config.dense_width
    prefix = "transformer/dense"
    table = {"dense_down": _matrix(f"{prefix}/down", ffn, width, layer)}
    if names is not Names.LLAMA:
        table["dense_scale"] = Released((1,), (Part(f"{prefix}/scale", (), layer),))
    if names is not Names.RELEASED:
        for name in ("gate", "up"):
            table[f"dense_{name}"] = _matrix(f"{prefix}/{name}", width, ffn, layer)
        return table
    parts = tuple(
        Part(f"{prefix}/{name}", (width, ffn), layer, rows, Axes.SWAP)
        for name, rows in (("gate", Rows.EVEN), ("up", Rows.ODD))
    )
    table["dense_gate_up"] = Released((2 * ffn, width), parts)
    return table


def _moe(config: TransformerConfig, names: Names, layer: int) -> Table:
    width, ffn = config.width, config.expert_width
    experts, shared = config.experts, config.shared_experts
    prefix = "transformer/moe"
    total = experts + shared
    table = {
        "router": _matrix(f"{prefix}/router", width, total, layer),
        "router_bias": _same(f"{prefix}/bias", (experts,), layer),
        "router_scale": Released((1,), (Part(f"{prefix}/scale", (), layer),)),
    }
    interleaved = names is Names.RELEASED
    halves = (Rows.EVEN, Rows.ODD) if interleaved else (Rows.FIRST_HALF, Rows.SECOND_HALF)
    for word, number in (("", experts), ("shared_", shared)):
        down = Part(f"{prefix}/{word}down", (number, ffn, width), layer, axes=Axes.SWAP)
        table[f"{word}down"] = Released((number, width, ffn), (down,))
        place = {name: f"{prefix}/{word}{name}" for name in ("gate", "up")}
        inner = (number, width, ffn)
        if word and not interleaved:
            for name in ("gate", "up"):
                part = Part(place[name], inner, layer, axes=Axes.SWAP)
                table[f"{word}{name}"] = Released((number, ffn, width), (part,))
        else:
            parts = tuple(
                Part(place[name], inner, layer, rows, Axes.SWAP)
                for name, rows in zip(("gate", "up"), halves, strict=True)
            )
            table[f"{word}gate_up"] = Released((number, 2 * ffn, width), parts)
    return table
