"""Micro-turn attention for TPU, in Pallas through Mosaic.

In: queries, the stacked cache, biases and a plan of live blocks. Out: attended values. The grid
is the list of live blocks of all lanes, as long as it is in this very step, so a half-empty cache
costs half; keys and values pass through VMEM once, all heads of a block together, with the usual
running maximum and sum (Milakov and Gimelshein 2018; Dao et al. 2022, arXiv 2205.14135).

The bias of query t at key s stands at ``bias[t, p_t - p_s]``, and both positions are data. Three
ways to look it up, per block of 128 keys, T queries, N heads, in passes of 8 x 128 registers:

- a product with one-hot ``[Q, 128]`` matrices: ``2 T N Q`` operations per key against ``4 T N H``
  of attention itself: 4 times attention for Q = 1024, H = 128, and for float32 biases in several
  passes to be exact; and the one-hot differs for every query unless rows are shifted first.
- the same over only those chunks of 128 distances that the block can meet: keys that stand in
  order meet ``(128 + T) / 128`` chunks, so about 1.5 times attention.
- a lane gather (`take_along_axis` inside one register, which Mosaic lowers to one instruction of
  the cross-lane unit): a gather and a select per register and chunk, ``(T N / 8) (128 + T) / 128``
  of each, exact in any dtype, and the matrix unit stays free. This is what is done here. It
  compiles for v5e, v5p, v6e and tpu7x; which is faster on a device was not measured.

Blocks in the far past meet no chunk and skip the lookup; for the long global caches that is nearly
every block. Keys out of order meet more chunks and cost more, and stay exact.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from interaction.kernels.attention_plan import LANES, UNSEEN, AttentionBlocks, KeyBlocks, Places
from interaction.kernels.implementation import MEBIBYTE, Count
from interaction.shapes import Array

ROWS = 16  # rows that are looked up together: one register of bfloat16, two of float32


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
    S, K = key_LBSKH.shape[2:4]
    if blocks.keys % LANES:
        raise ValueError(f"blocks.keys={blocks.keys} must be a multiple of {LANES} on TPU")
    rows = -(-T // ROWS) * ROWS
    query = _padded(query_BTNH.swapaxes(1, 2), rows, 2)
    where = [_padded(x, rows, 1, value)[:, :, None] for x, value in
             ((queries.position, 0), (queries.order, -1))]  # fmt: skip
    keys = [x[:, None, :] for x in (planned.keys.position, planned.keys.order)]
    number = -(-S // blocks.keys)

    def lane(j, entry, *_):
        return entry[j] // number

    def block(j, entry, *_):
        return entry[j] % number

    by_lane = lambda *shape: pl.BlockSpec(
        (1, *shape), lambda j, *refs: (lane(j, *refs), *[0] * len(shape))
    )
    cache_spec = pl.BlockSpec(
        (1, 1, blocks.keys, K, H),
        lambda j, *refs: (refs[3][0], lane(j, *refs), block(j, *refs), 0, 0),
    )
    place_spec = pl.BlockSpec(
        (1, 1, blocks.keys), lambda j, *refs: (lane(j, *refs), 0, block(j, *refs))
    )
    inputs = [query, key_LBSKH, value_LBSKH, *where, *keys]
    specs = [
        by_lane(N, rows, H), cache_spec, cache_spec,
        by_lane(rows, 1), by_lane(rows, 1), place_spec, place_spec,
    ]  # fmt: skip
    scratch = [
        pltpu.VMEM((K, N // K * rows, H), jnp.float32),
        pltpu.VMEM((K, N // K * rows, 1), jnp.float32),
        pltpu.VMEM((K, N // K * rows, 1), jnp.float32),
    ]
    if bias_BTNQ is not None:
        extent = -(-bias_BTNQ.shape[-1] // LANES) * LANES
        bias = _padded(_padded(bias_BTNQ.swapaxes(1, 2), rows, 2), extent, 3)
        inputs.append(bias)
        specs.append(by_lane(N, rows, extent))
        scratch.append(pltpu.VMEM((N, rows, blocks.keys), jnp.float32))
    kernel = functools.partial(
        _kernel, number=number, slots=S, scale=scale, window=window, biased=bias_BTNQ is not None
    )
    out = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(planned.start[-1],),
            in_specs=specs,
            out_specs=by_lane(N, rows, H),
            scratch_shapes=scratch,
        ),
        out_shape=jax.ShapeDtypeStruct((B, N, rows, H), query.dtype),
        cost_estimate=cost.estimate(),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",),
            vmem_limit_bytes=fast_memory(inputs, specs, scratch, query),
        ),
        name="microturn_attention",
    )(
        planned.entry,
        planned.first_chunk,
        planned.chunks,
        layer.reshape(1),
        *inputs,
    )
    return out[:, :, :T].swapaxes(1, 2)


def fast_memory(inputs, specs, scratch, out) -> int:
    """Bytes of VMEM to ask for: two buffers of every block, scratch, and as much again as the
    scratch for values in flight, in rows of 128 lanes; at least 16 MiB, the compiler's default."""

    def size(shape, dtype):
        shape = [1 if axis is None else axis for axis in shape]
        lanes = -(-shape[-1] // LANES) * LANES
        rest = [*shape[:-2], -(-shape[-2] // ROWS) * ROWS]
        for axis in rest:
            lanes *= axis
        return lanes * jnp.dtype(dtype).itemsize

    blocks = sum(size(s.block_shape, x.dtype) for s, x in zip(specs, inputs, strict=True))
    blocks += size(out.shape[1:], out.dtype)
    held = sum(size(s.shape, s.dtype) for s in scratch)
    return max(2 * blocks + 2 * held + 4 * MEBIBYTE, 16 * MEBIBYTE)


def _padded(x: Array, size: int, axis: int, value=0) -> Array:
    """`x` with `axis` padded to `size`."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, pad, constant_values=value)


def _kernel(
    entry_ref, first_ref, chunks_ref, layer_ref,
    query_ref, key_ref, value_ref, position_ref, order_ref, key_position_ref, key_order_ref,
    *rest, number, slots, scale, window, biased,
):  # fmt: skip
    """One live block: grid step j reads block ``entry[j] % number`` of lane ``entry[j] // number``.

    Shapes: query ``[1, N, R, H]`` with R padded slots, key and value ``[1, 1, s, K, H]``, positions
    and orders ``[1, R, 1]`` and ``[1, 1, s]``, bias ``[1, N, R, Q]``.
    """
    del layer_ref  # used by the index maps
    bias_ref, out_ref = rest[:2] if biased else (None, rest[0])
    acc_ref, highest_ref, total_ref = rest[1 + biased : 4 + biased]
    laid_ref = rest[4 + biased] if biased else None
    j, last_step = pl.program_id(0), pl.num_programs(0) - 1
    lane = entry_ref[j] // number
    begins = (j == 0) | (entry_ref[jnp.maximum(j - 1, 0)] // number != lane)
    ends = (j == last_step) | (entry_ref[jnp.minimum(j + 1, last_step)] // number != lane)

    @pl.when(begins)
    def _():
        acc_ref[...] = jnp.zeros(acc_ref.shape, jnp.float32)
        highest_ref[...] = jnp.full(highest_ref.shape, UNSEEN, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)

    keys = key_ref.shape[2]
    base = entry_ref[j] % number * keys
    inside = base + jax.lax.broadcasted_iota(jnp.int32, (1, keys), 1) < slots
    order = jnp.where(inside, key_order_ref[0], -1)
    distance = position_ref[0] - jnp.where(inside, key_position_ref[0], 0)
    seen = (order >= 0) & (order <= order_ref[0])
    if window is not None:
        seen = seen & (distance < window)
    column = base + jax.lax.broadcasted_iota(jnp.int32, (1, keys, 1), 1)
    block = (query_ref, key_ref, value_ref, acc_ref, highest_ref, total_ref)
    ragged = column < slots if slots % keys else None
    if laid_ref is None:
        _attend(block, seen, ragged, scale, None)
    else:
        assert bias_ref is not None

        @pl.when(chunks_ref[j] > 0)
        def _():
            _lay(bias_ref, laid_ref, distance, first_ref[j], chunks_ref[j])
            _attend(block, seen, ragged, scale, laid_ref)

        @pl.when(chunks_ref[j] == 0)
        def _():
            _attend(block, seen, ragged, scale, None)

    @pl.when(ends)
    def _():
        out = acc_ref[...] / total_ref[...]
        out_ref[0] = out.reshape(out_ref.shape[1:]).astype(out_ref.dtype)


def _lay(bias_ref, laid_ref, distance, first, chunks):
    """Write ``bias[n, r, distance[r, s]]`` to ``laid[n, r, s]``, zero outside the extent."""
    heads, rows, keys = laid_ref.shape
    laid_ref[...] = jnp.zeros(laid_ref.shape, jnp.float32)
    for row in range(0, rows, ROWS):
        for column in range(0, keys, LANES):
            apart = distance[row : row + ROWS, column : column + LANES]

            def chunk(c, carry, row=row, column=column, apart=apart):
                begin = pl.multiple_of((first + c) * LANES, LANES)
                index = apart - begin
                hit = (index >= 0) & (index < LANES)
                index = jnp.clip(index, 0, LANES - 1)

                def head(n, carry):
                    profile = bias_ref[0, n, pl.ds(row, ROWS), pl.ds(begin, LANES)]
                    found = jnp.take_along_axis(
                        profile.astype(jnp.float32), index, axis=1, mode="promise_in_bounds"
                    )
                    at = (n, pl.ds(row, ROWS), pl.ds(column, LANES))
                    laid_ref[at] = jnp.where(hit, found, laid_ref[at])
                    return carry

                return jax.lax.fori_loop(0, heads, head, carry, unroll=heads % 4 == 0 and 4)

            jax.lax.fori_loop(0, chunks, chunk, 0)


def _attend(block, seen, ragged, scale, laid_ref):
    """Take one block of keys into the running softmax of every head."""
    query_ref, key_ref, value_ref, acc_ref, highest_ref, total_ref = block
    heads, rows, width = query_ref.shape[1:]
    kv_heads, keys = key_ref.shape[3], key_ref.shape[2]
    group = heads // kv_heads
    key = jnp.swapaxes(key_ref[0, 0], 0, 1)
    value = jnp.swapaxes(value_ref[0, 0], 0, 1)
    if ragged is not None:  # what lies behind the last place may be anything, even not a number
        value = jnp.where(ragged, value, jnp.zeros_like(value))
    exact = jax.lax.Precision.HIGHEST if key.dtype == jnp.float32 else None
    for k in range(kv_heads):
        mine = pl.ds(k * group, group)
        query = query_ref[0, mine].reshape(group * rows, width)
        scores = jax.lax.dot_general(
            query, key[k], (((1,), (1,)), ((), ())),
            precision=exact, preferred_element_type=jnp.float32,
        )  # fmt: skip
        scores = (scores * scale).reshape(group, rows, keys)
        if laid_ref is not None:
            scores = scores + laid_ref[mine]
        scores = jnp.where(seen[None], scores, UNSEEN).reshape(group * rows, keys)
        highest = jnp.maximum(highest_ref[k], jnp.max(scores, axis=1, keepdims=True))
        shrink = jnp.exp(highest_ref[k] - highest)
        weights = jnp.exp(scores - highest)
        total_ref[k] = total_ref[k] * shrink + jnp.sum(weights, axis=1, keepdims=True)
        taken = jnp.dot(
            weights.astype(value.dtype), value[k],
            precision=exact, preferred_element_type=jnp.float32,
        )  # fmt: skip
        acc_ref[k] = acc_ref[k] * shrink + taken
        highest_ref[k] = highest
