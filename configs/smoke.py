"""The smallest run with every part of a real one: does training work here, on all processes?

    python launch.py train --config configs/smoke.py --workdir runs/smoke
    python launch.py submit --on local --tasks 2 -- \\
        train --config configs/smoke.py:2 --workdir runs/smoke

Hardware: any; about a minute of one CPU core, most of it compiling. Expect the loss to fall.
Data need no recordings: typed facts, noise, pictures and questions (`interaction/data/recall.py`).
`arg` is the number of devices, of all processes together.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "1") -> ConfigDict:
    """The run, on `arg` devices."""
    if not arg.isdecimal() or int(arg) < 1:
        raise ValueError(f"arg={arg!r} must be a number of devices")
    config = ConfigDict()
    config.trainer = "interaction"
    config.mesh = {"data": int(arg)}
    config.model = {
        "transformer": {
            "vocabulary": 272,
            "width": 24,
            "attention_kinds": ("global",),
            "mlp_kinds": ("moe",),
            "local": None,
            "global_": {
                "heads": 3, "kv_heads": 1, "head_width": 8, "window": None, "bias_extent": 20,
            },
            "dense_width": 36,  # no layer has it
            "expert_width": 20,
            "experts": 4,
            "experts_per_slot": 2,
            "shared_experts": 1,
            "bias_width": 3,
        },
        "vision": {"patch": 4, "stages": ((1, 2, 11), (2, 2, 0)), "max_patches": 2},
        "flow": {"width": 8, "blocks": 1, "time_features": 6, "steps": 1},
        "vocoder": {
            "width": 6, "feed_forward": 10, "layers": 1, "kernel": 3, "pitch_bands": 11,
            "pitch_context": 4, "pitch_width": 7, "pitch_classes": 9,
        },
        "max_text_in": 8,
        "max_text_out": 6,
        "max_audio_chunks": 1,
        "global_slots": 128,
    }  # fmt: skip
    config.recall = {
        "voice_share": 0.0, "facts": (1, 2), "filler": (2, 5), "slots": 96, "audio": 64,
        "patches": 8, "patch": 4,
    }  # fmt: skip
    config.optimizer = {"learning_rate": 1e-2, "warmup": 5}
    config.loss = {"speech": 0.0, "flow_draws": 1}
    config.batch = 8
    config.workers = 0
    config.steps = 50
    config.log_every = 1
    config.checkpoint_minutes = 5.0
    return config
