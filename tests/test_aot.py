"""Ahead-of-time reports: counting against hand-made cases and XLA, programs read, meshes chosen.

In: toy programs and small models. Out: numbers that anyone can check by hand; the compilers for
TPUs only behind the marker `tpu_compile`.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch
from configs import tml_interaction_small
from interaction import configuration, sharding
from interaction.aot import choose, collectives, command, hardware, programs, tally
from interaction.aot.hardware import GIB, Slice
from interaction.models import declare, transformer
from interaction.models.config import (
    AttentionConfig,
    AttentionKind,
    InteractionConfig,
    MlpKind,
    Recompute,
)
from interaction.models.expert_parallel import Travel
from interaction.models.parameters import transformer_specs
from interaction.sharding import MeshConfig
from tests.models_for_tests import random_params, tiny

ONE = MeshConfig()


@functools.cache
def full() -> InteractionConfig:
    values = tml_interaction_small.get_config().to_dict()["model"]
    return configuration.build(InteractionConfig, dict(values, global_slots=32_768))


# ------------------------------------------------------------------------------ slices


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [("v6e:8x8", 64, 64), ("v5p:2x4x4", 32, 32), ("tpu7x:2x2x1", 4, 8), ("h200:8", 8, 8),
     ("h200:3x8", 24, 24)],
)  # fmt: skip
def test_a_slice_has_its_chips_and_devices(name, chips, devices):
    found = Slice.parse(name)
    assert (found.chips, found.size) == (chips, devices)


@pytest.mark.parametrize("name", ["v7:2x2", "v6e:2x2x2", "v5p:4x4", "v6e-64", "v6e:0x4", ""])
def test_what_is_no_slice_is_refused(name):
    with pytest.raises(ValueError, match="topology="):
        Slice.parse(name)


def test_every_family_names_its_source():
    for name, family in hardware.FAMILIES.items():
        assert "." in family.source, name
        assert family.memory > 15 * GIB
        assert Slice.parse(f"{name}:{'x'.join('1' * (3 if name in ('v5p', 'tpu7x') else 2))}").chip


# ------------------------------------------------------------------------------ collectives

HLO = """\
HloModule jit_step, is_scheduled=true

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%layer (arg: (s32[], bf16[4,6])) -> (s32[], bf16[4,6]) {
  %arg = (s32[], bf16[4,6]) parameter(0)
  %x = bf16[4,6]{1,0} get-tuple-element(%arg), index=1
  %exchange = bf16[4,6]{1,0} all-to-all(%x), replica_groups={{0,2},{1,3}}
  ROOT %out = (s32[], bf16[4,6]) tuple(%x, %exchange)
}

