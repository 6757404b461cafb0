"""Which blocks of a cache a call has to read.

In: where queries and keys stand. Out: `KeyBlocks`, the live blocks of all lanes in one list, lane
by lane. A block is dead, and is neither read nor computed, when every place in it is empty, beyond
the lane's filled length, later than every query, or outside the window of every query. Typed
memory, rings and half-filled caches all come down to that. The list is made once per step by
plain jnp from ``8 B S`` bytes of positions and orders.
"""

import dataclasses

import jax.numpy as jnp

from interaction.shapes import Array, Int
from interaction.types import pytree

LANES = 128  # numbers in one row of a TPU register: biases are looked up in chunks of this many
NOT_THERE = -1
FAR = 1 << 29  # beyond every position
UNSEEN = -1e30  # score of a key that a query does not see; finite, so that sums stay numbers


@dataclasses.dataclass(frozen=True)
class AttentionBlocks:
    """Block sizes.

    Attributes:
        keys: keys per block (TPU: a multiple of 128).
        rows: GPU: rows (slots times heads of a group) per program; a power of two.
        splits: GPU: programs that share the keys of one lane and head.
        warps, stages: GPU: of each program.
    """

    keys: int
    rows: int = 64
    splits: int = 1
    warps: int = 4
    stages: int = 2

    def __post_init__(self):
        for name in ("keys", "rows"):
            size = getattr(self, name)
            if size < 16 or size & (size - 1):
                raise ValueError(f"{name}={size} must be a power of two, at least 16")
        for name in ("splits", "warps", "stages"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@pytree
class Places:
    """Where slots stand.

    Attributes:
        position: int32 ``[B, T]``, drives bias and window.
        order: int32 ``[B, T]``, the lane's running count; -1: the slot is not there.
    """

    position: Array
    order: Array

    def within(self, filled_B: Array | None) -> "Places":
        """The same with places from `filled_B` on not there."""
        if filled_B is None:
            return self
        place = jnp.arange(self.order.shape[1], dtype=jnp.int32)[None]
        there = place < filled_B[:, None]
        return Places(self.position, jnp.where(there, self.order, NOT_THERE))


@pytree
class KeyBlocks:
    """The live blocks of every lane.

    Attributes:
        entry: int32 ``[B n]``, ``lane * n + block`` for n blocks a lane, lane by lane; behind
            `total` of them zeros. Every lane has at least one.
        first_chunk, chunks: int32 ``[B n]``, for each entry which chunks of 128 distances of the
            bias its keys can meet: none for the far past.
        start: int32 ``[B + 1]``, where each lane's entries begin; the last is the total.
        keys: the places, those beyond the filled length marked as not there.
    """

    entry: Int[Array, "n"]
    first_chunk: Int[Array, "n"]
    chunks: Int[Array, "n"]
    start: Int[Array, "B+1"]
    keys: Places


def plan(
    queries: Places,
    keys: Places,
    filled_B: Int[Array, "B"] | None = None,
    *,
    window: int | None,
    extent: int,
    block: int,
) -> KeyBlocks:
    """List the live blocks.

    Args:
        queries: position and order ``[B, T]``.
        keys: position and order ``[B, S]``.
        filled_B: places from here on are not there; None: orders alone say it.
        window: keys at this distance and beyond are not seen; None: all are.
        extent: Q of the bias; 0: none.
        block: keys per block.
    """
    keys = keys.within(filled_B)
    B, S = keys.order.shape
    number = -(-S // block)
    pad = ((0, 0), (0, number * block - S))
    position = jnp.pad(keys.position, pad).reshape(B, number, block)
    order = jnp.pad(keys.order, pad, constant_values=NOT_THERE).reshape(B, number, block)
    there, asks = order >= 0, queries.order >= 0
    low_key = jnp.min(jnp.where(there, position, FAR), axis=2)
    high_key = jnp.max(jnp.where(there, position, -FAR), axis=2)
    first_order = jnp.min(jnp.where(there, order, FAR), axis=2)
    low_query = jnp.min(jnp.where(asks, queries.position, FAR), axis=1)[:, None]
    high_query = jnp.max(jnp.where(asks, queries.position, -FAR), axis=1)[:, None]
    live = jnp.any(there, axis=2) & (first_order <= jnp.max(queries.order, axis=1)[:, None])
    # Differences of absent positions overflow nothing: FAR is a quarter of the range of int32.
    nearest, farthest = low_query - high_key, high_query - low_key
    if window is not None:
        live = live & (nearest < window)
    none_live = ~jnp.any(live, axis=1)
    live = live.at[:, 0].set(live[:, 0] | none_live)
    near = live & jnp.any(there, axis=2) & (farthest >= 0) & (nearest < extent)
    first = jnp.maximum(nearest, 0) // LANES
    last = jnp.minimum(farthest, max(extent - 1, 0)) // LANES
    chunks = jnp.where(near, jnp.maximum(last - first + 1, 0), 0)
    entry = jnp.nonzero(live.reshape(-1), size=B * number, fill_value=0)[0].astype(jnp.int32)
    ends = jnp.cumsum(jnp.sum(live, axis=1, dtype=jnp.int32))
    return KeyBlocks(
        entry=entry,
        first_chunk=jnp.where(near, first, 0).reshape(-1)[entry].astype(jnp.int32),
        chunks=chunks.reshape(-1)[entry].astype(jnp.int32),
        start=jnp.pad(ends, (1, 0)),
        keys=keys,
    )
