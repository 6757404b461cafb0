"""Attention of one layer in training on CPU, in tiles of queries.

In: queries, keys and values of whole sequences whose positions are 0..T-1, and the relative bias
as the two factors that it is a product of. Out: what `attention.attend` gives, to rounding.

On CPU the products take the smaller part of the time, and passes over the scores the larger:
softmax, mask, and above all laying the bias out by distance, which XLA does number by number. Here
a tile of queries sees only the keys that it can reach, weights are divided by their sum after the
product with the values, and the bias comes out of a matrix product already laid out: for place i
of a tile, its table of profiles is shifted by i first (`shifted_table`), which touches a table and
not the scores. All gradients are then products as well.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from interaction import sharding
from interaction.kernels import native_train
from interaction.models import attention
from interaction.models.attention import Whereabouts
from interaction.models.config import AttentionConfig
from interaction.shapes import Array, Float
from interaction.types import pytree

# Queries of a tile of a sliding layer at most, and tiles of a global layer at most, each of which
# is written out. Measured by `experiments/bench/training_parts.py`.
SLIDING_ROWS = 32
GLOBAL_TILES = 4
# Slots up to which global layers go this way: a table of profiles has ``T ** 2 / 4`` columns.
GLOBAL_SLOTS = 1024
_FAR = -1e30


@pytree
class Bias:
    """Relative bias by distance, as the factors that it is a product of.

    Attributes:
        state: ``[B, T, N, r]``, what mixes each query's profile.
        table: ``[r, Q]``, the profiles; zero beyond them.
    """

    state: Float[Array, "B T N r"]
    table: Float[Array, "r Q"]

    def by_distance(self) -> Float[Array, "B T N Q"]:
        """Each query's profile."""
        return jnp.einsum("BTNr,rQ->BTNQ", self.state, self.table)


def attend_whole(
    query_BTNH: Float[Array, "B T N H"],
    key_BTKH: Float[Array, "B T K H"],
    value_BTKH: Float[Array, "B T K H"],
    bias: Bias | None,
    *,
    queries: Whereabouts,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Float[Array, "B T"] | None,
    consecutive: bool,
    query_slots: int = 0,
    native: bool = False,
) -> Float[Array, "B T N H"]:
    """`attention.attend` over the slots of this very call; on one CPU device in tiles.

    Args, returns: as there; the bias in its factors. With `query_slots` it is left to `attend`.
        native: by `native_train` where numbers are float32, whose tiles are small anyway.
    """
    shared = {"heads": heads, "scale": scale}

    def whole(query, key, value, bias, queries, keys, length_scale):
        laid = None if bias is None else bias.by_distance()
        return attention.attend(
            query, key, value, laid, queries=queries, keys=keys, length_scale_BT=length_scale,
            consecutive=consecutive, query_slots=query_slots, **shared,
        )  # fmt: skip

    def tiles(query, key, value, bias, queries, keys, length_scale):
        del queries
        return in_tiles(query, key, value, bias, keys=keys, length_scale_BT=length_scale, **shared)

    inputs = (query_BTNH, key_BTKH, value_BTKH, bias, queries, keys, length_scale_BT)
    if native and consecutive and query_BTNH.dtype == key_BTKH.dtype == jnp.float32:
        return _by_native(query_BTNH, key_BTKH, value_BTKH, bias, keys, length_scale_BT, **shared)
    apart = sharding.mesh_sizes() or query_slots or not _fits(heads, query_BTNH.shape[1])
    if apart or not consecutive:
        return whole(*inputs)
    return jax.lax.platform_dependent(*inputs, cpu=tiles, default=whole)


def _by_native(query_BTNH, key_BTKH, value_BTKH, bias, keys, length_scale_BT, *, heads, scale):
    """Tiles in C++, of any length."""
    query_BTNH, bias = _lengthened(query_BTNH, bias, length_scale_BT)
    B, T, N, _ = query_BTNH.shape
    none = jnp.zeros((B, T, N, 0)), jnp.zeros((0, 0))
    state, table = none if bias is None else (bias.state, bias.table)
    until = keys.until
    if until is None:
        until = jnp.full((B, T), native_train.NEVER, jnp.int32)
    return native_train.attention(
        query_BTNH, key_BTKH, value_BTKH, state.astype(jnp.float32), table.astype(jnp.float32),
        keys.order, until.astype(jnp.int32), scale, heads.window,
    )  # fmt: skip


