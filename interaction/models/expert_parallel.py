"""Experts on several devices: slots travel to the devices of their experts and back.

In: states of slots, their chosen experts and weights, and experts split over the mesh's ``expert``
axis. Out: the mixed states. Everything here is written by hand (`shard_map`), because the compiler,
left to itself, brings all experts to all slots (all-gather) instead.

A device sends every other one a block of rows of a static size, and receives as many; what comes
back lies where it was sent from. Two things differ between training and a live call:

* In training the row is one slot for one of its experts. A block has room for a share of them
  (`block_rows`, capacity factor), what finds no room is dropped and counted; without a factor it
  has room for all that can ever come, and nothing is dropped.
* In a live call the row is a slot, once for each device that has any of its experts: it brings
  its choices and weights along and comes back summed. A block always has room for every slot, so
  no session touches another.
"""

import enum
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from interaction import sharding
from interaction.kernels import experts_plan
from interaction.kernels.experts_plan import NOBODY
from interaction.shapes import Array
from interaction.sharding import EXPERT, TENSOR
from interaction.types import pytree


class Exchange(enum.Enum):
    """Who carries blocks: BY_PLATFORM is RAGGED on TPU and GPU, PADDED elsewhere.

    RAGGED sends the filled part of every block, PADDED all of it (XLA's CPU backend has no ragged
    collective). Blocks lie alike afterwards, whoever carried them.
    """

    BY_PLATFORM = "by_platform"
    RAGGED = "ragged"
    PADDED = "padded"


class Travel(enum.Enum):
    """What a row is: a slot for one of its experts (PAIRS), or for one device's (SLOTS)."""

    PAIRS = "pairs"
    SLOTS = "slots"


