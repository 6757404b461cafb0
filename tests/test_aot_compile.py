"""Both steps of a small model compiled over slices of TPUs and GPUs that are not there.

In: a model of widths that the kernels take. Out: programs with kernels and the collectives of their
mesh, and a verdict on memory. TPU needs libtpu, GPU jax's CUDA plugin; without them it is skipped.
"""

import dataclasses
import functools
import importlib.util

import jax
import pytest

from interaction import sharding
from interaction.aot import compiled, programs
from interaction.aot.hardware import Slice
from interaction.models.config import AttentionConfig, FlowConfig, InteractionConfig, Recompute
from interaction.session.lanes import buckets
from interaction.sharding import MeshConfig
from interaction.train.loop import TrainConfig
from tests.models_for_tests import tiny

pytestmark = pytest.mark.tpu_compile


@functools.cache
def model(**changes) -> InteractionConfig:
    small = tiny(
        width=128,
        local=AttentionConfig(heads=4, kv_heads=2, head_width=128, window=13, bias_extent=9),
        global_=AttentionConfig(heads=6, kv_heads=2, head_width=128, window=None, bias_extent=19),
        expert_width=256,
        experts=6,
        dense_width=64,
        **{"global_slots": 256, **changes},
    )
    return dataclasses.replace(
        small, flow=FlowConfig(width=128, blocks=2, time_features=12, steps=3)
    )


def devices(name: str):
    """A mesh of the slice's devices; skipped where its compiler is not installed."""
    where = Slice.parse(name)
    needs = {"tpu": "libtpu", "cuda": "jax_cuda13_plugin"}[where.known.platform]
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    return where


def serve(name: str, lanes: int, layout: MeshConfig, config: InteractionConfig):
    where = devices(name)
    config = programs.with_kernels(config, where.known.platform)
    mesh = sharding.make_mesh(layout, where.devices())
    program = programs.serving(config, lanes, buckets(config)[0], layout, mesh)
    return program, compiled.compile_program(program, where)


# Kernels: 2 kinds of attention and experts, in the calls for input, ids and own speech; on TPU
# the flow head as well.
@pytest.mark.parametrize(("name", "kernels"), [("v6e:2x2", 10), ("h200:4", 9)])
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_the_live_step_over_a_slice(name, kernels):
    layout = MeshConfig(expert=2, tensor=2)
    program, made = serve(name, 4, layout, model())
    assert made.fits
    assert made.memory is not None
    assert made.kernels >= kernels
    assert made.memory.aliased >= 0.9 * program.state
    assert made.memory.arguments >= program.state + program.weights
    kinds = {(one.kind, one.axes) for one in made.collectives}
    assert any("all-to-all" in kind and axes == "expert" for kind, axes in kinds)
    assert ("all-reduce", "tensor") in kinds
    experts = 3 * 6 * 128 * 256 * 2
    assert all(one.largest < experts for one in made.collectives if one.kind == "all-gather")


def test_a_program_that_does_not_fit_is_found_out():
    """A memory of 16 million slots is 64 GiB; the compiler says so, or the sum does."""
    _, made = serve("v6e:2x2", 4, MeshConfig(expert=2, tensor=2), model(global_slots=1 << 24))
    assert not made.fits
    assert made.why_not


def test_the_training_step_over_a_slice():
    where = devices("v6e:2x2")
    layout = MeshConfig(fsdp=2, expert=2)
    stack = dataclasses.replace(model().transformer, recompute=Recompute.LAYERS)
    config = TrainConfig(
        model=dataclasses.replace(model(), transformer=stack), batch=4, mesh=layout,
        capacity_factor=1.25,
    )  # fmt: skip
    mesh = sharding.make_mesh(layout, where.devices())
    program = programs.training(config, programs.Conversation.of_slots(64), mesh)
    made = compiled.compile_program(program, where)
    assert made.fits
    assert made.memory is not None
    assert made.memory.aliased >= 0.9 * program.state
    assert jax.tree.leaves(program.arguments)[0].sharding.mesh.devices.size == 4
    assert any(one.axes == "expert" for one in made.collectives)
