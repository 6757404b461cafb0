"""Released checkpoints straight onto a mesh: every process reads its own shards.

In: a folder of safetensors under released names, a mesh and a PartitionSpec for every array of our
tree. Out: the tree as global `jax.Array`s, and how much this process read. No process holds more
than its share: of a stacked array one layer at a time is read, the box of the released tensor that
covers a device's shard, cut in memory, and written into its row of the shard, which lies on the
device already (one of 32 MiB at most, or unstacked, is put together on the host). Nothing is sent
between processes.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interaction.checkpoints.huggingface import (
    OPAQUE,
    check_released,
    names_of,
    target_layout,
    with_opaque,
)
from interaction.checkpoints.huggingface_config import read_config
from interaction.checkpoints.huggingface_names import Axes, Part, Released, Rows, released_table
from interaction.checkpoints.native import close_shards, flatten, open_shards, unflatten
from interaction.checkpoints.safetensors_file import (
    PIECE_BYTES,
    CheckpointError,
    Reader,
    TensorInfo,
)

Box = tuple[slice, ...]
_ROW_STEP = {Rows.EVEN: (2, 0), Rows.ODD: (2, 1)}


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process took of a checkpoint.

    Attributes:
        wanted: bytes of its shards, in the checkpoint's types; a shard that several of its devices
            hold counts once.
        read: bytes read from files.
        total: bytes of all arrays together.
    """

    wanted: int
    read: int
    total: int


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One array of our tree and where its shards go.

    Attributes:
        info: type and shape in the checkpoint.
        dtype: type on the device.
        regions: box of the array -> this process's devices that hold it.
    """

    info: TensorInfo
    dtype: np.dtype
    sharding: NamedSharding
    regions: Mapping[tuple[tuple[int, int], ...], list[Any]]


def read_sharded(
    source: Path | str,
    mesh: Mesh,
    specs: Mapping,
    *,
    dtype_of: Callable[[str, np.dtype], np.dtype] = lambda _, stored: stored,
) -> tuple[dict, Share]:
    """The backbone of a released checkpoint, spread over a mesh.

    Args:
        source: folder with `config.json` and the tensors, seen by every process.
        mesh: of the devices of all processes.
        specs: nested dict of `PartitionSpec` by our names; it may hold more than the release has.
        dtype_of: ``(path joined by "/", type in the file) -> type on the device``.

    Returns:
        Nested dict of global arrays (weights of multi-token prediction left out), and the share of
        this process.

    Raises:
        CheckpointError: tensors do not fit the configuration, an array has no spec, or a spec does
            not divide its array.
    """
    source = Path(source)
    released = read_config(source)
    shards = open_shards(source, "model")
    try:
        table = released_table(released.config, names_of(released, shards))
        check_released(with_opaque(table, released, shards), shards, source)
        layout = target_layout(table, shards)
        leaves = _leaves(layout, mesh, flatten(specs), dtype_of)
        flat: dict[str, jax.Array] = {}
        for targets, entries in _groups(table):
            flat |= _load({t: leaves[t] for t in targets}, entries, shards)
        share = Share(
            wanted=sum(_bytes(leaf, box) for leaf in leaves.values() for box in leaf.regions),
            read=sum(reader.bytes_read for reader in set(shards.values())),
            total=sum(info.nbytes for info in layout.values()),
        )
    finally:
        close_shards(shards)
    assert not any(name.startswith(f"{OPAQUE}/") for name in flat)
    return unflatten(flat), share


def _leaves(layout: Mapping[str, TensorInfo], mesh, specs, dtype_of) -> dict[str, _Leaf]:
    out = {}
    for name, info in layout.items():
        spec = specs.get(name)
        if not isinstance(spec, PartitionSpec):
            raise CheckpointError(f"specs has {spec!r} for {name}, want a PartitionSpec")
        sharding = NamedSharding(mesh, spec)
        try:
            sharding.shard_shape(info.shape)
        except ValueError as error:
            raise CheckpointError(f"{name}: {spec} does not divide {info.shape}") from error
        regions = defaultdict(list)
        for device, index in sharding.addressable_devices_indices_map(info.shape).items():
            sides = zip(index or (), info.shape, strict=True)
            regions[tuple(s.indices(n)[:2] for s, n in sides)].append(device)
        out[name] = _Leaf(info, dtype_of(name, info.dtype), sharding, dict(regions))
    return out


def _bytes(leaf: _Leaf, box: tuple[tuple[int, int], ...]) -> int:
    return math.prod(stop - start for start, stop in box) * leaf.info.dtype.itemsize


def _groups(table: Mapping[str, Released]) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Arrays of ours that are cut from the same tensors, with these: layer -> (name, parts)."""
    groups: dict[tuple[str, ...], dict[int | None, tuple[str, Released]]] = defaultdict(dict)
    for name, entry in table.items():
        layers = {part.layer for part in entry.parts}
        (layer,) = layers
        groups[tuple(part.target for part in entry.parts)][layer] = name, entry
    yield from groups.items()


