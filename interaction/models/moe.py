"""Mixture of experts: sigmoid router, bias outside the weights, shared experts as a sink.

In: hidden states. Out: mixed states and each routed expert's share of the slots. Selection takes
``sigmoid(logit) + bias`` over routed experts; weights are the softmax over log-sigmoids of the
chosen and the shared experts together, so shared experts act as a sink; the bias never enters the
weights (auxiliary-loss-free balancing, Wang et al. 2024, arXiv 2408.15664). Router and weights
are float32. Training computes every expert on every slot, except on one CPU device, where slots
are sorted and each computes the experts that it chose: both are dropless and give the same sums. A
live call, whose weights come as rows of their stacks, goes through the experts that some slot
chose, each weight read once. Where experts are split over devices, both go by way of
`expert_parallel`.
"""

import functools

import jax
import jax.numpy as jnp

from interaction import sharding
from interaction.kernels import experts as kernel
from interaction.kernels import experts_sorted, native_train
from interaction.kernels.experts_plan import NOBODY
from interaction.kernels.implementation import Implementation
from interaction.kernels.streamed import Row, project
from interaction.models import expert_parallel
from interaction.models.config import TransformerConfig
from interaction.shapes import Array, Bool, Float
from interaction.types import pytree


@pytree
class Load:
    """What went where.

    Attributes:
        share: float32 ``[E]``, each expert's share of the (valid slot, choice) pairs.
        dropped: float32 scalar, share of the pairs that were dropped (0 without a capacity).
    """

    share: Array
    dropped: Array


def route(
    params: dict, x_BTD: Float[Array, "B T D"], config: TransformerConfig
) -> tuple[Array, Array, Array]:
    """Which experts every slot chooses, and their weights.

    Returns:
        Chosen experts int32 ``[B, T, A]``, their float32 weights, and those of shared experts
        ``[B, T, shared]``.
    """
    logits = project(x_BTD.astype(jnp.float32), params["router"].astype(jnp.float32))
    routed, shared = logits[..., : config.experts], logits[..., config.experts :]
    choice = jax.nn.sigmoid(routed) + params["bias"].astype(jnp.float32)[None, None]
    slots = None if isinstance(params.get("gate"), Row) else "slots"
    best = lambda choice: jax.lax.top_k(choice, config.experts_per_slot)[1]
    chosen_BTA = sharding.by_rows(best, choice, "batch", slots, None)
    chosen_logits = jnp.take_along_axis(routed, chosen_BTA, axis=-1)
    joint = jnp.concatenate([chosen_logits, shared], axis=-1)
    weights = jax.nn.softmax(jax.nn.log_sigmoid(joint), axis=-1)
    weights = weights * config.route_scale * params["scale"].astype(jnp.float32)
    chosen, shared = jnp.split(weights, [config.experts_per_slot], axis=-1)
    return chosen_BTA, chosen, shared


def dense_weights(chosen_BTA: Array, weights_BTA: Array, experts: int) -> Float[Array, "B T E"]:
    """Weights of all experts, zero for those not chosen."""
    one_hot = jax.nn.one_hot(chosen_BTA, experts, dtype=jnp.float32)
    return jnp.einsum("BTA,BTAE->BTE", weights_BTA, one_hot)


def expert_weights(stored: Array | dict) -> Array:
    """Matrices of every expert as float, from an array or from `quantise.quantise_matrices`."""
    if isinstance(stored, dict):
        return stored["int8"].astype(jnp.float32) * stored["scale"]
    return stored


def gated(
    gate: Array | dict,
    up: Array | dict,
    down: Array | dict,
    x_BTD: Array,
    weights_BTE: Array,
) -> Array:
    """SiLU-gated experts on every slot, each scaled by its weight, summed."""
    gate, up, down = expert_weights(gate), expert_weights(up), expert_weights(down)
    hidden = jax.nn.silu(jnp.einsum("BTD,EDF->BTEF", x_BTD, gate))
    hidden = hidden * jnp.einsum("BTD,EDF->BTEF", x_BTD, up)
    hidden = hidden * weights_BTE[..., None].astype(hidden.dtype)
    return jnp.einsum("BTEF,EFD->BTD", hidden, down)


