"""interaction-nano: the smallest model that hears, sees, writes and speaks.

    python launch.py train --config configs/nano.py --workdir runs/nano

Hardware: one CPU core (AMD EPYC, AVX2) and part of a second one that prepares data. Time: 1.5 s a
step, 1 h 50 min, when the shipped one was made; the clips are prepared once, some 10 minutes more.
Expect the figures of
`checkpoints/nano/README.md`. What it learns: `interaction/data/conversations.py`.
`get_config("smoke")` runs the same way in about two minutes and learns nothing.

    python launch.py train --config configs/nano.py:more --workdir runs/nano_more

goes on from the first part with more speech that calls for no answer and a wider range of vocal
tracts, and averages the weights.

On Linux beside other work, start it with
``GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368``
(page faults took up to 42 % of a step's processor time without).
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The run: "" is the first part, ``more`` the second; or ``smoke``."""
    if arg not in ("", "more", "smoke"):
        raise ValueError(f"arg={arg!r} must be empty, 'more' or 'smoke'")
    layers = 6
    config = ConfigDict()
    config.trainer = "interaction"
    config.model = dict(
        transformer=dict(
            vocabulary=272,
            width=128,
            attention_kinds=("local",) * (layers - 1) + ("global",),
            mlp_kinds=("moe",) * layers,
            local=dict(heads=4, kv_heads=2, head_width=32, window=48, bias_extent=48),
            global_=dict(heads=2, kv_heads=1, head_width=64, window=None, bias_extent=192),
            expert_width=96,
            experts=4,
            experts_per_slot=2,
            shared_experts=1,
            route_scale=3.0,
            bias_width=8,
            unroll=5,
        ),
        vision=dict(stages=((1, 5, 32), (1, 2, 64), (1, 4, 128), (2, 1, 0)), max_patches=4),
        flow=dict(width=256, blocks=3, time_features=64, steps=8),
        speech_slots=2,
        max_text_out=10,
        global_slots=1024,  # half a minute live; the longest session of training has 608
    )
    config.data = dict(
        seed=0,
        audio_micro_turns=44,
        video_micro_turns=26,
        silent_video_micro_turns=42,
        slots=336,
        audio=176,
        patches=168,
        speech=40,
        chunks=20,
        mixture=dict(digits=0.44, negatives=0.17, quiet=0.03, flashes=0.11, kicks=0.18, still=0.07),
    )
    config.optimizer = dict(learning_rate=1.5e-3, warmup=200, weight_decay=0.1, decay_share=0.4)
    config.loss = dict(flow_draws=4, own_speech_noise=0.3)
    config.batch = 8
    config.steps = 20 if arg == "smoke" else 4200
    config.seed = 0
    config.vocoder = "checkpoints/vocoder/vocoder.safetensors"
    config.log_every = 5 if arg == "smoke" else 20
    config.checkpoint_minutes = 5.0
    if arg == "more":
        config.start, config.steps = "runs/nano/final", 1700
        config.data.update(seed=1, warp=0.15)
        config.data.mixture = dict(
            digits=0.44, negatives=0.24, quiet=0.03, flashes=0.09, kicks=0.14, still=0.06
        )
        config.optimizer.update(learning_rate=1.0e-3, warmup=60, decay_share=0.5, average=0.995)
    return config
