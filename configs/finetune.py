"""interaction-mini, trained on with conversations of one's own.

    python launch.py data build --from recordings/ --out shards
    python launch.py train --config configs/finetune.py --workdir runs/finetune
    python launch.py train --config configs/finetune.py:beside --workdir runs/finetune

`recordings/` holds stereo files, left the user, right the model. Another folder of shards:
``--set "shards.folders=('here', 'and/there')"``. Hardware: as of `configs/mini.py`, whose step this
is; no second core is needed, for shards cost next to nothing to read
(`experiments/bench/data_wait.json`). 400 steps of 6 rows see half an hour of conversation about
twenty times (*computed*: 2400 rows of at most 16 s). ``beside`` keeps mini's own curriculum at two
thirds of the rows, so that what it knew is not forgotten; it needs the `voices` extra.
``tiny`` is a model of two narrow layers from nothing, for the guide
`notebooks/finetune_on_your_conversations.ipynb` and for tests.
"""

from ml_collections import ConfigDict

from configs import mini


def get_config(arg: str = "") -> ConfigDict:
    """The run; `arg` is empty, ``beside`` or ``tiny``."""
    if arg not in ("", "beside", "tiny"):
        raise ValueError(f"arg={arg!r} must be empty, 'beside' or 'tiny'")
    config = mini.get_config()
    config.shards = dict(folders=("shards",), seed=0)
    config.start = "checkpoints/mini"
    config.optimizer = dict(
        learning_rate=3e-4, warmup=20, weight_decay=0.1, decay_share=0.5, average=0.99
    )
    config.steps = 400
    if arg == "beside":
        config.shards.share = 1 / 3
        return config
    del config["curriculum"]
    if arg == "tiny":
        _make_tiny(config)
    return config


def _make_tiny(config: ConfigDict) -> None:
    stack = config.model.transformer
    stack.width = 48
    stack.attention_kinds = ("local", "global")
    stack.mlp_kinds = ("moe",) * 2
    stack.local.update(heads=2, kv_heads=1, head_width=16, window=32, bias_extent=32)
    stack.global_.update(heads=2, kv_heads=1, head_width=16, bias_extent=64)
    stack.update(expert_width=32, bias_width=4, unroll=1)
    config.model.vision.stages = ((1, 5, 8), (1, 2, 8), (1, 4, 16), (2, 1, 0))
    config.model.flow.update(width=48, blocks=2, time_features=16, steps=4)
    config.model.global_slots = 1024
    config.start = ""
    config.workers = 0
    config.batch = 4
    config.steps = 40
    config.log_every = 1
    config.optimizer = dict(learning_rate=3e-3, warmup=5, decay_share=0.4, average=0.9)
