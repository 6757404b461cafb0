"""The checkpoints whose logits are compared.

In: nothing. Out: `CASES`, each a `config.json`, a seed, the type its weights are stored in and
what its inputs hold. Every size differs from every other one as far as the architecture allows,
and sequences run past the window, the extent of the relative bias and the scaling floor.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One checkpoint and its inputs.

    Attributes:
        config: content of config.json.
        seed: of weights and inputs.
        exact_in: type the weights are stored in.
        lengths: valid tokens of each row; rows are padded on the right.
        audio_frames: frames of each clip, put into the rows in order; empty: none.
        patches: patches of each image, put into the rows in order; empty: none.
        store_weights: False: weights are drawn again from the seed by the tests.
        mtp_layers: multi-token-prediction layers present in the checkpoint (and not run).
    """

    config: dict[str, Any]
    seed: int
    lengths: tuple[int, ...]
    exact_in: str = "float16"
    audio_frames: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()
    store_weights: bool = True
    mtp_layers: int = 0


def _inkling(text: dict, *, audio: dict | None = None, vision: dict | None = None, **top) -> dict:
    return {
        "architectures": ["InklingForConditionalGeneration"],
        "model_type": "inkling_mm_model",
        "text_config": {"model_type": "inkling_text", "hidden_act": "silu"} | text,
        "audio_config": {"mel_vocab_size": 16, "n_mel_bins": 8} | (audio or {}),
        "vision_config": {"patch_size": 2, "temporal_patch_size": 2, "n_layers": 2}
        | (vision or {}),
        "image_token_id": 5,
        "audio_token_id": 6,
    } | top


TEXT = Case(
    config=_inkling(
        {
            "vocab_size": 101,
            "unpadded_vocab_size": 97,
            "hidden_size": 40,
            "num_hidden_layers": 7,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 12,
            "sliding_window_size": 9,
            "d_rel": 5,
            "rel_extent": 21,
            "log_scaling_n_floor": 24,
            "log_scaling_alpha": 0.4,
            "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 5,
            "intermediate_size": 56,
            "moe_intermediate_size": 14,
            "n_routed_experts": 9,
            "num_experts_per_tok": 3,
            "n_shared_experts": 2,
            "route_scale": 2.5,
            "logits_mup_width_multiplier": 2.5,
            "rms_norm_eps": 1e-5,
        },
    ),
    seed=4,
    lengths=(96, 71, 33),
)

# Keys as in the config.json of the released checkpoints.
AUDIO = Case(
    config=_inkling(
        {
            "model_max_length": 512,
            "vocab_size": 83,
            "unpadded_vocab_size": 83,
            "hidden_size": 32,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 10,
            "swa_num_attention_heads": 6,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 7,
            "sliding_window_size": 11,
            "local_layer_ids": [0, 2, 3],
            "d_rel": 4,
            "rel_extent": 29,
            "log_scaling_n_floor": 40,
            "log_scaling_alpha": 0.1,
            "dense_mlp_idx": 1,
            "dense_intermediate_size": 48,
            "intermediate_size": 20,
            "n_routed_experts": 7,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "shared_expert_sink": True,
            "route_scale": 3.0,
            "logits_mup_width_multiplier": 1.5,
            "sconv_kernel_size": 4,
            "q_bias": False,
            "o_bias": False,
            "use_embed_norm": True,
            "use_sconv": True,
            "use_gate_bias": True,
            "use_global_scale": True,
            "norm_after_topk": True,
            "gate_activation": "sigmoid",
            "final_logit_softcapping": None,
        },
        audio={"decoder_dmodel": 32, "n_mel_bins": 80, "mel_vocab_size": 16},
        mtp_config={
            "num_nextn_predict_layers": 2,
            "chain_hidden_post_norm": False,
            "local_layer_ids": [1],
        },
        eos_token_id=4,
    ),
    seed=1,
    lengths=(64, 52),
    exact_in="bfloat16",
    audio_frames=(20, 13, 8),
    mtp_layers=2,
)

