"""Import and export of released checkpoints.

In: the small checkpoints of `testdata/parity`, and ones written here. Out: a round trip gives back
every byte, whatever does not fit is named with both shapes, a failed import leaves nothing, and
peak memory is bounded by a tensor, not by the checkpoint.
"""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from interaction.checkpoints import huggingface, safetensors_file
from interaction.checkpoints.huggingface import (
    CheckpointError,
    export_checkpoint,
    import_checkpoint,
    load_params,
    read_config,
)
from interaction.checkpoints.huggingface_names import Names, released_table
from interaction.checkpoints.native import (
    ShardedWriter,
    close_shards,
    flatten,
    open_shards,
    save_params,
)
from interaction.checkpoints.safetensors_file import Reader, TensorInfo
from interaction.models.config import AttentionKind, InteractionConfig, MlpKind
from interaction.models.parameters import interaction_specs, transformer_specs

TESTDATA = Path(__file__).parent / "testdata" / "parity"
CASES = sorted(path.parent.name for path in TESTDATA.glob("*/model.safetensors"))


def read_all(folder: Path, stem: str = "model") -> dict[str, np.ndarray]:
    shards = open_shards(folder, stem)
    tensors = {name: reader.read(name) for name, reader in shards.items()}
    close_shards(shards)
    return tensors


def assert_same_tensors(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].shape == b[name].shape, name
        assert a[name].tobytes() == b[name].tobytes(), name


def write_released(folder: Path, tensors: dict, config: dict, shard_bytes: int = 10**9) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    layout = {n: TensorInfo(v.dtype, v.shape) for n, v in tensors.items()}
    with ShardedWriter(folder, layout, stem="model", max_shard_bytes=shard_bytes) as writer:
        for name, values in tensors.items():
            writer.write(name, values)
    (folder / "config.json").write_text(json.dumps(config))


