"""Attention of a live call: who computes it, on one device or on each device of a mesh.

In: queries of a call and the stacked cache. Out: attended values. Without a mesh this is
`attention_blocks` as asked for. Under one, each device computes its lanes and its heads by the same
code (`shard_map`: a kernel cannot be split by the compiler, and loops over a split cache would be
gathered), and where the global store is split over ``sequence`` the parts of a softmax are joined.
"""

import functools
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from interaction import sharding
from interaction.kernels import attention as kernel
from interaction.kernels.implementation import Implementation
from interaction.models import attention as att
from interaction.models.attention import Whereabouts
from interaction.models.attention_blocks import attend_by_kernel, attend_in_cache
from interaction.models.cache import store_axes
from interaction.models.config import AttentionConfig, AttentionKind, TransformerConfig
from interaction.shapes import Array, Float
from interaction.sharding import SEQUENCE

_BY_LANE = ("batch", None)


def plan(cache: dict, where: Whereabouts, config: TransformerConfig) -> dict | None:
    """Which blocks of each kind's store the attention kernels read; one plan for all layers.

    Under a mesh every device lists its own lanes' blocks, and every leaf has the devices that
    share lanes in front.
    """
    if config.implementation not in kernel.BLOCKS:
        return None
    block = kernel.BLOCKS[config.implementation].keys
    sizes, found = sharding.mesh_sizes(), {}
    for kind in AttentionKind:
        if kind.value not in cache:
            continue
        heads, entry = config.attention(kind), cache[kind.value]
        of_lanes = functools.partial(
            kernel.plan,
            window=heads.window,
            extent=0 if att.uses_rotary(config) else heads.bias_extent,
            block=block,
        )
        args = (att.places(where), kernel.Places(entry["position"], entry["order"]))
        if not sizes:
            found[kind] = of_lanes(*args)
            continue
        lanes = sharding.resolve(_BY_LANE, where.order.shape, sizes)
        found[kind] = jax.shard_map(
            lambda *args, plan=of_lanes: jax.tree.map(lambda leaf: leaf[None], plan(*args)),
            in_specs=lanes, out_specs=lanes, check_vma=False,
        )(*args)  # fmt: skip
    return found


def attend_live(
    query_BTNH: Float[Array, "B T N H"],
    key_LBSKH: Float[Array, "L B S K H"],
    value_LBSKH: Float[Array, "L B S K H"],
    layer: Array,
    bias_BTNQ: Float[Array, "B T N Q"] | None,
    *,
    queries: Whereabouts,
    keys: Whereabouts,
    heads: AttentionConfig,
    scale: float,
    length_scale_BT: Float[Array, "B T"] | None,
    implementation: Implementation,
    planned: kernel.KeyBlocks | None,
) -> Float[Array, "B T N H"]:
    """`attention_blocks.attend_in_cache`, by whom `implementation` says, on every device's part.

    Args:
        query_BTNH, key_LBSKH, value_LBSKH, layer, bias_BTNQ, queries, keys, heads, scale,
            length_scale_BT: as there.
        implementation: who computes.
        planned: from `plan`; None where that gives none.

    Raises:
        ValueError: a kernel under a mesh that splits the store over ``sequence``.
    """
    by_kernel = implementation is not Implementation.REFERENCE
    sizes = sharding.mesh_sizes()

    def attend(query, key, value, layer, bias, queries, keys, length_scale, planned, across=None):
        shared = {"queries": queries, "keys": keys, "heads": heads, "scale": scale}
        arrays = (query, key, value, layer, bias)
        if by_kernel:
            return attend_by_kernel(
                *arrays, **shared, length_scale_BT=length_scale, planned=planned,
                implementation=implementation,
            )  # fmt: skip
        return attend_in_cache(*arrays, **shared, length_scale_BT=length_scale, across=across)

    arrays = (
        query_BTNH, key_LBSKH, value_LBSKH, layer, bias_BTNQ, queries, keys, length_scale_BT,
        planned,
    )  # fmt: skip
    if not sizes:
        return attend(*arrays)

    at = functools.partial(sharding.resolve, mesh=sizes)
    store_names = store_axes(heads.window)
    store_at = at(store_names, key_LBSKH.shape)
    over_heads = "heads" if at(("kv_heads",), key_LBSKH.shape[3:4]) else None
    query_at = at(("batch", None, over_heads, None), query_BTNH.shape)
    slots_at = at(_BY_LANE, queries.order.shape)
    split = SEQUENCE in store_at
    if split and by_kernel:
        raise ValueError(
            f"implementation={implementation.name} reads whole stores; the mesh splits them over "
            f"sequence={sizes[SEQUENCE]}"
        )

    def one_device(*arrays):
        *others, planned = arrays
        planned = jax.tree.map(lambda leaf: leaf[0], planned)
        return attend(*others, planned=planned, across=SEQUENCE if split else None)

    mapped: Callable = jax.shard_map(
        one_device,
        in_specs=(
            query_at, store_at, store_at, PartitionSpec(), query_at, slots_at,
            at(store_names[1:3], keys.order.shape), slots_at, slots_at,
        ),
        out_specs=query_at,
        check_vma=False,
    )  # fmt: skip
    return mapped(*arrays)
