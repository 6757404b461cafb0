"""What a training starts from: fresh parameters, checkpoints, or released weights.

In: a run, and the mesh of one that names a release. Out: parameters. Those of a release are on the
mesh, each process having read its own; what trains is float32, the rest as released.
"""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from interaction import sharding
from interaction.models.checkpoint import load_model
from interaction.models.parameters import abstract_params, init_params, param_axes
from interaction.models.release import start_from_release
from interaction.models.vocoder import load_vocoder
from interaction.train import optimizer

if TYPE_CHECKING:
    from interaction.train.loop import TrainConfig


def from_release(config: "TrainConfig", mesh: Mesh) -> dict:
    """Parameters of the whole model.

    Raises:
        ValueError: the release is another model, or the sessions are written with another
            tokenizer's ids.
    """
    made = config.shards.manifests if config.shards else ()
    for manifest in made:
        if manifest.ordinary_tokens != config.model.ordinary_tokens:
            raise ValueError(
                f"shards were written with {manifest.ordinary_tokens} ordinary tokens, the model "
                f"has {config.model.ordinary_tokens}"
            )
    axes, abstract = param_axes(config.model), abstract_params(config.model)
    specs = sharding.parameter_specs(abstract, axes, config.mesh, sharding.Purpose.TRAINING)

    def dtype_of(path: str, stored: np.dtype) -> np.dtype:
        still = optimizer.frozen(config.optimizer, path)
        return stored if still else np.dtype(np.float32)

    params, share = start_from_release(
        config.release,
        config.model,
        mesh,
        specs,
        key=jax.random.key(config.seed),
        vocoder=config.vocoder,
        dtype_of=dtype_of,
    )
    logging.info("%s: %s", config.release, share)
    return params


def parameters(config: "TrainConfig") -> dict:
    """Fresh parameters or those of `config.start`, with the given vocoder inside.

    Several checkpoints, with commas between, give their mean (Wortsman et al. 2022, arXiv
    2203.05482), which suits parts of one training.

    Raises:
        ValueError: a checkpoint or the vocoder is of another model.
    """
    if config.start:
        several = [_native(folder.strip(), config) for folder in config.start.split(",")]
        params = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *several)
    else:
        params = init_params(jax.random.key(config.seed), config.model)
    if config.vocoder:
        weights, vocoder_config = load_vocoder(config.vocoder)
        if vocoder_config != config.model.vocoder:
            raise ValueError(
                f"vocoder={config.vocoder} was made with {vocoder_config}, the model asks for "
                f"{config.model.vocoder}"
            )
        params = dict(params, vocoder=jax.tree.map(jnp.asarray, weights))
    return params


def _native(folder: str, config: "TrainConfig") -> dict:
    """Parameters of a checkpoint of the run's model."""
    params, model = load_model(folder, implementation=config.model.transformer.implementation)
    # How much text a micro-turn may put out, how shyly, and what a lane holds live shape no
    # parameter.
    live = {n: getattr(config.model, n) for n in ("max_text_out", "pass_bias", "global_slots")}
    model = dataclasses.replace(model, **live)
    if model != config.model:
        raise ValueError(f"start={folder} holds {model}, the run asks for {config.model}")
    return params
