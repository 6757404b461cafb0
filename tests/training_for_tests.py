"""The training loop, as it is, with a model of seven numbers: what several processes do is real.

In: a JSON object on the command line. Out: what `interaction.train.loop.train` leaves in its
folder, and its exit status. Batches come in the global order from a source of numbered records; a
step's metrics name the records of its batch, so the order of the data can be read from them. A
process may be told to kill itself, or to be sent a signal, before a step.
"""

import dataclasses
import json
import os
import signal
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from interaction.data.order import GlobalBatches, Slices
from interaction.models.config import InteractionConfig
from interaction.sharding import MeshConfig
from interaction.train import loop, start
from tests.models_for_tests import tiny

FEATURES = 7


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A record is its number and a noisy sum of features that is to be learnt."""

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        x = rng.normal(size=FEATURES).astype(np.float32)
        y = np.float32(x @ np.arange(FEATURES) + 0.1 * rng.normal())
        return {"number": np.int32(index), "x": x, "y": y}


def together(records: list[dict]) -> dict[str, np.ndarray]:
    """Stacks records."""
    return {name: np.stack([r[name] for r in records]) for name in records[0]}


class Told(GlobalBatches):
    """Batches in whose making this process may be killed or sent a signal."""

    def __init__(self, slices: Slices, act: dict):
        super().__init__(slices, workers=0)
        self.act = act

    def __next__(self):
        step = self.get_state()["record"] // self.act["batch"]
        mine = self.act.get("process") == jax.process_index()
        mark = os.path.join(self.act["workdir"], "acted")
        if mine and step == self.act.get("at") and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), getattr(signal, self.act["signal"]))
        return super().__next__()


def linear_step(config: loop.TrainConfig, rule, mesh):
    """In place of the interaction model's step."""

    def loss(params, batch):
        return jnp.mean((batch["x"] @ params["weight"] - batch["y"]) ** 2)

    def step(state, batch):
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        updates, moments = rule.update(gradient, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        after = loop.TrainState(params=params, mean=params, moments=moments, step=state.step + 1)
        place = jnp.arange(1, batch["number"].shape[0] + 1)
        return after, {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradient),
            "first": batch["number"][0],
            "order": jnp.sum(batch["number"] * place),
        }

    return jax.jit(step, donate_argnums=0)


def first_params(key, model: InteractionConfig) -> dict:
    """Seven weights, and a vocoder that stays as it is."""
    weight = np.linspace(-1, 1, FEATURES, dtype=np.float32)
    return {"weight": jnp.asarray(weight), "vocoder": {"stays": jnp.ones(2)}}


def main(act: dict) -> None:
    """Trains as told: workdir, devices, steps, batch, minutes, and what to do to whom."""
    config = loop.TrainConfig(
        model=tiny(), steps=act["steps"], batch=act["batch"], workers=0,
        mesh=MeshConfig(data=act["devices"]),
        log_every=1, checkpoint_minutes=act.get("minutes", 60.0),
        optimizer=loop.OptimizerConfig(learning_rate=0.1, warmup=2),
    )  # fmt: skip
    loop.make_train_step = linear_step
    start.init_params = first_params
    loop.make_batches = lambda *_, size, rows, **__: Told(
        Slices(Numbers(), together, size, rows, 0), act
    )
    loop.train(config, act["workdir"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
