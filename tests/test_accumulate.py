"""A batch in parts is the batch at once: gradient, losses, load of the experts, and a resumed run.

In: conversations of unlike lengths and weights. Out: the training step of the loop with
``accumulate`` against the one without, on one device and on meshes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interaction import sharding
from interaction.aot import choose, command, programs
from interaction.aot.hardware import Slice
from interaction.sharding import MeshConfig
from interaction.train import gradient as gradients
from interaction.train import loop, losses, start
from interaction.train.losses import LossConfig
from interaction.types import Batch
from tests import mesh_for_tests as case
from tests import test_train as alone
from tests.models_for_tests import random_params
from tests.test_mesh import TOLERANCE, on_one_device

RULE = optax.sgd(0.1, momentum=0.9)  # its moments after one step are the gradient itself
CONFIG = dataclasses.replace(
    alone.RARELY, batch=4, loss=LossConfig(heard=0.3, flow_draws=2), steps=3
)
IN_PARTS = dataclasses.replace(CONFIG, accumulate=2)
of_two = alone.batch_of  # its name is given to another while the loop runs here


@functools.cache
def batch_of(step: int) -> Batch:
    """Four conversations: one is over soon, weights lie between 0 and 1."""
    parts = [of_two(2 * step), of_two(2 * step + 1)]
    made = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    rng = np.random.default_rng(step)
    target, slots = made.targets, made.slots
    there = np.arange(slots.stream.shape[1])[None] < np.array([[99], [9], [99], [99]])
    target = dataclasses.replace(
        target,
        token=np.where(there, target.token, -1),
        token_weight=rng.uniform(size=there.shape).astype(np.float32),
        chunk_slot=np.where(there[:, -1:], target.chunk_slot, -1),
        chunk_weight=target.chunk_weight * np.float32([[1], [0], [0.7], [0.4]]),
    )
    slots = dataclasses.replace(slots, stream=np.where(there, slots.stream, 0))
    return dataclasses.replace(made, slots=slots, targets=target)


@functools.cache
def step_of(config: loop.TrainConfig):
    return loop.make_train_step(config, RULE, sharding.data_mesh(1))


@functools.cache
def stepped(config: loop.TrainConfig):
    """State and metrics after a step."""
    params = random_params(config.model, spread=0.05)
    params.pop("vocoder")
    state = loop.TrainState(
        params=params, mean=jax.tree.map(jnp.copy, params), moments=RULE.init(params),
        step=jnp.int32(0),
    )  # fmt: skip
    with jax.set_mesh(sharding.data_mesh(1)):
        return case.fetched(step_of(config)(state, batch_of(0)))


def test_a_step_in_parts_is_the_step_at_once():
    """Gradients, losses weighted by token and chunk, the experts' load and the bias it moves."""
    (whole, metrics), (parts, metrics_of_parts) = stepped(CONFIG), stepped(IN_PARTS)
    assert metrics.keys() > {"loss", "text", "speech", "heard", "load", "decision_accuracy"}
    assert metrics.keys() == metrics_of_parts.keys()
    assert case.worst(metrics, metrics_of_parts) < 1e-5
    assert case.worst(whole.moments, parts.moments) < TOLERANCE
    gradient = whole.moments[0].trace
    for family, name in (("flow", "output"), ("audio", "table"), ("transformer", "unembed")):
        assert np.abs(gradient[family][name]).max() > 1e-4
    bias = [state.params["transformer"]["moe"]["bias"] for state in (whole, parts)]
    np.testing.assert_array_equal(*bias)
    before = random_params(CONFIG.model, spread=0.05)["transformer"]["moe"]["bias"]
    moved = np.abs(bias[0] - np.asarray(before))
    assert moved.max() == pytest.approx(CONFIG.optimizer.balance_rate, rel=1e-4)


def test_what_the_means_are_taken_over_is_the_whole_batch_s():
    """A mean of the parts' means is another loss: the parts of this batch have unlike counts."""
    rows = jax.tree.map(jnp.asarray, batch_of(0))
    whole = losses.counts(rows, CONFIG.model, CONFIG.loss)
    cut = jax.tree.map(lambda leaf: gradients.split(leaf, 2), rows)
    parts = [jax.tree.map(lambda leaf, n=n: leaf[n], cut) for n in range(2)]
    counts = [losses.counts(part, CONFIG.model, CONFIG.loss) for part in parts]
    for field in dataclasses.fields(losses.Counts):
        one, other, both = (float(getattr(c, field.name)) for c in (*counts, whole))
        assert one + other == pytest.approx(both, rel=1e-6), field.name
        assert abs(one - other) > 0.02 * both, field.name