%more (arg: (s32[], bf16[4,6])) -> pred[] {
  %arg = (s32[], bf16[4,6]) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%token (arg: (s32[], bf16[4,6])) -> (s32[], bf16[4,6]) {
  %arg = (s32[], bf16[4,6]) parameter(0)
  ROOT %layers = (s32[], bf16[4,6]) while(%arg), condition=%more, body=%layer, KNOWN
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(8)} parameter(0)
  %start = f32[8]{0} all-reduce-start(%p), replica_groups=[2,2]<=[4], to_apply=%add.1
  %done = f32[8]{0} all-reduce-done(%start)
  %tokens = (s32[], bf16[4,6]) while(%t), condition=%more, body=%token
  %parts = f32[16]{0} all-gather(f32[8]{0} %done), replica_groups=[1,4]<=[2,2]T(1,0), dimensions={0}
  ROOT %moved = f32[8]{0} collective-permute(%done), source_target_pairs={{0,1},{1,0}}
}
""".replace("KNOWN", 'backend_config={"known_trip_count":{"n":"7"}}')


def test_collectives_are_read_with_their_axes_and_loops_multiplied_out():
    found = {one.kind: one for one in collectives.collectives(HLO, {"data": 2, "tensor": 2}, 3)}
    exchange = found["all-to-all"]
    assert (exchange.axes, exchange.number, exchange.largest) == ("data", 3 * 7, 48)
    assert (exchange.bytes, exchange.sent) == (21 * 48, 21 * 24)
    reduce = found["all-reduce"]
    assert (reduce.axes, reduce.number, reduce.bytes, reduce.sent) == ("tensor", 1, 32, 32)
    gather = found["all-gather"]
    assert (gather.axes, gather.number, gather.sent) == ("data+tensor", 1, 3 * 32)
    assert (found["collective-permute"].axes, found["collective-permute"].sent) == ("tensor", 32)


def test_a_loop_that_is_not_multiplied_out_would_be_noticed():
    broken = HLO.replace("known_trip_count", "unknown")
    (exchange,) = (o for o in collectives.collectives(broken, {"data": 2, "tensor": 2}, 3)
                   if o.kind == "all-to-all")  # fmt: skip
    assert exchange.number == 9


# ------------------------------------------------------------------------------ counting


def two_layers() -> InteractionConfig:
    """One sliding and one global layer, wide enough that products are nearly all there is."""
    stack = tiny().transformer
    stack = dataclasses.replace(
        stack,
        width=192,
        vocabulary=640,
        unpadded_vocabulary=None,
        attention_kinds=(AttentionKind.LOCAL, AttentionKind.GLOBAL),
        mlp_kinds=(MlpKind.MOE,) * 2,
        local=AttentionConfig(heads=6, kv_heads=2, head_width=48, window=24, bias_extent=16),
        global_=AttentionConfig(heads=4, kv_heads=2, head_width=72, window=None, bias_extent=20),
        expert_width=160,
        experts=5,
        experts_per_slot=2,
        shared_experts=1,
        bias_width=8,
        unroll=2,
    )
    return dataclasses.replace(tiny(), transformer=stack)


@pytest.mark.parametrize("passes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_count_is_that_of_an_unrolled_compile(passes, monkeypatch):
    """XLA counts loop bodies once, so both layers stand in the program, as it is for accelerators
    (a CPU loops over experts and tiles); its count has softmax, norms and such besides. Without
    experts sent anywhere, every slot goes through all of them."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *inputs, default, **others: default(*inputs)
    )
    config, rows, slots = two_layers(), 2, 96
    stack = config.transformer
    params = declare.abstract(transformer_specs(stack))
    tokens = jax.ShapeDtypeStruct((rows, slots), jnp.int32)

    def loss(params, tokens):
        return jnp.sum(transformer.forward_tokens(params, tokens, stack))

    function = loss if passes == 1 else jax.grad(loss)
    compiled = jax.jit(function).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"]
    work = tally.Training(rows=rows, slots=slots, chunks=0, flow_draws=0, recomputed=False)
    layers, heads = tally.forward_flops(config, work, ONE, computed=stack.experts)
    assert passes * (layers + heads) == pytest.approx(counted, rel=0.08)
    routed, _ = tally.forward_flops(config, work, ONE)
    assert routed < 0.75 * layers


@pytest.mark.slow
def test_layers_computed_again_give_the_same_gradients():
    stack = two_layers().transformer
    params = random_params(two_layers())["transformer"]
    tokens = jnp.arange(60).reshape(2, 30) % stack.vocabulary

    def loss(params, stack):
        return jnp.mean(transformer.forward_tokens(params, tokens, stack) ** 2)

    again = dataclasses.replace(stack, recompute=Recompute.LAYERS)
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, found = gradient(params, stack), gradient(params, again)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    text = str(jax.make_jaxpr(lambda p: loss(p, again))(params))
    assert "checkpoint" in text or "remat" in text


def test_a_live_call_by_hand():
    config = full()
    work = tally.Serving(sessions=8, slots=5, patches=0, tokens=3, context=32_768)
    phases = {p.name: p for p in tally.microturn(config, work, MeshConfig(expert=4, tensor=2))}
    token = phases["token"]
    assert token.times == 3
    # 42 layers: projections N=16, K=4 of a device, bias 16 wide; router; shared experts F/2.
    dense = 42 * (4096 * (128 * (2 * 16 + 2 * 4) + 16 * 16) + 4096 * 258 + 2 * 3 * 4096 * 1024)
    unembed = 4096 * 201_024 // 2
    store = 2 * 2 * 4 * 128 * (7 * 32_768 + 35 * 513)  # 2 sessions, keys and values
    touched = tally.busiest(8, 256, 6, 4)
    experts = 42 * touched * 3 * 4096 * 1024
    assert token.tally.bytes == pytest.approx(2 * (dense + unembed + store + experts), rel=1e-6)
    assert 6 * 8 / 4 < touched < 6 * 8 / 2


