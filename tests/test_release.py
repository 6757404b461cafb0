"""An interaction model that starts from released weights.

In: a small release with random weights. Out: the backbone is the release's bit for bit but for
the control tokens' rows, the new parts start as documented, types follow what trains, and whatever
does not fit is named. The configuration of the fine-tune builds and its groups fit its tree.
"""

import dataclasses
import json
import math
import pickle
import types
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec

from configs import inkling_small_finetune
from interaction import configuration
from interaction.checkpoints.huggingface import import_checkpoint, load_params
from interaction.checkpoints.huggingface_config import read_config
from interaction.checkpoints.native import flatten, unflatten
from interaction.models import declare
from interaction.models.config import FlowConfig, InteractionConfig, Recompute
from interaction.models.parameters import abstract_params, interaction_specs
from interaction.models.release import RELEASED, start_from_release
from interaction.models.vocoder import save_vocoder
from interaction.train import checkpointing, loop, optimizer
from interaction.train.loop import Compute, TrainConfig
from interaction.train.optimizer import Group, OptimizerConfig
from interaction.train.start import from_release
from interaction.types import Control
from tests.distributed_for_tests import run_processes
from tests.models_for_tests import VOCODER
from tests.released_for_tests import write_released
from tests.test_train import batch_of

KEPT, ROWS = 57, 90
NEW = ("flow", "speech_in", "tags")
CONTROLS = range(KEPT, KEPT + len(Control))


def optimizer_of(arg: str) -> OptimizerConfig:
    values = inkling_small_finetune.get_config(arg).to_dict()["optimizer"]
    return configuration.build(OptimizerConfig, values)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The folder, the model's configuration, and what the importer makes of the folder."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    text = {
        "vocab_size": ROWS,
        "unpadded_vocab_size": KEPT,
        "num_hidden_layers": 2,
        "layer_types": ["hybrid_sliding", "hybrid"],
        "mlp_layer_types": ["dense", "sparse"],
    }
    write_released(source, "inkling_mixed", text)
    import_checkpoint(source, folder / "native")
    released = read_config(source).config
    assert isinstance(released, InteractionConfig)
    stack = dataclasses.replace(
        released.transformer,
        unpadded_vocabulary=KEPT + len(Control),
        recompute=Recompute.LAYERS,
    )
    config = dataclasses.replace(
        released,
        transformer=stack,
        ordinary_tokens=KEPT,
        flow=FlowConfig(width=16, blocks=2, time_features=12, steps=3),
        vocoder=VOCODER,
    )
    return source, config, flatten(load_params(folder / "native"))


def start_on_one(source, config, key, **rest) -> dict:
    """On one device, which reads all."""
    mesh = jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])
    paths = flatten(abstract_params(config))
    specs = unflatten(dict.fromkeys(paths, PartitionSpec()))
    tree, share = start_from_release(source, config, mesh, specs, key=key, **rest)
    assert share.read == share.wanted == share.total
    return tree


def start(source, config, **rest) -> dict:
    return flatten(start_on_one(source, config, jax.random.key(3), **rest))


@pytest.fixture(scope="module")
def started(release, tmp_path_factory):
    """With a trained vocoder, and types by what trains in the middle stage."""
    source, config, _ = release
    random = np.random.default_rng(9)
    shapes = abstract_params(config)["vocoder"]
    vocoder = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)
    file = tmp_path_factory.mktemp("vocoder") / "vocoder.safetensors"
    save_vocoder(file, vocoder, config.vocoder)
    rule = optimizer_of("")

    def dtype_of(path, stored):
        return stored if optimizer.frozen(rule, path) else np.dtype(np.float32)

    return start(source, config, vocoder=file, dtype_of=dtype_of), flatten({"vocoder": vocoder})


def test_the_backbone_is_the_releases(release, started):
    _, config, native = release
    found, _ = started
    shapes = {path: leaf.shape for path, leaf in flatten(abstract_params(config)).items()}
    assert {path: leaf.shape for path, leaf in found.items()} == shapes
    for path, leaf in found.items():
        if path.split("/")[0] not in RELEASED:
            continue
        got, want = np.asarray(leaf), native[path].astype(leaf.dtype)
        if path in inkling_small_finetune.VOCABULARY:
            axis = 0 if path.endswith("table") else 1
            got, want = (np.delete(values, CONTROLS, axis) for values in (got, want))
        assert got.tobytes() == want.tobytes(), path


def test_what_trains_is_float32_and_the_rest_as_stored(started):
    types = {path: leaf.dtype for path, leaf in started[0].items()}
    assert types["transformer/moe/gate"] == types["transformer/moe/router"] == jnp.float16
    for path in ("transformer/attention_local/query", "flow/output", "transformer/unembed"):
        assert types[path] == jnp.float32