def test_parts_take_rows_of_every_device():
    found = gradients.split(jnp.arange(24).reshape(12, 2), 3)
    assert found.shape == (3, 4, 2)
    np.testing.assert_array_equal(found[1, :, 0], [2, 8, 14, 20])


def test_a_run_in_parts_resumes_bit_for_bit(tmp_path, monkeypatch):
    step = step_of(IN_PARTS)
    monkeypatch.setattr(loop.optimizer, "make", lambda *_: RULE)
    monkeypatch.setattr(loop, "make_train_step", lambda *_: step)
    monkeypatch.setattr(start, "init_params", lambda _, model: random_params(model, spread=0.05))
    monkeypatch.setattr(alone, "batch_of", batch_of)

    def run(name, batches, config=IN_PARTS):
        monkeypatch.setattr(loop, "make_batches", lambda *_, **__: batches)
        return alone.load_model(loop.train(config, tmp_path / name))[0]

    whole = run("whole", alone.MadeUp())
    often = dataclasses.replace(IN_PARTS, checkpoint_minutes=1e-9)
    with pytest.raises(alone.Killed):
        run("killed", alone.MadeUp(kill_at=2), often)
    alone.assert_same(run("killed", alone.MadeUp()), whole)
    assert jax.tree.leaves(whole)[0].any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"accumulate": 3}, r"accumulate=3 does not divide the batch=4 over mesh.batch_shards=1"),
        ({"accumulate": 0}, r"accumulate=0 does not divide"),
        (
            {"accumulate": 2, "mesh": MeshConfig(data=4)},
            r"accumulate=2 does not divide the batch=4 over mesh.batch_shards=4",
        ),
    ],
)
def test_parts_that_cannot_be(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(CONFIG, **changes)


def test_weights_are_read_and_gathered_for_every_part():
    """The count of `aot`: the same products, weights for each part, the state once."""
    where, mesh = Slice.parse("v6e:2x2"), MeshConfig(fsdp=2, expert=1, data=2)
    config = dataclasses.replace(CONFIG, mesh=mesh, batch=8)

    def done(config, rows):
        work = command.training_work(config, programs.Conversation.of_slots(4096))
        return choose.weigh_training(where, choose.with_mesh(config, mesh, rows), work)

    once, twice = done(config, 4), done(dataclasses.replace(config, accumulate=2), 8)
    assert choose.with_mesh(IN_PARTS, mesh).batch == 8
    a, b = (choice.phases[0].tally for choice in (once, twice))
    assert b.flops == pytest.approx(2 * a.flops)
    assert b.sent == pytest.approx(2 * a.sent)
    state = 2 * once.held  # read and written once; the sum of gradients is a quarter of it
    assert b.bytes - state == pytest.approx(2 * (a.bytes - state) + state / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [MeshConfig(data=2), MeshConfig(fsdp=2, expert=2), MeshConfig(data=2, tensor=2)]
)
def test_parts_on_a_mesh_equal_one_device_at_once(config):
    """Every part has rows of every device; the sum of gradients lies as the parameters do."""
    mesh = sharding.make_mesh(config)
    laid = case.laid_params(case.params(), config, mesh, sharding.Purpose.TRAINING)
    specs = jax.tree.map(lambda leaf: leaf.sharding, laid)

    @jax.jit
    def both(params, batch):
        whole = losses.counts(batch, case.model(), case.WEIGHTS)
        drawn = losses.draw(batch, jax.random.key(7), case.WEIGHTS)
        loss = lambda params, part: losses.part(params, part, whole, case.model(), case.WEIGHTS)
        lay = lambda tree: jax.lax.with_sharding_constraint(tree, specs)
        gradient, parts = gradients.gradient(loss, params, drawn, 2, lay)
        return {"parts": parts, "gradient": gradient}

    with jax.set_mesh(mesh):
        made = both(laid, jax.device_put(case.batch(), sharding.by_batch(mesh)))
    gate = made["gradient"]["transformer"]["moe"]["gate"]
    assert gate.sharding.is_equivalent_to(specs["transformer"]["moe"]["gate"], gate.ndim)
    wanted = {name: on_one_device(case.gradient_of)[name] for name in made}
    assert case.worst(wanted, case.fetched(made)) < TOLERANCE