# ---------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("piece_bytes", [32 * 2**20, 700])
@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_bit_identical(tmp_path, monkeypatch, case, piece_bytes):
    monkeypatch.setattr(huggingface, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(safetensors_file, "PIECE_BYTES", piece_bytes)
    source = TESTDATA / case
    import_checkpoint(source, tmp_path / "native")
    export_checkpoint(tmp_path / "native", tmp_path / "one")
    export_checkpoint(tmp_path / "native", tmp_path / "many", max_shard_bytes=60_000)
    want = read_all(source)
    assert_same_tensors(read_all(tmp_path / "one"), want)
    assert_same_tensors(read_all(tmp_path / "many"), want)
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    if sum(v.nbytes for v in want.values()) > 60_000:
        assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    for folder in ("one", "many"):
        assert (tmp_path / folder / "config.json").read_bytes() == (
            source / "config.json"
        ).read_bytes()
    import_checkpoint(tmp_path / "many", tmp_path / "again")
    assert_same_tensors(
        read_all(tmp_path / "again", "params"), read_all(tmp_path / "native", "params")
    )


@pytest.mark.parametrize("case", CASES)
def test_imported_tree_is_the_declared_tree(tmp_path, case):
    """Same names and shapes as freshly initialised parameters have."""
    import_checkpoint(TESTDATA / case, tmp_path / "native")
    tree = load_params(tmp_path / "native")
    config = read_config(tmp_path / "native").config
    if isinstance(config, InteractionConfig):
        specs = interaction_specs(config)
        want = {family: specs[family] for family in ("transformer", "audio", "vision")}
    else:
        want = {"transformer": transformer_specs(config)}
    tree.pop("mtp", None)
    shapes = {name: leaf.shape for name, leaf in flatten(tree).items()}
    assert shapes == {name: spec.shape for name, spec in flatten(want).items()}


def test_values_land_where_they_belong(tmp_path):
    """A few elements followed by hand from released to our tree."""
    import_checkpoint(TESTDATA / "inkling_text", tmp_path / "native")
    released = read_all(TESTDATA / "inkling_text")
    stack = load_params(tmp_path / "native")["transformer"]
    layer = "model.llm.layers"
    # Layer 4 is the third mixture; layer 5 the only global one; layer 6 the sixth local one.
    w13 = released[f"{layer}.4.mlp.experts.w13_weight"]
    assert stack["moe"]["gate"][2, 7, 31, 5] == w13[7, 2 * 5, 31]
    assert stack["moe"]["up"][2, 7, 31, 5] == w13[7, 2 * 5 + 1, 31]
    query = released[f"{layer}.5.attn.wq_du.weight"]
    assert stack["attention_global"]["query"][0, 33, 4, 6] == query[4 * 8 + 6, 33]
    output = released[f"{layer}.6.attn.wo_ud.weight"]
    assert stack["attention_local"]["output"][5, 3, 11, 20] == output[20, 3 * 12 + 11]
    assert stack["block"]["mlp_conv"][6, 17, 3] == released[f"{layer}.6.mlp_sconv.weight"][17, 0, 3]
    assert stack["dense"]["scale"][1] == released[f"{layer}.1.mlp.global_scale"][0]
    assert stack["unembed"][9, 100] == released["model.llm.unembed.weight"][100, 9]


def test_what_is_not_ours_is_carried_along(tmp_path):
    """Multi-token-prediction weights, unknown fields, tokenizer files."""
    source = tmp_path / "source"
    shutil.copytree(TESTDATA / "inkling_audio", source)
    config = json.loads((source / "config.json").read_text())
    config["a_field_of_the_future"] = {"x": [1, 2.5, None]}
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenizer.json").write_text('{"tokens": "ä"}', encoding="utf-8")
    import_checkpoint(source, tmp_path / "native")
    opaque = load_params(tmp_path / "native")["mtp"]
    assert len(opaque) == 2 * 20
    assert opaque["model.mtp.layers.1.input_proj.weight"].dtype == ml_dtypes.bfloat16
    assert read_config(tmp_path / "native").source["a_field_of_the_future"]["x"] == [1, 2.5, None]
    export_checkpoint(tmp_path / "native", tmp_path / "out")
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


# ---------------------------------------------------------------------------- configuration


def test_released_small_model_has_the_published_size():
    """Inkling-Small's published fields give its published parameter count, part by part."""
    folder = TESTDATA.parent / "inkling_small"
    released = read_config(folder)
    stack = released.transformer
    assert stack.count(AttentionKind.GLOBAL) == 7
    assert stack.count(MlpKind.DENSE) == 2
    assert (stack.dense_width, stack.expert_width) == (16384, 2048)
    assert (stack.logits_size, stack.scaling_floor) == (200058, 128000)
    table = released_table(released.config, Names.RELEASED)
    counts = {"llm": 0, "audio": 0, "visual": 0}
    for name, entry in table.items():
        counts[name.split(".")[1]] += math.prod(entry.shape)
    assert counts["llm"] == pytest.approx(263.6552e9, rel=1e-6)
    assert counts["audio"] == pytest.approx(0.00525e9, rel=1e-3)
    assert counts["visual"] == pytest.approx(0.06408e9, rel=1e-4)


def edit(field: str, value):
    def change(config: dict) -> dict:
        *path, last = field.split(".")
        node = config
        for key in path:
            node = node[key]
        node[last] = value
        return config

    return change


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("inkling_text", edit("model_type", "gpt2"), "model_type='gpt2'"),
        ("inkling_text", edit("text_config.q_bias", True), "q_bias=True, only False"),
        ("inkling_text", edit("text_config.gate_activation", "tanh"), "gate_activation='tanh'"),
        ("inkling_text", edit("text_config.n_shared_experts", 0), "n_shared_experts=0"),
        ("inkling_text", edit("text_config.layer_types", ["hybrid"]), "layer_types"),
        ("inkling_text", edit("text_config.mlp_layer_types", ["odd"] * 7), "mlp_layer_types"),
        ("inkling_text", edit("vision_config", None), "vision_config is None"),
        ("llama_tied", edit("rope_scaling", {"rope_type": "yarn"}), "rope_type='yarn'"),
        ("llama_tied", edit("mlp_bias", True), "mlp_bias=True"),
    ],
)
def test_unsupported_configurations_are_named(tmp_path, case, change, message):
    config = change(json.loads((TESTDATA / case / "config.json").read_text()))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


