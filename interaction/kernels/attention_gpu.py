"""Micro-turn attention for NVIDIA GPUs, in Pallas through Triton.

In: queries, the stacked cache, biases and a plan of live blocks. Out: attended values. One program
takes a tile of rows (slots times the query heads of one group), one lane, one key head and every
`splits`-th live block; the parts are joined afterwards by their maxima and sums ("flash decoding",
Dao et al. 2023). Biases are looked up by pointer, one masked load per score, which only blocks
near enough make. Tiles of rows of one head lie next to each other in the grid, so that their
second reading of a block comes from the L2 cache.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from interaction.kernels.attention_plan import UNSEEN, AttentionBlocks, KeyBlocks, Places
from interaction.kernels.implementation import Count
from interaction.shapes import Array


def attention(
    query_BTNH: Array,
    key_LBSKH: Array,
    value_LBSKH: Array,
    bias_BTNQ: Array | None,
    *,
    queries: Places,
    planned: KeyBlocks,
    layer: Array,
    scale: float,
    window: int | None,
    blocks: AttentionBlocks,
    cost: Count,
) -> Array:
    """`microturn_attention` on stacked caches, length scale already applied."""
    B, T, N, H = query_BTNH.shape
    K = key_LBSKH.shape[3]
    if H < 16 or H & (H - 1):
        raise ValueError(f"head width {H} must be a power of two, at least 16, on GPU")
    group = N // K
    tiles = -(-T * group // blocks.rows)
    rows = tiles * blocks.rows
    inputs = [
        planned.entry, planned.chunks, planned.start, layer.reshape(1),
        query_BTNH, key_LBSKH, value_LBSKH,
        queries.position, queries.order, planned.keys.position, planned.keys.order,
    ]  # fmt: skip
    if bias_BTNQ is not None:
        inputs.append(bias_BTNQ)
    kernel = functools.partial(
        _kernel, scale=scale, window=window, blocks=blocks, biased=bias_BTNQ is not None
    )
    row_spec = pl.BlockSpec((None, None, None, blocks.rows), lambda i, h, s: (h // K, h % K, s, i))
    out, highest, total = pl.pallas_call(
        kernel,
        grid=(tiles, B * K, blocks.splits),
        in_specs=[pl.no_block_spec] * len(inputs),
        out_specs=[
            pl.BlockSpec(
                (None, None, None, blocks.rows, H), lambda i, h, s: (h // K, h % K, s, i, 0)
            ),
            row_spec,
            row_spec,
        ],
        out_shape=[
            jax.ShapeDtypeStruct((B, K, blocks.splits, rows, H), jnp.float32),
            jax.ShapeDtypeStruct((B, K, blocks.splits, rows), jnp.float32),
            jax.ShapeDtypeStruct((B, K, blocks.splits, rows), jnp.float32),
        ],
        cost_estimate=cost.estimate(),
        compiler_params=plgpu.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
        name="microturn_attention",
    )(*inputs)
    most = jnp.max(highest, axis=2, keepdims=True)
    shrink = jnp.exp(highest - most)
    total = jnp.sum(total * shrink, axis=2)
    joined = jnp.einsum("BKsrH,BKsr->BKrH", out, shrink) / jnp.maximum(total, 1e-30)[..., None]
    joined = joined[:, :, : T * group].reshape(B, K, T, group, H)
    return joined.transpose(0, 2, 1, 3, 4).reshape(B, T, N, H).astype(query_BTNH.dtype)


def _kernel(
    entry_ref, chunks_ref, start_ref, layer_ref, query_ref, key_ref, value_ref,
    position_ref, order_ref, key_position_ref, key_order_ref,
    *rest, scale, window, blocks, biased,
):  # fmt: skip
    """One tile of rows, one lane and key head, every `splits`-th live block.

    Row r stands for slot ``r // G`` and query head ``k G + r % G``. All inputs are whole arrays.
    """
    bias_ref = rest[0] if biased else None
    out_ref, highest_ref, total_ref = rest[biased:]
    T, N, H = query_ref.shape[1:]
    S, K = key_ref.shape[2:4]
    group, size, number = N // K, blocks.keys, -(-S // blocks.keys)
    lane, k, split = pl.program_id(1) // K, pl.program_id(1) % K, pl.program_id(2)
    row = pl.program_id(0) * blocks.rows + jnp.arange(blocks.rows)
    real = row < T * group
    slot = jnp.minimum(row // group, T - 1)
    head = k * group + row % group
    across = lambda x, width: jax.lax.broadcast_in_dim(x, (x.shape[0], width), (0,))
    down = lambda x, height: jax.lax.broadcast_in_dim(x, (height, x.shape[0]), (1,))
    feature = jnp.arange(H)
    query = plgpu.load(
        query_ref.at[lane, across(slot, H), across(head, H), down(feature, blocks.rows)],
        mask=across(real, H),
        other=0,
    )
    position = plgpu.load(position_ref.at[lane, slot])
    order = jnp.where(real, plgpu.load(order_ref.at[lane, slot]), -1)
    layer = layer_ref[0]
    exact = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    start, end = plgpu.load(start_ref.at[lane]), plgpu.load(start_ref.at[lane + 1])

    def block(i, carry):
        acc, highest, total = carry
        at = start + split + i * blocks.splits
        place = plgpu.load(entry_ref.at[at]) % number * size + jnp.arange(size)
        there = place < S
        spot = (layer, lane, across(place, H), k, down(feature, size))
        key = plgpu.load(key_ref.at[spot], mask=across(there, H), other=0)
        value = plgpu.load(value_ref.at[spot], mask=across(there, H), other=0)
        key_order = plgpu.load(key_order_ref.at[lane, place], mask=there, other=-1)
        key_position = plgpu.load(key_position_ref.at[lane, place], mask=there, other=0)
        scores = plgpu.dot(query, key, trans_b=True, precision=exact) * scale
        apart = across(position, size) - down(key_position, blocks.rows)
        seen = down(key_order >= 0, blocks.rows)
        seen = seen & (down(key_order, blocks.rows) <= across(order, size))
        if window is not None:
            seen = seen & (apart < window)
        if bias_ref is not None:
            extent = bias_ref.shape[-1]
            near = seen & (apart >= 0) & (apart < extent)
            near = near & (plgpu.load(chunks_ref.at[at]) > 0)
            distance = jnp.clip(apart, 0, extent - 1)
            bias = plgpu.load(
                bias_ref.at[lane, across(slot, size), across(head, size), distance],
                mask=near,
                other=0,
            )
            scores = scores + bias.astype(jnp.float32)
        scores = jnp.where(seen, scores, UNSEEN)
        new = jnp.maximum(highest, jnp.max(scores, axis=1))
        shrink = jnp.exp(highest - new)
        weights = jnp.exp(scores - across(new, size))
        taken = plgpu.dot(weights.astype(value.dtype), value, precision=exact)
        total = total * shrink + jnp.sum(weights, axis=1)
        return acc * across(shrink, H) + taken, new, total

    carry = (
        jnp.zeros((blocks.rows, H), jnp.float32),
        jnp.full((blocks.rows,), UNSEEN, jnp.float32),
        jnp.zeros((blocks.rows,), jnp.float32),
    )
    mine = jnp.maximum(pl.cdiv(end - start - split, blocks.splits), 0)
    acc, highest, total = jax.lax.fori_loop(0, mine, block, carry)
    out_ref[...] = acc
    highest_ref[...] = highest
    total_ref[...] = total
