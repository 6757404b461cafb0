"""Released checkpoints in, released checkpoints out.

In: a folder of safetensors under released names (one file or shards with an index) and its
`config.json`. Out: a native checkpoint (`native.py`) whose tree is this project's, stacked by
kind; and back, bit for bit. Tensors are read and written piece by piece: peak memory is about one
tensor (for expert weights: one 32 MiB piece), whatever the size of the checkpoint. Weights of
multi-token prediction and fields this project does not use are carried along untouched.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from interaction.checkpoints.huggingface_config import (
    SOURCE_FOLDER,
    ReleasedConfig,
    read_config,
)
from interaction.checkpoints.huggingface_names import (
    Axes,
    Names,
    Part,
    Released,
    Rows,
    Table,
    released_table,
)
from interaction.checkpoints.native import (
    DEFAULT_SHARD_BYTES,
    ShardedWriter,
    close_shards,
    fresh_folder,
    load_params,
    open_shards,
    read_native_config,
    write_config,
)
from interaction.checkpoints.safetensors_file import (
    PIECE_BYTES,
    CheckpointError,
    Reader,
    TensorInfo,
)

__all__ = [
    "CheckpointError",
    "ReleasedConfig",
    "export_checkpoint",
    "import_checkpoint",
    "load_params",
    "read_config",
]

OPAQUE = "mtp"
_OPAQUE_PREFIX = "model.mtp."
_SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
_SHOWN = 8  # problems listed in one error


def import_checkpoint(source: Path | str, target: Path | str) -> None:
    """Turn a released checkpoint into a native one.

    Args:
        source: folder with `config.json` and `model.safetensors`, or shards with
            `model.safetensors.index.json`.
        target: new folder; appears only when the import is complete.

    Raises:
        CheckpointError: naming every tensor (the first eight) that is missing, unexpected or of
            another shape than the configuration asks for, with both shapes; or `target` exists.
    """
    source = Path(source)
    released = read_config(source)
    shards = open_shards(source, "model")
    try:
        names = names_of(released, shards)
        table = with_opaque(released_table(released.config, names), released, shards)
        check_released(table, shards, source)
        layout = target_layout(table, shards)
        with fresh_folder(target) as folder:
            with ShardedWriter(folder, layout, stem="params") as writer:
                for name, entry in table.items():
                    for start, rows in _pieces(shards[name], name, entry):
                        _write_parts(writer, entry, start, rows)
            _copy_side_files(source, folder / SOURCE_FOLDER)
            write_config(folder, {"imported": {"names": names.value}})
    finally:
        close_shards(shards)


def export_checkpoint(
    source: Path | str, target: Path | str, max_shard_bytes: int = DEFAULT_SHARD_BYTES
) -> None:
    """Turn an imported checkpoint back into the released format.

    Args:
        source: folder from `import_checkpoint`.
        target: new folder; appears only when the export is complete.
        max_shard_bytes: of one file; above it, shards and an index are written.

    Raises:
        CheckpointError: `source` was not imported, or its tree does not fit its configuration.
    """
    source = Path(source)
    native = read_native_config(source)
    if "imported" not in native:
        raise CheckpointError(f"{source}: not an imported checkpoint, it cannot be exported")
    names = Names(native["imported"]["names"])
    released = read_config(source)
    shards = open_shards(source, "params")
    try:
        table = released_table(released.config, names)
        for place, reader in shards.items():
            if place.startswith(f"{OPAQUE}/"):
                name = place.removeprefix(f"{OPAQUE}/")
                shape = reader.tensors[place].shape
                table[name] = Released(shape, (Part(place, shape),))
        _check_targets(table, shards, source)
        layout = {n: TensorInfo(_dtype_of(e, shards), e.shape) for n, e in table.items()}
        with fresh_folder(target) as folder:
            with ShardedWriter(
                folder,
                layout,
                stem="model",
                max_shard_bytes=max_shard_bytes,
                metadata={"format": "pt"},
            ) as writer:
                for name, entry in table.items():
                    for start, rows in _gathered(entry, layout[name], shards):
                        writer.write(name, rows, (start,) if entry.shape else ())
            _copy_side_files(source / SOURCE_FOLDER, folder)
    finally:
        close_shards(shards)


# ---------------------------------------------------------------------------- in


def names_of(released: ReleasedConfig, shards: Mapping[str, Reader]) -> Names:
    """Which set of names the tensors go by."""
    if released.model_type == "llama":
        return Names.LLAMA
    if released.model_type == "inkling_mm_model":
        return Names.RELEASED
    inside = any(name.startswith("model.llm.") for name in shards)
    return Names.RELEASED if inside else Names.MODULES


def with_opaque(table: Table, released: ReleasedConfig, shards: Mapping[str, Reader]) -> Table:
    """`table` and the tensors that are carried along untouched."""
    if released.model_type == "llama":
        return table
    opaque = {}
    for name, reader in shards.items():
        if name.startswith(_OPAQUE_PREFIX):
            shape = reader.tensors[name].shape
            opaque[name] = Released(shape, (Part(f"{OPAQUE}/{name}", shape),))
    return table | opaque


def check_released(table: Table, shards: Mapping[str, Reader], source: Path) -> None:
    """That the files hold the table's tensors in their shapes and nothing else."""
    problems = []
    for name, entry in table.items():
        if name not in shards:
            problems.append(f"{name}: missing, want {entry.shape}")
        elif (shape := shards[name].tensors[name].shape) != entry.shape:
            problems.append(f"{name}: has shape {shape}, the configuration asks for {entry.shape}")
    for name in sorted(set(shards) - set(table)):
        problems.append(f"{name}: unexpected, {shards[name].tensors[name].shape}")
    _raise(problems, source)


