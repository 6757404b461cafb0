"""Experts on many rows, for training on CPU: each chosen (row, expert) pair is computed once.

In: rows, choices, weights and one layer's matrices. Out: mixed rows, and gradients of all of them
but the choices. Pairs are sorted by expert and cut into tiles of rows that share one; a loop over
experts holds a loop over the tiles that this expert has in this very batch. Nothing is dropped
whatever the load, and nothing is computed for an expert that nobody chose. The backward pass is
written out, because the gradient that JAX derives from such a loop adds a zero gradient of all
experts at every tile.
"""

import functools

import jax
import jax.numpy as jnp

from interaction.kernels import experts_plan
from interaction.kernels.experts_plan import RowTiles
from interaction.shapes import Array, Float, Int

# Rows of a whole tile, and of those that follow the whole ones of an expert; the one divides the
# other. Measured by `experiments/bench/training_parts.py`.
ROWS = (256, 32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def mix(
    x_MD: Float[Array, "M D"],
    chosen_MA: Int[Array, "M A"],
    weights_MA: Float[Array, "M A"],
    gate: Float[Array, "E D F"],
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
    rows: tuple[int, int] = ROWS,
) -> Float[Array, "M D"]:
    """``sum_a weights[m, a] down_e (silu(gate_e x_m) * up_e x_m)`` with ``e = chosen[m, a]``.

    Products take operands as they are and sum in float32, as on platforms that multiply bfloat16.

    Args:
        x_MD: rows.
        chosen_MA: distinct experts of each row; -1: none.
        weights_MA: their weights, float32; meaningless where the choice is none.
        gate, up, down: expert matrices of one layer.
        rows: of a whole tile and of a small one.

    Returns:
        Mixed rows in the dtype of `x_MD`; zeros where no expert is chosen.
    """
    return _forward(x_MD, chosen_MA, weights_MA, gate, up, down, rows)[0]


def _tile(stack: Array, start: Array, rows: int) -> Array:
    """Some rows of a stack, float32 (bfloat16 times bfloat16 is exact in it)."""
    return jax.lax.dynamic_slice_in_dim(stack, start, rows, 0).astype(jnp.float32)


def _put(stack: Array, tile: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(stack, tile.astype(stack.dtype), start, 0)


def _turned(tile: Array) -> Array:
    """Transposed and laid down: XLA's fast product takes no transposed left side."""
    return jax.lax.optimization_barrier(tile.T)


def _fitting(rows: tuple[int, int], stack: int) -> tuple[int, int]:
    """`rows`, none of them more than a stack of so many rows has.

    Raises:
        ValueError: the one is no multiple of the other.
    """
    big, small = rows
    if big % small:
        raise ValueError(f"rows={rows}: a whole tile must be a multiple of a small one")
    return min(big, stack), small


def _ranges(tiles: RowTiles, rows: tuple[int, int]) -> tuple[Array, Array]:
    """First row of each expert, and one past its last small tile."""
    small = rows[1]
    ends = jnp.cumsum((tiles.sizes + small - 1) // small) * small
    return jnp.concatenate([jnp.zeros((1,), ends.dtype), ends[:-1]]), ends


def _each_tile(first: Array, end: Array, rows: tuple[int, int], turn, carry):
    """`turn(start, rows, carry)` over an expert's rows: whole tiles, then small ones."""
    big, small = rows
    whole = (end - first) // big
    later = first + whole * big
    carry = jax.lax.fori_loop(0, whole, lambda n, c: turn(first + n * big, big, c), carry)
    rest = (end - later) // small
    return jax.lax.fori_loop(0, rest, lambda n, c: turn(later + n * small, small, c), carry)


def _laid(values: Array, index: Array, fill) -> Array:
    return values.at[index].get(mode="fill", fill_value=fill)


def _summed(pairs: Array, tiles: RowTiles, slots: int, dtype) -> Array:
    """Rows of all pairs, summed over the pairs of each slot."""
    taken = _laid(pairs, tiles.slot.reshape(slots, -1), 0)
    return jnp.sum(taken.astype(jnp.float32), axis=1).astype(dtype)


def _joined(gate_DF: Array, up_DF: Array, down_FD: Array) -> tuple[Array, Array]:
    """One expert's gate and up side by side, and down, in float32."""
    both_DF = jnp.concatenate([gate_DF, up_DF], axis=1)
    return both_DF.astype(jnp.float32), down_FD.astype(jnp.float32)


def _forward(x_MD, chosen_MA, weights_MA, gate, up, down, rows):
    slots, per_slot = chosen_MA.shape
    tiles = experts_plan.row_tiles(chosen_MA, gate.shape[0], rows[1])
    pair = tiles.pair.reshape(-1)
    rows = _fitting(rows, pair.size)
    x = _laid(x_MD, pair // per_slot, 0)
    weights = _laid(weights_MA.astype(jnp.float32).reshape(-1), pair, 0.0)
    width = gate.shape[2]

    def expert(carry, inputs):
        first, end, *matrices = inputs
        both_DF, down_FD = _joined(*matrices)

        def turn(start, rows, carry):
            kept, out = carry
            inner = _tile(x, start, rows) @ both_DF
            hidden = jax.nn.silu(inner[:, :width]) * inner[:, width:]
            mixed = (hidden * _tile(weights, start, rows)[:, None]) @ down_FD
            return _put(kept, inner, start), _put(out, mixed, start)

        return _each_tile(first, end, rows, turn, carry), None

    empty = (
        jnp.zeros((pair.size, 2 * width), x_MD.dtype),
        jnp.zeros((pair.size, x_MD.shape[1]), jnp.float32),
    )
    (kept, out), _ = jax.lax.scan(expert, empty, (*_ranges(tiles, rows), gate, up, down))
    residual = (tiles, x, weights, kept, gate, up, down, weights_MA)
    return _summed(out, tiles, slots, x_MD.dtype), residual


def _backward(rows, residual, gradient_MD):
    tiles, x, weights, kept, gate, up, down, weights_MA = residual
    slots, per_slot = weights_MA.shape
    pair = tiles.pair.reshape(-1)
    rows = _fitting(rows, pair.size)
    come = _laid(gradient_MD, pair // per_slot, 0)
    width = gate.shape[2]

    def expert(carry, inputs):
        first, end, *matrices = inputs
        both_DF, down_FD = _joined(*matrices)

        def turn(start, rows, carry):
            into_x, into_weights, into_both, into_down = carry
            inner = _tile(kept, start, rows)
            weight = _tile(weights, start, rows)[:, None]
            gradient = _tile(come, start, rows)
            gates, ups = inner[:, :width], inner[:, width:]
            slope = jax.nn.sigmoid(gates)
            open_ = gates * slope
            into_hidden = jax.lax.optimization_barrier(gradient @ down_FD.T)
            weighed = into_hidden * weight
            into_gates = weighed * ups * (slope + open_ * (1.0 - slope))
            into_inner = jnp.concatenate([into_gates, weighed * open_], axis=1)
            hidden = open_ * ups
            each = jnp.sum(into_hidden * hidden, axis=1)
            return (
                _put(into_x, into_inner @ both_DF.T, start),
                _put(into_weights, each, start),
                into_both + _turned(_tile(x, start, rows)) @ into_inner,
                into_down + _turned(hidden * weight) @ gradient,
            )

        empty = (*carry, jnp.zeros_like(both_DF), jnp.zeros_like(down_FD))
        *carry, into_both, into_down = _each_tile(first, end, rows, turn, empty)
        return tuple(carry), (into_both[:, :width], into_both[:, width:], into_down)

    empty = (jnp.zeros(x.shape, jnp.float32), jnp.zeros(pair.size, jnp.float32))
    inputs = (*_ranges(tiles, rows), gate, up, down)
    (into_x, into_weights), matrices = jax.lax.scan(expert, empty, inputs)
    into_gate, into_up, into_down = (
        each.astype(matrix.dtype) for each, matrix in zip(matrices, (gate, up, down), strict=True)
    )
    into_weights = _laid(into_weights, tiles.slot, 0.0).reshape(slots, per_slot)
    return (
        _summed(into_x, tiles, slots, gradient_MD.dtype),
        None,
        into_weights.astype(weights_MA.dtype),
        into_gate,
        into_up,
        into_down,
    )


mix.defvjp(_forward, _backward)
