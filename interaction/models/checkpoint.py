"""A trained interaction model on disk: parameters and their configuration.

In: a tree and an `InteractionConfig`, or a folder. Out: a native checkpoint (``params.safetensors``
and ``config.json``), or what it holds. A folder that exists is replaced only once the new one is
complete.
"""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from interaction import configuration
from interaction.checkpoints import native
from interaction.kernels.implementation import Implementation
from interaction.models.config import InteractionConfig
from interaction.models.parameters import abstract_params


def save_model(
    folder: str | pathlib.Path, params: dict, config: InteractionConfig, *, dtype=None
) -> pathlib.Path:
    """Write a checkpoint.

    Args:
        folder: made, or replaced once the new one is complete.
        params: the whole tree.
        config: the model.
        dtype: what floating-point parameters are stored as; None: as they are.
    """
    folder = pathlib.Path(folder)
    stored = params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    tree = jax.tree.map(np.asarray, stored)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    config = computed_by(config, Implementation.REFERENCE)
    native.save_params(fresh, tree, config={"model": configuration.to_dict(config)})
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def load_model(
    folder: str | pathlib.Path, *, dtype=jnp.float32, implementation: Implementation | None = None
) -> tuple[dict, InteractionConfig]:
    """Read a checkpoint.

    Args:
        folder: from `save_model`.
        dtype: what parameters are computed in.
        implementation: who computes; None: REFERENCE, whoever trained it.

    Returns:
        Parameters as JAX arrays, and the configuration.

    Raises:
        CheckpointError: no checkpoint there.
        ValueError: the tree does not fit the configuration beside it; names what differs.
    """
    values = native.read_native_config(folder)
    if "model" not in values:
        raise ValueError(f"{folder} holds a backbone alone, not an interaction model")
    config = configuration.build(InteractionConfig, values["model"], where="model")
    params = jax.tree.map(jnp.asarray, native.load_params(folder, dtype=dtype))
    found = {name: leaf.shape for name, leaf in native.flatten(params).items()}
    wanted = {name: leaf.shape for name, leaf in native.flatten(abstract_params(config)).items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{folder}: parameter {name} is {found.get(name)}, its configuration asks for "
                f"{wanted.get(name)}"
            )
    return params, computed_by(config, implementation or Implementation.REFERENCE)


def computed_by(config: InteractionConfig, implementation: Implementation) -> InteractionConfig:
    """The model computed by `implementation`; that is no property of a checkpoint."""
    stack = dataclasses.replace(config.transformer, implementation=implementation)
    return dataclasses.replace(config, transformer=stack)
