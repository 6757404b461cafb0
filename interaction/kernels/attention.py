"""Micro-turn attention: a few new slots per lane against a long cache per lane.

In: queries of 10 to 60 slots, the cache of one layer or of all of them stacked, biases by distance,
and where every slot stands. Out: attended values. A key's place in the cache says nothing about
its position: caches are rings and typed memory, whose slots are overwritten out of order, so
positions and orders are data. `plan` finds which blocks of keys any query can see; it depends on
no layer, so one plan serves every layer of a kind in a step.
"""

import jax
import jax.numpy as jnp

from interaction.kernels import native
from interaction.kernels.attention_plan import LANES, AttentionBlocks, KeyBlocks, Places, plan
from interaction.kernels.implementation import Count, Implementation, unknown
from interaction.shapes import Array, Float, Int

KNOWN = (
    Implementation.REFERENCE, Implementation.NATIVE, Implementation.PALLAS_TPU,
    Implementation.PALLAS_GPU,
)  # fmt: skip

# Keys per block: large enough that a transfer is long (256 keys of 8 heads of 128 in bfloat16 are
# 0.5 MiB each of keys and values), small enough that a window of 512 is not read twice over.
# GPU: 64 keys and 64 rows of 128 fit the shared memory of every card since 2020; the splits give
# every processor of an H200 (132) work from one lane of 8 heads on. None of it was tuned on a
# device.
BLOCKS = {
    Implementation.PALLAS_TPU: AttentionBlocks(keys=256),
    Implementation.PALLAS_GPU: AttentionBlocks(keys=64, rows=64, splits=32, warps=4, stages=3),
}


def microturn_attention(
    query_BTNH: Float[Array, "B T N H"],
    key: Float[Array, "*L B S K H"],
    value: Float[Array, "*L B S K H"],
    bias_BTNQ: Float[Array, "B T N Q"] | None,
    *,
    queries: Places,
    keys: Places,
    scale: float,
    implementation: Implementation,
    filled_B: Int[Array, "B"] | None = None,
    window: int | None = None,
    length_scale_BT: Float[Array, "B T"] | None = None,
    layer: Int[Array, ""] | int | None = None,
    blocks: AttentionBlocks | None = None,
    planned: KeyBlocks | None = None,
) -> Float[Array, "B T N H"]:
    """Attention over the keys of a lane that stand no later than each query and in the window.

    Args:
        query_BTNH: queries.
        key: keys of one layer ``[B, S, K, H]``, or of all layers ``[L, B, S, K, H]`` with `layer`:
            then that layer is read where it lies, no copy of it is cut out.
        value: values, likewise.
        bias_BTNQ: what each query adds at distances 0..Q-1; beyond them nothing. None: no bias.
        queries: position and order of the queries ``[B, T]``.
        keys: position and order of the cache's places ``[B, S]``.
        scale: factor on the dot products.
        implementation: who computes.
        filled_B: places of each lane from here on are not there; None: orders alone say it.
        window: keys at this distance and beyond are not seen; None: all are.
        length_scale_BT: factor on queries and bias.
        layer: which layer of stacked keys.
        blocks: block sizes; None: `BLOCKS` of the implementation.
        planned: from `plan` with the same places, window and blocks, where one plan serves many
            layers; None: made here. REFERENCE and NATIVE use none.

    Returns:
        Attended values in the dtype of the queries; rows of queries that are not there are finite
        and hold no meaning.

    Raises:
        ValueError: shapes that do not fit together, or an unknown implementation.
    """
    _check(query_BTNH, key, value, layer)
    if implementation not in KNOWN:
        raise unknown("microturn_attention", implementation, KNOWN)
    if implementation is Implementation.REFERENCE:
        if layer is not None:
            key = jax.lax.dynamic_index_in_dim(key, layer, keepdims=False)
            value = jax.lax.dynamic_index_in_dim(value, layer, keepdims=False)
        keys = keys.within(filled_B)
        return reference(
            query_BTNH, key, value, bias_BTNQ, queries, keys, scale, window, length_scale_BT
        )
    if layer is None:
        key, value, layer = key[None], value[None], 0
    if implementation is Implementation.NATIVE:
        keys = keys.within(filled_B)
        return native.attend(
            query_BTNH, key, value, jnp.asarray(layer, jnp.int32), bias_BTNQ,
            queries=(queries.position, queries.order), keys=(keys.position, keys.order),
            scale=scale, window=window, length_scale_BT=length_scale_BT,
        )  # fmt: skip
    asked_type = query_BTNH.dtype
    query_BTNH = query_BTNH.astype(key.dtype)  # a matrix unit takes two of one type
    sizes = BLOCKS[implementation] if blocks is None else blocks
    if planned is None:
        extent = 0 if bias_BTNQ is None else bias_BTNQ.shape[-1]
        planned = plan(queries, keys, filled_B, window=window, extent=extent, block=sizes.keys)
    if length_scale_BT is not None:
        factor = length_scale_BT[:, :, None, None]
        query_BTNH = (query_BTNH.astype(jnp.float32) * factor).astype(query_BTNH.dtype)
        bias_BTNQ = None if bias_BTNQ is None else bias_BTNQ.astype(jnp.float32) * factor
    # Imported where they are asked for: Pallas is slow to import.
    if implementation is Implementation.PALLAS_TPU:
        from interaction.kernels import attention_tpu

        run = attention_tpu.attention
    else:
        from interaction.kernels import attention_gpu

        run = attention_gpu.attention
    out = run(
        query_BTNH,
        key,
        value,
        bias_BTNQ,
        queries=queries,
        planned=planned,
        layer=jnp.asarray(layer, jnp.int32),
        scale=scale,
        window=window,
        blocks=sizes,
        cost=count_of(query_BTNH, key, bias_BTNQ),
    )
    return out.astype(asked_type)


