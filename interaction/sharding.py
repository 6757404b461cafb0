"""The mesh, and where every array lies on it.

In: a `MeshConfig`. Out: a `jax.sharding.Mesh` with five named axes, always all of them and in one
order, and partition specs made from logical axis names (`RULES`). Programs are traced under
``with jax.set_mesh(mesh)``; all axes are Auto, so the compiler places what is not said here. What
must not be left to it, the way of slots to their experts, is `models.expert_parallel`.

| axis         | what it splits                                                              |
|--------------|-----------------------------------------------------------------------------|
| ``data``     | lanes or conversations; parameters are repeated along it                    |
| ``fsdp``     | lanes or conversations, and the width of parameters, gathered where used    |
| ``expert``   | lanes or conversations, and the experts: slots travel to them and back      |
| ``tensor``   | heads, feed-forward width, vocabulary                                       |
| ``sequence`` | slots of a training sequence, and slots of a live session's global memory   |
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, FSDP, EXPERT, TENSOR, SEQUENCE = AXES = ("data", "fsdp", "expert", "tensor", "sequence")
BATCH = (DATA, FSDP, EXPERT)  # the axes that share lanes or conversations


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices stand along each axis (the table above); their product is all of them."""

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self):
        for name in AXES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Devices along each of `AXES`."""
        return tuple(getattr(self, name) for name in AXES)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return math.prod(self.shape)

    @property
    def batch_shards(self) -> int:
        """Parts that lanes or conversations are cut into."""
        return math.prod(getattr(self, name) for name in BATCH)


class Purpose(enum.Enum):
    """What parameters are laid out for.

    TRAINING: the width of those that are not experts, and the ``inner`` axis of the heads and
    stems that no rule splits, lie over ``fsdp`` and ``expert`` together: the ``expert`` axis shares
    a batch, so it can share their optimiser state as well.
    SERVING: the width over ``fsdp`` alone, ``inner`` whole: a live call does not wait for weights
    from other devices.
    """

    TRAINING = "training"
    SERVING = "serving"


# Logical axis -> mesh axes. Parameters name theirs in `models.parameters`, activations in
# `constrain`. Along an array's axes from the left, a mesh axis is used once, and only where it
# divides the size; an axis that is not here is never split.
RULES: dict[str, tuple[str, ...]] = {
    "batch": BATCH,  # lanes or conversations
    "slots": (SEQUENCE,),  # T of a training sequence
    "memory": (SEQUENCE,),  # S of a live session's global store
    "experts": (EXPERT,),
    "heads": (TENSOR,),
    "kv_heads": (TENSOR,),
    "ffn": (TENSOR,),
    "expert_ffn": (TENSOR,),
    "vocabulary": (TENSOR,),
}
# Axes of parameters alone.
OF_PARAMETERS = {
    Purpose.TRAINING: {"width": (FSDP, EXPERT), "inner": (FSDP, EXPERT)},
    Purpose.SERVING: {"width": (FSDP,), "inner": ()},
}


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of `config`: all of `AXES`, Auto.

    Args:
        config: sizes of the axes.
        devices: real ones or those of a topology description; the first of them are taken. None:
            those of this run. TPU devices are laid so that axes follow the torus; where they stand
            in several slices, ``data`` goes across these.

    Raises:
        ValueError: there are fewer devices, or ``data`` is no multiple of the slices.
    """
    found = list(jax.devices() if devices is None else devices)
    if len(found) < config.devices:
        raise ValueError(f"{config} asks for {config.devices} devices, there are {len(found)}")
    found = found[: config.devices]
    slices = len({getattr(device, "slice_index", 0) for device in found})
    if slices > 1:
        if config.data % slices:
            raise ValueError(f"data={config.data} is no multiple of slices={slices}")
        inside = (config.data // slices, *config.shape[1:])
        across = (slices,) + (1,) * (len(AXES) - 1)
        laid = mesh_utils.create_hybrid_device_mesh(
            inside, across, found, allow_split_physical_axes=True
        )
    elif found[0].platform == "tpu":
        laid = mesh_utils.create_device_mesh(config.shape, found, allow_split_physical_axes=True)
    else:
        laid = np.array(found).reshape(config.shape)
    return Mesh(laid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def resolve(
    names: Sequence[str | None],
    shape: Sequence[int],
    mesh: Mapping[str, int],
    purpose: Purpose | None = None,
) -> PartitionSpec:
    """The partition of an array whose axes have these logical names.

    Args:
        names: one for each axis; None: never split.
        shape: their sizes.
        mesh: devices along each mesh axis.
        purpose: of a parameter: which rules its ``width`` and ``inner`` have, ``width`` where
            another axis of it has a rule (vectors and small tables stay whole); None: they are not
            split.
    """
    rules = RULES
    if purpose is not None and any(name in RULES or name == "inner" for name in names):
        rules = RULES | OF_PARAMETERS[purpose]
    used, entries = set(), []
    for name, size in zip(names, shape, strict=True):
        entry, parts = [], 1
        for axis in rules.get(name, ()) if name else ():
            along = mesh.get(axis, 1)
            if along > 1 and axis not in used and size % (parts * along) == 0:
                entry.append(axis)
                used.add(axis)
                parts *= along
        entries.append(tuple(entry) if len(entry) > 1 else entry[0] if entry else None)
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def sizes(config: MeshConfig) -> dict[str, int]:
    """Devices along each mesh axis."""
    return dict(zip(AXES, config.shape, strict=True))


def parameter_specs(
    tree: Any, axes: Mapping[str, Any], config: MeshConfig, purpose: Purpose
) -> Any:
    """Partition specs of parameters, or of anything that has parameters inside.

    Args:
        tree: arrays or shapes: parameters, or a state of training whose optimiser keeps trees like
            them. A leaf whose path ends in a parameter's whole path lies as that parameter does
            (int8 and its scales as the matrix that they stand for); any other leaf is repeated.
        axes: the parameters' logical axes (`models.parameters.param_axes`).
        config: the mesh.
        purpose: what they are laid out for.

    Returns:
        The same tree of `PartitionSpec`.
    """
    known: dict[tuple[str, ...], tuple] = {}

    def learn(branch, path):
        for name, value in branch.items():
            if isinstance(value, Mapping):
                learn(value, (*path, name))
            else:
                known[(*path, name)] = value

    learn(axes, ())

    def spec(path, leaf):
        names = tuple(_key_name(key) for key in path)
        for start in range(len(names)):
            for stop in (len(names), len(names) - 1):
                found = known.get(names[start:stop])
                if found is not None and len(found) == len(leaf.shape):
                    return resolve(found, leaf.shape, sizes(config), purpose)
        return PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec, tree)


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def batch_spec() -> PartitionSpec:
    """The leading axis of every leaf of a batch, over all axes that share it."""
    return PartitionSpec(BATCH)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """`NamedSharding`s of a tree of partition specs."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def mesh_sizes() -> dict[str, int]:
    """Devices along each axis of the mesh that is set and not yet taken by hand (`shard_map`).

    Empty without a mesh, and where every axis has one device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    free = {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind is not AxisType.Manual
    }
    return free if math.prod(free.values()) > 1 else {}


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x` laid out by the logical names of its axes; `x` itself where no mesh is set."""
    free = mesh_sizes()
    if not free:
        return x
    return jax.lax.with_sharding_constraint(x, resolve(names, x.shape, free))


def by_rows(function: Callable, x: jax.Array, *names: str | None) -> Any:
    """``function(x)`` for what looks at each row by itself, on the devices that have the rows.

    The compiler gathers what a top-k ranks from all devices, along whichever axis it is split.

    Args:
        function: from ``[..., n]`` to a tree of arrays of the same leading axes.
        x: ``[..., n]``.
        names: logical axes of `x`; the last one is None.
    """
    free = mesh_sizes()
    if not free:
        return function(x)
    spec = resolve(names, x.shape, free)
    return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)(x)


# ---------------------------------------------------------------------------- one axis alone


def data_mesh(devices: int) -> Mesh:
    """A mesh of `devices` along ``data``."""
    return make_mesh(MeshConfig(data=devices))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all axes that share a batch."""
    return NamedSharding(mesh, batch_spec())