def whole_experts(
    params: dict, x_BTD: Array, chosen_BTA: Array, weights_BTA: Array, config: TransformerConfig
) -> Array:
    """Routed experts of whole sequences, where no expert is on another device; zeros for slots that
    are not there."""
    matrices = [expert_weights(params[name]) for name in ("gate", "up", "down")]
    B, T, A = chosen_BTA.shape

    def every(x, chosen, weights, gate, up, down):
        return gated(gate, up, down, x, dense_weights(chosen, weights, config.experts))

    def chosen_alone(x, chosen, weights, gate, up, down):
        rows, chosen, weights = (each.reshape(B * T, -1) for each in (x, chosen, weights))
        mixed: Array = experts_sorted.mix(rows, chosen, weights, gate, up, down)
        return mixed.reshape(x.shape)

    def by_native(x, chosen, weights, gate, up, down):
        rows, chosen, weights = (each.reshape(B * T, -1) for each in (x, chosen, weights))
        return native_train.experts(rows, chosen, weights, gate, up, down).reshape(x.shape)

    inputs = (x_BTD, chosen_BTA, weights_BTA, *matrices)
    if sharding.mesh_sizes() or config.experts == A:
        return every(*inputs)
    if config.implementation is Implementation.NATIVE and _all_float32(x_BTD, *matrices):
        return by_native(*inputs)
    return jax.lax.platform_dependent(*inputs, cpu=chosen_alone, default=every)


def _all_float32(*arrays: Array) -> bool:
    return all(each.dtype == jnp.float32 for each in arrays)


def live_experts(params: dict, x_BTD: Array, chosen_BTA: Array, weights_BTA: Array, config):
    """Routed experts of a live call: weights are read where they lie, touched experts alone."""
    rows = [params[name] for name in ("gate", "up", "down")]
    stacks = tuple(row.stack for row in rows)
    scales = tuple(row.scale for row in rows) if rows[0].scale is not None else None

    def compute(x_MD, chosen_MA, weights_MA, stacks, scales, layer):
        rows, per_row = chosen_MA.shape
        who = kernel.choose(config.implementation, rows, stacks[0].shape[1], per_row)
        if scales is not None and who not in kernel.READ_INT8:
            who = Implementation.TOUCHED
        return kernel.mix(
            x_MD, chosen_MA, weights_MA, *stacks, implementation=who, layer=layer, scales=scales
        )

    if sharding.mesh_sizes():
        return expert_parallel.in_live_call(
            x_BTD, chosen_BTA, weights_BTA, stacks, scales, rows[0].index, compute
        )
    B, T, A = chosen_BTA.shape
    flat = (x_BTD.reshape(B * T, -1), chosen_BTA.reshape(B * T, A), weights_BTA.reshape(B * T, A))
    return compute(*flat, stacks, scales, rows[0].index).reshape(x_BTD.shape)


def one_expert_each(rows_RD: Array, expert_R: Array, gate: Array, up: Array, down: Array) -> Array:
    """Rows through one expert each; a row of NOBODY holds no meaning.

    Every row goes through every expert, except on TPU, where rows are sorted and the product is a
    grouped one (XLA computes that densely elsewhere).
    """
    if gate.shape[0] == 1:
        hidden = jax.nn.silu(rows_RD @ gate[0]) * (rows_RD @ up[0])
        return hidden @ down[0]
    return jax.lax.platform_dependent(
        rows_RD, expert_R, gate, up, down, tpu=_grouped, default=_every
    )


def _every(rows_RD, expert_R, gate, up, down) -> Array:
    """`one_expert_each` by computing all of them."""
    own = jax.nn.one_hot(expert_R, gate.shape[0], dtype=jnp.float32)
    return gated(gate, up, down, rows_RD[None], own[None])[0]


