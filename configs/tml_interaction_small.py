"""The announced size: 276.24 B parameters, 12.00 B active (TML-Interaction-Small, May 2026).

The backbone of `inkling_small` with all 42 layers as mixtures of experts, which is the count that
gives the announced numbers (computed: `tests/test_sizes.py`), 14 new control tokens behind the
released vocabulary, and a wider flow head. Nothing was published that says what flow head, vocoder
or slot order the announced model has: those are ours.
"""

from ml_collections import ConfigDict

from configs import inkling_small


def get_config(arg: str = "") -> ConfigDict:
    """The model, and how a training step of it fits (`docs/slices.md`); no `arg` is known.

    One conversation of 4,096 slots on each of 256 devices is a batch of 1.05 million slots. On
    fewer devices `accumulate` makes up for it: 2 on 128, with `batch` 256.
    """
    if arg:
        raise ValueError(f"arg={arg!r} must be empty")
    config = inkling_small.get_config("all_moe")
    model = config.model
    model.transformer.unpadded_vocabulary = 200_058 + 14
    model.transformer.recompute = "layers"
    model.transformer.query_slots = 256
    model.ordinary_tokens = 200_058
    model.flow = dict(width=1536, blocks=12, time_features=256, steps=8)
    model.max_text_out = 16
    model.max_text_in = 64
    model.global_slots = 131_072
    config.compute = "bfloat16"
    config.loss = dict(text_slots=1024)
    return config
