"""From released Inkling weights to an interaction model, on a mesh.

In: a folder as released, the model's configuration, a mesh with a spec for every parameter. Out:
the whole tree as global arrays. The backbone and the stems for heard sound and video are the
release's; each process reads its own shards. What the release does not have starts as follows.

| part                    | start                                                                |
|-------------------------|----------------------------------------------------------------------|
| input rows of the 14    | drawn with the mean and deviation, number by number, of the rows of  |
| control tokens          | the ordinary tokens: the backbone meets them as it would a new word  |
| their output columns    | the mean of the ordinary columns: every logit is the mean logit      |
| tags of time, stream    | 0: the backbone's states are those of the release                    |
| and lateness            |                                                                      |
| own-speech stem         | fan-in normal, norm 1                                                |
| flow head               | fan-in normal, its last layer 0: it predicts no motion at first      |
| vocoder                 | a trained one from its file, else as `models.vocoder` declares it    |

The control tokens take ids behind the last one that the release keeps, where its matrices have
rows to spare (201,024 rows, 200,058 kept).
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from interaction.checkpoints.huggingface_config import read_config
from interaction.checkpoints.huggingface_sharded import Share, read_sharded
from interaction.checkpoints.native import flatten, unflatten
from interaction.models import declare
from interaction.models.config import InteractionConfig, TransformerConfig
from interaction.models.parameters import interaction_specs
from interaction.models.vocoder import load_vocoder
from interaction.types import Control

RELEASED = ("transformer", "audio", "vision")  # families that a release holds
# Fields that say how the backbone is run, or how many of its ids are used.
_FREE = ("unpadded_vocabulary", "unroll", "implementation", "recompute", "query_slots")


def start_from_release(
    source: Path | str,
    config: InteractionConfig,
    mesh: Mesh,
    specs: Mapping,
    *,
    key: jax.Array,
    vocoder: Path | str = "",
    dtype_of: Callable[[str, np.dtype], np.dtype] = lambda _, stored: stored,
) -> tuple[dict, Share]:
    """Parameters of `config` with the release's backbone.

    Args:
        source: folder of a released multimodal checkpoint.
        config: the model.
        mesh: of the devices of all processes.
        specs: nested dict of `PartitionSpec`, one for every parameter.
        key: of everything that is drawn; the draws do not depend on the mesh.
        vocoder: file of a trained vocoder; empty: a fresh one.
        dtype_of: ``(path joined by "/", type of the release or float32) -> type on the device``.

    Returns:
        The tree, and this process's share of the reading.

    Raises:
        ValueError: the release is another model, or has no room for the control tokens.
        CheckpointError: see `read_sharded`.
    """
    _check_same(read_config(source).config, config, source)
    declared = interaction_specs(config)
    backbone, share = read_sharded(source, mesh, specs, dtype_of=dtype_of)
    fresh = {name: part for name, part in declared.items() if name not in RELEASED}
    added = _drawn(key, fresh, mesh, specs, dtype_of)
    if vocoder:
        weights, made_with = load_vocoder(vocoder)
        if made_with != config.vocoder:
            raise ValueError(
                f"vocoder={vocoder} was made with {made_with}, the model asks for {config.vocoder}"
            )
        added["vocoder"] = _spread({"vocoder": weights}, mesh, specs, dtype_of)["vocoder"]
    stack = backbone["transformer"]
    table, unembed = _with_control_tokens(
        stack["embed"]["table"], stack["unembed"], jax.random.fold_in(key, 1), mesh, specs, config
    )
    stack = dict(stack, embed=dict(stack["embed"], table=table), unembed=unembed)
    return {**backbone, **added, "transformer": stack}, share


def _check_same(released, config: InteractionConfig, source: Path | str) -> None:
    if not isinstance(released, InteractionConfig):
        raise ValueError(f"source={source} is a text decoder alone, it has no stem for sound")
    ours, theirs = config.transformer, released.transformer
    pairs = {
        f"transformer.{field.name}": (getattr(ours, field.name), getattr(theirs, field.name))
        for field in dataclasses.fields(TransformerConfig)
        if field.name not in _FREE
    }
    pairs["audio"] = config.audio, released.audio
    for name in ("patch", "frames"):
        pairs[f"vision.{name}"] = getattr(config.vision, name), getattr(released.vision, name)
    pairs["vision stages"] = config.vision.plan(ours.width), released.vision.plan(theirs.width)
    pairs["ordinary_tokens"] = config.ordinary_tokens, theirs.logits_size
    for name, (mine, given) in pairs.items():
        if mine != given:
            raise ValueError(f"{name}={mine} of the model differs from {given} of {source}")


def _drawn(key, declared, mesh, specs, dtype_of) -> dict:
    """What a release does not hold, drawn where it will lie."""
    paths = flatten(declared)
    wanted = flatten(specs)
    places = unflatten({path: NamedSharding(mesh, wanted[path]) for path in paths})
    float32 = np.dtype(np.float32)

    @partial(jax.jit, out_shardings=places)
    def draw(key):
        drawn = flatten(declare.init(key, declared))
        return unflatten({p: leaf.astype(dtype_of(p, float32)) for p, leaf in drawn.items()})

    return draw(key)


def _spread(tree: dict, mesh, specs, dtype_of) -> dict:
    """Arrays that every process has, over the mesh."""
    wanted, out = flatten(specs), {}
    for path, leaf in flatten(tree).items():
        leaf = leaf.astype(dtype_of(path, leaf.dtype))
        place = NamedSharding(mesh, wanted[path])
        out[path] = jax.make_array_from_callback(leaf.shape, place, lambda i, leaf=leaf: leaf[i])
    return unflatten(out)


def _with_control_tokens(table_VD, unembed_DV, key, mesh, specs, config: InteractionConfig):
    """Both vocabulary matrices with a start for the control tokens."""
    wanted, first = flatten(specs), config.ordinary_tokens
    names = ("transformer/embed/table", "transformer/unembed")
    places = tuple(NamedSharding(mesh, wanted[name]) for name in names)

    @partial(jax.jit, out_shardings=places, donate_argnums=(0, 1))
    def start(table_VD, unembed_DV, key):
        noise = jax.random.normal(key, (len(Control), table_VD.shape[1]))
        mean_D, deviation_D = _moments(table_VD, first, axis=0)
        rows = mean_D[None] + deviation_D[None] * noise
        column_D, _ = _moments(unembed_DV, first, axis=1)
        columns = jnp.broadcast_to(column_D[:, None], (column_D.shape[0], len(Control)))
        table_VD = table_VD.at[first : first + len(Control)].set(rows.astype(table_VD.dtype))
        columns = columns.astype(unembed_DV.dtype)
        return table_VD, unembed_DV.at[:, first : first + len(Control)].set(columns)

    return start(table_VD, unembed_DV, key)


def _moments(matrix: jax.Array, count: int, axis: int) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over the first `count` entries of an axis, in float32."""
    index = jax.lax.broadcasted_iota(jnp.int32, matrix.shape, axis)
    values = jnp.where(index < count, matrix.astype(jnp.float32), 0)
    mean = jnp.sum(values, axis) / count
    away = jnp.where(index < count, values - jnp.expand_dims(mean, axis), 0)
    return mean, jnp.sqrt(jnp.sum(jnp.square(away), axis) / count)
