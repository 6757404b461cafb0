"""Weights read where they lie: products with one layer's matrix out of a stack of layers.

In: few slots, and rows of stacks (`Row`). Out: the same products as with the row cut out first.
A live call multiplies a handful of slots with every weight, so its time is that of reading the
weights once. On CPU, XLA copies a slice that a matrix product reads: a stack of layers scanned or
indexed as usual is read, written and read again. Here the product goes tile by tile, each tile
small enough to stay in the core's own cache, so memory is read once (measured in
`experiments/bench/machine_limits.py`); `native` copies no tile. Other platforms cut the row out and
leave it to XLA.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from interaction import sharding
from interaction.kernels import native as native_live
from interaction.kernels import native_train
from interaction.shapes import Array

# Bytes of one tile: read from memory, written and read again in the second-level cache.
TILE_BYTES = 128 * 1024
MANY_ROWS = 64  # from which a product with a whole matrix is left to BLAS, where C++ computes


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer's weight (or one expert's) in its stack.

    Attributes:
        stack: ``[rows, ...]``; int8 with a `scale`.
        index: int32, which row.
        scale: float32 ``[rows, ..., 1, outputs]``, what each output of an int8 row is times; None:
            the stack holds the weights themselves.
    """

    stack: Array
    index: Array
    scale: Array | None = None

    @classmethod
    def of(cls, stored: "Array | dict", index: Array) -> "Row":
        """A row of a stack, or of a stack of int8 with its scales."""
        if isinstance(stored, dict):
            return cls(stored["int8"], index, stored["scale"])
        return cls(stored, index)

    def whole(self) -> Array:
        """The row cut out, as float."""
        row = jax.lax.dynamic_index_in_dim(self.stack, self.index, 0, keepdims=False)
        if self.scale is None:
            return row
        return row * jax.lax.dynamic_index_in_dim(self.scale, self.index, 0, keepdims=False)

    def part(self, index: Array) -> "Row":
        """Row `index` of this row (an expert of a layer)."""
        parts = self.stack.shape[1]

        def flat(x: Array) -> Array:
            return x.reshape(x.shape[0] * parts, *x.shape[2:])

        scale = None if self.scale is None else flat(self.scale)
        return Row(flat(self.stack), self.index * parts + index, scale)


def project(x: Array, weight: Array | Row, *, contract: int = 1, native: bool = False) -> Array:
    """Product of `x` with a weight, over its last and the weight's first `contract` axes.

    Args:
        x: ``[..., *inputs]``.
        weight: ``[*inputs, ...]``, an array or a row of a stack.
        contract: number of axes of `inputs`.
        native: C++ computes where it can (`native`, `native_train`): not under a mesh, and with
            whole matrices in float32 on many rows.

    Returns:
        ``[..., *the weight's other axes]``.
    """
    native = native and not sharding.mesh_sizes()
    if not isinstance(weight, Row):
        rows = math.prod(x.shape[: x.ndim - contract])
        if native and rows >= MANY_ROWS and x.dtype == weight.dtype == jnp.float32:
            return native_train.product(x, weight, contract)
        return _whole(x, weight, contract)
    if sharding.mesh_sizes():  # a loop over tiles of a matrix that is split would gather it
        return jnp.tensordot(x, weight.whole(), contract)
    if native:
        return native_live.project(x, weight.stack, weight.index, weight.scale, contract=contract)

    def cut(x, *row):
        return jnp.tensordot(x, Row(*row).whole(), contract)

    def tiled(x, stack, index, scale):
        product = _tiled(x, stack, index, contract)
        if scale is None:
            return product
        lead = x.ndim - contract
        return product * scale[index].reshape((1,) * lead + product.shape[lead:])

    return jax.lax.platform_dependent(
        x, weight.stack, weight.index, weight.scale, cpu=tiled, default=cut
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _whole(x: Array, weight: Array, contract: int) -> Array:
    """The product with a matrix as it is, in training."""
    return jnp.tensordot(x, weight, contract)


def _whole_forward(x: Array, weight: Array, contract: int):
    return _whole(x, weight, contract), (x, weight)


def _whole_backward(contract: int, residual: tuple[Array, Array], gradient: Array):
    """On CPU the gradient is laid down before it is used (left to itself, XLA writes it transposed,
    number by number, for the product with `x`), and `x` is (XLA's fast product takes no
    transposed left side). Measured by `experiments/bench/training_parts.py`."""

    def derived(x, weight, gradient):
        return jax.vjp(lambda x, weight: jnp.tensordot(x, weight, contract), x, weight)[1](gradient)

    def laid(x, weight, gradient):
        inputs = math.prod(weight.shape[:contract])
        gradient = jax.lax.optimization_barrier(gradient).reshape(-1, weight.size // inputs)
        into_x = jnp.matmul(gradient, weight.reshape(inputs, -1).T).reshape(x.shape)
        turned = jax.lax.optimization_barrier(x.reshape(-1, inputs).T)
        into_weight = jnp.matmul(turned, gradient).reshape(weight.shape)
        return into_x.astype(x.dtype), into_weight.astype(weight.dtype)

    if sharding.mesh_sizes():
        return derived(*residual, gradient)
    return jax.lax.platform_dependent(*residual, gradient, cpu=laid, default=derived)


_whole.defvjp(_whole_forward, _whole_backward)


def _tiled(x: Array, stack: Array, index: Array, contract: int) -> Array:
    """`project` on CPU: a loop over tiles of the contracted axes, summed in float32."""
    lead, inputs = x.shape[: x.ndim - contract], math.prod(x.shape[x.ndim - contract :])
    flat = stack.reshape(stack.shape[0], inputs, -1)
    x_rows, outputs = x.reshape(math.prod(lead), inputs), flat.shape[2]
    height = tile_height(inputs, outputs * flat.dtype.itemsize)

    def product(number):
        part = jax.lax.dynamic_slice_in_dim(x_rows, number * height, height, 1)
        tile = jax.lax.dynamic_slice(flat, (index, number * height, 0), (1, height, outputs))[0]
        return jnp.dot(part, tile.astype(part.dtype), preferred_element_type=jnp.float32)

    if height == inputs:
        total = product(0)
    else:
        zeros = jnp.zeros((x_rows.shape[0], outputs), jnp.float32)
        add = lambda number, total: total + product(number)
        total = jax.lax.fori_loop(0, inputs // height, add, zeros)
    return total.reshape(*lead, *stack.shape[1 + contract :]).astype(x.dtype)


def tile_height(inputs: int, bytes_per_input: int) -> int:
    """Rows of a tile: the largest divisor of `inputs` whose tile is not above `TILE_BYTES`."""
    most = max(1, TILE_BYTES // bytes_per_input)
    return max(h for h in range(1, inputs + 1) if inputs % h == 0 and h <= most)
