"""The start of a training from released weights.

In: a run that names a release, and its mesh. Out: parameters on the mesh, each process having read
its own; what trains is float32, the rest as released.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from interaction import sharding
from interaction.models.parameters import abstract_params, param_axes
from interaction.models.release import start_from_release
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