def _lengthened(query_BTNH, bias, length_scale_BT):
    """Queries and bias times the length scale, where there is one."""
    if length_scale_BT is None:
        return query_BTNH, bias
    factor = length_scale_BT[:, :, None, None]
    query_BTNH = (query_BTNH * factor).astype(query_BTNH.dtype)
    if bias is not None:
        bias = Bias((bias.state * factor).astype(bias.state.dtype), bias.table)
    return query_BTNH, bias


def _fits(heads: AttentionConfig, slots: int) -> bool:
    return slots <= GLOBAL_SLOTS if heads.window is None else heads.window < slots


def in_tiles(
    query_BTNH: Float[Array, "B T N H"],
    key_BTKH: Float[Array, "B T K H"],
    value_BTKH: Float[Array, "B T K H"],
    bias: Bias | None,
    *,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Float[Array, "B T"] | None,
) -> Float[Array, "B T N H"]:
    """The same in tiles, on any platform; positions must be the slot indices."""
    query_BTNH, bias = _lengthened(query_BTNH, bias, length_scale_BT)
    there_BT = keys.order >= 0
    if heads.window is None:
        return _global(query_BTNH, key_BTKH, value_BTKH, bias, there_BT, keys.until, scale)
    return _sliding(query_BTNH, key_BTKH, value_BTKH, bias, there_BT, heads.window, scale)


def shifted_table(table_rQ: Float[Array, "r Q"], rows: int, keys: int) -> Float[Array, "c r s"]:
    """For query i of a tile the profiles over its keys: column j is distance ``i + keys - rows -
    j``, zero where that is none of ``0..Q-1``.

    Row i is a line of profiles read from place ``rows - 1 - i``: all rows are one repeated line,
    read at a stride that is shorter by one.
    """
    profiles, used = table_rQ.shape[0], min(table_rQ.shape[1], keys)
    line = jnp.pad(jnp.flip(table_rQ[:, :used], axis=1), ((0, 0), (keys - used, rows)))
    length = keys + rows
    flat = jnp.broadcast_to(line[:, None], (profiles, rows, length)).reshape(profiles, -1)
    flat = flat[:, rows - 1 : rows - 1 + rows * (length - 1)]
    return flat.reshape(profiles, rows, length - 1)[:, :, :keys].swapaxes(0, 1)


@jax.custom_vjp
def _scores(query: Array, key: Array) -> Array:
    """``[..., m, H] x [..., H, s]``, float32. All products of the backward pass read the large
    matrix as it lies; those that JAX derives copy it transposed first."""
    return jnp.matmul(query, key, preferred_element_type=jnp.float32)


def _scores_backward(residual, gradient):
    query, key = residual
    wide = gradient.astype(query.dtype)
    into_query = jnp.matmul(wide, key.swapaxes(-1, -2))
    return into_query, jnp.matmul(query.swapaxes(-1, -2), wide)


_scores.defvjp(lambda query, key: (_scores(query, key), (query, key)), _scores_backward)


@jax.custom_vjp
def _weighed(weights: Array, value: Array) -> Array:
    """``[..., m, s] x [..., H, s]``, float32; as `_scores`."""
    return jnp.matmul(weights, value.swapaxes(-1, -2), preferred_element_type=jnp.float32)


def _weighed_backward(residual, gradient):
    weights, value = residual
    narrow = gradient.astype(value.dtype)
    into_weights = jnp.matmul(narrow, value).astype(weights.dtype)
    return into_weights, jnp.matmul(narrow.swapaxes(-1, -2), weights)


_weighed.defvjp(
    lambda weights, value: (_weighed(weights, value), (weights, value)), _weighed_backward
)