def reference(
    query_BTNH, key_BSKH, value_BSKH, bias_BTNQ, queries, keys, scale, window, length_scale_BT
) -> Array:
    """The definition, in plain jnp; arguments as of `microturn_attention`, one layer."""
    B, T, N, H = query_BTNH.shape
    S, K = key_BSKH.shape[1:3]
    factor = None if length_scale_BT is None else length_scale_BT[:, :, None, None]
    query = query_BTNH.astype(jnp.float32)
    query = query if factor is None else query * factor
    query = query.astype(query_BTNH.dtype).reshape(B, T, K, N // K, H)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", query, key_BSKH, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, N, T, S) * scale
    distance = queries.position[:, :, None] - keys.position[:, None, :]
    if bias_BTNQ is not None:
        bias = bias_BTNQ.astype(jnp.float32)
        bias = (bias if factor is None else bias * factor).swapaxes(1, 2)
        extent = bias.shape[-1]
        index = jnp.clip(distance, 0, extent - 1)[:, None]
        laid = jnp.take_along_axis(bias, jnp.broadcast_to(index, (B, N, T, S)), axis=-1)
        inside = (distance >= 0) & (distance < extent)
        scores = scores + jnp.where(inside[:, None], laid, 0.0)
    seen = (keys.order[:, None, :] >= 0) & (keys.order[:, None, :] <= queries.order[:, :, None])
    if window is not None:
        seen = seen & (distance < window)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
    weights = weights.astype(value_BSKH.dtype).reshape(B, K, N // K, T, S)
    out = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value_BSKH)
    return out.reshape(B, T, N, H).astype(query_BTNH.dtype)


def count(
    *, lanes: int, slots: int, heads: int, kv_heads: int, head_width: int, filled: int,
    extent: int, item: int,
) -> Count:  # fmt: skip
    """Bytes and operations of one layer's call.

    Keys and values of the filled places once, ``2 B S K H item``; queries and output, ``2 B T N H
    item``; biases, ``B T N Q item``; position and order of every place, ``8 B S``. Two products of
    ``2 B T N H S`` each and one exponential per score. The bias lookup adds no matrix product
    (`attention_tpu`).

    Args:
        lanes, slots, heads, kv_heads, head_width: B, T, N, K, H.
        filled: places that a query can see (S, or the window and the new slots).
        extent: Q.
        item: bytes of a number.
    """
    rows = lanes * slots * heads
    cache = 2 * lanes * filled * kv_heads * head_width * item + 8 * lanes * filled
    return Count(
        bytes=cache + 2 * rows * head_width * item + rows * extent * item,
        flops=4 * rows * head_width * filled,
        transcendentals=rows * filled,
    )


def count_of(query_BTNH: Array, key_LBSKH: Array, bias_BTNQ: Array | None) -> Count:
    """`count` with every place filled, which is all that shapes tell."""
    B, T, N, H = query_BTNH.shape
    extent = 0 if bias_BTNQ is None else bias_BTNQ.shape[-1]
    return count(
        lanes=B, slots=T, heads=N, kv_heads=key_LBSKH.shape[-2], head_width=H,
        filled=key_LBSKH.shape[-3], extent=extent, item=key_LBSKH.dtype.itemsize,
    )  # fmt: skip


def _check(query: Array, key: Array, value: Array, layer) -> None:
    if key.shape != value.shape:
        raise ValueError(f"key has shape {key.shape} and value {value.shape}")
    if key.ndim != (4 if layer is None else 5):
        raise ValueError(f"key has {key.ndim} axes with layer={layer}: 4 without a layer, 5 with")
    if query.shape[2] % key.shape[-2]:
        raise ValueError(f"{query.shape[2]} query heads are no multiple of {key.shape[-2]} heads")
    if query.shape[-1] != key.shape[-1] or query.shape[0] != key.shape[-4]:
        raise ValueError(f"query {query.shape} and key {key.shape} differ in lanes or head width")


__all__ = [
    "BLOCKS", "KNOWN", "LANES", "AttentionBlocks", "KeyBlocks", "Places", "count",
    "microturn_attention", "plan", "reference",
]  # fmt: skip