def _load(leaves: Mapping[str, _Leaf], entries: Mapping, shards: Mapping[str, Reader]) -> dict:
    """The global arrays of one group."""
    filled = {
        (target, region): _Shard(leaf, devices, stacked=None not in entries)
        for target, leaf in leaves.items()
        for region, devices in leaf.regions.items()
    }
    for layer in sorted(entries, key=lambda layer: layer or 0):
        name, entry = entries[layer]
        blocks: dict[tuple, np.ndarray] = {}  # gate and up are cut from the same one
        for part in entry.parts:
            for region in leaves[part.target].regions:
                box = tuple(slice(*side) for side in region)
                row = ()
                if layer is not None:
                    rows, *inner = box
                    if not rows.start <= layer < rows.stop:
                        continue
                    box, row = tuple(inner), (layer - rows.start,)
                wanted = covering(part, box, entry.shape)
                key = tuple((s.start, s.stop) for s in wanted)
                if key not in blocks:
                    blocks[key] = shards[name].read_box(name, wanted)
                filled[part.target, region].put(cut(part, box, entry.shape, blocks[key]), row)
    out: dict[str, jax.Array] = {}
    for target, leaf in leaves.items():
        arrays = [a for region in leaf.regions for a in filled[target, region].arrays()]
        out[target] = jax.make_array_from_single_device_arrays(
            leaf.info.shape, leaf.sharding, arrays
        )
    return out


class _Shard:
    """One shard of an array while it is filled: on the host if small, else on its devices."""

    def __init__(self, leaf: _Leaf, devices: list[Any], stacked: bool):
        shape = leaf.sharding.shard_shape(leaf.info.shape)
        on_host = not stacked or math.prod(shape) * leaf.dtype.itemsize <= PIECE_BYTES
        self._devices = devices
        self._host = np.empty(shape, leaf.dtype) if on_host else None
        self._stacks = [] if on_host else [jnp.zeros(shape, leaf.dtype, device=d) for d in devices]

    def put(self, values: np.ndarray, row: tuple[int, ...]) -> None:
        """Fill row ``row[0]``, or everything."""
        if self._host is not None:
            self._host[row] = values
            return
        values = np.ascontiguousarray(values)
        self._stacks = [_put(stack, values, np.int32(row[0])) for stack in self._stacks]
        jax.block_until_ready(self._stacks)  # one layer at a time is on its way

    def arrays(self) -> list[jax.Array]:
        """The shard on each of its devices."""
        if self._host is None:
            return self._stacks
        return [jax.device_put(self._host, device) for device in self._devices]


@partial(jax.jit, donate_argnums=0)
def _put(stack: jax.Array, layer: jax.Array, row: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), row, 0)


# ---------------------------------------------------------------------------- boxes


def covering(part: Part, box: Box, released: tuple[int, ...]) -> Box:
    """The box of a released tensor that holds `box` of the place it fills.

    Args:
        part: how the released tensor becomes that place (`Part.view`).
        box: of the place; without the layer's axis.
        released: shape of the released tensor.
    """
    seen = _seen_shape(part, released)
    out: list[slice] = [slice(0, n) for n in seen]
    for theirs, ours in _matching(seen, part.shape):
        if not ours:
            continue
        start, stop = _flat_range(box, ours, part.shape)
        wide = [axis for axis in theirs if seen[axis] > 1]
        assert len(wide) <= 1, (part, released)  # a released axis is split, never two merged
        if wide:
            out[wide[0]] = slice(start, stop)
    if part.axes is Axes.SWAP:
        out[-1], out[-2] = out[-2], out[-1]
    if part.rows in _ROW_STEP:
        out[-2] = slice(2 * out[-2].start, 2 * out[-2].stop)
    elif part.rows is Rows.SECOND_HALF:
        half = released[-2] // 2
        out[-2] = slice(half + out[-2].start, half + out[-2].stop)
    return tuple(out)


def cut(part: Part, box: Box, released: tuple[int, ...], block: np.ndarray) -> np.ndarray:
    """`box` of a place, out of the `covering` block of its released tensor."""
    if part.rows in _ROW_STEP:
        step, first = _ROW_STEP[part.rows]
        block = block[..., first::step, :]
    if part.axes is Axes.SWAP:
        block = block.swapaxes(-1, -2)
    shape, inside = list(part.shape), [slice(0, n) for n in part.shape]
    for _, ours in _matching(_seen_shape(part, released), part.shape):
        lead = _lead(ours, part.shape)
        for axis in ours:
            if axis == lead:
                shape[axis] = box[axis].stop - box[axis].start
                inside[axis] = slice(0, shape[axis])
            else:
                inside[axis] = box[axis]
    return block.reshape(shape)[tuple(inside)]


def _seen_shape(part: Part, released: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a released tensor after rows are chosen and axes exchanged."""
    seen = list(released)
    if part.rows is not Rows.ALL:
        seen[-2] //= 2
    if part.axes is Axes.SWAP:
        seen[-1], seen[-2] = seen[-2], seen[-1]
    return tuple(seen)


def _matching(
    theirs: tuple[int, ...], ours: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """Axes that a reshape from `theirs` to `ours` turns into one another."""
    i = j = 0
    while i < len(theirs) or j < len(ours):
        left, right = [i] if i < len(theirs) else [], [j] if j < len(ours) else []
        i, j = i + len(left), j + len(right)
        while (a := math.prod(theirs[x] for x in left)) != (b := math.prod(ours[y] for y in right)):
            if a < b:
                left.append(i)
                i += 1
            else:
                right.append(j)
                j += 1
        yield left, right


def _lead(axes: list[int], shape: tuple[int, ...]) -> int | None:
    """The first of `axes` that is wider than 1: the only one that a box narrows when reading."""
    return next((axis for axis in axes if shape[axis] > 1), axes[0] if axes else None)


def _flat_range(box: Box, axes: list[int], shape: tuple[int, ...]) -> tuple[int, int]:
    lead = _lead(axes, shape)
    assert lead is not None
    inner = math.prod(shape[axis] for axis in axes if axis > lead)
    return box[lead].start * inner, box[lead].stop * inner