def test_experts_of_the_busiest_device():
    assert tally.busiest(1, 8, 8, 4) == 2.0
    assert tally.busiest(10_000, 16, 2, 4) == 4.0
    assert 1.0 <= tally.busiest(1, 256, 6, 64) < tally.busiest(5, 256, 6, 64) <= 4.0
    assert tally.spread_over(8, 2, 8) == pytest.approx(2 * 7 / 8)
    assert tally.spread_over(8, 2, 1) == 0.0


def test_seconds_are_those_of_the_slowest_work():
    where = Slice.parse("v6e:2x2")
    memory = tally.Tally(flops=1.0, bytes=where.chip.bytes_per_second * 3, sent=1.0)
    products = tally.Tally(flops=where.chip.flops_per_second * 2, bytes=1.0)
    phases = (tally.Phase("a", memory), tally.Phase("b", products, 4))
    assert tally.seconds(phases, where) == pytest.approx(3 + 8)
    assert tally.total(phases).bytes == pytest.approx(memory.bytes + 4)


# ------------------------------------------------------------------------------ shapes and meshes


def test_bytes_of_a_device_are_those_of_the_shards():
    config = tiny()
    layout = MeshConfig(data=2, expert=2, tensor=2)
    (params, specs), (state, at) = programs.served(config, 8, layout)
    mesh = jax.sharding.AbstractMesh(layout.shape, sharding.AXES)
    for tree, places in ((params, specs), (state, at)):
        shards = jax.tree.map(
            lambda leaf, spec: leaf.dtype.itemsize
            * math.prod(jax.NamedSharding(mesh, spec).shard_shape(leaf.shape)),
            tree, places,
        )  # fmt: skip
        assert programs.device_bytes(tree, places, layout) == sum(jax.tree.leaves(shards))
    stack, places = params["transformer"], specs["transformer"]
    whole = programs.device_bytes(stack, places, ONE)
    assert programs.device_bytes(stack, places, layout) < 0.9 * whole
    assert whole == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(stack))


def test_the_mesh_with_the_least_time_that_fits_is_chosen():
    work = tally.Serving(sessions=64, slots=5, patches=0, tokens=16, context=32_768)
    where = Slice.parse("v6e:8x8")
    found = choose.for_serving(where, full(), work)
    assert found and all(choice.held <= 0.92 * 32 * GIB for choice in found)
    assert [c.seconds for c in found] == sorted(c.seconds for c in found)
    assert all(choice.mesh.devices == 64 and choice.lanes >= 64 for choice in found)
    assert choose.for_serving(Slice.parse("v6e:2x4"), full(), work) == []


def test_a_batch_has_the_shapes_that_the_pipeline_makes():
    size = programs.Conversation.of_slots(64)
    batch = programs.batch_shapes(tiny(), 3, size)
    assert batch.slots.stream.shape == (3, 64)
    assert batch.payloads.audio.shape[:2] == (3, 32)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(batch)} == {3}


# ------------------------------------------------------------------------------ the command


@pytest.mark.parametrize("text", ["expert", "experts=4", "expert=x"])
def test_a_mesh_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="mesh="):
        command.parse_mesh(text)
    assert command.parse_mesh("expert=4,tensor=2") == MeshConfig(expert=4, tensor=2)


RECEIVED = {
    "nothing is split": (Travel.SLOTS, 320, MeshConfig(tensor=8), None, 0),
    "every slot to one device": (Travel.SLOTS, 320, MeshConfig(expert=4, tensor=8), None, 320),
    "every pair that may be": (Travel.PAIRS, 1 << 20, MeshConfig(expert=256), None, 1 << 20),
    "so many times the mean": (Travel.PAIRS, 1 << 20, MeshConfig(expert=256), 1.25, 120 * 256),
}


@pytest.mark.parametrize("case", RECEIVED)
def test_the_receive_buffer_by_hand(case):
    """6 of 256 experts a slot: 4096 slots send one of 256 devices 96 pairs in the mean, 4096 at
    worst."""
    travel, slots, mesh, factor, rows = RECEIVED[case]
    found = command.received(full(), mesh, travel, slots, item=2, capacity_factor=factor)
    assert found == rows * 4096 * 2


def test_what_no_mesh_holds_exits_with_an_error(capsys):
    assert launch.main(["aot", "--topology", "v6e:2x2"]) == 1
    assert "under no mesh" in capsys.readouterr().err
