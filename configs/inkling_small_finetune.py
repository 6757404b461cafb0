"""Inkling-Small as released, made into an interaction model: `docs/inkling_small.md`.

    python launch.py train --config configs/inkling_small_finetune.py --workdir runs/inkling \\
        --set release=DIR_OF_THE_RELEASE

Hardware: a pod; `experiments/inkling_small_cost.json` has computed memory and chip-hours for each
stage. It was not run: no pod was at hand. What was run is every piece of it at small size: reading
by shards in four processes, the start of the new parts, the freezing.

`arg` says what trains:

- ``new``: flow head, own-speech stem, tags of time and stream, the control tokens' rows. The
  backbone keeps every bit, so text answers are the release's.
- empty: that for 2,000 steps, then also attention, norms, convolutions and the stems of sound and
  video, at a tenth of the rate. Experts and router stay.
- ``all``: that, and from step 6,000 the experts and dense layers at a twentieth; still no router.
"""

from ml_collections import ConfigDict

from configs import inkling_small

STAGES = ("new", "", "all")
CONTROL_TOKENS = 14
RELEASED_IDS = 200_058  # kept by the release; of 201,024 rows
SECOND, THIRD, STEPS = 2000, 6000, 12_000

NEW = ("flow/*", "speech_in/*", "tags/*")
VOCABULARY = ("transformer/embed/table", "transformer/unembed")
MIXING = ("transformer/attention_*", "transformer/block/*", "audio/*", "vision/*")
EXPERTS = (
    "transformer/moe/gate",
    "transformer/moe/up",
    "transformer/moe/down",
    "transformer/moe/shared_*",
    "transformer/dense/*",
)


def get_config(arg: str = "") -> ConfigDict:
    """The run; `arg` is empty, ``new`` or ``all``."""
    if arg not in STAGES:
        raise ValueError(f"arg={arg!r} must be one of {STAGES}")
    config = ConfigDict()
    config.trainer = "interaction"
    model = inkling_small.get_config().model
    model.transformer.unpadded_vocabulary = RELEASED_IDS + CONTROL_TOKENS
    model.transformer.recompute = "layers"
    model.transformer.query_slots = 256
    model.ordinary_tokens = RELEASED_IDS
    model.flow = dict(width=1536, blocks=12, time_features=256, steps=8)
    model.max_text_out = 16
    model.max_text_in = 64
    model.global_slots = 131_072
    config.model = model
    groups = [
        dict(parameters=NEW),
        dict(parameters=VOCABULARY, ids=(RELEASED_IDS, RELEASED_IDS + CONTROL_TOKENS)),
    ]
    if arg != "new":
        groups.append(dict(parameters=MIXING, begins=SECOND, share=0.1))
    if arg == "all":
        groups.append(dict(parameters=EXPERTS, begins=THIRD, share=0.05))
    config.optimizer = dict(
        learning_rate=3e-4,
        warmup=200,
        decay_share=0.3,
        weight_decay=0.01,
        b2=0.95,
        average=0.998,
        balance_rate=0.0,  # the router stays as released
        groups=groups,
    )
    config.batch = 128  # conversations; 32 devices take 4 each, one at a time
    config.accumulate = 4
    config.steps = SECOND if arg == "new" else STEPS
    config.seed = 0
    config.compute = "bfloat16"
    config.loss = dict(text_slots=1024)
    config.shards = dict(folders=("shards",), seed=0)
    config.vocoder = "checkpoints/vocoder/vocoder.safetensors"
    return config
