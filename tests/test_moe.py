"""The mixture of experts against a loop over slots, and its promises one by one.

In: random router and experts. Out: mixed states, weights and load held against numpy in float64,
written from the definition and not from the code.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.models import moe
from tests.models_for_tests import tiny

B, T = 2, 7
STACK = tiny().transformer
E, A, SHARED, D, F = (
    STACK.experts,
    STACK.experts_per_slot,
    STACK.shared_experts,
    STACK.width,
    STACK.expert_width,
)


def drawn(seed: int = 0, **changes) -> dict:
    """Random parameters of one layer; the bias is strong enough to change choices."""
    rng = np.random.default_rng(seed)
    shapes = {
        "router": (D, E + SHARED),
        "bias": (E,),
        "gate": (E, D, F),
        "up": (E, D, F),
        "down": (E, F, D),
        "shared_gate": (SHARED, D, F),
        "shared_up": (SHARED, D, F),
        "shared_down": (SHARED, F, D),
    }
    params = {name: 0.4 * rng.normal(size=shape) for name, shape in shapes.items()}
    params |= {"scale": np.array(1.3), **changes}
    return {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}


@pytest.fixture(scope="module")
def states() -> jax.Array:
    return jnp.asarray(np.random.default_rng(9).normal(size=(B, T, D)), jnp.float32)


@functools.cache
def _compiled(function, config):
    return jax.jit(functools.partial(function, config=config))


def route(params, x, config=STACK):
    """Weights of every routed expert, zero where not chosen, and of the shared ones."""
    chosen, weights, shared = _compiled(moe.route, config)(params, x)
    return np.asarray(moe.dense_weights(chosen, weights, config.experts)), np.asarray(shared)


def mixture(params, x, valid, config=STACK):
    out, load = _compiled(moe.mixture, config)(params, x, valid)
    return np.asarray(out), np.asarray(load.share)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_slot(params: dict, x: np.ndarray, config=STACK):
    """What one slot gets: its mixed state, and its weight at every expert, chosen or shared."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    logits = x.astype(np.float64) @ p["router"]
    order = np.argsort(-(sigmoid(logits[:E]) + p["bias"]), kind="stable")
    chosen = sorted(order[: config.experts_per_slot])
    members = [*chosen, *range(E, E + SHARED)]
    share = sigmoid(logits[members])
    weights = np.zeros(E + SHARED)
    weights[members] = share / share.sum() * config.route_scale * p["scale"]
    out = np.zeros(D)
    for member in members:
        prefix, index = ("", member) if member < E else ("shared_", member - E)
        gate, up, down = (p[prefix + name][index] for name in ("gate", "up", "down"))
        inner = x @ gate
        out += weights[member] * ((inner * sigmoid(inner) * (x @ up)) @ down)
    return out, weights


@pytest.mark.parametrize("per_slot", [1, A, E])
def test_equals_a_loop_over_slots(states, per_slot):
    config = dataclasses.replace(STACK, experts_per_slot=per_slot)
    params = drawn()
    valid = jnp.ones((B, T), bool)
    out, load = mixture(params, states, valid, config)
    routed, shared = route(params, states, config)
    counted = np.zeros(E)
    for b in range(B):
        for t in range(T):
            want, weights = one_slot(params, np.asarray(states[b, t]), config)
            np.testing.assert_allclose(out[b, t], want, atol=2e-5)
            np.testing.assert_allclose(routed[b, t], weights[:E], atol=1e-5)
            np.testing.assert_allclose(shared[b, t], weights[E:], atol=1e-5)
            counted += weights[:E] > 0
    np.testing.assert_allclose(load, counted / counted.sum(), atol=1e-6)


def test_weights_of_a_slot_sum_to_the_scales(states):
    """Chosen and shared experts share one whole; the shared ones are the sink."""
    params = drawn()
    routed, shared = route(params, states)
    total = routed.sum(-1) + shared.sum(-1)
    np.testing.assert_allclose(total, STACK.route_scale * 1.3, rtol=1e-5)
    assert ((routed > 0).sum(-1) == A).all()
    assert (shared > 0).all()
    # A shared expert that is sure of itself draws the weight away from the chosen.
    x = states.at[..., 0].set(1.0)
    sure, _ = route({**params, "router": params["router"].at[0, E:].set(20.0)}, x)
    unsure, _ = route({**params, "router": params["router"].at[0, E:].set(-20.0)}, x)
    assert sure.sum(-1).max() < unsure.sum(-1).min()


def test_bias_chooses_but_does_not_weigh(states):
    """With every expert's bias moved alike nothing changes; with one raised it is chosen by all,
    and among the same chosen experts the weights are those without bias."""
    plain = drawn(bias=np.zeros(E))
    routed, _ = route(plain, states)
    same, _ = route({**plain, "bias": jnp.full(E, 0.7)}, states)
    np.testing.assert_array_equal(same, routed)
    raised = jnp.zeros(E).at[3].set(5.0)
    pulled, _ = route({**plain, "bias": raised}, states)
    assert (pulled[..., 3] > 0).all()
    assert not (routed[..., 3] > 0).all()
    unmoved = routed[..., 3] > 0
    assert unmoved.any()
    np.testing.assert_array_equal(pulled[unmoved], routed[unmoved])


@pytest.mark.parametrize("scale", [1.3, -0.8])
def test_load_counts_valid_slots_alone(states, scale):
    """Whatever padding holds and whatever sign a learned scale has."""
    params = drawn(scale=scale)
    valid = jnp.asarray([[True] * 4 + [False] * 3, [True] + [False] * 6])
    _, load = mixture(params, states, valid)
    other = jnp.where(valid[..., None], states, 50.0)
    _, same = mixture(params, other, valid)
    np.testing.assert_array_equal(load, same)
    assert abs(load.sum() - 1) < 1e-6
    chosen = sum(one_slot(params, np.asarray(states[b, t]))[1][:E] != 0
                 for b, t in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)])  # fmt: skip
    np.testing.assert_allclose(load, chosen / chosen.sum(), atol=1e-6)
    _, none = mixture(params, states, jnp.zeros((B, T), bool))
    np.testing.assert_array_equal(none, 0)


def test_gradient_never_reaches_the_bias(states):
    """The bias is moved by the load alone (`train.optimizer.balance`)."""

    def loss(params):
        return jnp.sum(moe.mixture(params, states, jnp.ones((B, T), bool), STACK)[0] ** 2)

    slopes = jax.jit(jax.grad(loss))(drawn())
    assert not np.asarray(slopes["bias"]).any()
    assert all(np.asarray(slopes[name]).any() for name in slopes if name != "bias")
