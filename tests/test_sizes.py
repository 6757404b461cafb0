"""The arithmetic of the named configurations, by shapes alone."""

import jax
import numpy as np
import pytest

from configs import inkling_small, nano, tml_interaction_small
from interaction import configuration
from interaction.models import declare
from interaction.models.config import InteractionConfig
from interaction.models.parameters import abstract_params, transformer_specs, vision_specs


def model(config) -> InteractionConfig:
    return configuration.build(InteractionConfig, config.to_dict()["model"])


def counts(config: InteractionConfig) -> tuple[int, int]:
    """Total and active parameters of the text backbone, both vocabulary matrices counted."""
    stack = config.transformer
    specs = transformer_specs(stack)
    total = declare.count(specs)
    routed = sum(int(np.prod(specs["moe"][name].shape)) for name in ("gate", "up", "down"))
    return total, total - routed + routed * stack.experts_per_slot // stack.experts


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (tml_interaction_small.get_config(), 276.24, 12.00),
        (inkling_small.get_config("all_moe"), 276.24, 12.00),
        (inkling_small.get_config(), 263.66, 12.00),
    ],
)
def test_billions_of_parameters(config, total, active):
    found = [round(count / 1e9, 2) for count in counts(model(config))]
    assert found == [total, active]


def test_counting_shared_experts_as_routed_would_be_noticed():
    config = model(tml_interaction_small.get_config())
    total, active = counts(config)
    wrong = declare.count(transformer_specs(config.transformer)) * 6 // 256
    assert abs(wrong - active) > 1e9 and total > active


def test_stems_of_the_release():
    config = model(inkling_small.get_config())
    assert declare.count(vision_specs(config)) == pytest.approx(64.08e6, rel=1e-3)
    assert config.vision.plan(4096) == (
        (1, 5, 75, 128),
        (1, 2, 512, 320),
        (1, 4, 5120, 4800),
        (2, 1, 9600, 4096),
    )


@pytest.mark.parametrize("config", [nano, inkling_small, tml_interaction_small])
def test_every_configuration_gives_a_tree(config):
    shapes = abstract_params(model(config.get_config()))
    assert len(jax.tree.leaves(shapes)) <= 80
