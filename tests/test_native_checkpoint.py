"""The native checkpoint format and the safetensors files under it.

In: small trees and damaged files. Out: what is saved is what is loaded, the official library reads
our files, and every fault is one error that names what is wrong and leaves nothing behind.
"""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from interaction.checkpoints import native
from interaction.checkpoints.native import (
    flatten,
    load_params,
    read_native_config,
    save_params,
    unflatten,
)
from interaction.checkpoints.safetensors_file import CheckpointError, Reader, TensorInfo, Writer


def tree():
    rng = np.random.default_rng(3)
    return {
        "a": {
            "wide": rng.normal(size=(3, 5, 2)),
            "bfloat16": rng.normal(size=(7, 4)).astype(ml_dtypes.bfloat16),
            "deep": {"half": rng.normal(size=6).astype(np.float16)},
        },
        "step": np.int32(12),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
        "jax": jnp.arange(11, dtype=jnp.float32),
        "name.with.dots": np.arange(9, dtype=np.uint8),
    }


@pytest.mark.parametrize("shard_bytes", [10**9, 100, 1])
def test_saved_is_loaded(tmp_path, shard_bytes):
    save_params(tmp_path / "c", tree(), config={"width": 5}, max_shard_bytes=shard_bytes)
    loaded, wanted = flatten(load_params(tmp_path / "c")), flatten(tree())
    assert loaded.keys() == wanted.keys()
    for name, leaf in loaded.items():
        want = np.asarray(wanted[name])
        assert leaf.dtype == want.dtype and leaf.shape == want.shape, name
        assert leaf.tobytes() == want.tobytes(), name
    assert read_native_config(tmp_path / "c")["width"] == 5
    files = list((tmp_path / "c").glob("*.safetensors"))
    assert (len(files) > 1) == (shard_bytes < 10**9)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_cast_on_loading_touches_floats_only(tmp_path):
    save_params(tmp_path / "c", tree())
    loaded = flatten(load_params(tmp_path / "c", dtype=np.float32))
    kinds = {name: leaf.dtype.name for name, leaf in loaded.items()}
    assert kinds["a/wide"] == kinds["a/bfloat16"] == kinds["a/deep/half"] == "float32"
    assert (kinds["step"], kinds["mask"], kinds["name.with.dots"]) == ("int32", "bool", "uint8")


def test_loaded_arrays_are_mapped_and_read_only(tmp_path):
    save_params(tmp_path / "c", tree())
    leaf = load_params(tmp_path / "c")["a"]["wide"]
    assert not leaf.flags.owndata and not leaf.flags.writeable


def test_official_library_agrees(tmp_path):
    flat = {n: np.asarray(v) for n, v in flatten(tree()).items()}
    save_params(tmp_path / "c", tree())
    theirs = safetensors.numpy.load_file(tmp_path / "c" / "params.safetensors")
    for name, want in flat.items():
        assert theirs[name].tobytes() == want.tobytes(), name
    safetensors.numpy.save_file(flat, tmp_path / "theirs.safetensors", {"format": "np"})
    with Reader(tmp_path / "theirs.safetensors") as reader:
        assert reader.metadata == {"format": "np"}
        for name, want in flat.items():
            assert reader.read(name).tobytes() == want.tobytes(), name
        assert reader.read("a/wide", 1, 3).tobytes() == flat["a/wide"][1:3].tobytes()
        assert reader.read_rows("a/wide", 2, 1, 4).tobytes() == flat["a/wide"][2, 1:4].tobytes()


def test_flatten_and_back():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert unflatten(flatten(nested)) == nested
    with pytest.raises(CheckpointError, match="'a/b'"):
        flatten({"a/b": 1})


def test_existing_target_is_kept(tmp_path):
    save_params(tmp_path / "c", {"x": np.ones(2)})
    with pytest.raises(CheckpointError, match="exists"):
        save_params(tmp_path / "c", {"x": np.zeros(2)})
    assert load_params(tmp_path / "c")["x"].tolist() == [1, 1]


@pytest.mark.parametrize("moment", ["write", "close"])
def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch, moment):
    honest = getattr(Writer, moment)

    def fail(*arguments):
        honest(*arguments)
        raise OSError("disk full")

    monkeypatch.setattr(Writer, moment, fail)
    with pytest.raises(OSError, match="disk full"):
        save_params(tmp_path / "c", tree())
    assert list(tmp_path.iterdir()) == []


def test_unwritten_bytes_are_an_error(tmp_path):
    layout = {"x": TensorInfo(np.dtype(np.float32), (2, 3))}
    writer = Writer(tmp_path / "f", layout)
    writer.write("x", np.zeros(3, np.float32), (1,))
    with pytest.raises(CheckpointError, match=r"never written.*'x': 12"):
        writer.close()


@pytest.mark.parametrize(
    ("values", "index", "message"),
    [
        (np.zeros((2, 4), np.float32), (), "does not fit a tensor of"),
        (np.zeros(2, np.float32), (0,), "does not fit a tensor of"),
        (np.zeros((2, 3), np.float16), (), "values are float16, the file has float32"),
    ],
)
def test_misfitting_pieces_are_refused(tmp_path, values, index, message):
    layout = {"x": TensorInfo(np.dtype(np.float32), (2, 3))}
    writer = Writer(tmp_path / "f", layout)
    with pytest.raises(CheckpointError, match=message):
        writer.write("x", values, index)
    with pytest.raises(CheckpointError, match="never written"):
        writer.close()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _scramble(path):
    path.write_bytes(b"\xff" * 64)


def _not_json(path):
    path.write_bytes((4).to_bytes(8, "little") + b"{{{{")


def _wrong_size(path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def _unknown_type(path):
    header = json.dumps({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "cut short"),
        (_scramble, "not safetensors"),
        (_not_json, "not JSON"),
        (_wrong_size, "needs 12 bytes, the header gives it 8"),
        (_unknown_type, "dtype F4"),
    ],
)
def test_damaged_file_is_named(tmp_path, damage, message):
    save_params(tmp_path / "c", {"x": np.ones(4, np.float32)})
    damage(tmp_path / "c" / "params.safetensors")
    with pytest.raises(CheckpointError, match=rf"params\.safetensors.*{message}"):
        load_params(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "message"),
    [({"format": "other"}, "format='other'"), ({"format": "interaction", "version": 9}, "9")],
)
def test_other_formats_are_refused(tmp_path, content, message):
    save_params(tmp_path / "c", {"x": np.ones(4, np.float32)})
    (tmp_path / "c" / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_params(tmp_path / "c")


def test_shard_plan_never_splits_a_tensor():
    layout = {f"t{i}": TensorInfo(np.dtype(np.uint8), (size,)) for i, size in enumerate([3, 9, 2])}
    plan = native.plan_shards(layout, 5, "params")
    assert [list(group) for group in plan.values()] == [["t0"], ["t1"], ["t2"]]
    assert list(native.plan_shards(layout, 14, "params")) == ["params.safetensors"]
    with pytest.raises(CheckpointError, match="max_shard_bytes=0"):
        native.plan_shards(layout, 0, "params")
