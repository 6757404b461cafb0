"""Weights stored in fewer bytes: experts as int8, or all matrices as bfloat16.

In: the parameter tree. Out: the same tree with each routed and shared expert matrix as int8 and
its float32 scales, symmetric, one scale per expert and output channel (LLM.int8, Dettmers et al.
2022, arXiv 2208.07339, section 2, without its outlier columns; activations stay float). Router,
norms and everything else keep their type. A live call multiplies with the int8 rows and
scales the sums (`kernels.streamed`); `forward` turns them back first (`models.moe.expert_weights`).
Sums are float32 and the same `mixture` runs either tree. bfloat16 is for all that a live call reads
row by row, the experts, attention's projections, dense layers and the unembedding; states and the
cache stay float32.
"""

import enum

import jax.numpy as jnp

from interaction.models.transformer import STREAMED
from interaction.shapes import Array

EXPERT_MATRICES = ("gate", "up", "down", "shared_gate", "shared_up", "shared_down")
LARGEST = 127


class Experts(enum.Enum):
    """How expert weights are stored."""

    FLOAT32 = "float32"
    INT8 = "int8"


def quantise_matrices(weights: Array) -> dict[str, Array]:
    """A stack of matrices ``[..., inputs, outputs]`` as int8 with a scale per output.

    Returns:
        ``int8`` of the same shape in -127..127, and ``scale`` float32 ``[..., 1, outputs]``;
        their product is within half a scale of `weights`. A channel of zeros has scale 1.
    """
    weights = jnp.asarray(weights, jnp.float32)
    largest = jnp.max(jnp.abs(weights), axis=-2, keepdims=True)
    scale = jnp.where(largest > 0, largest / LARGEST, 1.0)
    return {
        "int8": jnp.clip(jnp.round(weights / scale), -LARGEST, LARGEST).astype(jnp.int8),
        "scale": scale,
    }


def quantise_experts(params: dict) -> dict:
    """The whole tree with int8 experts; `params` is left as it is.

    Args:
        params: of an interaction model.

    Raises:
        ValueError: there are no experts, they are int8 already, or a weight is not finite.
    """
    if "moe" not in params["transformer"]:
        raise ValueError("experts=int8 asks for experts; this model has dense layers alone")
    moe = dict(params["transformer"]["moe"])
    for name in EXPERT_MATRICES:
        if name not in moe:
            continue
        if isinstance(moe[name], dict):
            raise ValueError(f"transformer/moe/{name} is int8 already")
        if not bool(jnp.all(jnp.isfinite(moe[name]))):
            raise ValueError(f"transformer/moe/{name} holds a number that is not finite")
        moe[name] = quantise_matrices(moe[name])
    return params | {"transformer": params["transformer"] | {"moe": moe}}


def halve_matrices(params: dict) -> dict:
    """The whole tree with bfloat16 matrices in its stack; `params` is left as it is.

    A tied output matrix is the embedding and stays as it is.

    Args:
        params: of an interaction model.

    Raises:
        ValueError: experts are int8 already.
    """
    stack = dict(params["transformer"])
    if isinstance(stack.get("moe", {}).get("gate"), dict):
        raise ValueError("transformer/moe/gate is int8; weights=bfloat16 asks for float")
    half = lambda leaf: leaf.astype(jnp.bfloat16)
    for family, leaves in stack.items():
        if isinstance(leaves, dict):
            stack[family] = {n: half(x) if n in STREAMED else x for n, x in leaves.items()}
    if "unembed" in stack:
        stack["unembed"] = half(stack["unembed"])
    return params | {"transformer": stack}
