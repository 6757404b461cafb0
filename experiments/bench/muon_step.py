"""What Muon costs: one update of nano's parameters by each optimiser, on one CPU core.

Question: how much longer does an update take with Muon for matrices, and is it as large?
Command: taskset -c 1 python -m experiments.bench.muon_step
Cost: about a minute, most of it compiling.
Expectation: a few per cent of a training step; updates of about the same root mean square.
Finding: in `muon_step.json`. How well either trains is not measured here.

Gradients are random numbers, the same for both; time is the processor's.
"""

import dataclasses
import os
import pathlib
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from configs import nano
from experiments.bench import machine, measure
from interaction import configuration
from interaction.checkpoints.native import flatten
from interaction.models.config import InteractionConfig
from interaction.models.parameters import init_params
from interaction.train import optimizer
from interaction.train.optimizer import Matrices, OptimizerConfig

HERE = pathlib.Path(__file__).parent
ROUNDS = 9
STEPS = 1000
WARMUP = 5


def size(updates: dict, chosen: list[str]) -> float:
    """Root mean square of all numbers of `chosen`."""
    numbers = np.concatenate([np.asarray(updates[path]).ravel() for path in chosen])
    return float(np.sqrt(np.mean(numbers**2)))


def measured(matrices: Matrices, params: dict, gradients: list[dict], moved: list[str]) -> dict:
    """Milliseconds of an update, and its size where Muon moves and elsewhere, per unit of rate."""
    config = configuration.build(OptimizerConfig, nano.get_config().optimizer.to_dict())
    config = dataclasses.replace(config, matrices=matrices, warmup=WARMUP, weight_decay=0.0)
    rule = optimizer.make(config, STEPS)
    update, moments = jax.jit(rule.update), rule.init(params)
    seconds = []
    for number in range(2 * WARMUP + ROUNDS):
        started = time.process_time()
        out = jax.block_until_ready(update(gradients[number % len(gradients)], moments, params))
        seconds.append(time.process_time() - started)
        updates, moments = out
    flat = {path: leaf / config.learning_rate for path, leaf in flatten(updates).items()}
    others = [path for path in flat if path not in moved]
    return {
        "update_ms": measure.milliseconds(seconds[-ROUNDS:]),
        "size_of_matrices": round(size(flat, moved), 4),
        "size_of_the_rest": round(size(flat, others), 4),
    }


def main() -> None:
    model = configuration.build(InteractionConfig, nano.get_config().model.to_dict())
    params = init_params(jax.random.key(0), model)
    params.pop("vocoder")
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
    gradients = [jax.tree.map(draw, params) for _ in range(3)]
    flat = flatten(params)
    moved = [path for path in flat if optimizer.moved_by_muon(path)]
    content = {
        "question": "one update of nano's parameters, AdamW alone and Muon for matrices",
        "facts": machine.facts(packages=("jax", "jaxlib", "optax")),
        "parameters": sum(leaf.size for leaf in flat.values()),
        "parameters_that_muon_moves": sum(flat[path].size for path in moved),
        **{each.value: measured(each, params, gradients, moved) for each in Matrices},
    }
    for each in Matrices:
        print(each.value, content[each.value])
    measure.write(HERE / "muon_step.json", content)


if __name__ == "__main__":
    main()
