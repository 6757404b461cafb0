"""The flow-matching audio head: hidden state to one 200 ms chunk of mel.

In: the hidden state at the SPEAK slot. Out: normalised mel ``[R, Z]``. Time runs from t = 0, noise,
to t = 1, data, on the optimal-transport path ``x_t = (1 - t) x_0 + t x_1`` with target velocity
``x_1 - x_0`` (Lipman et al. 2022, arXiv 2210.02747). The network is an MLP with adaptive layer
norm, as in MAR (Li et al. 2024, arXiv 2406.11838). Flow time and loss are float32.
"""

import functools

import jax
from jax.sharding import PartitionSpec

from interaction import sharding
from interaction.kernels import flow as kernel
from interaction.kernels.flow import predict, velocity
from interaction.kernels.implementation import Implementation
from interaction.models.config import InteractionConfig
from interaction.shapes import Array, Float

__all__ = ["interpolate", "predict", "sample", "velocity"]


def interpolate(noise: Array, mel: Array, t: Float[Array, "n"]) -> tuple[Array, Array]:
    """The point at time t on the straight path from noise to data, and its velocity."""
    time = t[:, None, None]
    return (1 - time) * noise + time * mel, mel - noise


def sample(
    params: dict,
    noise: Float[Array, "n R Z"],
    condition: Float[Array, "n D"],
    config: InteractionConfig,
) -> Float[Array, "n R Z"]:
    """Euler integration from noise to mel in `config.flow.steps` equal steps.

    On TPU, where `config.transformer.implementation` asks for kernels, all steps are one kernel.
    Elsewhere XLA computes them, GPUs included (`kernels.flow` says why). Under a mesh the
    kernel runs on every device with its own lanes and the whole head (`shard_map`: the compiler
    cannot split it).
    """
    on_tpu = config.transformer.implementation is Implementation.PALLAS_TPU
    who = Implementation.PALLAS_TPU if on_tpu else Implementation.HOISTED
    sample = functools.partial(kernel.sample, steps=config.flow.steps, implementation=who)
    sizes = sharding.mesh_sizes()
    if on_tpu and sizes:
        lanes = sharding.resolve(("batch",), noise.shape[:1], sizes)
        sample = jax.shard_map(
            sample, in_specs=(PartitionSpec(), lanes, lanes), out_specs=lanes, check_vma=False
        )
    return sample(params, noise, condition)
