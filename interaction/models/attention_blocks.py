"""Attention of a live call over a long cache, read in blocks where it lies.

In: the queries of a few slots, and one layer's row of the stacked cache. Out: what
`attention.attend` gives, to rounding. Blocks beyond the last filled slot of any lane are not read,
so the time follows the filled part of the cache; the softmax runs along (Milakov and Gimelshein
2018, arXiv 1805.02867). A block without a key that a query sees adds exactly 0, so a lane's result
does not depend, to the bit, on how full the others are.

Keys lie ``[slots, kv heads, head width]``. A call of few rows multiplies them as they lie: each
query is laid into its own kv head's part of a row that is zero elsewhere, and the product gives
slots by rows, keys being its left side (as the right side, XLA's CPU compiler would transpose them
first, which took longer than all the rest). That costs K times the operations, of which few rows
have plenty to spare. With more rows a block's keys and values are copied head by head, within the
core's own cache; with many, keys are transposed too, since else the scores would be.
"""

import jax
import jax.numpy as jnp

from interaction.kernels import attention as kernel
from interaction.kernels.implementation import Implementation
from interaction.models.attention import Whereabouts, gathered_bias, places
from interaction.models.config import AttentionConfig
from interaction.shapes import Array, Bool, Float

BLOCK_SLOTS = 256
# Query rows (slots times heads) up to which laying them out by kv head pays, and rows of one kv
# head up to which keys are its product's left side. Measured on one core of an Intel Xeon, 3,072
# slots, 8 heads of 64, ms a layer: spread, keys left, keys right. 8 kv heads: 1 slot 1.74, 3.11,
# 4.26; 4 slots 2.86, 3.07, 4.56; 7 slots 5.43, 3.40, 4.78; 60 slots 24.6, 9.00, 7.65. 4 kv heads: 4
# slots 1.44, 1.54, 2.27; 16 slots 4.09, 2.67, 2.74; 60 slots 13.9, 7.43, 5.42. 2 kv heads: 1 slot
# 0.43, 0.68, 0.99; 4 slots 0.85, 0.99, 1.16; 7 slots 1.62, 1.42, 1.37; 60 slots 8.47, 6.49, 4.43.
SPREAD_ROWS = 32
KEYS_LEFT_ROWS = 16
_FAR = -1e30  # score of a key that is not seen
_LOW = -1e20  # below every score, and so far above `_FAR` that exp(_FAR - _LOW) is exactly 0