# ---------------------------------------------------------------------------- faults


def _without(name):
    return lambda tensors: {n: v for n, v in tensors.items() if n != name}


def _replaced(name, function):
    return lambda tensors: {**tensors, name: function(tensors.get(name))}


QUERY = "model.llm.layers.3.attn.wq_du.weight"
NORM = "model.llm.norm.weight"
FAULTS = {
    "missing": (_without(QUERY), rf"{QUERY}: missing, want \(48, 40\)"),
    "shape": (
        _replaced(QUERY, lambda v: v[:, :-1].copy()),
        rf"{QUERY}: has shape \(48, 39\), the configuration asks for \(48, 40\)",
    ),
    "transposed": (
        _replaced("model.llm.unembed.weight", lambda v: v.T.copy()),
        r"unembed.weight: has shape \(40, 101\), the configuration asks for \(101, 40\)",
    ),
    "unexpected": (
        _replaced("model.llm.layers.9.extra", lambda _: np.zeros((2, 3), np.float32)),
        r"model.llm.layers.9.extra: unexpected, \(2, 3\)",
    ),
    "types differ": (
        _replaced("model.llm.layers.3.attn_norm.weight", lambda v: v.astype(np.float32)),
        "layers.3.attn_norm.weight is float32 and model.llm.layers.0.attn_norm.weight float16",
    ),
    "many": (
        lambda tensors: {NORM: tensors[NORM]},
        r"tensors do not fit:(\n.*){8}\n  \.\.\. and \d+ more",
    ),
}


@pytest.mark.parametrize("shard_bytes", [10**9, 50_000])
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_tensors_are_named(tmp_path, fault, shard_bytes):
    change, message = FAULTS[fault]
    config = json.loads((TESTDATA / "inkling_text" / "config.json").read_text())
    tensors = change(read_all(TESTDATA / "inkling_text"))
    write_released(tmp_path / "source", tensors, config, shard_bytes)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tmp_path / "source", tmp_path / "native")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def _cut_short(folder: Path) -> None:
    _shard(folder).write_bytes(_shard(folder).read_bytes()[:-5])


def _foreign_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.not.there"] = _shard(folder).name
    path.write_text(json.dumps(index))


def _short_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    del index["weight_map"][NORM]
    path.write_text(json.dumps(index))


