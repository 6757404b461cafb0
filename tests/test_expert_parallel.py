"""Slots travel to their experts and back: the same sums as on one device.

In: random slots, choices and experts on 8 virtual devices. Out: `in_training` and `in_live_call`
held against all experts computed on one device, forward and backward, by either exchange (the
ragged collective, which XLA's CPU backend lacks, is acted out by a gather); the proven size of the
receive buffer, which one row less breaks; capacity and what it drops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction import sharding
from interaction.kernels.experts_plan import NOBODY
from interaction.kernels.streamed import Row
from interaction.models import expert_parallel, moe, quantise
from interaction.models.expert_parallel import Exchange, Travel
from interaction.sharding import MeshConfig
from tests.models_for_tests import tiny

B, T, D, F, E, A = 8, 5, 6, 10, 8, 3
LAYERS, LAYER = 2, 1


def acted_out(operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name):
    """`jax.lax.ragged_all_to_all`, by gathering everything; NaN where the counts contradict."""
    everyone = [
        jax.lax.all_gather(x, axis_name)
        for x in (operand, input_offsets, send_sizes, output_offsets)
    ]
    me, rows = jax.lax.axis_index(axis_name), jnp.arange(operand.shape[0])
    for source in range(send_sizes.shape[0]):
        theirs, start, size, to = (x[source] for x in everyone)
        size, there = size[me], jnp.where(rows < size[me], to[me] + rows, output.shape[0])
        sent = theirs.at[start[me] + rows].get(mode="fill", fill_value=0)
        output = output.at[there].set(sent, mode="drop")
        output = jnp.where(recv_sizes[source] == size, output, jnp.nan)
    return output


@pytest.fixture
def exchange(request, monkeypatch):
    """Makes both entrances take the exchange asked for."""
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", acted_out)
    for name in ("in_training", "in_live_call"):
        honest = getattr(expert_parallel, name)
        monkeypatch.setattr(
            expert_parallel, name, functools.partial(honest, exchange=request.param)
        )
    return request.param


def problem(*, skewed: bool = False) -> dict:
    """Slots, choices, weights and experts; some slots are not there."""
    rng = np.random.default_rng(5)
    chosen = np.stack([rng.permutation(E)[:A] for _ in range(B * T)]).reshape(B, T, A)
    if skewed:
        chosen = np.broadcast_to(np.array([1, 0, 2]), (B, T, A))
    gone = rng.random((B, T)) < (0.0 if skewed else 0.2)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {
        "x": draw(B, T, D),
        "chosen": jnp.asarray(np.where(gone[..., None], NOBODY, chosen), jnp.int32),
        "weights": jnp.abs(draw(B, T, A)),
        "matrices": (draw(E, D, F), draw(E, D, F), draw(E, F, D)),
        "pull": draw(B, T, D),
    }


def on_one_device(x, chosen, weights, matrices):
    return moe.gated(*matrices, x, moe.dense_weights(chosen, weights, E)), 0


@functools.cache
def reference(*, skewed: bool = False) -> tuple:
    """Output and gradients on one device."""
    return results(on_one_device, problem(skewed=skewed), MeshConfig())[0]


def on_many(x, chosen, weights, matrices, capacity_factor=None):
    return expert_parallel.in_training(
        x, chosen, weights, matrices, moe.one_expert_each, capacity_factor=capacity_factor
    )


def results(function, given: dict, config: MeshConfig) -> tuple:
    """Output, dropped pairs, and gradients of slots, weights and experts."""

    def loss(x, weights, matrices):
        out, dropped = function(x, given["chosen"], weights, matrices)
        return jnp.sum(out * given["pull"]), (out, dropped)

    with jax.set_mesh(sharding.make_mesh(config)):
        (_, (out, dropped)), gradient = jax.jit(
            jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        )(given["x"], given["weights"], given["matrices"])
    return jax.tree.map(np.asarray, (out, gradient)), int(dropped)


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


slow = pytest.mark.slow
TRAINING = [
    (MeshConfig(data=2, expert=2, tensor=2), Exchange.RAGGED),
    pytest.param(MeshConfig(expert=2), Exchange.PADDED, marks=slow),
    pytest.param(MeshConfig(expert=8), Exchange.BY_PLATFORM, marks=slow),
]


@pytest.mark.parametrize(("config", "exchange"), TRAINING, indirect=["exchange"])
def test_training_equals_one_device(config, exchange):
    given = problem()
    many, dropped = results(on_many, given, config)
    assert dropped == 0
    assert_close(reference(), many)


@slow
@pytest.mark.parametrize("exchange", [Exchange.RAGGED], indirect=True)
def test_wrong_counts_are_noticed(exchange, monkeypatch):
    """So that the acted out collective proves something: what comes back is counted by others."""
    honest = expert_parallel.way

    def lying(*args):
        found = honest(*args)
        return expert_parallel.Way(found.item, found.row, found.sent, found.sent)

    monkeypatch.setattr(expert_parallel, "way", lying)
    (out, _), _ = results(on_many, problem(), MeshConfig(expert=2))
    assert np.isnan(out).any()


def live(given: dict, config: MeshConfig, *, int8: bool = False):
    """Output of a live call on layer 1 of 2."""
    stack = tiny(experts=E, experts_per_slot=A, expert_width=F, width=D).transformer
    stacks = [jnp.stack([0 * matrix, matrix]) for matrix in given["matrices"]]
    if int8:
        stacks = [quantise.quantise_matrices(matrix) for matrix in stacks]

    @jax.jit
    def call(x, chosen, weights, stacks, layer):
        rows = {n: Row.of(s, layer) for n, s in zip(("gate", "up", "down"), stacks, strict=True)}
        return moe.live_experts(rows, x, chosen, weights, stack)

    with jax.set_mesh(sharding.make_mesh(config)):
        out = call(given["x"], given["chosen"], given["weights"], stacks, jnp.int32(LAYER))
    return np.asarray(out)


LIVE = [
    (MeshConfig(expert=4), Exchange.RAGGED, False),
    pytest.param(MeshConfig(data=2, expert=2, tensor=2), Exchange.BY_PLATFORM, True, marks=slow),
    pytest.param(MeshConfig(tensor=2), Exchange.BY_PLATFORM, False, marks=slow),
]


@pytest.mark.parametrize(("config", "exchange", "int8"), LIVE, indirect=["exchange"])
def test_a_live_call_equals_one_device(config, exchange, int8):
    given = problem()
    one, many = live(given, MeshConfig(), int8=int8), live(given, config, int8=int8)
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)
    there = np.asarray(given["chosen"])[..., 0] >= 0
    assert np.abs(one[there]).min(axis=-1).max() > 0
    np.testing.assert_array_equal(many[~there], 0)


# ---------------------------------------------------------------------------- buffers


@pytest.mark.parametrize(
    ("travel", "group", "factor", "rows"),
    [
        (Travel.SLOTS, 4, None, 40),
        (Travel.PAIRS, 2, None, 40 * 3),  # a device has 4 experts, a slot chooses 3
        (Travel.PAIRS, 4, None, 40 * 2),
        (Travel.PAIRS, 8, None, 40),
        (Travel.PAIRS, 4, 1.0, 30),
        (Travel.PAIRS, 4, 1.25, 38),  # 37.5
        (Travel.PAIRS, 4, 99.0, 80),  # never more than the worst case
    ],
)
def test_rows_of_a_block(travel, group, factor, rows):
    sizes = {"slots": 40, "per_slot": A, "experts": E, "group": group, "capacity_factor": factor}
    assert expert_parallel.block_rows(travel, **sizes) == rows
    assert expert_parallel.receive_rows(travel, **sizes) == group * rows


def test_experts_that_cannot_be_shared():
    with pytest.raises(ValueError, match="experts=8 is no multiple of the mesh's expert=3"):
        expert_parallel.block_rows(Travel.PAIRS, slots=4, per_slot=2, experts=8, group=3)


@slow
def test_the_worst_case_fills_the_buffer_and_one_row_less_drops(monkeypatch):
    """Every slot chooses experts 0, 1 and 2: with 4 devices the first one holds 0 and 1."""
    given = problem(skewed=True)
    one = reference(skewed=True)
    many, dropped = results(on_many, given, MeshConfig(expert=4))
    assert dropped == 0
    assert_close(one, many)
    honest = expert_parallel.block_rows
    monkeypatch.setattr(
        expert_parallel, "block_rows", lambda *args, **sizes: honest(*args, **sizes) - 1
    )
    (out, _), dropped = results(on_many, given, MeshConfig(expert=4))
    assert dropped == 4  # each of the four sends the first device one pair too many
    assert np.abs(out - one[0]).max() > 0.1


def test_capacity_drops_what_comes_last_and_counts_it():
    """With room for the mean number of pairs, a device's first slots get all their experts."""
    given = problem(skewed=True)
    one, _ = reference(skewed=True)
    run = functools.partial(on_many, capacity_factor=1.0)
    (out, gradient), dropped = results(run, given, MeshConfig(expert=4))
    # 10 slots of a device want 20 pairs of device 0 and 10 of device 1; room is for 8 each.
    assert dropped == 4 * (12 + 2)
    rows = out.reshape(4, 10, D)
    np.testing.assert_allclose(rows[:, :4], one.reshape(4, 10, D)[:, :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rows[:, 8:], 0)
    np.testing.assert_array_equal(gradient[0].reshape(4, 10, D)[:, 8:], 0)