def attend_in_cache(
    query_BTNH: Float[Array, "B T N H"],
    key_LBSKH: Float[Array, "L B S K H"],
    value_LBSKH: Float[Array, "L B S K H"],
    layer: Array,
    bias_BTNQ: Float[Array, "B T N Q"] | None,
    *,
    queries: Whereabouts,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Float[Array, "B T"] | None,
    across: str | None = None,
) -> Float[Array, "B T N H"]:
    """`attention.attend` with the keys and values of row `layer` of the cache.

    Args:
        query_BTNH: queries.
        key_LBSKH: stacked keys, this call's slots among them.
        value_LBSKH: stacked values.
        layer: int32 row of the stacks.
        bias_BTNQ: each query's bias by distance; None: no bias.
        queries: whereabouts of the queries.
        keys: whereabouts of the cache slots.
        heads: window and extent.
        scale: factor on the dot products.
        length_scale_BT: factor on queries and bias.
        across: mesh axis along which every device has other slots of the store, inside a
            `shard_map`; None: they are all here.

    Returns:
        Attended values; rows of queries that are not there hold no meaning.
    """
    B, T, N, H = query_BTNH.shape
    S, K = key_LBSKH.shape[2:4]
    size = min(S, BLOCK_SLOTS)
    query = query_BTNH.astype(jnp.float32) * scale
    bias = None if bias_BTNQ is None else bias_BTNQ.astype(jnp.float32)
    if length_scale_BT is not None:
        query = query * length_scale_BT[:, :, None, None]
        bias = None if bias is None else bias * length_scale_BT[:, :, None, None]
    lay, dot_keys, dot_values = _products(T, N, K)
    query = lay(query.astype(query_BTNH.dtype))

    def block(number, carry):
        top_BNT, total_BNT, out_BNTH = carry
        # The last block is moved back to fit; what the one before has seen is left out.
        start = jnp.minimum(number * size, S - size)
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, 1)
        at = Whereabouts(position=cut(keys.position), order=cut(keys.order))
        fresh_S = start + jnp.arange(size) >= number * size
        shape = (1, B, size, K, H)
        part = lambda stack: jax.lax.dynamic_slice(stack, (layer, 0, start, 0, 0), shape)[0]
        distance = queries.position[:, :, None] - at.position[:, None, :]
        scores = dot_keys(query, part(key_LBSKH))
        if bias is not None:
            scores = scores + _bias(bias, distance)
        seen = _seen(queries, at, distance, heads) & fresh_S[None, None]
        scores = jnp.where(seen[:, None], scores, _FAR)
        higher = jnp.maximum(top_BNT, jnp.max(scores, axis=-1))
        weights = jnp.exp(scores - higher[..., None])
        shrink = jnp.exp(top_BNT - higher)
        total = total_BNT * shrink + jnp.sum(weights, axis=-1)
        added = dot_values(weights.astype(value_LBSKH.dtype), part(value_LBSKH))
        return higher, total, out_BNTH * shrink[..., None] + added

    start = (
        jnp.full((B, N, T), _LOW, jnp.float32),
        jnp.zeros((B, N, T), jnp.float32),
        jnp.zeros((B, N, T, H), jnp.float32),
    )
    if size == S:
        top, total, out = block(0, start)
    else:
        filled = jnp.max(jnp.where(keys.order >= 0, jnp.arange(1, S + 1)[None], 0))
        top, total, out = jax.lax.fori_loop(0, -(-filled // size), block, start)
    if across is not None:
        shrink = jnp.exp(top - jax.lax.pmax(top, across))
        total, out = jax.lax.psum((total * shrink, out * shrink[..., None]), across)
    out = out / jnp.maximum(total, 1e-37)[..., None]
    return out.swapaxes(1, 2).astype(query_BTNH.dtype)


def attend_by_kernel(
    query_BTNH,
    key_LBSKH,
    value_LBSKH,
    layer: Array,
    bias_BTNQ: Array | None,
    *,
    queries: Whereabouts,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Array | None,
    implementation: Implementation,
    planned: kernel.KeyBlocks | None,
) -> Float[Array, "B T N H"]:
    """The same by a kernel; `planned` says which blocks it reads where it does not look itself."""
    return kernel.microturn_attention(
        query_BTNH,
        key_LBSKH,
        value_LBSKH,
        bias_BTNQ,
        queries=places(queries),
        keys=places(keys),
        scale=scale,
        implementation=implementation,
        window=heads.window,
        length_scale_BT=length_scale_BT,
        layer=layer,
        planned=planned,
    )


def _seen(queries, keys, distance_BTS, heads) -> Bool[Array, "B T S"]:
    """Which keys each query may look at: there, not later, within the window."""
    seen = (keys.order[:, None, :] >= 0) & (keys.order[:, None, :] <= queries.order[:, :, None])
    return seen if heads.window is None else seen & (distance_BTS < heads.window)


def _bias(bias_BTNQ: Array, distance_BTS: Array) -> Array:
    """Bias over the keys of one block ``[B, N, T, S]``, at no cost where all are too far."""
    B, T, N, extent = bias_BTNQ.shape
    near = jnp.any((distance_BTS >= 0) & (distance_BTS < extent))
    nothing = lambda bias, _: jnp.zeros((B, N, T, distance_BTS.shape[-1]), bias.dtype)
    return jax.lax.cond(near, gathered_bias, nothing, bias_BTNQ, distance_BTS)


def _products(T: int, N: int, K: int):
    """How queries are laid out, and their products with keys and of weights with values.

    Products give ``[B, N, T, S]`` and ``[B, N, T, H]`` in float32.
    """
    group = N // K
    if T * N > SPREAD_ROWS:

        def lay(query_BTNH):
            B, T, _, H = query_BTNH.shape
            return query_BTNH.reshape(B, T, K, group, H).transpose(0, 2, 3, 1, 4)

        def keys(query_BKGTH, key_BSKH):
            if group * T <= KEYS_LEFT_ROWS:
                return keys_left(query_BKGTH, key_BSKH)
            scores = jnp.einsum(
                "BKGTH,BSKH->BKGTS", query_BKGTH, key_BSKH, preferred_element_type=jnp.float32
            )
            return scores.reshape(scores.shape[0], N, T, -1)

        def keys_left(query_BKGTH, key_BSKH):
            B, S = key_BSKH.shape[:2]
            turned_BKHR = query_BKGTH.reshape(B, K, group * T, -1).swapaxes(2, 3)
            scores_BKSR = jnp.matmul(
                _by_head(key_BSKH), turned_BKHR, preferred_element_type=jnp.float32
            )
            # Without the barrier XLA swaps the sides and transposes the keys.
            scores_BKSR = jax.lax.optimization_barrier(scores_BKSR)
            return scores_BKSR.swapaxes(2, 3).reshape(B, N, T, S)

        def values(weights_BNTS, value_BSKH):
            B, _, _, S = weights_BNTS.shape
            weights = weights_BNTS.reshape(B, K, group, T, S)
            out = jnp.einsum(
                "BKGTS,BKSH->BKGTH", weights, _by_head(value_BSKH),
                preferred_element_type=jnp.float32,
            )  # fmt: skip
            return out.reshape(B, N, T, -1)

        return lay, keys, values
    own_NK = jnp.arange(N)[:, None] // group == jnp.arange(K)[None]

    def lay_spread(query_BTNH):
        B, T, _, H = query_BTNH.shape
        wide = jnp.where(own_NK[None, None, :, :, None], query_BTNH[:, :, :, None], 0)
        return wide.swapaxes(1, 2).reshape(B, N * T, K * H)

    def keys_spread(query_BRX, key_BSKH):
        B, S = key_BSKH.shape[:2]
        flat = key_BSKH.reshape(B, S, -1)
        scores = jnp.einsum("BSX,BRX->BSR", flat, query_BRX, preferred_element_type=jnp.float32)
        # Without the barrier XLA swaps the sides again and transposes the keys.
        return jax.lax.optimization_barrier(scores).swapaxes(1, 2).reshape(B, N, T, S)

    def values_spread(weights_BNTS, value_BSKH):
        B, S, _, H = value_BSKH.shape
        rows = weights_BNTS.reshape(B, N * T, S)
        flat = value_BSKH.reshape(B, S, -1)
        wide = jnp.einsum("BRS,BSX->BRX", rows, flat, preferred_element_type=jnp.float32)
        wide = wide.reshape(B, N, T, K, H)
        return jnp.sum(jnp.where(own_NK[None, :, None, :, None], wide, 0), axis=3)

    return lay_spread, keys_spread, values_spread


def _by_head(block_BSKH: Array) -> Array:
    """A block laid down head by head ``[B, K, S, H]``."""
    return jax.lax.optimization_barrier(block_BSKH.swapaxes(1, 2))
