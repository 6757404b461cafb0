"""Experts in plain XLA: the reference, and two loops for CPU that leave untouched experts alone.

In: rows, choices, stacked matrices and a layer. Out: mixed rows. Each loop turn reads one expert's
matrices where they lie, tile by tile (`streamed`). `choose` says which of them a live call takes.
"""

import jax
import jax.numpy as jnp

from interaction.kernels import experts_plan
from interaction.kernels.implementation import Count, Implementation
from interaction.kernels.streamed import Row, project
from interaction.shapes import Array

# Rows, and experts per chosen one, from which sorting rows by expert pays. Measured on one core of
# an AMD EPYC: with 4 of 16 experts of 512 x 256, 5 rows take the same time both ways and 8, 16, 32
# rows 0.80, 0.73, 0.63 of it; with 2 of 4 experts 29 rows take 1.4 times as long sorted.
# Computing all experts took longer than the faster loop at every size of the kernels' bench
# (`experiments/bench/kernels_cpu.json`) but some of the smallest: with 2 of 4 experts of 128 x 96
# 4 rows took 0.051 ms against 0.062 and 16 rows 0.118 against 0.127 (1 row 0.030 against 0.020).
BLOCKS_FROM_ROWS = 8
BLOCKS_FROM_SHARE = 4


def choose(rows: int, experts: int, per_row: int) -> Implementation:
    """The loop that a live call takes, from static sizes."""
    sort = rows >= BLOCKS_FROM_ROWS and experts >= BLOCKS_FROM_SHARE * per_row
    return Implementation.BLOCKS if sort else Implementation.TOUCHED


def reference(
    x_MD: Array, chosen_MA: Array, weights_MA: Array, gate: Array, up: Array, down: Array, *,
    layer: Array, blocks, cost: Count,
) -> Array:  # fmt: skip
    """Every expert on every row: the definition."""
    del blocks, cost
    gate, up, down = (
        jax.lax.dynamic_index_in_dim(matrix, layer, keepdims=False) for matrix in (gate, up, down)
    )
    one_hot = jax.nn.one_hot(chosen_MA, gate.shape[0], dtype=jnp.float32)
    weights_ME = jnp.einsum("MA,MAE->ME", weights_MA, one_hot)
    hidden = jax.nn.silu(jnp.einsum("MD,EDF->MEF", x_MD, gate))
    hidden = hidden * jnp.einsum("MD,EDF->MEF", x_MD, up)
    hidden = hidden * weights_ME[..., None].astype(hidden.dtype)
    return jnp.einsum("MEF,EFD->MD", hidden, down).astype(x_MD.dtype)


def _weights(matrices, layer: Array, scales) -> list[Row]:
    """One layer's rows of the stacks ``[L, E, a, b]``; `scales` of int8 stacks, or None."""
    scales = scales or (None,) * len(matrices)
    return [Row(matrix, layer, scale) for matrix, scale in zip(matrices, scales, strict=True)]


def _gated(x: Array, rows: list[Row], expert: Array, weight: Array) -> Array:
    """One expert on rows `x`, times their weights; exactly 0 where a weight is 0."""
    gate, up, down = (row.part(expert) for row in rows)
    inner, outer = project(x, gate), project(x, up)
    hidden = jnp.where(weight != 0, jax.nn.silu(inner) * outer * weight.astype(x.dtype), 0)
    return project(hidden, down).astype(jnp.float32)


def touched(
    x_MD: Array, chosen_MA: Array, weights_MA: Array, gate: Array, up: Array, down: Array, *,
    layer: Array, blocks, cost: Count, scales=None,
) -> Array:  # fmt: skip
    """A loop over touched experts, all rows through each; as many turns as experts are touched.

    An expert adds exactly 0 to a row that gives it no weight, so what a row gets does not depend,
    to the bit, on which experts other rows touch.
    """
    del blocks, cost
    found = experts_plan.touched(chosen_MA, gate.shape[1])
    rows = _weights((gate, up, down), layer, scales)

    def turn(i, total):
        expert = found.ids[i]
        weight = jnp.sum(jnp.where(chosen_MA == expert, weights_MA, 0.0), axis=1, keepdims=True)
        return total + _gated(x_MD, rows, expert, weight)

    start = jnp.zeros(x_MD.shape, jnp.float32)
    return jax.lax.fori_loop(0, found.count, turn, start).astype(x_MD.dtype)


def blocks(
    x_MD: Array, chosen_MA: Array, weights_MA: Array, gate: Array, up: Array, down: Array, *,
    layer: Array, blocks, cost: Count,
) -> Array:  # fmt: skip
    """A loop over tiles of rows that share an expert: each pair is computed once, none dropped."""
    del cost
    tiles = experts_plan.row_tiles(chosen_MA, gate.shape[1], blocks.rows)
    rows = _weights((gate, up, down), layer, None)
    per_row, flat_weights = chosen_MA.shape[1], weights_MA.reshape(-1)

    def turn(i, total):
        pair = tiles.pair[i]
        row = pair // per_row
        x = x_MD.at[row].get(mode="fill", fill_value=0)
        weight = flat_weights.at[pair].get(mode="fill", fill_value=0.0)
        mixed = _gated(x, rows, tiles.expert[i], weight[:, None])
        return total.at[row].add(mixed, mode="drop")

    start = jnp.zeros(x_MD.shape, jnp.float32)
    return jax.lax.fori_loop(0, tiles.count, turn, start).astype(x_MD.dtype)
