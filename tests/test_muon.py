"""Muon for matrices, AdamW for the rest.

In: a small tree of parameters with the names of the model's. Out: each matrix moves by an
orthogonal step of AdamW's size; everything else moves as it does under AdamW; groups freeze
matrices as well; a run that is saved and restored goes on bit for bit.
"""

import dataclasses
import fnmatch
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interaction import configuration
from interaction.models.parameters import param_axes
from interaction.train import checkpointing, optimizer
from interaction.train.optimizer import Group, Matrices, OptimizerConfig
from tests.models_for_tests import tiny

MUON = OptimizerConfig(
    learning_rate=0.05, warmup=1, decay_share=0.25, weight_decay=0.0, matrices=Matrices.MUON
)
STEPS = 6
NAMES = ("params", "moments")
MOVED = {"transformer/moe/gate", "transformer/attention_local/output", "flow/condition"}


@functools.cache
def tree() -> dict:
    random = np.random.default_rng(0)
    leaf = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    return {
        "flow": {"condition": leaf(5, 7), "input": leaf(4, 3)},
        "transformer": {
            "unembed": leaf(6, 9),
            "attention_local": {"output": leaf(2, 3, 4, 5), "query_norm": leaf(2, 4)},
            "moe": {"gate": leaf(2, 3, 8, 6), "router": leaf(2, 6, 4)},
        },
    }


def gradient(params: dict, step: int) -> dict:
    random = np.random.default_rng(step + 1)
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params)


@functools.cache
def updates(config: OptimizerConfig):
    """``(rule, jitted update)``."""
    rule = optimizer.make(config, STEPS)
    return rule, jax.jit(rule.update)


def go(config: OptimizerConfig, params: dict, moments, steps) -> tuple[dict, dict]:
    update = updates(config)[1]
    for step in steps:
        moved, moments = update(gradient(params, step), moments, params)
        params = optax.apply_updates(params, moved)
    return params, moments


def flat(params: dict) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def run(config: OptimizerConfig) -> dict[str, np.ndarray]:
    return flat(go(config, tree(), updates(config)[0].init(tree()), range(3))[0])


def test_matrices_move_by_orthogonal_steps_and_the_rest_as_under_adamw():
    start, muon = flat(tree()), run(MUON)
    adamw = run(dataclasses.replace(MUON, matrices=Matrices.ADAMW))
    for path, found in muon.items():
        assert np.allclose(found, adamw[path], 1e-5, 1e-6) == (path not in MOVED), path
    # One step, after the warm-up's first, which is zero: what the rate and the shape make of it.
    update, rule = updates(MUON)[1], updates(MUON)[0]
    moments = update(gradient(tree(), 0), rule.init(tree()), tree())[1]
    step = flat(update(gradient(tree(), 1), moments, tree())[0])
    for path, inputs in (("transformer/moe/gate", 8), ("transformer/attention_local/output", 12)):
        matrices = step[path].reshape(-1, inputs, start[path].shape[-1])
        values = np.linalg.svd(matrices, compute_uv=False)
        values /= 0.05 * 0.2 * max(matrices.shape[1:]) ** 0.5
        assert values.min() > 0.6 and values.max() < 1.3, values


def test_weight_decay_acts_on_matrices():
    decayed = dataclasses.replace(MUON, weight_decay=0.1)
    plain, found, start = run(MUON), run(decayed), flat(tree())
    path = "transformer/moe/gate"
    change = found[path] - plain[path]
    assert np.corrcoef(change.ravel(), -start[path].ravel())[0, 1] > 0.99
    norm = "transformer/attention_local/query_norm"
    np.testing.assert_allclose(found[norm], plain[norm], 1e-5)


def test_a_frozen_matrix_keeps_every_bit_and_has_no_moments():
    config = dataclasses.replace(MUON, groups=(Group(("flow/*", "transformer/attention_*/*")),))
    start, found = flat(tree()), run(config)
    for path in start:
        moves = path.startswith(("flow/", "transformer/attention_"))
        assert np.array_equal(start[path], found[path]) != moves, path
    sizes = [leaf.size for leaf in jax.tree.leaves(updates(config)[0].init(tree()))]
    gate, output = start["transformer/moe/gate"].size, start["transformer/attention_local/output"]
    assert gate not in sizes and output.size in sizes


class Place:
    """A place in the data."""

    def get_state(self) -> dict:
        return {"record": 3}

    def set_state(self, state: dict) -> None:
        assert state == {"record": 3}


@pytest.mark.parametrize("matrices", Matrices)
def test_a_restored_run_goes_on_bit_for_bit(matrices, tmp_path):
    config = dataclasses.replace(MUON, matrices=matrices)
    rule = updates(config)[0]
    whole = go(config, tree(), rule.init(tree()), range(STEPS))
    halfway = go(config, tree(), rule.init(tree()), range(3))
    with checkpointing.manager(tmp_path / "checkpoints") as manager:
        checkpointing.save(manager, 3, dict(zip(NAMES, halfway, strict=True)), Place())
        manager.wait_until_finished()
        fresh = (jax.tree.map(jnp.zeros_like, tree()), rule.init(tree()))
        found = checkpointing.restore(manager, dict(zip(NAMES, fresh, strict=True)), Place(), 1)
    again = go(config, *(found[name] for name in NAMES), range(3, STEPS))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_pattern_names_a_matrix_of_the_model():
    paths = jax.tree_util.tree_flatten_with_path(
        param_axes(tiny()), is_leaf=lambda leaf: isinstance(leaf, tuple)
    )[0]
    axes = {"/".join(key.key for key in path): leaf for path, leaf in paths}
    for pattern, (inputs, outputs) in optimizer._MATRICES.items():
        found = fnmatch.filter(axes, pattern)
        assert found, pattern
        for path in found:
            named = {*np.atleast_1d(inputs), *np.atleast_1d(outputs)}
            left = [name for at, name in enumerate(axes[path]) if at not in named]
            blocks = path.startswith("flow/blocks/")
            assert all(name and ("layers" in name or "experts" in name) for name in left), path
            assert len(left) in ((1,) if blocks else (0, 1, 2)), path


def test_the_configuration_reads_it():
    assert configuration.build(OptimizerConfig, {"matrices": "muon"}).matrices is Matrices.MUON
    with pytest.raises(ValueError, match="sgd"):
        configuration.build(OptimizerConfig, {"matrices": "sgd"})
