"""The gradient of a batch, at once or as the sum of its parts'.

In: the loss of some conversations of a batch. Out: the gradient of the whole batch and its metrics.
Parts are computed one after the other and only their sum is kept, so activations are those of one
part; what it costs is a sum as large as the parameters that train, and weights that are read and
gathered once for each part.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from interaction import sharding

PartLoss = Callable[[Any, Any], tuple[jax.Array, dict]]


def gradient(
    loss: PartLoss, params: Any, rows: Any, parts: int, laid: Callable[[Any], Any]
) -> tuple[Any, dict]:
    """Gradient and metrics of a batch.

    Args:
        loss: from parameters and some rows to what they contribute to the loss and to the metrics
            of the batch: contributions of all parts add up.
        params: what is trained.
        rows: pytree whose every leaf begins with the axis of conversations, B.
        parts: that they are computed in; B is a multiple of it and of the devices that share each.
        laid: says where a gradient lies.
    """
    both = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (_, metrics), found = both(params, rows)
        return found, metrics

    def add(sums, part):
        (_, metrics), found = both(params, part)
        found, metrics = jax.tree.map(jnp.add, sums, (found, metrics))
        return (laid(found), metrics), None

    cut = jax.tree.map(lambda leaf: split(leaf, parts), rows)
    metrics = jax.eval_shape(loss, params, jax.tree.map(lambda leaf: leaf[0], cut))[1]
    start = (
        laid(jax.tree.map(jnp.zeros_like, params)),
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics),
    )
    (found, metrics), _ = jax.lax.scan(add, start, cut)
    return found, metrics


def split(leaf: jax.Array, parts: int) -> jax.Array:
    """``[B, ...]`` to ``[parts, B / parts, ...]``: every part has rows of every device, in place.

    Part p has rows p, p + parts, ...
    """
    cut = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)
    return sharding.constrain(cut, None, "batch", *[None] * (leaf.ndim - 1))