VISION = Case(
    config=_inkling(
        {
            "vocab_size": 61,
            "hidden_size": 28,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 6,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 1,
            "swa_head_dim": 9,
            "sliding_window_size": 6,
            "layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"],
            "mlp_layer_types": ["sparse"] * 4,
            "d_rel": 3,
            "rel_extent": 17,
            "log_scaling_n_floor": 15,
            "log_scaling_alpha": 0.5,
            "intermediate_size": 30,
            "moe_intermediate_size": 11,
            "n_routed_experts": 5,
            "num_experts_per_tok": 2,
            "n_shared_experts": 3,
            "route_scale": 4.0,
            "logits_mup_width_multiplier": 2.0,
        },
        vision={"patch_size": 4, "temporal_patch_size": 2, "n_layers": 3},
    ),
    seed=37,
    lengths=(44, 31),
    patches=(9, 4),
)

MIXED = Case(
    config=_inkling(
        {
            "vocab_size": 71,
            "unpadded_vocab_size": 67,
            "hidden_size": 24,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "swa_num_attention_heads": 6,
            "swa_num_key_value_heads": 3,
            "swa_head_dim": 6,
            "sliding_window_size": 7,
            "d_rel": 6,
            "rel_extent": 13,
            "log_scaling_n_floor": 10,
            "log_scaling_alpha": 0.2,
            "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 5,
            "intermediate_size": 36,
            "moe_intermediate_size": 10,
            "n_routed_experts": 12,
            "num_experts_per_tok": 4,
            "n_shared_experts": 2,
            "route_scale": 2.0,
            "logits_mup_width_multiplier": 1.0,
            "rms_norm_eps": 1e-3,
        },
        audio={"n_mel_bins": 80},
        vision={"patch_size": 6, "temporal_patch_size": 2, "n_layers": 3},
    ),
    seed=3,
    lengths=(58, 47, 12),
    audio_frames=(12, 7),
    patches=(6, 3, 2),
)

PATCH_40 = Case(
    config=_inkling(
        {
            "vocab_size": 47,
            "hidden_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 6,
            "swa_num_attention_heads": 2,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 5,
            "sliding_window_size": 4,
            "local_layer_ids": [0],
            "d_rel": 3,
            "rel_extent": 6,
            "dense_mlp_idx": 1,
            "intermediate_size": 22,
            "moe_intermediate_size": 9,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 2,
            "logits_mup_width_multiplier": 2.0,
        },
        vision={"patch_size": 40, "temporal_patch_size": 2, "n_layers": 4},
    ),
    seed=71,
    lengths=(10,),
    patches=(3,),
    store_weights=False,
)

# The text decoder alone, under the module names that `transformers` writes for it.
TEXT_ONLY = Case(
    config={
        "architectures": ["InklingForCausalLM"],
        "model_type": "inkling_text",
        "vocab_size": 53,
        "hidden_size": 22,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 5,
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 1,
        "swa_head_dim": 7,
        "sliding_window_size": 5,
        "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
        "mlp_layer_types": ["dense", "sparse", "sparse"],
        "d_rel": 2,
        "rel_extent": 12,
        "intermediate_size": 26,
        "moe_intermediate_size": 8,
        "n_routed_experts": 6,
        "num_experts_per_tok": 1,
        "n_shared_experts": 2,
        "logits_mup_width_multiplier": 1.25,
    },
    seed=83,
    lengths=(30, 17),
)

LLAMA_TIED = Case(
    config={
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 59,
        "hidden_size": 30,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 6,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": 256,
    },
    seed=97,
    lengths=(50, 29),
)

LLAMA_UNTIED = Case(
    config={
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 67,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": False,
        "max_position_embeddings": 256,
    },
    seed=101,
    lengths=(40, 23),
    exact_in="bfloat16",
)

CASES = {
    "inkling_text": TEXT,
    "inkling_audio": AUDIO,
    "inkling_vision": VISION,
    "inkling_mixed": MIXED,
    "inkling_patch_40": PATCH_40,
    "inkling_text_only": TEXT_ONLY,
    "llama_tied": LLAMA_TIED,
    "llama_untied": LLAMA_UNTIED,
}