def block_rows(
    travel: Travel,
    *,
    slots: int,
    per_slot: int,
    experts: int,
    group: int,
    capacity_factor: float | None = None,
) -> int:
    """Rows of the block that one device sends another.

    Without a factor this is the worst case: a slot's experts are distinct and a device holds
    ``experts / group`` of them, so a slot sends one device at most ``min(per_slot, experts /
    group)`` pairs, or one row of SLOTS; all `slots` of a device may choose the same device.

    Args:
        travel: what a row is.
        slots: of one device.
        per_slot: experts that each chooses.
        experts, group: experts in all, and devices that share them.
        capacity_factor: PAIRS: room for so many times the mean ``slots * per_slot / group``; None:
            for the worst case.
    """
    if experts % group:
        raise ValueError(f"experts={experts} is no multiple of the mesh's expert={group}")
    worst = slots * (1 if travel is Travel.SLOTS else min(per_slot, experts // group))
    if capacity_factor is None:
        return worst
    return min(worst, math.ceil(capacity_factor * slots * per_slot / group))


def receive_rows(travel: Travel, **sizes) -> int:
    """Rows of a device's receive buffer: a block (`block_rows`) from each of its group."""
    return sizes["group"] * block_rows(travel, **sizes)


@pytree
class Way:
    """Where the items of one device go, for g devices and blocks of c rows.

    Attributes:
        item: int32 ``[g c]``, which item lies in each row that is sent; n where none.
        row: int32 ``[n]``, the row of each item; g c: it is not sent.
        sent, received: int32 ``[g]``, filled rows of each block.
    """

    item: Array
    row: Array
    sent: Array
    received: Array


def way(device_n: Array, group: int, rows: int) -> Way:
    """Lay items into blocks, first come first served.

    Args:
        device_n: int32, where each item goes; `group`: nowhere.
        group: devices of the ``expert`` axis.
        rows: of a block.
    """
    items = device_n.shape[0]
    sizes, place = experts_plan.places(device_n, group)
    row = jnp.where((device_n < group) & (place < rows), device_n * rows + place, group * rows)
    item = jnp.full((group * rows,), items, jnp.int32)
    item = item.at[row].set(jnp.arange(items, dtype=jnp.int32), mode="drop")
    sent = jnp.minimum(sizes, rows)
    received = jax.lax.all_to_all(sent, EXPERT, 0, 0, tiled=True)
    return Way(item=item, row=row, sent=sent, received=received)


def padded(rows: Array, sent: Array, received: Array) -> Array:
    """Carry whole blocks: ``[g c, ...]``, block i to device i; block i then is from device i."""
    del sent, received
    return jax.lax.all_to_all(rows, EXPERT, 0, 0, tiled=True)


@jax.custom_vjp
def ragged(rows: Array, sent: Array, received: Array) -> Array:
    """The same, the filled rows of every block alone; the others are zeros."""
    group = sent.shape[0]
    size = rows.shape[0] // group
    starts = jnp.arange(group, dtype=jnp.int32) * size
    there = jnp.full((group,), jax.lax.axis_index(EXPERT) * size, jnp.int32)
    return jax.lax.ragged_all_to_all(
        rows, jnp.zeros_like(rows), starts, sent, there, received, axis_name=EXPERT
    )


def _ragged_forward(rows, sent, received):
    return ragged(rows, sent, received), (sent, received)


def _ragged_backward(residual, gradient):
    sent, received = residual
    return ragged(gradient, received, sent), None, None


ragged.defvjp(_ragged_forward, _ragged_backward)


def carry(rows: Array, sent: Array, received: Array, exchange: Exchange) -> Array:
    """Blocks of rows to their devices (`padded`); with the counts swapped, back again."""
    if exchange is Exchange.PADDED:
        return padded(rows, sent, received)
    if exchange is Exchange.RAGGED:
        return ragged(rows, sent, received)
    return jax.lax.platform_dependent(rows, sent, received, tpu=ragged, cuda=ragged, default=padded)


def _laid(values: Array, index: Array, fill) -> Array:
    """Rows `index` of `values`; `fill` where there is no such row."""
    return values.at[index].get(mode="fill", fill_value=fill)


def mixed_pairs(
    x_MD: Array, chosen_MA: Array, weights_MA: Array, compute: Callable, *, local: int, group: int,
    rows: int, exchange: Exchange,
) -> tuple[Array, Array]:  # fmt: skip
    """One device's slots through everyone's experts, each pair on its own.

    Args:
        x_MD: this device's slots.
        chosen_MA: their experts; NOBODY: none.
        weights_MA: float32.
        compute: ``(rows, expert of each or NOBODY) -> rows``, through this device's experts.
        local, group: experts of a device, devices.
        rows: of a block.
        exchange: who carries.

    Returns:
        Mixed slots, and the number of pairs that found no room.
    """
    per_slot = chosen_MA.shape[1]
    chosen_n = chosen_MA.reshape(-1)
    device_n = jnp.where(chosen_n < 0, group, chosen_n // local)
    there = way(device_n, group, rows)
    expert = padded(_laid(chosen_n % local, there.item, NOBODY), there.sent, there.received)
    come = carry(_laid(x_MD, there.item // per_slot, 0), there.sent, there.received, exchange)
    back = carry(compute(come, expert), there.received, there.sent, exchange)
    taken = _laid(back, there.row, 0).reshape(*chosen_MA.shape, -1).astype(jnp.float32)
    dropped = jnp.sum((device_n < group) & (there.row == group * rows), dtype=jnp.int32)
    return jnp.einsum("MA,MAD->MD", weights_MA, taken).astype(x_MD.dtype), dropped


def mixed_slots(
    x_MD: Array, chosen_MA: Array, weights_MA: Array, compute: Callable, *, local: int, group: int,
    rows: int, exchange: Exchange,
) -> Array:  # fmt: skip
    """The same, a slot once to each device that has any of its experts; summed there.

    `compute` is ``(rows, their experts here or NOBODY [R, A], weights [R, A]) -> rows``.
    """
    slots, per_slot = chosen_MA.shape
    device_MA = jnp.where(chosen_MA < 0, group, chosen_MA // local)
    same_MAA = device_MA[:, :, None] == device_MA[:, None, :]
    again_MA = jnp.any(same_MAA & jnp.tril(jnp.ones((1, per_slot, per_slot), bool), -1), axis=2)
    there = way(jnp.where(again_MA, group, device_MA).reshape(-1), group, rows)
    slot = there.item // per_slot
    counts = (there.sent, there.received)
    chosen = padded(_laid(chosen_MA, slot, NOBODY), *counts)
    weights = padded(_laid(weights_MA, slot, 0), *counts)
    come = carry(_laid(x_MD, slot, 0), *counts, exchange)
    here = (chosen >= 0) & (chosen // local == jax.lax.axis_index(EXPERT))
    mixed = compute(come, jnp.where(here, chosen % local, NOBODY), weights)
    back = carry(mixed, there.received, there.sent, exchange)
    taken = _laid(back, there.row, 0).reshape(slots, per_slot, -1).astype(jnp.float32)
    return jnp.sum(taken, axis=1).astype(x_MD.dtype)


def in_training(
    x_BTD: Array, chosen_BTA: Array, weights_BTA: Array, matrices: tuple[Array, Array, Array],
    compute: Callable, *, capacity_factor: float | None, exchange: Exchange = Exchange.BY_PLATFORM,
) -> tuple[Array, Array]:  # fmt: skip
    """Routed experts of whole sequences, under a mesh with several devices along ``expert``.

    Args:
        x_BTD: states.
        chosen_BTA: experts of each slot; NOBODY: none (slots that are not there).
        weights_BTA: float32.
        matrices: gate, up ``[E, D, F]`` and down ``[E, F, D]``.
        compute: ``(rows [R, D], expert of each or NOBODY [R], gate, up, down) -> rows``.
        capacity_factor: see `block_rows`; None: nothing is dropped.
        exchange: who carries blocks.

    Returns:
        Mixed states, zeros where a slot's every pair was dropped or is none, and the number of
        dropped pairs of the whole batch.
    """
    sizes = sharding.mesh_sizes()
    at = functools.partial(sharding.resolve, mesh=sizes)
    slots_at = at(("batch", "slots", None), x_BTD.shape)
    weights_at = _matrices_at((), matrices, sizes)
    group, experts = sizes[EXPERT], matrices[0].shape[0]
    shared = tuple(name for entry in slots_at if entry for name in _names(entry))

    def one_device(x, chosen, weights, *mine):
        slots, per_slot = math.prod(x.shape[:2]), chosen.shape[2]
        rows = block_rows(
            Travel.PAIRS, slots=slots, per_slot=per_slot, experts=experts, group=group,
            capacity_factor=capacity_factor,
        )  # fmt: skip
        out, dropped = mixed_pairs(
            x.reshape(slots, -1), chosen.reshape(slots, per_slot), weights.reshape(slots, per_slot),
            lambda rows, expert: compute(rows, expert, *mine),
            local=experts // group, group=group, rows=rows, exchange=exchange,
        )  # fmt: skip
        out = _summed(out, weights_at[0])
        return out.reshape(x.shape), jax.lax.psum(dropped, shared) if shared else dropped

    mapped: Callable = jax.shard_map(
        one_device,
        in_specs=(slots_at, slots_at, slots_at, *weights_at),
        out_specs=(slots_at, PartitionSpec()),
        check_vma=False,
    )
    return mapped(x_BTD, chosen_BTA, weights_BTA, *matrices)


def in_live_call(
    x_BTD: Array, chosen_BTA: Array, weights_BTA: Array, stacks: tuple, scales: tuple | None,
    layer: Array, compute: Callable, *, exchange: Exchange = Exchange.BY_PLATFORM,
) -> Array:  # fmt: skip
    """Routed experts of a live call, under any mesh; nothing is dropped.

    Args:
        x_BTD, chosen_BTA, weights_BTA: as `in_training`.
        stacks: gate, up ``[L, E, D, F]`` and down ``[L, E, F, D]``.
        scales: of int8 stacks; None: the stacks are the weights.
        layer: int32, which layer.
        compute: ``(rows [R, D], chosen [R, A], weights [R, A], stacks, scales, layer) -> rows``
            through this device's experts.
        exchange: who carries blocks.
    """
    sizes = sharding.mesh_sizes()
    slots_at = sharding.resolve(("batch", None, None), x_BTD.shape, sizes)
    group, experts = sizes.get(EXPERT, 1), stacks[0].shape[1]
    weights_at = _matrices_at((None,), stacks, sizes)
    scales_at = None if scales is None else _matrices_at((None,), scales, sizes)
    everywhere = PartitionSpec()

    def one_device(x, chosen, weights, stacks, scales, layer):
        slots, per_slot = math.prod(x.shape[:2]), chosen.shape[2]
        flat = (x.reshape(slots, -1), chosen.reshape(slots, -1), weights.reshape(slots, -1))

        def mine(rows, chosen, weights):
            return compute(rows, chosen, weights, stacks, scales, layer)

        if group == 1:
            out = mine(*flat)
        else:
            rows = block_rows(
                Travel.SLOTS, slots=slots, per_slot=per_slot, experts=experts, group=group
            )
            out = mixed_slots(
                *flat, mine, local=experts // group, group=group, rows=rows, exchange=exchange
            )
        return _summed(out, weights_at[0]).reshape(x.shape)

    mapped: Callable = jax.shard_map(
        one_device,
        in_specs=(slots_at, slots_at, slots_at, weights_at, scales_at, everywhere),
        out_specs=slots_at,
        check_vma=False,
    )
    return mapped(x_BTD, chosen_BTA, weights_BTA, stacks, scales, layer)


def _names(entry) -> tuple[str, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def _matrices_at(lead: tuple, matrices, sizes) -> tuple:
    """Partitions of gate, up and down: experts over ``expert``, F over ``tensor``.

    Raises:
        ValueError: the ``expert`` axis does not divide the experts.
    """
    names = [(*lead, "experts", None, "expert_ffn")] * 2 + [(*lead, "experts", "expert_ffn", None)]
    experts, group = matrices[0].shape[len(lead)], sizes.get(EXPERT, 1)
    if experts % group:
        raise ValueError(f"experts={experts} is no multiple of the mesh's expert={group}")
    return tuple(
        sharding.resolve(name, matrix.shape, sizes)
        for name, matrix in zip(names, matrices, strict=True)
    )


def _summed(out: Array, gate_at: PartitionSpec) -> Array:
    """Sum of the parts that devices along ``tensor`` have, where F is split over it."""
    return jax.lax.psum(out, TENSOR) if TENSOR in gate_at else out
