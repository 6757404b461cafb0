"""This project's own checkpoint: a folder with `params.safetensors` and `config.json`.

In: a tree of nested dicts with arrays at the leaves. Out: the same tree, memory-mapped. Tensors
are stored under their path joined by "/", in their own dtype; big trees are split into
`params-00001-of-00003.safetensors` with an index. A folder appears under its name only when it is
complete: everything is written into a hidden sibling and renamed at the end.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interaction.checkpoints.safetensors_file import (
    CheckpointError,
    Reader,
    TensorInfo,
    Writer,
)

FORMAT = "interaction"
VERSION = 1
DEFAULT_SHARD_BYTES = 5 * 10**9


@contextlib.contextmanager
def fresh_folder(target: Path | str) -> Iterator[Path]:
    """A hidden folder that becomes `target` if the block ends well, and vanishes if it does not.

    Raises:
        CheckpointError: `target` exists already.
    """
    target = Path(target)
    if target.exists():
        raise CheckpointError(f"target={target} exists; give a new name or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts to ``{"a/b": leaf}``; an empty dict leaves no trace."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise CheckpointError(f"key {key!r} must be a non-empty string without '/'")
        if isinstance(value, Mapping):
            out |= {f"{key}/{name}": leaf for name, leaf in flatten(value).items()}
        else:
            out[key] = value
    return out


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    out: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = out
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return out


def plan_shards(
    layout: Mapping[str, TensorInfo], max_shard_bytes: int, stem: str
) -> dict[str, dict[str, TensorInfo]]:
    """File name -> tensors in it, in order of name; a tensor is never split.

    Args:
        layout: every tensor.
        max_shard_bytes: a file holds no more than this unless one tensor alone is bigger.
        stem: "params" or "model".
    """
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes={max_shard_bytes} must be positive")
    groups: list[dict[str, TensorInfo]] = [{}]
    filled = 0
    for name in sorted(layout):
        size = layout[name].nbytes
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = layout[name]
        filled += size
    if len(groups) == 1:
        return {f"{stem}.safetensors": groups[0]}
    return {
        f"{stem}-{number:05}-of-{len(groups):05}.safetensors": group
        for number, group in enumerate(groups, 1)
    }


class ShardedWriter:
    """Several safetensors files and their index, written as one. Use as a context."""

    def __init__(
        self,
        folder: Path,
        layout: Mapping[str, TensorInfo],
        *,
        stem: str,
        max_shard_bytes: int = DEFAULT_SHARD_BYTES,
        metadata: Mapping[str, str] | None = None,
    ):
        shards = plan_shards(layout, max_shard_bytes, stem)
        self._writers = {f: Writer(folder / f, group, metadata) for f, group in shards.items()}
        self._home = {name: file for file, group in shards.items() for name in group}
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": sum(info.nbytes for info in layout.values())},
                "weight_map": dict(sorted(self._home.items())),
            }
            text = json.dumps(index, indent=2) + "\n"
            (folder / f"{stem}.safetensors.index.json").write_text(text)

    def write(self, name: str, values: np.ndarray, index: tuple[int, ...] = ()) -> None:
        """As `Writer.write`."""
        self._writers[self._home[name]].write(name, values, index)

    def __enter__(self) -> "ShardedWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        with contextlib.ExitStack() as stack:  # closes every file even if one of them objects
            for writer in self._writers.values():
                stack.push(writer.__exit__)
            if error[1] is not None:
                raise error[1]


def open_shards(folder: Path | str, stem: str) -> dict[str, Reader]:
    """Name of every tensor in `folder` -> the open file that holds it.

    Raises:
        CheckpointError: no such file, a missing shard, or an index that disagrees with a shard.
    """
    folder = Path(folder)
    single = folder / f"{stem}.safetensors"
    index_path = folder / f"{stem}.safetensors.index.json"
    if not index_path.exists():
        if not single.exists():
            raise CheckpointError(f"{folder}: neither {single.name} nor {index_path.name} is there")
        reader = Reader(single)
        return dict.fromkeys(reader.tensors, reader)
    try:
        weight_map = json.loads(index_path.read_text())["weight_map"]
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{index_path}: no readable weight_map: {error!r}") from error
    readers: dict[str, Reader] = {}
    out = {}
    try:
        for name, file in weight_map.items():
            if file not in readers:
                if not (folder / file).exists():
                    raise CheckpointError(f"{folder}: {name} should be in {file}, which is missing")
                readers[file] = Reader(folder / file)
            if name not in readers[file].tensors:
                raise CheckpointError(f"{folder / file}: {name} is in the index but not in here")
            out[name] = readers[file]
        for file, reader in readers.items():
            for name in reader.tensors:
                if weight_map.get(name) != file:
                    raise CheckpointError(f"{folder / file}: holds {name}, the index does not")
    except BaseException:
        for reader in readers.values():
            reader.close()
        raise
    return out


def close_shards(shards: Mapping[str, Reader]) -> None:
    """Close every file of `open_shards`."""
    for reader in set(shards.values()):
        reader.close()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """`config.json` of a native checkpoint."""
    content = {"format": FORMAT, "version": VERSION, **config}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")


def read_native_config(path: Path | str) -> dict[str, Any]:
    """Content of `config.json`, checked to be of this format and version."""
    file = Path(path) / "config.json"
    if not file.exists():
        raise CheckpointError(f"{path}: no config.json{_of_a_training(Path(path))}")
    content = json.loads(file.read_text())
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CheckpointError(
            f"{file}: format={content.get('format')!r} version={content.get('version')!r}, "
            f"want {FORMAT!r} {VERSION}"
        )
    return content


def _of_a_training(folder: Path) -> str:
    """What to load in place of a folder in which a training keeps its state."""
    steps = [int(p.parent.name) for p in folder.glob("*/state") if p.parent.name.isdecimal()]
    if not steps:
        return ""
    return (
        f"; it holds the state of a training at step {max(steps)}, whose averaged parameters are "
        "in final, latest or best beside it, and in no native checkpoint where the run began with "
        "a release"
    )


def save_params(
    path: Path | str,
    tree: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> None:
    """Write a tree of arrays as a new folder `path`.

    Args:
        path: must not exist.
        tree: nested dicts; leaves are numpy or JAX arrays (moved to the host one at a time).
        config: goes into `config.json` as it is (JSON values).
        max_shard_bytes: of one file.

    Raises:
        CheckpointError: `path` exists, or a key or dtype cannot be stored.
    """
    flat = flatten(tree)
    layout = {n: TensorInfo(np.dtype(v.dtype), tuple(v.shape)) for n, v in flat.items()}
    with fresh_folder(path) as folder:
        with ShardedWriter(
            folder, layout, stem="params", max_shard_bytes=max_shard_bytes
        ) as writer:
            for name, leaf in flat.items():
                writer.write(name, np.asarray(leaf))
        write_config(folder, config or {})


def load_params(path: Path | str, *, dtype: Any = None) -> dict[str, Any]:
    """The tree saved in folder `path`.

    Args:
        path: from `save_params` or `huggingface.import_checkpoint`.
        dtype: floating-point leaves are cast to it (which reads them); None: read-only arrays
            mapped from the files, nothing is read yet.

    Returns:
        Nested dicts of numpy arrays.
    """
    read_native_config(path)
    shards = open_shards(path, "params")
    flat = {}
    try:
        for name, reader in shards.items():
            leaf = _mapped(reader, name)
            if dtype is not None and np.issubdtype(_kind(leaf.dtype), np.floating):
                leaf = leaf.astype(dtype)
            flat[name] = leaf
    finally:
        close_shards(shards)
    return unflatten(flat)


def _mapped(reader: Reader, name: str) -> np.ndarray:
    info = reader.tensors[name]
    if info.nbytes == 0:
        return np.empty(info.shape, info.dtype)
    raw = np.memmap(reader.path, np.uint8, "r", reader.offsets[name], (info.nbytes,))
    return raw.view(np.ndarray).view(info.dtype).reshape(info.shape)


def _kind(dtype: np.dtype) -> np.dtype:
    """The extension floats (bfloat16, float8) count as floats."""
    return np.dtype(np.float32) if dtype.kind == "V" else dtype
