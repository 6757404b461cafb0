"""One model, many meshes: the same numbers, every array where the tables say, no needless traffic.

In: a small model on up to 8 virtual devices. Out: forward, gradients and live calls equal to those
of one device for every mesh of 1, 2, 4 and 8 devices over five axes (marker `slow`; a few by
default); the committed tables of partitions; the collectives in the compiled programs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from interaction import sharding
from interaction.models import moe
from interaction.sharding import AXES, MeshConfig, Purpose
from tests import mesh_for_tests as case

TOLERANCE = 2e-5  # of each leaf's greatest value; measured: below 8e-6
ALL = [config for devices in (2, 4, 8) for config in case.meshes(devices)]


def name(config: MeshConfig) -> str:
    return "-".join(f"{axis}{n}" for axis, n in sharding.sizes(config).items() if n > 1)


@functools.cache
def on_one_device(program):
    return program(MeshConfig())


# ---------------------------------------------------------------------------- equal numbers


@pytest.mark.parametrize("config", [MeshConfig(expert=2, tensor=2, sequence=2)], ids=name)
def test_live_calls_equal_one_device(config):
    assert case.worst(on_one_device(case.stack_calls), case.stack_calls(config)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("config", ALL, ids=name)
def test_every_mesh_equals_one_device(config):
    """Forward, backward and live calls of the stack."""
    for program in (case.stack_gradient, case.stack_calls):
        assert case.worst(on_one_device(program), program(config)) < TOLERANCE


WHOLE = [
    MeshConfig(data=2),
    MeshConfig(data=2, expert=2, tensor=2),
    MeshConfig(fsdp=2, expert=2, sequence=2),
]


@pytest.mark.slow
@pytest.mark.parametrize("program", [case.gradient_of, case.microturns])
@pytest.mark.parametrize("config", WHOLE, ids=name)
def test_the_whole_model_equals_one_device(config, program):
    assert case.worst(on_one_device(program), program(config)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("config", [MeshConfig(), *WHOLE], ids=name)
def test_a_step_in_parts_equals_one_at_once(config):
    """What makes a large step fit changes no number: recomputed layers, queries, logits, draws."""
    whole = on_one_device(case.gradient_of)
    assert case.worst(whole, case.gradient_in_parts(config)) < TOLERANCE


@pytest.mark.slow
def test_experts_that_forget_the_way_back_are_noticed(monkeypatch):
    """A broken variant: what comes back is laid to the wrong slots."""
    honest = moe.expert_parallel.way

    def shifted(*args):
        way = honest(*args)
        return moe.expert_parallel.Way(way.item, jnp.roll(way.row, 1), way.sent, way.received)

    monkeypatch.setattr(moe.expert_parallel, "way", shifted)
    found = case.stack_calls(MeshConfig(expert=2))
    assert case.worst(on_one_device(case.stack_calls), found) > 0.01


# ---------------------------------------------------------------------------- where arrays lie


def test_a_mesh_has_all_axes_in_one_order():
    mesh = sharding.make_mesh(MeshConfig(tensor=4, data=2))
    assert mesh.axis_names == AXES == ("data", "fsdp", "expert", "tensor", "sequence")
    assert mesh.devices.shape == (2, 1, 1, 4, 1)
    assert list(mesh.devices.flat) == jax.devices()[:8]
    with pytest.raises(ValueError, match=r"tensor=16.*asks for 16 devices, there are 8"):
        sharding.make_mesh(MeshConfig(tensor=16))


class Slice:
    """A device of a topology of several slices."""

    platform, device_kind = "tpu", "made up"

    def __init__(self, index: int):
        self.id, self.slice_index, self.process_index = index, index // 2, 0
        self.coords, self.core_on_chip = (index % 2, 0, 0), 0


def test_slices_stand_along_data():
    devices = [Slice(index) for index in range(4)]
    mesh = sharding.make_mesh(MeshConfig(data=2, tensor=2), devices)
    for row, slice_index in zip(mesh.devices.reshape(2, 2), (0, 1), strict=True):
        assert {device.slice_index for device in row} == {slice_index}
    with pytest.raises(ValueError, match="data=1 is no multiple of slices=2"):
        sharding.make_mesh(MeshConfig(tensor=4), devices)


RESOLVED = {
    "as the rule says": (("batch", None), (8, 3), None, (("data", "expert"),)),
    "a prefix that divides": (("batch",), (2,), None, ("data",)),
    "nothing divides": (("batch", "heads"), (3, 5), None, ()),
    "an axis once": (("experts", "width", "expert_ffn"), (8, 8, 8), Purpose.TRAINING,
                     ("expert", None, "tensor")),
    "width in training": (("width", "heads"), (8, 8), Purpose.TRAINING, ("expert", "tensor")),
    "width in serving": (("width", "heads"), (8, 8), Purpose.SERVING, (None, "tensor")),
    "a vector stays whole": (("width",), (8,), Purpose.TRAINING, ()),
    "width of an activation": (("heads", "width"), (8, 8), None, ("tensor",)),
}  # fmt: skip


@pytest.mark.parametrize("known", RESOLVED)
def test_names_become_partitions(known):
    names, shape, purpose, spec = RESOLVED[known]
    sizes = sharding.sizes(MeshConfig(data=2, expert=4, tensor=2))
    assert sharding.resolve(names, shape, sizes, purpose) == PartitionSpec(*spec)


def test_constraining_does_nothing_without_a_mesh():
    x = jnp.ones((4, 6))
    assert sharding.constrain(x, "batch", None) is x
    with jax.set_mesh(sharding.make_mesh(MeshConfig())):
        assert sharding.constrain(x, "batch", None) is x
    with jax.set_mesh(sharding.make_mesh(MeshConfig(data=2))):
        laid = jax.jit(lambda x: sharding.constrain(x, "batch", None))(x)
    assert laid.sharding.spec == PartitionSpec("data")


@pytest.mark.parametrize("table", ["small.md", "tml_interaction_small.md"])
def test_arrays_lie_where_the_committed_tables_say(table):
    assert case.golden_tables()[table] == (case.GOLDEN / table).read_text()


def test_a_state_of_training_lies_as_its_parameters():
    """Moments and means as the parameter that they belong to; int8 as its matrix."""
    shapes = jax.eval_shape(lambda: {"moments": ({"mu": case.params()},), "step": jnp.int32(0)})
    matrix = shapes["moments"][0]["mu"]["transformer"]["moe"]["gate"]
    shapes["moments"][0]["mu"]["transformer"]["moe"]["gate"] = {"int8": matrix, "scale": matrix}
    config = MeshConfig(fsdp=2, expert=2, tensor=2)
    axes = case.param_axes(case.model())
    found = sharding.parameter_specs(shapes, axes, config, Purpose.TRAINING)
    stack = found["moments"][0]["mu"]["transformer"]
    expected = PartitionSpec(None, "expert", "fsdp", "tensor")
    assert stack["moe"]["gate"] == {"int8": expected, "scale": expected}
    assert stack["dense"]["down"] == PartitionSpec(None, "tensor", ("fsdp", "expert"))
    assert found["step"] == PartitionSpec()


def test_lanes_that_cannot_be_shared():
    with pytest.raises(ValueError, match="lanes=6 is no multiple of batch_shards=4"):
        case.state_specs(case.model(), 6, MeshConfig(data=2, expert=2))


# ---------------------------------------------------------------------------- traffic


def traffic(program, config: MeshConfig) -> list[tuple[str, str]]:
    function, arguments = program(config)
    return case.collectives(case.compiled_text(function, config, *arguments))


def test_nothing_is_sent_in_a_forward_of_pure_data_parallelism():
    assert traffic(case.forward_alone, MeshConfig(data=2)) == []


@pytest.mark.slow
def test_a_live_call_sends_nothing_between_lanes():
    assert traffic(case.live_program, MeshConfig(data=2)) == []


@pytest.mark.slow
@pytest.mark.parametrize("program", [case.forward_alone, case.live_program])
def test_slots_go_to_experts_and_experts_go_nowhere(program):
    """All-to-all there and back, and no all-gather of a matrix of experts."""
    config, stack = MeshConfig(expert=2), case.model().transformer
    found = traffic(program, config)
    assert [kind for kind, _ in found].count("all-to-all") >= 3
    sides = {str(stack.width), str(stack.expert_width)}
    for kind, shape in found:
        inside = shape[shape.index("[") + 1 : shape.index("]")].split(",")
        routed = len(inside) > 2 and sides <= set(inside) and inside[0] != str(stack.shared_experts)
        assert not (kind == "all-gather" and routed), (kind, shape)


@pytest.mark.slow
def test_left_to_the_compiler_experts_are_gathered(monkeypatch):
    """The broken variant of the test above, so that it means something."""
    monkeypatch.setattr(moe.sharding, "mesh_sizes", dict)
    with pytest.raises(AssertionError, match="all-gather"):
        test_slots_go_to_experts_and_experts_go_nowhere(case.forward_alone)


def test_collectives_are_found_in_hlo():
    text = """
      %a = f32[8,16]{1,0} all-gather(%x), replica_groups={{0,1}}, dimensions={0}
      %b = (s32[4]{0}, s32[4]{0}) all-to-all(%y, %z), replica_groups={{0,1},{2,3}}
      %c = f32[] all-reduce(%w), replica_groups={{0},{1}}, to_apply=%add
      %d = f32[3]{0} all-reduce-start(%w), replica_groups=[1,2]<=[2], to_apply=%add
      %e = f32[3]{0} add(%w, %all-reduce)
    """
    assert case.collectives(text) == [
        ("all-gather", "f32[8,16]{1,0}"),
        ("all-to-all", "(s32[4]{0}, s32[4]{0})"),
        ("all-reduce", "f32[3]{0}"),
    ]


def test_a_difference_is_seen():
    """Of the measure that equality rests on."""
    a = {"x": np.array([1.0, -4.0]), "y": np.array([1e-3])}
    assert case.worst(a, a) == 0
    assert case.worst(a, {"x": np.array([1.0, -4.4]), "y": np.array([1e-3])}) == pytest.approx(0.1)
    assert case.worst(a, {"x": a["x"], "y": np.array([2e-3])}) == pytest.approx(1.0, rel=1e-3)
