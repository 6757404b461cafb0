"""`config.json` of released checkpoints.

In: a folder with `config.json` of `model_type` `inkling_mm_model` (whole model), `inkling_text`
(text decoder alone) or `llama`. Out: `ReleasedConfig`: our configuration and what it has no place
for. Both spellings of the Inkling fields are read: the released files' (`dense_mlp_idx`,
`dense_intermediate_size`, `sconv_kernel_size`) and the ones `transformers` writes. A switch this
project has no code for is refused by name.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interaction.checkpoints.safetensors_file import CheckpointError
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    AudioConfig,
    InteractionConfig,
    MlpKind,
    PositionScheme,
    QueryKeyNorm,
    TransformerConfig,
    VisionConfig,
)
from interaction.types import Control

# Where an imported checkpoint keeps the files it came with.
SOURCE_FOLDER = "huggingface"

# Inkling switches: the one value that is implemented (absent counts as that value).
_INKLING_SWITCHES = {
    "hidden_act": "silu",
    "q_bias": False,
    "o_bias": False,
    "use_embed_norm": True,
    "use_sconv": True,
    "use_gate_bias": True,
    "use_global_scale": True,
    "norm_after_topk": True,
    "gate_activation": "sigmoid",
    "shared_expert_sink": True,
    "final_logit_softcapping": None,
    "tie_word_embeddings": False,
}
_LLAMA_SWITCHES = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}

# The reference configuration's defaults, for fields that a file leaves out.
_INKLING_DEFAULTS = {
    "vocab_size": 201024,
    "unpadded_vocab_size": None,
    "hidden_size": 6144,
    "num_hidden_layers": 66,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "swa_num_attention_heads": 64,
    "swa_num_key_value_heads": 16,
    "swa_head_dim": 128,
    "sliding_window_size": 512,
    "d_rel": 16,
    "rel_extent": 1024,
    "log_scaling_n_floor": None,
    "log_scaling_alpha": 0.1,
    "rms_norm_eps": 1e-6,
    "intermediate_size": 24576,
    "moe_intermediate_size": 3072,
    "n_routed_experts": 256,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "route_scale": 8.0,
    "logits_mup_width_multiplier": 24.0,
}


@dataclasses.dataclass(frozen=True)
class ReleasedConfig:
    """A released checkpoint's configuration in our terms.

    Attributes:
        config: the whole model's, or the text decoder's where there is nothing else.
        model_type: as in the file.
        image_token, audio_token: ids whose places image patches and audio frames take in text;
            None for text models.
        source: the file's content, untouched.
    """

    config: InteractionConfig | TransformerConfig
    model_type: str
    image_token: int | None
    audio_token: int | None
    source: Mapping[str, Any]

    @property
    def transformer(self) -> TransformerConfig:
        """The text decoder."""
        return getattr(self.config, "transformer", self.config)  # type: ignore[return-value]


def read_config(folder: Path | str) -> ReleasedConfig:
    """Read a released checkpoint's `config.json`, or that of a checkpoint imported from one.

    Raises:
        CheckpointError: no such file, an unknown `model_type`, or a switch without code here.
    """
    folder = Path(folder)
    kept = folder / SOURCE_FOLDER / "config.json"
    path = kept if kept.exists() else folder / "config.json"
    if not path.exists():
        raise CheckpointError(f"{folder}: no config.json")
    source = json.loads(path.read_text())
    kind = source.get("model_type")
    if kind == "llama":
        return ReleasedConfig(_llama(source, path), kind, None, None, source)
    if kind == "inkling_text":
        return ReleasedConfig(_inkling_text(source, path), kind, None, None, source)
    if kind == "inkling_mm_model":
        return ReleasedConfig(
            config=_inkling(source, path),
            model_type=kind,
            image_token=source.get("image_token_id", 200054),
            audio_token=source.get("audio_token_id", 200053),
            source=source,
        )
    raise CheckpointError(
        f"{path}: model_type={kind!r}, known are 'inkling_mm_model', 'inkling_text', 'llama'"
    )


def _refuse(fields: Mapping, switches: Mapping, path: Path) -> None:
    for name, implemented in switches.items():
        value = fields.get(name, implemented)
        if value != implemented:
            raise CheckpointError(f"{path}: {name}={value!r}, only {implemented!r} is implemented")


def _inkling(source: Mapping, path: Path) -> InteractionConfig:
    for part in ("text_config", "audio_config", "vision_config"):
        if not isinstance(source.get(part), Mapping):
            raise CheckpointError(f"{path}: {part} is {source.get(part)!r}, want a mapping")
    audio, vision = source["audio_config"], source["vision_config"]
    transformer = _inkling_text(source["text_config"], path)
    return InteractionConfig(
        transformer=transformer,
        audio=AudioConfig(
            bands=audio.get("n_mel_bins", 80), levels=audio.get("mel_vocab_size", 256)
        ),
        vision=VisionConfig(
            patch=vision.get("patch_size", 40),
            frames=vision.get("temporal_patch_size", 2),
            channels=vision.get("n_channels", vision.get("num_channels", 3)),
            reference_layers=vision.get("n_layers", vision.get("num_hidden_layers", 24)),
        ),
        # Our control tokens take the last ids that are kept.
        ordinary_tokens=transformer.logits_size - len(Control),
    )


def _inkling_text(source: Mapping, path: Path) -> TransformerConfig:
    _refuse(source, _INKLING_SWITCHES, path)
    f = _INKLING_DEFAULTS | dict(source)
    layers = f["num_hidden_layers"]
    dense_width, expert_width = f["intermediate_size"], f["moe_intermediate_size"]
    if source.get("dense_intermediate_size") is not None:
        # The released files name the experts' width `intermediate_size`.
        dense_width, expert_width = source["dense_intermediate_size"], f["intermediate_size"]
    attention, mlp = _inkling_kinds(source, layers, path)
    if f["n_shared_experts"] < 1:
        raise CheckpointError(f"{path}: n_shared_experts={f['n_shared_experts']}, want at least 1")
    return TransformerConfig(
        vocabulary=f["vocab_size"],
        width=f["hidden_size"],
        attention_kinds=attention,
        mlp_kinds=mlp,
        local=AttentionConfig(
            heads=f["swa_num_attention_heads"],
            kv_heads=f["swa_num_key_value_heads"],
            head_width=f["swa_head_dim"],
            window=f["sliding_window_size"],
            bias_extent=f["sliding_window_size"],
        ),
        global_=AttentionConfig(
            heads=f["num_attention_heads"],
            kv_heads=f["num_key_value_heads"],
            head_width=f["head_dim"],
            window=None,
            bias_extent=f["rel_extent"],
        ),
        dense_width=dense_width,
        expert_width=expert_width,
        experts=f["n_routed_experts"],
        experts_per_slot=f["num_experts_per_tok"],
        shared_experts=f["n_shared_experts"],
        route_scale=float(f["route_scale"]),
        bias_width=f["d_rel"],
        convolution_width=source.get("sconv_kernel_size", source.get("conv_kernel_size", 4)),
        scaling_floor=f["log_scaling_n_floor"] or None,
        scaling_alpha=float(f["log_scaling_alpha"]),
        logits_divisor=float(f["logits_mup_width_multiplier"]),
        unpadded_vocabulary=f["unpadded_vocab_size"] or None,
        norm_epsilon=float(f["rms_norm_eps"]),
    )


def _inkling_kinds(
    source: Mapping, layers: int, path: Path
) -> tuple[tuple[AttentionKind, ...], tuple[MlpKind, ...]]:
    """Kind of attention and of MLP of every layer."""
    types = source.get("layer_types")
    if types is None:
        local = source.get("local_layer_ids")
        chosen = {i for i in range(layers) if (i + 1) % 6} if local is None else set(local)
        types = ["hybrid_sliding" if i in chosen else "hybrid" for i in range(layers)]
    mlps = source.get("mlp_layer_types")
    if mlps is None:
        dense = source.get("dense_mlp_idx", 0)
        mlps = ["dense" if i < dense else "sparse" for i in range(layers)]
    attention_names = {"hybrid_sliding": AttentionKind.LOCAL, "hybrid": AttentionKind.GLOBAL}
    mlp_names = {"dense": MlpKind.DENSE, "sparse": MlpKind.MOE}
    for field, values, names in (
        ("layer_types", types, attention_names),
        ("mlp_layer_types", mlps, mlp_names),
    ):
        if len(values) != layers or not set(values) <= set(names):
            raise CheckpointError(
                f"{path}: {field}={values!r}, want num_hidden_layers={layers} of {sorted(names)}"
            )
    return tuple(attention_names[t] for t in types), tuple(mlp_names[t] for t in mlps)


def _llama(source: Mapping, path: Path) -> TransformerConfig:
    _refuse(source, _LLAMA_SWITCHES, path)
    heads, width = source["num_attention_heads"], source["hidden_size"]
    layers = source["num_hidden_layers"]
    rope = dict(source.get("rope_scaling") or {}) | dict(source.get("rope_parameters") or {})
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise CheckpointError(f"{path}: rope_type={rope_type!r}, only 'default' is implemented")
    return TransformerConfig(
        vocabulary=source["vocab_size"],
        width=width,
        attention_kinds=(AttentionKind.GLOBAL,) * layers,
        mlp_kinds=(MlpKind.DENSE,) * layers,
        global_=AttentionConfig(
            heads=heads,
            kv_heads=source.get("num_key_value_heads") or heads,
            head_width=source.get("head_dim") or width // heads,
            window=None,
            bias_extent=0,
        ),
        dense_width=source["intermediate_size"],
        bias_width=0,
        convolution_width=0,
        position_scheme=PositionScheme.ROTARY,
        rotary_base=float(rope.get("rope_theta") or source.get("rope_theta") or 10_000.0),
        query_key_norm=QueryKeyNorm.NONE,
        logits_divisor=1.0,
        embedding_norm=False,
        tied=bool(source.get("tie_word_embeddings", False)),
        norm_epsilon=float(source.get("rms_norm_eps", 1e-6)),
    )
