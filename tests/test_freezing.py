"""What trains when: groups of the optimiser.

In: small trees and gradients that are never zero. Out: what is frozen keeps every bit (of
parameters, of their mean, of negative zeros) and has no moments; what trains later starts there
as if it had been the start; wrong groups are named.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interaction import configuration
from interaction.train import optimizer
from interaction.train.optimizer import Group, OptimizerConfig

PLAIN = OptimizerConfig(learning_rate=0.05, warmup=2, decay_share=0.25, weight_decay=0.1)
STAGED = dataclasses.replace(
    PLAIN,
    groups=(
        Group(("flow/*", "tags/*")),
        Group(("transformer/embed/table", "transformer/unembed"), ids=(5, 7), ends=6),
        Group(("transformer/block/*",), begins=4, share=0.5),
    ),
)
STEPS = 8


def tree() -> dict:
    random = np.random.default_rng(0)

    def leaf(*shape, dtype=np.float32):
        values = random.normal(size=shape).astype(dtype)
        values.reshape(-1)[:2] = -0.0, 0.0
        return jnp.asarray(values)

    return {
        "flow": {"input": leaf(3, 4)},
        "tags": {"time": leaf(2, 5)},
        "transformer": {
            "embed": {"table": leaf(9, 6)},
            "unembed": leaf(6, 9),
            "block": {"mlp_conv": leaf(2, 6, 4)},
            "moe": {"gate": leaf(2, 3, 6, 4, dtype=jnp.bfloat16), "bias": leaf(2, 3)},
        },
        "audio": {"norm": leaf(6)},
    }


def run(config: OptimizerConfig, steps: int = STEPS, params: dict | None = None) -> list[dict]:
    """Parameters before and after each step, with `average` and `balance` as training has them."""
    params = tree() if params is None else params
    rule = optimizer.make(config, STEPS)
    moments, mean, course = rule.init(params), params, [params]

    @jax.jit
    def once(params, mean, moments, step):
        key = jax.random.fold_in(jax.random.key(1), step)
        gradient = jax.tree.map(
            lambda p: (jax.random.uniform(key, p.shape) + 0.1).astype(p.dtype), params
        )
        updates, moments = rule.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        mean = optimizer.average(mean, params, 0.9, step)
        return params, mean, moments

    for step in range(steps):
        params, mean, moments = once(params, mean, moments, jnp.int32(step))
        course.append(params)
    return [*course, mean]


def bits(leaf) -> bytes:
    return np.asarray(leaf).tobytes()


@pytest.fixture(scope="module")
def course() -> list[dict]:
    return run(STAGED)


def test_what_no_group_names_keeps_every_bit(course):
    for after in course:  # the last is the running mean
        assert bits(after["audio"]["norm"]) == bits(tree()["audio"]["norm"])
        for name, leaf in after["transformer"]["moe"].items():
            assert bits(leaf) == bits(tree()["transformer"]["moe"][name]), name


def test_plain_zero_updates_would_change_bits():
    """The broken variant: adding 0.0 turns -0.0 around; the plain mean rounds."""
    leaf = tree()["audio"]["norm"]
    assert bits(leaf + jnp.zeros_like(leaf)) != bits(leaf)
    assert bits(leaf * 0.9 + leaf * (1.0 - 0.9)) != bits(leaf)


def test_groups_begin_and_end_when_they_should(course):
    for step in range(STEPS):
        before, after = course[step]["transformer"], course[step + 1]["transformer"]
        # The first step of a group has the rate 0 of its warm-up.
        moved = bits(before["block"]["mlp_conv"]) != bits(after["block"]["mlp_conv"])
        assert moved == (step > 4)
        moved = bits(before["unembed"]) != bits(after["unembed"])
        assert moved == (0 < step < 6)
        flow = bits(course[step]["flow"]["input"]) != bits(course[step + 1]["flow"]["input"])
        assert flow == (step > 0)


def test_only_the_named_ids_move(course):
    start, end = course[0]["transformer"], course[STEPS]["transformer"]
    rows = [
        bits(a) == bits(b)
        for a, b in zip(start["embed"]["table"], end["embed"]["table"], strict=True)
    ]
    columns = [
        bits(a) == bits(b) for a, b in zip(start["unembed"].T, end["unembed"].T, strict=True)
    ]
    assert rows == columns == [True] * 5 + [False] * 2 + [True] * 2


def test_a_group_alone_trains_as_if_there_were_nothing_else(course):
    """Same values as a plain optimiser on that part, begun at the group's begin."""
    alone = run(PLAIN, params={name: tree()[name] for name in ("flow", "tags")})[STEPS]
    for name in ("flow", "tags"):
        jax.tree.map(np.testing.assert_array_equal, alone[name], course[STEPS][name])
    late = dataclasses.replace(PLAIN, groups=(Group(("transformer/block/*",), begins=4),))
    early = dataclasses.replace(PLAIN, groups=(Group(("transformer/block/*",), ends=4),))
    want = jax.tree.leaves(optimizer.make(early, STEPS).init(tree()))
    got = jax.tree.leaves(optimizer.make(late, STEPS).init(tree()))
    assert [w.shape for w in want] == [g.shape for g in got]


def test_frozen_parameters_have_no_moments():
    moments = optimizer.make(STAGED, STEPS).init(tree())
    sizes = sum(leaf.size for leaf in jax.tree.leaves(moments) if leaf.ndim)
    trained = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree())
        if not optimizer.frozen(STAGED, "/".join(k.key for k in path))
    ]
    assert sizes == 2 * sum(trained) > 0
    assert not optimizer.frozen(PLAIN, "anything")


def test_split_and_join():
    moving, still = optimizer.split(STAGED, tree())
    assert set(still) == {"audio", "transformer"}
    assert set(still["transformer"]) == {"moe"}
    assert set(moving["transformer"]) == {"embed", "unembed", "block"}
    joined = optimizer.join(moving, still)
    assert jax.tree.structure(joined) == jax.tree.structure(tree())
    jax.tree.map(np.testing.assert_array_equal, joined, tree())
    everything, nothing = optimizer.split(PLAIN, tree())
    assert jax.tree.structure(everything) == jax.tree.structure(tree())
    assert nothing == {}


def test_no_balance_leaves_the_routers_bias():
    params = tree()
    load = jnp.ones((2, 3)) / 3
    assert optimizer.balance(params, load, 0.0) is params
    moved = optimizer.balance(params, load.at[0, 0].add(0.1), 0.1)
    assert bits(moved["transformer"]["moe"]["bias"]) != bits(params["transformer"]["moe"]["bias"])


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"parameters": ()}, "names nothing"),
        ({"parameters": ("a",), "begins": 5, "ends": 5}, "begins=5 .* ends=5"),
        ({"parameters": ("a",), "share": 0.0}, "share=0.0"),
        ({"parameters": ("a",), "ids": (4, 4)}, r"ids=\(4, 4\)"),
        ({"parameters": ("flow/*",), "begin": 5}, "'begin'.*'begins'"),
    ],
)
def test_wrong_groups_are_named(group, message):
    with pytest.raises(ValueError, match=message):
        configuration.build(OptimizerConfig, {"groups": [group]})


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (Group(("flow/*", "flows/*")), "'flows/\\*' names no parameter"),
        (Group(("flow/*",), ids=(0, 2)), "flow/input has no axis of ids"),
    ],
)
def test_groups_that_do_not_fit_the_tree_are_named(group, message):
    rule = optimizer.make(dataclasses.replace(PLAIN, groups=(group,)), STEPS)
    with pytest.raises(ValueError, match=message):
        rule.init(tree())