def test_control_tokens_start_like_ordinary_ones(release, started):
    _, _, native = release
    table = np.asarray(started[0]["transformer/embed/table"])
    unembed = np.asarray(started[0]["transformer/unembed"])
    ordinary = native["transformer/embed/table"].astype(np.float32)[:KEPT]
    rows = table[CONTROLS.start : CONTROLS.stop]
    normal = (rows - ordinary.mean(0)) / ordinary.std(0)
    assert abs(normal.mean()) < 4 / math.sqrt(normal.size)
    assert normal.std() == pytest.approx(1, abs=0.2)
    assert len(np.unique(rows, axis=0)) == len(Control)
    columns = unembed[:, CONTROLS.start : CONTROLS.stop]
    mean = native["transformer/unembed"].astype(np.float32)[:, :KEPT].mean(1)
    np.testing.assert_allclose(columns, np.repeat(mean[:, None], len(Control), 1), atol=1e-6)
    # Counting the padded rows in would be noticed.
    wrong = native["transformer/unembed"].astype(np.float32).mean(1)
    assert np.abs(wrong - mean).max() > 1e-3


def test_new_parts_start_as_declared(release, started):
    _, config, _ = release
    found, vocoder = started
    # As `init_params` draws them: each by its path, whatever stands beside it.
    specs = {name: part for name, part in interaction_specs(config).items() if name in NEW}
    want = flatten(jax.jit(lambda key: declare.init(key, specs))(jax.random.key(3)))
    for path, leaf in found.items():
        family = path.split("/")[0]
        if family == "vocoder":
            np.testing.assert_array_equal(leaf, vocoder[path], err_msg=path)
        elif family not in RELEASED:
            np.testing.assert_allclose(leaf, want[path], rtol=1e-6, atol=1e-7, err_msg=path)
    for path in ("tags/time", "tags/stream", "tags/lateness", "flow/output"):
        assert not np.asarray(found[path]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ordinary_tokens": KEPT - 14}, rf"ordinary_tokens={KEPT - 14} .* from {KEPT} of"),
        ({"experts": 11}, "transformer.experts=11 of the model differs from 12 of"),
        ({"patch": 5}, "vision.patch=5 .* from 6 of"),
    ],
)
def test_another_model_is_named(release, changes, message):
    source, config, _ = release
    if "experts" in changes:
        changes = {"transformer": dataclasses.replace(config.transformer, **changes)}
    if "patch" in changes:
        changes = {"vision": dataclasses.replace(config.vision, **changes)}
    with pytest.raises(ValueError, match=message):
        start(source, dataclasses.replace(config, **changes))