def _raise(problems: list[str], where: Path) -> None:
    if problems:
        more = len(problems) - _SHOWN
        tail = [f"... and {more} more"] if more > 0 else []
        lines = "\n  ".join(problems[:_SHOWN] + tail)
        raise CheckpointError(f"{where}: {len(problems)} tensors do not fit:\n  {lines}")


def target_layout(table: Table, shards: Mapping[str, Reader]) -> dict[str, TensorInfo]:
    """Type and shape of every array of our tree; layers of a stack must agree on the type."""
    layers: dict[str, int] = {}
    first: dict[str, tuple[str, np.dtype, Part]] = {}
    for name, entry in table.items():
        dtype = shards[name].tensors[name].dtype
        for part in entry.parts:
            layers[part.target] = max(layers.get(part.target, 0), (part.layer or 0) + 1)
            other, expected, _ = first.setdefault(part.target, (name, dtype, part))
            if dtype != expected:
                raise CheckpointError(
                    f"{name} is {dtype} and {other} {expected}: they share {part.target}, "
                    "which has one type"
                )
    out = {}
    for target, (_, dtype, part) in first.items():
        stack = () if part.layer is None else (layers[target],)
        out[target] = TensorInfo(dtype, (*stack, *part.shape))
    return out


def _divisible(entry: Released) -> bool:
    """Whether rows of the first axis can be handled by themselves."""
    keep = all(p.axes is Axes.KEEP and p.rows is Rows.ALL for p in entry.parts)
    same = all(len(p.shape) == len(entry.shape) for p in entry.parts)
    return len(entry.shape) == 3 or (keep and same and len(entry.shape) > 1)


def _pieces(reader: Reader, name: str, entry: Released) -> Iterator[tuple[int, np.ndarray]]:
    """A released tensor as (first row, rows), in pieces where it can be cut."""
    info = reader.tensors[name]
    if not _divisible(entry) or info.nbytes <= PIECE_BYTES:
        yield 0, reader.read(name)
        return
    step = info.rows_per(PIECE_BYTES)
    for start in range(0, info.shape[0], step):
        yield start, reader.read(name, start, min(start + step, info.shape[0]))


def _write_parts(writer: ShardedWriter, entry: Released, start: int, rows: np.ndarray) -> None:
    for part in entry.parts:
        values = part.view(rows)
        index = () if part.layer is None else (part.layer,)
        if values.shape != part.shape:
            index = (*index, start)
        writer.write(part.target, values, index)


def _copy_side_files(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in _SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


# ---------------------------------------------------------------------------- out


def _dtype_of(entry: Released, shards: Mapping[str, Reader]) -> np.dtype:
    target = entry.parts[0].target
    return shards[target].tensors[target].dtype


def _check_targets(table: Table, shards: Mapping[str, Reader], source: Path) -> None:
    layers: dict[str, int] = {}
    shapes: dict[str, Part] = {}
    for entry in table.values():
        for part in entry.parts:
            shapes[part.target] = part
            layers[part.target] = max(layers.get(part.target, 0), (part.layer or 0) + 1)
    problems = []
    for target, part in shapes.items():
        want = part.shape if part.layer is None else (layers[target], *part.shape)
        if target not in shards:
            problems.append(f"{target}: missing, want {want}")
        elif (shape := shards[target].tensors[target].shape) != want:
            problems.append(f"{target}: has shape {shape}, the configuration asks for {want}")
    for target in sorted(set(shards) - set(shapes)):
        problems.append(f"{target}: has no place in the released format")
    _raise(problems, source)


def _gathered(
    entry: Released, info: TensorInfo, shards: Mapping[str, Reader]
) -> Iterator[tuple[int, np.ndarray]]:
    """A released tensor put together from our tree, as (first row, rows)."""
    total = info.shape[0] if info.shape else 1
    cut = _divisible(entry) and info.nbytes > PIECE_BYTES
    step = info.rows_per(PIECE_BYTES) if cut else total
    for start in range(0, total, step):
        count = min(step, total - start)
        rows = np.empty((count, *info.shape[1:]) if info.shape else (), info.dtype)
        for part in entry.parts:
            view = part.view(rows)
            view[...] = _read_part(shards[part.target], part, start, view.shape)
        yield start, rows


def _read_part(reader: Reader, part: Part, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """One layer of a stacked array, or `shape[0]` rows of it from row `start`."""
    whole = shape == part.shape
    if part.layer is None:
        return reader.read(part.target, start, None if whole else start + shape[0])
    if whole:
        return reader.read(part.target, part.layer, part.layer + 1)[0]
    return reader.read_rows(part.target, part.layer, start, start + shape[0])
