"""Attention of one layer: grouped queries, relative bias or rotary, sliding or global.

In: hidden states of the slots of this call, their whereabouts, and the layer's cache or nothing.
Out: the attended states. The same function serves training (keys are this call's own slots) and
live use (keys are a ring cache into which this call's slots have just been written).
"""

import functools

import jax
import jax.numpy as jnp

from interaction.kernels.attention_plan import Places
from interaction.models.config import AttentionConfig, PositionScheme, TransformerConfig
from interaction.shapes import Array, Float, Int
from interaction.types import pytree

NOT_THERE = -1


@pytree
class Whereabouts:
    """Where slots stand.

    Attributes:
        position: int32 ``[B, T]``, drives bias, window, length scaling and rotary.
        order: int32 ``[B, T]``, the lane's running count of slots; -1: the slot is not there.
            Causality follows it, so slots may share a position.
        until: int32 ``[B, T]``, the count of slots from which a key is no longer seen; None: never.
    """

    position: Array
    order: Array
    until: Array | None = None


def places(where: Whereabouts) -> Places:
    """Where slots stand, as the kernels take it."""
    return Places(where.position, where.order)


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """Root-mean-square norm over the last axis, in float32 (Zhang and Sennrich 2019)."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + epsilon)
    return ((x32 * scale) * spread(weight.astype(jnp.float32), x.ndim)).astype(x.dtype)


def spread(vector: Array, rank: int) -> Array:
    """Leading axes of size 1 until `vector` has `rank` axes: broadcasting that says so."""
    return jnp.expand_dims(vector, tuple(range(rank - vector.ndim)))


def attend(
    query_BTNH: Float[Array, "B T N H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    bias_BTNQ: Float[Array, "B T N Q"] | None,
    *,
    queries: Whereabouts,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Float[Array, "B T"] | None,
    consecutive: bool,
    query_slots: int = 0,
) -> Float[Array, "B T N H"]:
    """Attention over keys that stand no later than each query and within the window.

    Args:
        query_BTNH: queries.
        key_BSKH: keys.
        value_BSKH: values.
        bias_BTNQ: each query's bias by distance; zero beyond its extent; None: no bias.
        queries: whereabouts of the queries.
        keys: whereabouts of the keys.
        heads: window and extent.
        scale: factor on the dot products.
        length_scale_BT: factor on queries and bias (global layers beyond the scaling floor).
        consecutive: positions are the slot indices 0..T-1 of this very call; the bias is then laid
            out by a shift instead of a gather (same values, several times faster in training).
        query_slots: with `consecutive`: queries whose scores are there at once, and computed again
            in the backward pass (a sliding layer's are its window); 0: all.

    Returns:
        Attended values; rows of queries that are not there hold no meaning.
    """
    T = query_BTNH.shape[1]
    blocks = heads.window is not None and 2 * heads.window <= T and length_scale_BT is None
    if consecutive and blocks:
        return _attend_in_blocks(
            query_BTNH, key_BSKH, value_BSKH, bias_BTNQ, keys, heads, scale, query_slots
        )
    everyone = (key_BSKH, value_BSKH, keys, heads, scale)
    if consecutive and 0 < query_slots < T:
        return _attend_in_parts(
            query_BTNH, bias_BTNQ, queries, length_scale_BT, everyone, query_slots
        )
    lay = _shifted if consecutive else None
    return _attend_to_all(query_BTNH, bias_BTNQ, queries, length_scale_BT, everyone, lay)


def _attend_to_all(query_BTNH, bias_BTNQ, queries, length_scale_BT, everyone, lay):
    """Every query against every key; `lay` puts the bias over keys, None: by distance."""
    key_BSKH, value_BSKH, keys, heads, scale = everyone
    B, T, N, H = query_BTNH.shape
    S, K = key_BSKH.shape[1:3]
    query = query_BTNH.astype(jnp.float32)
    if length_scale_BT is not None:
        query = query * length_scale_BT[:, :, None, None]
    query = query.astype(query_BTNH.dtype).reshape(B, T, K, N // K, H)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", query, key_BSKH, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, N, T, S) * scale
    distance = queries.position[:, :, None] - keys.position[:, None, :]
    if bias_BTNQ is not None:
        bias = bias_BTNQ.astype(jnp.float32)
        if length_scale_BT is not None:
            bias = bias * length_scale_BT[:, :, None, None]
        scores = scores + (gathered_bias(bias, distance) if lay is None else lay(bias))
    seen = (keys.order[:, None, :] >= 0) & (keys.order[:, None, :] <= queries.order[:, :, None])
    if keys.until is not None:
        seen = seen & (queries.order[:, :, None] < keys.until[:, None, :])
    if heads.window is not None:
        seen = seen & (distance < heads.window)
    scores = jnp.where(seen[:, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value_BSKH.dtype)
    weights = weights.reshape(B, K, N // K, T, S)
    out = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value_BSKH)
    return out.reshape(B, T, N, H)


def _attend_in_parts(query_BTNH, bias_BTNQ, queries, length_scale_BT, everyone, size):
    """`attend` with `size` queries at a time, whose scores the backward pass computes again."""
    T, S = query_BTNH.shape[1], everyone[0].shape[1]
    parts = -(-T // size)

    def cut(x, fill=0):
        """``[B, T, ...]`` to ``[parts, B, size, ...]``."""
        pad = [(0, 0), (0, parts * size - T)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, pad, constant_values=fill)
        return x.reshape(x.shape[0], parts, size, *x.shape[2:]).swapaxes(0, 1)

    def one(part):
        start, query, bias, position, order, length_scale = part
        lay = functools.partial(_band, start=start, room=parts * size, keys=S)
        return _attend_to_all(
            query, bias, Whereabouts(position, order), length_scale, everyone, lay
        )

    out = jax.lax.map(
        jax.checkpoint(one),
        (
            jnp.arange(parts, dtype=jnp.int32) * size,
            cut(query_BTNH),
            None if bias_BTNQ is None else cut(bias_BTNQ),
            cut(queries.position),
            cut(queries.order, NOT_THERE),
            None if length_scale_BT is None else cut(length_scale_BT, 1),
        ),
    )
    out = out.swapaxes(0, 1)
    return out.reshape(out.shape[0], parts * size, *out.shape[3:])[:, :T]


def _attend_in_blocks(query_BTNH, key_BSKH, value_BSKH, bias_BTNQ, keys, heads, scale, query_slots):
    """`attend` of a sliding layer in training: blocks of `window` queries see two blocks of keys.

    With `query_slots` one block after the other, its scores computed again in the backward pass.
    """
    B, T, N, H = query_BTNH.shape
    K, w = key_BSKH.shape[2], heads.window
    blocks = -(-T // w)

    def cut(x):
        """``[B, T, ...]`` to ``[B, blocks, w, ...]``, padded with zeros."""
        pad = [(0, 0), (0, blocks * w - T)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, pad).reshape(B, blocks, w, *x.shape[2:])

    def pairs(x):
        """Each block of keys behind the block before it: ``[B, blocks, 2 w, ...]``."""
        mine = cut(x)
        before = jnp.pad(mine[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (mine.ndim - 2))
        return jnp.concatenate([before, mine], axis=2)

    taken = (
        cut(query_BTNH).reshape(B, blocks, w, K, N // K, H),
        pairs(key_BSKH),
        pairs(value_BSKH),
        None if bias_BTNQ is None else cut(bias_BTNQ),
        pairs((keys.order >= 0).astype(jnp.int32)) > 0,
    )
    attend_blocks = functools.partial(_attend_to_pairs, scale=scale)
    if query_slots:
        one = jax.checkpoint(lambda block: attend_blocks(*block))
        apart = jax.tree.map(lambda x: x.swapaxes(0, 1)[:, :, None], taken)
        out = jax.lax.map(one, apart)[:, :, 0].swapaxes(0, 1)
    else:
        out = attend_blocks(*taken)
    return out.reshape(B, blocks * w, N, H)[:, :T]


def _attend_to_pairs(query, key, value, bias, there, *, scale):
    """Blocks of w queries ``[B, b, w, K, G, H]``, each against its two blocks of keys.

    Query i of a block and key j of its two blocks stand ``i + w - j`` apart.
    """
    B, blocks, w, K, G, _ = query.shape
    N = K * G
    scores = jnp.einsum("BbTKGH,BbSKH->BbKGTS", query, key, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, blocks, N, w, 2 * w) * scale
    if bias is not None:
        used = min(w, bias.shape[-1])
        rows = jnp.flip(bias.astype(jnp.float32)[..., :used], axis=-1)
        rows = jnp.pad(rows.swapaxes(2, 3), [(0, 0)] * 4 + [(w - used, w + 1)])
        flat = jnp.pad(rows.reshape(B, blocks, N, w * (2 * w + 1)), [(0, 0)] * 3 + [(1, 0)])
        scores = scores + flat[..., : 2 * w * w].reshape(B, blocks, N, w, 2 * w)
    distance = jnp.arange(w)[:, None] + w - jnp.arange(2 * w)[None]
    seen = ((distance >= 0) & (distance < w))[None, None] & there[:, :, None]
    weights = jax.nn.softmax(jnp.where(seen[:, :, None], scores, -1e30), axis=-1)
    weights = weights.astype(value.dtype).reshape(B, blocks, K, G, w, 2 * w)
    return jnp.einsum("BbKGTS,BbSKH->BbTKGH", weights, value)


def gathered_bias(bias_BTNQ: Array, distance_BTS: Array) -> Array:
    """Bias laid out over keys at any distances: ``[B, N, T, S]``."""
    extent = bias_BTNQ.shape[-1]
    index = jnp.clip(distance_BTS, 0, extent - 1)[:, None]
    by_head = bias_BTNQ.swapaxes(1, 2)
    index = jnp.broadcast_to(index, (*by_head.shape[:3], distance_BTS.shape[-1]))
    laid = jnp.take_along_axis(by_head, index, axis=-1)
    inside = (distance_BTS >= 0) & (distance_BTS < extent)
    return jnp.where(inside[:, None], laid, 0.0)


def _shifted(bias_BTNQ: Array) -> Array:
    """The same for keys at 0..T-1 and queries likewise, by padding and reshaping.

    Row t holds its profile reversed so that column c stands for key c + t - (T - 1); reading the
    flattened rows with a stride shorter by one moves each row into place (Dai et al. 2019,
    arXiv 1901.02860, appendix B).
    """
    B, T, N, extent = bias_BTNQ.shape
    used = min(extent, T)
    rows = jnp.flip(bias_BTNQ[..., :used], axis=-1).swapaxes(1, 2)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, 0), (T - used, T)))
    flat = rows.reshape(B, N, T * 2 * T)[..., T - 1 : T - 1 + T * (2 * T - 1)]
    return flat.reshape(B, N, T, 2 * T - 1)[..., :T]


def _band(bias_BTNQ: Array, *, start: Array, room: int, keys: int) -> Array:
    """`_shifted` of the queries from `start` on, of `room` in all, over keys 0..`keys`-1.

    Rows of profiles, reversed, are moved into place as there, and the band that they make is put
    at its place in a row of zeros.
    """
    B, T, N, extent = bias_BTNQ.shape
    rows = jnp.flip(bias_BTNQ, axis=-1).swapaxes(1, 2)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, 0), (0, T)))
    wide = T + extent - 1
    band = rows.reshape(B, N, T * (T + extent))[..., : T * wide].reshape(B, N, T, wide)
    laid = jnp.zeros((B, N, T, room + extent - 1), bias_BTNQ.dtype)
    laid = jax.lax.dynamic_update_slice_in_dim(laid, band, start, axis=3)
    return laid[..., extent - 1 : extent - 1 + keys]


def rotate(x_BTNH: Array, position_BT: Int[Array, "B T"], base: float) -> Array:
    """Rotary position embedding, half-split pairing (Su et al. 2021, as in Llama)."""
    half = x_BTNH.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position_BT.astype(jnp.float32)[..., None, None] * frequency[None, None, None]
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    x32 = x_BTNH.astype(jnp.float32)
    low, high = x32[..., :half], x32[..., half:]
    rotated = jnp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
    return rotated.astype(x_BTNH.dtype)


def length_scale(position_BT: Array, config: TransformerConfig) -> Array | None:
    """Growth of global attention's scale beyond `scaling_floor` slots; None when off."""
    if config.scaling_floor is None:
        return None
    slots = (position_BT + 1).astype(jnp.float32)
    return 1.0 + config.scaling_alpha * jnp.log(jnp.maximum(slots / config.scaling_floor, 1.0))


def short_convolution(
    x_BTC: Float[Array, "B T C"],
    weight_CJ: Float[Array, "C J"],
    state_BJC: Float[Array, "B J C"] | None,
    added_B: Int[Array, "B"] | None,
) -> tuple[Array, Array | None]:
    """Causal depth-wise convolution with a residual, in float32.

    Args:
        x_BTC: this call's slots, valid ones packed to the left.
        weight_CJ: taps, the last one on the slot itself.
        state_BJC: the lane's last ``J - 1`` valid slots; None: none before (zeros).
        added_B: valid slots of this call per lane (needed with a state).

    Returns:
        ``x + convolution(x)``, and the last ``J - 1`` valid slots after this call.
    """
    x32 = x_BTC.astype(jnp.float32)
    T, taps = x_BTC.shape[1], weight_CJ.shape[1]
    if state_BJC is None:
        past = jnp.pad(x32, ((0, 0), (taps - 1, 0), (0, 0)))
    else:
        past = jnp.concatenate([state_BJC.astype(jnp.float32), x32], axis=1)
    weight = weight_CJ.astype(jnp.float32)
    out = x32 + sum(past[:, j : j + T] * weight[None, None, :, j] for j in range(taps))
    if state_BJC is None:
        return out.astype(x_BTC.dtype), None
    assert added_B is not None
    rows = added_B[:, None] + jnp.arange(taps - 1)[None]
    state = jnp.take_along_axis(past, rows[:, :, None], axis=1)
    return out.astype(x_BTC.dtype), state.astype(state_BJC.dtype)


def uses_rotary(config: TransformerConfig) -> bool:
    """Whether positions reach attention by rotation."""
    return config.position_scheme is PositionScheme.ROTARY