def _attended(query, key, value, bias, seen, scale: float):
    """One set of tiles: queries ``[b, c, K, G, H]`` over keys and values ``[b, s, K, H]``.

    Args:
        query, key, value: of these tiles.
        bias: ``[c, b K G, s]``, or None.
        seen: ``[b, c, s]`` which keys each query sees.
        scale: factor on the dot products.

    Returns:
        ``[b, c, K, G, H]``.
    """
    b, c, K, G, H = query.shape
    s = key.shape[1]
    rows = query.transpose(0, 2, 3, 1, 4).reshape(b, K, G * c, H)
    scores = _scores(rows, key.transpose(0, 2, 3, 1)).reshape(b, K, G, c, s) * scale
    if bias is not None:
        scores = scores + bias.reshape(c, b, K, G, s).transpose(1, 2, 3, 0, 4)
    scores = jnp.where(seen[:, None, None], scores, _FAR)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    flat = jnp.exp(scores - top).astype(value.dtype).reshape(b, K, G * c, s)
    # A value of ones beside the others gives the weights' sum, and their gradient, by the product.
    columns = jnp.pad(
        value.transpose(0, 2, 3, 1), [(0, 0)] * 2 + [(0, 1), (0, 0)], constant_values=1
    )
    out = _weighed(flat, columns).reshape(b, K, G, c, H + 1)
    return (out[..., :H] / out[..., H:]).transpose(0, 3, 1, 2, 4).astype(value.dtype)


def _laid_bias(state_bcNr: Array, table_crs: Array) -> Array:
    """Bias of tiles, ``[c, b N, s]``, float32: place by place a product with its own table."""
    b, c, N, r = state_bcNr.shape
    rows = state_bcNr.swapaxes(0, 1).reshape(c, b * N, r)
    return _scores(rows, table_crs)


def _sliding(query, key, value, by, there, window: int, scale: float):
    """Tiles of `rows` queries, a divisor of the window, see `rows` + window keys each."""
    B, T, N, H = query.shape
    K = key.shape[2]
    rows = max(c for c in range(1, min(SLIDING_ROWS, window) + 1) if window % c == 0)
    tiles, keys = -(-T // rows), rows + window

    def cut(x):
        """``[B, T, ...]`` to ``[B, tiles, c, ...]``, padded with zeros."""
        x = jnp.pad(x, [(0, 0), (0, tiles * rows - T)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(B, tiles, rows, *x.shape[2:])

    def reached(x):
        """Each tile behind the window before it: ``[B, tiles, s, ...]``."""
        blocks = cut(x)
        blocks = jnp.pad(blocks, [(0, 0), (window // rows, 0)] + [(0, 0)] * (blocks.ndim - 2))
        moved = [blocks[:, at : at + tiles] for at in range(window // rows + 1)]
        return jnp.concatenate(moved, axis=2)

    flat = lambda x: x.reshape(B * tiles, *x.shape[2:])
    bias = None
    if by is not None:
        shifted = shifted_table(by.table[:, :window], rows, keys)
        bias = _laid_bias(flat(cut(by.state)), shifted)
    distance = np.arange(rows)[:, None] + window - np.arange(keys)[None]
    near = jnp.asarray((distance >= 0) & (distance < window))
    seen = near[None] & flat(reached(there))[:, None]
    queries = flat(cut(query)).reshape(B * tiles, rows, K, N // K, H)
    out = _attended(queries, flat(reached(key)), flat(reached(value)), bias, seen, scale)
    return out.reshape(B, tiles * rows, N, H)[:, :T]


def _global(query, key, value, by, there, until, scale: float):
    """A few tiles of queries, each of which sees the keys up to its own last one."""
    B, T, N, H = query.shape
    K = key.shape[2]
    rows = math.ceil(T / GLOBAL_TILES)
    last = (math.ceil(T / rows) - 1) * rows  # where the last tile starts
    shifted = None if by is None else shifted_table(by.table, rows, last + rows)
    parts = []
    for start in range(0, T, rows):
        end = min(start + rows, T)
        bias = None
        if by is not None:
            assert shifted is not None
            table = shifted[: end - start, :, last - start : last - start + end]
            bias = _laid_bias(by.state[:, start:end], table)
        order = np.arange(start, end)
        seen = jnp.asarray(order[:, None] >= np.arange(end)[None])[None] & there[:, None, :end]
        if until is not None:
            seen = seen & (jnp.asarray(order)[None, :, None] < until[:, None, :end])
        queries = query[:, start:end].reshape(B, end - start, K, N // K, H)
        parts.append(_attended(queries, key[:, :end], value[:, :end], bias, seen, scale))
    return jnp.concatenate(parts, axis=1).reshape(B, T, N, H)