def _grouped(rows_RD, expert_R, gate, up, down) -> Array:
    """`one_expert_each` by sorting; rows of NOBODY go behind the last group and stay zero."""
    experts = gate.shape[0]
    group = jnp.where(expert_R < 0, experts, expert_R)
    order = jnp.argsort(group, stable=True)
    sizes = jnp.zeros((experts,), jnp.int32).at[group].add(1, mode="drop")
    there = (group[order] < experts)[:, None]

    def product(rows, matrices):
        return jnp.where(there, jax.lax.ragged_dot(rows, matrices, sizes), 0)

    x = jnp.where(there, rows_RD[order], 0)
    mixed = product(jax.nn.silu(product(x, gate)) * product(x, up), down)
    return jnp.zeros_like(mixed).at[order].set(mixed, unique_indices=True)


def shared_rows(
    gate: Row, up: Row, down: Row, x_BTD: Array, weights_BTE: Array, *, native: bool
) -> Array:
    """Shared experts of a live call, one after the other."""
    multiply = functools.partial(project, native=native)
    out = jnp.zeros_like(x_BTD)
    for expert in range(weights_BTE.shape[-1]):
        number = jnp.int32(expert)
        inner, outer = multiply(x_BTD, gate.part(number)), multiply(x_BTD, up.part(number))
        weight = weights_BTE[..., expert, None].astype(inner.dtype)
        out = out + multiply(jax.nn.silu(inner) * outer * weight, down.part(number))
    return out


def shared_experts(gate, up, down, x_BTD: Array, weights_BTE: Array, *, native: bool) -> Array:
    """Shared experts of whole sequences; on one CPU device one after the other."""

    multiply = functools.partial(project, native=native)

    def each(gate, up, down, x, weights):
        out = jnp.zeros_like(x)
        for expert in range(weights.shape[-1]):
            hidden = jax.nn.silu(multiply(x, gate[expert])) * multiply(x, up[expert])
            weight = weights[..., expert, None].astype(hidden.dtype)
            out = out + multiply(hidden * weight, down[expert])
        return out

    gate, up, down = (expert_weights(matrix) for matrix in (gate, up, down))
    if sharding.mesh_sizes():
        return gated(gate, up, down, x_BTD, weights_BTE)
    return jax.lax.platform_dependent(gate, up, down, x_BTD, weights_BTE, cpu=each, default=gated)


def mixture(
    params: dict,
    x_BTD: Float[Array, "B T D"],
    valid_BT: Bool[Array, "B T"],
    config: TransformerConfig,
    *,
    capacity_factor: float | None = None,
) -> tuple[Float[Array, "B T D"], Load]:
    """Routed and shared experts.

    Args:
        params: one layer's router and experts.
        x_BTD: normalised hidden states.
        valid_BT: slots that count in the load.
        config: the stack.
        capacity_factor: training with experts split over devices: see
            `expert_parallel.block_rows`; None: nothing is dropped.

    Returns:
        The mixed states, and what went where.
    """
    chosen_BTA, weights_BTA, shared_weights = route(params, x_BTD, config)
    there_BTA = jnp.where(valid_BT[..., None], chosen_BTA, NOBODY)
    total = jnp.maximum(jnp.sum(valid_BT) * config.experts_per_slot, 1)
    live = isinstance(params["gate"], Row)
    dropped = jnp.int32(0)
    if live:
        out = live_experts(params, x_BTD, there_BTA, weights_BTA, config)
    elif sharding.mesh_sizes().get(sharding.EXPERT, 1) > 1:
        matrices = (params["gate"], params["up"], params["down"])
        out, dropped = expert_parallel.in_training(
            x_BTD, there_BTA, weights_BTA, matrices, one_expert_each,
            capacity_factor=capacity_factor,
        )  # fmt: skip
    else:
        out = whole_experts(params, x_BTD, there_BTA, weights_BTA, config)
    if config.shared_experts:
        mix = shared_rows if live else shared_experts
        gate, up, down = (params[f"shared_{name}"] for name in ("gate", "up", "down"))
        native = config.implementation is Implementation.NATIVE
        out = out + mix(gate, up, down, x_BTD, shared_weights, native=native)
    picked = jax.nn.one_hot(chosen_BTA, config.experts) * valid_BT[..., None, None]
    return out, Load(share=jnp.sum(picked, axis=(0, 1, 2)) / total, dropped=dropped / total)