SHARD_FAULTS = {
    "lost": (lambda folder: _shard(folder).unlink(), r"should be in model-00002.*is missing"),
    "cut": (_cut_short, r"model-00002.*cut short"),
    "index names more": (_foreign_index, r"model\.not\.there is in the index but not in here"),
    "index names less": (_short_index, rf"holds {NORM}, the index does not"),
    "index unreadable": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
        "no readable weight_map",
    ),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_damaged_shards_are_named(tmp_path, fault):
    change, message = SHARD_FAULTS[fault]
    config = json.loads((TESTDATA / "inkling_text" / "config.json").read_text())
    write_released(tmp_path / "source", read_all(TESTDATA / "inkling_text"), config, 50_000)
    change(tmp_path / "source")
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tmp_path / "source", tmp_path / "native")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_nothing_to_import_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        import_checkpoint(tmp_path, tmp_path / "native")
    shutil.copy(TESTDATA / "llama_tied" / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        import_checkpoint(tmp_path, tmp_path / "native")


def test_export_needs_an_imported_checkpoint_that_fits(tmp_path):
    import_checkpoint(TESTDATA / "llama_tied", tmp_path / "native")
    tree = load_params(tmp_path / "native")
    content = json.loads((tmp_path / "native" / "config.json").read_text())
    settings = {name: content[name] for name in ("imported",)}
    tree["flow"] = {"input": np.zeros((2, 2), np.float32)}
    huggingface_folder = tmp_path / "native" / "huggingface"
    save_params(tmp_path / "tuned", tree, config=settings)
    shutil.copytree(huggingface_folder, tmp_path / "tuned" / "huggingface")
    with pytest.raises(CheckpointError, match="flow/input: has no place in the released format"):
        export_checkpoint(tmp_path / "tuned", tmp_path / "out")
    save_params(tmp_path / "own", {"x": np.ones(3)})
    with pytest.raises(CheckpointError, match="not an imported checkpoint"):
        export_checkpoint(tmp_path / "own", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- partial imports


@pytest.mark.parametrize("reads", [0, 1, 60, 148])
def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch, reads):
    honest, count = Reader.read, 0

    def failing(self, *arguments):
        nonlocal count
        if count == reads:
            raise OSError("unplugged")
        count += 1
        return honest(self, *arguments)

    monkeypatch.setattr(Reader, "read", failing)
    with pytest.raises(OSError, match="unplugged"):
        import_checkpoint(TESTDATA / "inkling_text", tmp_path / "native")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from interaction.checkpoints import huggingface
from interaction.checkpoints.safetensors_file import Reader
honest, count = Reader.read, 0
def killing(self, *arguments):
    global count
    count += 1
    if count == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(self, *arguments)
Reader.read = killing
huggingface.import_checkpoint(sys.argv[1], sys.argv[2])
"""


def test_a_killed_import_leaves_no_target_and_can_be_repeated(tmp_path):
    source, target = TESTDATA / "inkling_text", tmp_path / "native"
    done = subprocess.run([sys.executable, "-c", KILLED, source, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    import_checkpoint(source, target)
    assert load_params(target)["transformer"]["unembed"].shape == (40, 101)


# ---------------------------------------------------------------------------- memory

MEASURED = """
import sys
import numpy as np
from interaction.checkpoints.huggingface import import_checkpoint, export_checkpoint
from interaction.checkpoints.native import open_shards, save_params

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) / 1024

def peak(work):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    work()
    return status("VmHWM") - before

def hoard():
    shards = open_shards(source, "model")
    save_params(target + "_all", {n: r.read(n) for n, r in shards.items()})

source, target = sys.argv[1:]
print(peak(lambda: import_checkpoint(source, target)))
print(peak(lambda: export_checkpoint(target, target + "_out", 20_000_000)))
print(peak(hoard))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_bounded_by_a_tensor(tmp_path):
    """86 MB in tensors of 6.3 MB at most: importing and exporting stays near one of them, and a
    variant that holds everything is seen to hold it."""
    config = json.loads((TESTDATA / "inkling_text_only" / "config.json").read_text())
    config |= {
        "hidden_size": 256,
        "vocab_size": 12_288,
        "num_hidden_layers": 7,
        "layer_types": ["hybrid", *["hybrid_sliding"] * 6],
        "mlp_layer_types": ["sparse"] * 7,
        "moe_intermediate_size": 384,
        "n_routed_experts": 16,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    table = released_table(read_config(tmp_path).config, Names.RELEASED)
    layout = {n: TensorInfo(np.dtype(np.float16), r.shape) for n, r in table.items()}
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "config.json").rename(source / "config.json")
    with ShardedWriter(source, layout, stem="model", max_shard_bytes=30_000_000) as writer:
        for name, info in layout.items():
            writer.write(name, np.full(info.shape, 1.5, np.float16))
    assert len(list(source.glob("*.safetensors"))) > 2
    total = sum(info.nbytes for info in layout.values()) / 2**20
    largest = max(info.nbytes for info in layout.values()) / 2**20
    arguments = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / "native")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    imported, exported, hoarded = map(float, done.stdout.split())
    print(f"{total=:.0f} {largest=:.1f} {imported=:.1f} {exported=:.1f} {hoarded=:.1f} MiB")
    bound = 2 * largest + 8
    assert imported < bound
    assert exported < bound
    assert hoarded > 0.8 * total > 2 * bound
