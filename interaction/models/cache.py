"""The cache of live sessions: what the stack keeps of slots that have gone by.

In: the configuration and a number of lanes. Out: an empty cache (`init_cache`), and a cache that
has given the slots of one call their order and their places (`admit`); keys and values are written
there by the layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from interaction import sharding
from interaction.models import attention as att
from interaction.models.attention import Whereabouts
from interaction.models.config import AttentionKind, TransformerConfig
from interaction.models.memory import Holding, Room
from interaction.shapes import Array
from interaction.types import pytree

_WHEREABOUTS = ("position", "order", "holding", "time")  # of every stored slot, [B, S]


@pytree
class Stored:
    """What the global store keeps of one call's slots, and where.

    Attributes:
        holding: int32 ``[B, T]``, `memory.Holding`.
        time: int32 ``[B, T]``, micro-turn.
        room: the micro-turn's places.
    """

    holding: Array
    time: Array
    room: Room


def init_cache(
    config: TransformerConfig,
    lanes: int,
    *,
    local_slots: int,
    global_slots: int,
    dtype,
    typed: bool = False,
) -> dict:
    """An empty cache.

    For each kind of attention: keys and values ``[L_kind, B, S, K, H]`` in a store of S slots, the
    position and order of each stored slot ``[B, S]`` (order -1: empty), and the last valid slots
    that its convolutions need. Of a `typed` global store also what each place holds and its
    micro-turn ``[B, S]``, and ``lost_text`` ``[B]``, the text slots that gave way so far. For the
    block convolutions ``[L, B, J - 1, D]``; and ``count`` ``[B]``, the lane's running count of
    slots.
    """
    past = config.convolution_width - 1
    cache: dict = {"count": jnp.zeros((lanes,), jnp.int32)}
    for kind in AttentionKind:
        number = config.count(kind)
        if not number:
            continue
        heads = config.attention(kind)
        assert heads is not None
        size = local_slots if kind is AttentionKind.LOCAL else global_slots
        shape = (number, lanes, size, heads.kv_heads, heads.head_width)
        entry = {
            "key": jnp.zeros(shape, dtype),
            "value": jnp.zeros(shape, dtype),
            "position": jnp.zeros((lanes, size), jnp.int32),
            "order": jnp.full((lanes, size), att.NOT_THERE, jnp.int32),
        }
        if past > 0:
            channels = heads.kv_heads * heads.head_width
            entry["key_conv"] = jnp.zeros((number, lanes, past, channels), jnp.float32)
            entry["value_conv"] = jnp.zeros((number, lanes, past, channels), jnp.float32)
        if typed and kind is AttentionKind.GLOBAL:
            entry["holding"] = jnp.zeros((lanes, size), jnp.int32)
            entry["time"] = jnp.zeros((lanes, size), jnp.int32)
            cache["lost_text"] = jnp.zeros((lanes,), jnp.int32)
        cache[kind.value] = entry
    if past > 0:
        for name in ("attention_conv", "mlp_conv"):
            cache[name] = jnp.zeros((config.layers, lanes, past, config.width), jnp.float32)
    return cache


def admit(
    cache: dict, position_BT: Array, valid_BT: Array, stored: "Stored | None"
) -> tuple[dict, Whereabouts, dict]:
    """Give this call's valid slots their order and ring places; on each device those of its lanes.

    Args:
        cache: from `init_cache`.
        position_BT: positions.
        valid_BT: which slots are there.
        stored: what the global store keeps of them and where; None: it is a ring.

    Returns:
        The cache with orders and positions written, the slots' whereabouts, and for each kind
        the place of every slot (the store's size for slots that are not there: dropped).
    """
    small = {
        name: {n: x for n, x in part.items() if n in _WHEREABOUTS}
        if isinstance(part, dict)
        else part
        for name, part in cache.items()
        if name in ("count", "lost_text", *(kind.value for kind in AttentionKind))
    }
    arrays = (small, position_BT, valid_BT, stored)
    sizes = sharding.mesh_sizes()
    if sizes:
        at = sharding.resolve(("batch", None), position_BT.shape, sizes)
        admitted: Callable = jax.shard_map(_admit, in_specs=at, out_specs=at, check_vma=False)
        small, where, places = admitted(*arrays)
    else:
        small, where, places = _admit(*arrays)
    cache = {
        name: {**part, **small[name]} if isinstance(part, dict) else small.get(name, part)
        for name, part in cache.items()
    }
    return cache, where, {AttentionKind(name): place for name, place in places.items()}


def _admit(cache: dict, position_BT, valid_BT, stored) -> tuple[dict, Whereabouts, dict]:
    """`admit` on the lanes of one device, with what says where slots are alone."""
    steps = jnp.cumsum(valid_BT.astype(jnp.int32), axis=1)
    order = jnp.where(valid_BT, cache["count"][:, None] + steps - 1, att.NOT_THERE)
    cache = dict(cache, count=cache["count"] + steps[:, -1])
    lanes = jnp.arange(order.shape[0])[:, None]
    places = {}
    for kind in AttentionKind:
        if kind.value not in cache:
            continue
        entry = dict(cache[kind.value])
        size = entry["order"].shape[1]
        place = order % size
        if stored is not None and kind is AttentionKind.GLOBAL:
            index = jnp.maximum(order - stored.room.since[:, None], 0)
            place = jnp.take_along_axis(stored.room.place, index, axis=1)
            cache, entry = _store(cache, entry, place, valid_BT, stored)
        place = jnp.where(valid_BT, place, size)
        entry["order"] = entry["order"].at[lanes, place].set(order, mode="drop")
        entry["position"] = entry["position"].at[lanes, place].set(position_BT, mode="drop")
        cache[kind.value] = entry
        places[kind.value] = place
    return cache, Whereabouts(position=position_BT, order=order), places


def _store(cache: dict, entry: dict, place_BT, valid_BT, stored: "Stored") -> tuple[dict, dict]:
    """Writes what these slots hold; counts the text that they take the place of."""
    size = entry["order"].shape[1]
    lanes = jnp.arange(place_BT.shape[0])[:, None]
    before = jnp.take_along_axis(entry["holding"], place_BT, axis=1)
    lost = valid_BT & (before == int(Holding.TEXT))
    place = jnp.where(valid_BT, place_BT, size)
    entry["holding"] = entry["holding"].at[lanes, place].set(stored.holding, mode="drop")
    entry["time"] = entry["time"].at[lanes, place].set(stored.time, mode="drop")
    lost_text = cache["lost_text"] + jnp.sum(lost, axis=1, dtype=jnp.int32)
    return dict(cache, lost_text=lost_text), entry


def store_axes(window: int | None) -> tuple[str | None, ...]:
    """Logical axes of stacked keys or values ``[L, B, S, K, H]`` of layers with this window.

    The ring of a sliding layer is as long as its window: every device has all its slots.
    """
    return (None, "batch", "memory" if window is None else None, "kv_heads", None)


def write(
    stack_LBSKH: Array, layer: Array, place_BT: Array, rows_BTKH: Array, *, window: int | None
) -> Array:
    """The store with this call's keys or values in the places of row `layer`; S: nowhere.

    Under a mesh every device writes to what it has of the store; the compiler would send the rows
    of all lanes to all devices.
    """

    def here(stack, layer, place, rows):
        lanes = jnp.arange(place.shape[0])[:, None]
        return stack.at[layer, lanes, place].set(rows.astype(stack.dtype), mode="drop")

    sizes = sharding.mesh_sizes()
    if not sizes:
        return here(stack_LBSKH, layer, place_BT, rows_BTKH)
    store_at = sharding.resolve(store_axes(window), stack_LBSKH.shape, sizes)
    split = sharding.SEQUENCE in store_at

    def part(stack, layer, place, rows):
        if split:
            slots = stack.shape[2]
            place = place - jax.lax.axis_index(sharding.SEQUENCE) * slots
            place = jnp.where((place >= 0) & (place < slots), place, slots)
        return here(stack, layer, place, rows)

    written: Callable = jax.shard_map(
        part,
        in_specs=(
            store_at,
            PartitionSpec(),
            sharding.resolve(("batch", None), place_BT.shape, sizes),
            sharding.resolve(("batch", None, "kv_heads", None), rows_BTKH.shape, sizes),
        ),
        out_specs=store_at,
        check_vma=False,
    )
    return written(stack_LBSKH, layer, place_BT, rows_BTKH)
