"""Which experts a call touches, and the rows of each.

In: each row's chosen experts. Out: `Touched`, the sorted ids of the experts that some row chose,
and `RowTiles`, the (row, choice) pairs sorted by expert and cut into tiles of equal size. Both have
static sizes with a count inside; no weight is moved to make them.
"""

import jax.numpy as jnp

from interaction.shapes import Array, Int
from interaction.types import pytree

NOBODY = -1  # a choice that is none: the row is not there


@pytree
class Touched:
    """The experts that some row chose.

    Attributes:
        ids: int32 ``[n]``, ascending; behind `count` of them the last one is repeated, so that a
            program that runs on reads nothing new.
        count: int32 scalar, at least 1 (expert 0 where nobody chose).
    """

    ids: Int[Array, "n"]
    count: Int[Array, ""]


@pytree
class RowTiles:
    """Pairs of a row and one of its choices, sorted by expert, in tiles that share an expert.

    Attributes:
        expert: int32 ``[n]``, of each tile; behind `count` of them the last one's.
        pair: int32 ``[n, r]``, ``row * A + choice``; M A where the tile is not full.
        slot: int32 ``[M A]``, where each pair went, ``tile * r + place``; n r for choices that
            are none.
        count: int32 scalar, at least 1.
        sizes: int32 ``[E]``, pairs of each expert.
    """

    expert: Int[Array, "n"]
    pair: Int[Array, "n r"]
    slot: Int[Array, "p"]
    count: Int[Array, ""]
    sizes: Int[Array, "E"]


def touched(chosen_MA: Int[Array, "M A"], experts: int) -> Touched:
    """The experts in `chosen_MA` (-1: none); at most ``min(E, M A)``."""
    most = min(experts, chosen_MA.size)
    marks = jnp.zeros((experts,), bool).at[_index(chosen_MA, experts)].set(True, mode="drop")
    count = jnp.maximum(jnp.sum(marks, dtype=jnp.int32), 1)
    ids = jnp.nonzero(marks, size=most, fill_value=0)[0].astype(jnp.int32)
    last = ids[count - 1]
    return Touched(jnp.where(jnp.arange(most) < count, ids, last), count)


def most_tiles(pairs: int, experts: int, rows: int) -> int:
    """Tiles of `rows` that `pairs` over `experts` can fill or begin: ``sum ceil(s_e / rows)``."""
    return min(pairs, min(experts, pairs) + pairs // rows)


def places(group_n: Int[Array, "n"], groups: int) -> tuple[Array, Array]:
    """How many items each group has, and each item's place among those of its group, in order.

    Args:
        group_n: group of each item; `groups`: of none (its place holds no meaning).
        groups: number of groups.
    """
    items = group_n.shape[0]
    sizes = jnp.zeros((groups,), jnp.int32).at[group_n].add(1, mode="drop")
    by_group = jnp.argsort(group_n, stable=True)
    rank = jnp.zeros((items,), jnp.int32).at[by_group].set(jnp.arange(items, dtype=jnp.int32))
    before = jnp.cumsum(sizes) - sizes
    return sizes, rank - before[jnp.minimum(group_n, groups - 1)]


def row_tiles(chosen_MA: Int[Array, "M A"], experts: int, rows: int) -> RowTiles:
    """Sort the pairs of `chosen_MA` by expert, and in each by row, and cut them into tiles."""
    pairs = chosen_MA.size
    number = most_tiles(pairs, experts, rows)
    expert_of = _index(chosen_MA, experts)
    sizes, place = places(expert_of, experts)
    tiles = (sizes + rows - 1) // rows
    tile_ends = jnp.cumsum(tiles)
    mine = jnp.minimum(expert_of, experts - 1)
    slot = (tile_ends - tiles)[mine] * rows + place
    slot = jnp.where(expert_of < experts, slot, number * rows)
    pair = jnp.full((number * rows,), pairs, jnp.int32)
    pair = pair.at[slot].set(jnp.arange(pairs, dtype=jnp.int32), mode="drop")
    count = jnp.maximum(tile_ends[-1], 1)
    index = jnp.minimum(jnp.arange(number), count - 1)
    expert = jnp.searchsorted(tile_ends, index, side="right").astype(jnp.int32)
    expert = jnp.minimum(expert, experts - 1)
    return RowTiles(expert, pair.reshape(number, rows), slot, count, sizes)


def _index(chosen_MA: Array, experts: int) -> Array:
    """Flat choices with none as `experts`, which scatters drop."""
    flat = chosen_MA.reshape(-1)
    return jnp.where(flat < 0, experts, flat)
