"""Inkling-Small as released (30 July 2026, Apache-2.0): 42 layers, the lowest two dense.

    python launch.py import --from DIR_OF_THE_RELEASE --to DIR

263.66 B text parameters (computed: `tests/test_sizes.py`), 12.00 B active with both vocabulary
matrices counted. Importing needs memory for one tensor at a time and disk for the whole; running
it needs a pod and is not something this configuration was tried on. `get_config("all_moe")` makes
all 42 layers mixtures of experts.
"""

from ml_collections import ConfigDict

LAYERS = 42


def get_config(arg: str = "") -> ConfigDict:
    """The model alone (field `model`), as `InteractionConfig` reads it."""
    if arg not in ("", "all_moe"):
        raise ValueError(f"arg={arg!r} must be empty or 'all_moe'")
    dense = 0 if arg == "all_moe" else 2
    config = ConfigDict()
    config.model = dict(
        transformer=dict(
            vocabulary=201_024,
            unpadded_vocabulary=200_058,
            width=4096,
            attention_kinds=tuple(
                "global" if layer % 6 == 5 else "local" for layer in range(LAYERS)
            ),
            mlp_kinds=("dense",) * dense + ("moe",) * (LAYERS - dense),
            local=dict(heads=32, kv_heads=8, head_width=128, window=512, bias_extent=512),
            global_=dict(heads=32, kv_heads=8, head_width=128, window=None, bias_extent=1024),
            dense_width=16_384 if dense else 0,
            expert_width=2048,
            experts=256,
            experts_per_slot=6,
            shared_experts=2,
            route_scale=8.0,
            bias_width=16,
            convolution_width=4,
            scaling_floor=128_000,
            scaling_alpha=0.1,
            logits_divisor=16.0,
            norm_epsilon=1e-6,
        ),
        ordinary_tokens=200_044,
        vision=dict(max_patches=48),
    )
    return config
