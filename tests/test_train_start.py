"""What a training starts from: one checkpoint, the mean of several, never another model's."""

import jax
import numpy as np
import pytest

from interaction.models.checkpoint import save_model
from interaction.models.parameters import init_params
from interaction.train import start
from interaction.train.loop import TrainConfig
from tests.models_for_tests import tiny


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints of one model and one of another."""
    config = tiny()
    other = tiny(bias_width=config.transformer.bias_width + 1)
    params = {}
    for seed, (name, model) in enumerate((("a", config), ("b", config), ("other", other))):
        params[name] = init_params(jax.random.key(seed), model)
        save_model(tmp_path / name, params[name], model)
    return tmp_path, config, params


def test_several_checkpoints_give_their_mean(saved):
    folder, config, params = saved
    one = start.parameters(TrainConfig(config, start=str(folder / "a")))
    jax.tree.map(np.testing.assert_array_equal, one, params["a"])
    both = start.parameters(TrainConfig(config, start=f"{folder / 'a'},{folder / 'b'}"))
    mean = jax.tree.map(lambda a, b: (np.asarray(a) + b) / 2, params["a"], params["b"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), both, mean)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(both), strict=True)
    )


def test_a_checkpoint_of_another_model_is_refused_by_name(saved):
    folder, config, _ = saved
    config = TrainConfig(config, start=f"{folder / 'a'},{folder / 'other'}")
    with pytest.raises(ValueError, match=rf"start={folder / 'other'} holds .* the run asks for"):
        start.parameters(config)