def test_a_text_decoder_alone_is_refused(release, tmp_path):
    write_released(tmp_path / "text", "inkling_text_only", {})
    content = json.loads((tmp_path / "text" / "config.json").read_text())
    assert content["model_type"] == "inkling_text"
    with pytest.raises(ValueError, match="text decoder alone"):
        start(tmp_path / "text", release[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "a"}, "start=a and release=b are both given"),
        ({"validate_every": 5}, "validate_every=5 .* release=b"),
    ],
)
def test_runs_that_cannot_be_are_named(release, changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(model=release[1], release="b", **changes)


def test_shards_of_another_tokenizer_are_refused(release):
    shards = types.SimpleNamespace(manifests=[types.SimpleNamespace(ordinary_tokens=256)])
    run = types.SimpleNamespace(shards=shards, model=release[1])
    with pytest.raises(ValueError, match=f"256 ordinary tokens, the model has {KEPT}"):
        from_release(cast(TrainConfig, run), jax.make_mesh((1,), ("x",), devices=jax.devices()[:1]))


# ---------------------------------------------------------------------------- training


class Batches:
    """Batches in order."""

    def __init__(self, config):
        self.config, self.place = config, 0

    def __next__(self):
        self.place += 1
        return batch_of(self.place, self.config)

    def get_state(self):
        return {"record": self.place}

    def set_state(self, state):
        self.place = state["record"]


@pytest.mark.slow
def test_a_fine_tune_trains_what_it_names_and_nothing_else(release, tmp_path, monkeypatch):
    """The loop as it is, three steps, forward and backward in bfloat16, each batch in two parts;
    the second stage begins at step 1, and a group's first step has the rate 0."""
    source, config, native = release
    monkeypatch.setattr(loop, "make_batches", lambda *_, **__: Batches(config))
    fine_tune = inkling_small_finetune
    groups = (
        Group(fine_tune.NEW),
        Group(fine_tune.VOCABULARY, ids=(CONTROLS.start, CONTROLS.stop)),
        Group(fine_tune.MIXING, begins=1, share=0.5),
    )
    run = TrainConfig(
        model=config,
        release=str(source),
        optimizer=OptimizerConfig(
            learning_rate=0.01, warmup=1, average=0.5, balance_rate=0.0, groups=groups
        ),
        compute=Compute.BFLOAT16,
        steps=3,
        batch=2,
        accumulate=2,
        workers=0,
        log_every=1,
    )
    assert loop.train(run, tmp_path / "run") == tmp_path / "run" / "checkpoints"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    with checkpointing.manager(tmp_path / "run" / "checkpoints") as manager:
        saved = ocp.args.Composite(state=ocp.args.StandardRestore())
        state = manager.restore(3, args=saved)["state"]
    found, mean = flatten(state["params"]), flatten(state["mean"])
    begun = flatten(start_on_one(source, config, jax.random.key(0)))
    for path, leaf in found.items():
        names = path.split("/")
        still = optimizer.frozen(run.optimizer, path)
        assert (path in mean) == (not still), path
        if still:
            assert names[1] in ("moe", "dense", "embed", "final_norm")
            assert np.asarray(leaf).tobytes() == native[path].tobytes(), path
        elif path in fine_tune.VOCABULARY:
            axis = 0 if path.endswith("table") else 1
            moved = np.any(np.asarray(leaf) != np.asarray(begun[path], np.float32), axis=1 - axis)
            assert set(np.flatnonzero(moved)) <= set(CONTROLS)
            assert moved[CONTROLS.start + Control.BEGIN]
    for path in ("flow/output", "tags/stream", "transformer/attention_local/query", "audio/table"):
        assert np.any(np.asarray(found[path]) != np.asarray(begun[path], np.float32)), path


# ---------------------------------------------------------------------------- four processes

WORKER = """
import json, pickle, sys
import jax
import numpy as np
from interaction import sharding
from interaction.checkpoints.native import flatten, unflatten
from interaction.models.parameters import abstract_params, param_axes
from interaction.models.release import start_from_release
from jax.sharding import PartitionSpec

port, number, source, config = sys.argv[1:]
config = pickle.load(open(config, "rb"))
jax.distributed.initialize(f"127.0.0.1:{port}", 4, int(number))
shape = sharding.MeshConfig(fsdp=2, expert=2)
tree, key = abstract_params(config), jax.random.key(3)
specs = sharding.parameter_specs(tree, param_axes(config), shape, sharding.Purpose.TRAINING)
split, share = start_from_release(source, config, sharding.make_mesh(shape), specs, key=key)
alone = jax.make_mesh((1,), ("x",), devices=jax.local_devices())
whole = unflatten(dict.fromkeys(flatten(tree), PartitionSpec()))
whole = flatten(start_from_release(source, config, alone, whole, key=key)[0])
far = {}
for path, leaf in flatten(split).items():
    for shard in leaf.addressable_shards:
        want = np.asarray(whole[path])[shard.index].astype(np.float32)
        far[path] = float(np.abs(np.asarray(shard.data).astype(np.float32) - want).max())
parts = sum(leaf.addressable_shards[0].data.nbytes for leaf in flatten(split).values())
report = dict(far=far, wanted=share.wanted, total=share.total, parts=parts)
print(json.dumps(report))
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_four_processes_start_as_one_does(release, tmp_path):
    """With the specs of a training mesh: backbone bit for bit, draws and means to rounding."""
    source, config, _ = release
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    for report in run_processes(WORKER, source, tmp_path / "config"):
        assert report["wanted"] < report["total"]  # odd sizes leave most of it whole
        for path, far in report["far"].items():
            exact = path.split("/")[0] in RELEASED and path not in inkling_small_finetune.VOCABULARY
            assert far <= (0 if exact else 1e-3), path


# ---------------------------------------------------------------------------- configuration


def trained(arg: str) -> dict[str, int]:
    """Numbers that train at some time, by group, in billions of parameters."""
    values = inkling_small_finetune.get_config(arg).to_dict()
    model = configuration.build(InteractionConfig, values["model"])
    rule = optimizer_of(arg)
    tree = abstract_params(model)
    tree.pop("vocoder")
    labels = optimizer._labels(rule, tree)  # raises where a pattern names nothing
    sizes: dict[str, int] = {}
    for label, leaf in zip(jax.tree.leaves(labels), jax.tree.leaves(tree), strict=True):
        ids = rule.groups[int(label)].ids if label != "frozen" else None
        size = math.prod(leaf.shape) if ids is None else (ids[1] - ids[0]) * model.transformer.width
        sizes[label] = sizes.get(label, 0) + size
    assert declare.count(interaction_specs(model)) > sum(sizes.values())
    return sizes


def test_stages_of_the_fine_tune():
    """Computed from shapes: the new parts are 0.2 B, the second stage adds 3.6 B, the third the
    experts; the router's 0.04 B never train."""
    new, middle, everything = (trained(arg) for arg in inkling_small_finetune.STAGES)
    assert new["0"] == middle["0"] == everything["0"]
    assert 0.1e9 < new["0"] < 0.3e9
    assert new["1"] == 2 * 14 * 4096
    assert 1e9 < middle["2"] < 4e9
    assert everything["3"] > 255e9
    assert everything["frozen"] < 2e9
