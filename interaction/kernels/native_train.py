"""Training on CPU in C++: products, experts, attention, convolutions and gradients, float32.

In: what `experts_sorted.mix` and `attention_tiles.in_tiles` take. Out: the same to rounding, for
one layer. Products go to the BLAS that scipy brings (OpenBLAS in its wheels), which multiplies
with matrices where they lie and into them; XLA on CPU copies an expert out of its stack, and its
gradient into one, and passes over scores several times. `native_train_experts.cc` and
`native_train_attention.cc` have the loops, `native` builds them. BLAS takes as many cores as
``OPENBLAS_NUM_THREADS`` says, by default all; everything else takes one.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from interaction.kernels import native
from interaction.shapes import Array, Float, Int

NEVER = np.iinfo(np.int32).max  # `until` of a key that stays


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, weight: Array, contract: int) -> Array:
    """`streamed.project` with a whole matrix; all numbers float32."""
    return _product(x, weight, contract)[0]


def _product(x, weight, contract):
    inputs = math.prod(weight.shape[:contract])
    y = _multiplied(x.reshape(-1, inputs), weight.reshape(inputs, -1))
    return y.reshape(x.shape[: x.ndim - contract] + weight.shape[contract:]), (x, weight)


def _multiplied(a: Array, b: Array, *, a_turned: bool = False, b_turned: bool = False) -> Array:
    shape = a.shape[1 if a_turned else 0], b.shape[0 if b_turned else 1]
    turned = {"a_turned": a_turned, "b_turned": b_turned}
    return native.call("interaction_train_product", (shape,), a, b, **turned)[0]


def _product_gradient(contract, residual, gradient):
    x, weight = residual
    inputs = math.prod(weight.shape[:contract])
    rows, matrix = x.reshape(-1, inputs), weight.reshape(inputs, -1)
    gradient = gradient.reshape(rows.shape[0], -1)
    into_x = _multiplied(gradient, matrix, b_turned=True)
    into_weight = _multiplied(rows, gradient, a_turned=True)
    return into_x.reshape(x.shape), into_weight.reshape(weight.shape)


product.defvjp(_product, _product_gradient)


@jax.custom_vjp
def experts(
    x_MD: Float[Array, "M D"],
    chosen_MA: Int[Array, "M A"],
    weights_MA: Float[Array, "M A"],
    gate: Float[Array, "E D F"],
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
) -> Float[Array, "M D"]:
    """`experts_sorted.mix`; all numbers float32."""
    return _experts(x_MD, chosen_MA, weights_MA, gate, up, down)[0]


def _experts(x_MD, chosen_MA, weights_MA, gate, up, down):
    weights_MA = jnp.where(chosen_MA < 0, 0.0, weights_MA)
    chosen_MA = chosen_MA.astype(jnp.int32)
    inputs = (x_MD, chosen_MA, weights_MA, gate, up, down)
    shapes = (x_MD.shape, (2, chosen_MA.size, gate.shape[2]))
    mixed, kept = native.call("interaction_train_experts", shapes, *inputs)
    return mixed, (*inputs, kept)


def _experts_gradient(residual, gradient_MD):
    x, chosen, weights, gate, up, down, kept = residual
    shapes = tuple(each.shape for each in (x, weights, gate, up, down))
    into_x, into_weights, *matrices = native.call(
        "interaction_train_experts_gradient", shapes, gradient_MD, x, chosen, weights, kept, gate,
        up, down,
    )  # fmt: skip
    return into_x, None, into_weights, *matrices


experts.defvjp(_experts, _experts_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def attention(
    query_BTNH: Float[Array, "B T N H"],
    key_BTKH: Float[Array, "B T K H"],
    value_BTKH: Float[Array, "B T K H"],
    state_BTNr: Float[Array, "B T N r"],
    table_rQ: Float[Array, "r Q"],
    order_BT: Int[Array, "B T"],
    until_BT: Int[Array, "B T"],
    scale: float,
    window: int | None,
) -> Float[Array, "B T N H"]:
    """Attention of whole sequences at positions 0..T-1; all numbers float32.

    Args:
        query_BTNH, key_BTKH, value_BTKH: of every slot.
        state_BTNr, table_rQ: the factors of the bias by distance; empty ones (r = 0): no bias.
        order_BT: -1 where no slot is.
        until_BT: the slot from which a key is no longer seen; NEVER: it stays.
        scale: factor on the dot products.
        window: distance from which keys are not seen; None: all are.
    """
    return _attention(
        query_BTNH, key_BTKH, value_BTKH, state_BTNr, table_rQ, order_BT, until_BT, scale, window
    )[0]


def _attention(query, key, value, state, table, order, until, scale, window):
    B, T, N, _ = query.shape
    K = key.shape[2]
    inputs = (query, key, value, state, table, order, until)
    out, sums = native.call(
        "interaction_train_attention", (query.shape, (B, K, T, N // K)), *inputs,
        scale=np.float32(scale), window=window or 0,
    )  # fmt: skip
    return out, (*inputs, out, sums)


def _attention_gradient(scale, window, residual, gradient):
    shapes = tuple(each.shape for each in residual[:5])
    found = native.call(
        "interaction_train_attention_gradient", shapes, gradient, *residual,
        scale=np.float32(scale), window=window or 0,
    )  # fmt: skip
    return *found, None, None


attention.defvjp(_attention, _attention_gradient)


@jax.custom_vjp
def short_convolution(
    x_BTC: Float[Array, "B T C"], weight_CJ: Float[Array, "C J"]
) -> Float[Array, "B T C"]:
    """`attention.short_convolution` of whole sequences; all numbers float32."""
    return _convolution(x_BTC, weight_CJ)[0]


def _convolution(x_BTC, weight_CJ):
    (y,) = native.call("interaction_train_convolution", (x_BTC.shape,), x_BTC, weight_CJ)
    return y, (x_BTC, weight_CJ)


def _convolution_gradient(residual, gradient):
    shapes = tuple(each.shape for each in residual)
    name = "interaction_train_convolution_gradient"
    return tuple(native.call(name, shapes, gradient, *residual))


short_convolution.defvjp(_convolution, _convolution_gradient)
