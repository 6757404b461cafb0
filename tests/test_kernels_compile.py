"""Every TPU kernel compiled for four generations of TPU, and exported, with no TPU at hand.

In: the shapes of one layer of `configs/tml_interaction_small.py`. Out: the compiled program holds
the kernel, needs no copy of the cache or of the experts, and fits the chip's memories; an exported
artefact can be read back. Compiling takes libtpu, exporting does not.
"""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest

from configs import tml_interaction_small
from interaction.kernels import attention, experts, flow
from interaction.kernels.implementation import MEBIBYTE, Implementation
from tests.kernels_for_tests import TOPOLOGIES, abstract_mesh, compile_for_tpu, flow_params

MODEL = tml_interaction_small.get_config().model
STACK = MODEL.transformer
TPU, GROUPED = Implementation.PALLAS_TPU, Implementation.GROUPED
LANES, SLOTS = 2, 60


def shape(*size, dtype=jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(size, dtype)


def attention_call(kind: str, places: int, layers: int, implementation=TPU):
    """Attention of one layer of a stacked cache: a function and the shapes of its arguments."""
    heads = getattr(STACK, kind)
    slots = {
        "query": shape(LANES, SLOTS, heads.heads, heads.head_width),
        "key": shape(layers, LANES, places, heads.kv_heads, heads.head_width),
        "value": shape(layers, LANES, places, heads.kv_heads, heads.head_width),
        "bias": shape(LANES, SLOTS, heads.heads, heads.bias_extent),
        "queries": [shape(LANES, SLOTS, dtype=jnp.int32)] * 2,
        "keys": [shape(LANES, places, dtype=jnp.int32)] * 2,
        "filled": shape(LANES, dtype=jnp.int32),
        "layer": shape(dtype=jnp.int32),
    }

    def call(a):
        return attention.microturn_attention(
            a["query"], a["key"], a["value"], a["bias"],
            queries=attention.Places(*a["queries"]), keys=attention.Places(*a["keys"]),
            filled_B=a["filled"], window=heads.window, scale=1 / heads.head_width,
            layer=a["layer"], implementation=implementation,
        )  # fmt: skip

    return call, (slots,)


def experts_call(rows: int, implementation=TPU, number: int = STACK.experts):
    """One layer's routed experts."""
    D, F, A = STACK.width, STACK.expert_width, STACK.experts_per_slot
    shapes = (
        shape(rows, D),
        shape(rows, A, dtype=jnp.int32),
        shape(rows, A, dtype=jnp.float32),
        shape(number, D, F),
        shape(number, D, F),
        shape(number, F, D),
    )
    return functools.partial(experts.mix, implementation=implementation), shapes


def flow_call(rows: int, dtype=jnp.bfloat16, where=None, **sizes):
    """The flow head; sizes of the config where none are given."""
    width, blocks = (sizes.get(name, MODEL.flow[name]) for name in ("width", "blocks"))
    features, state = MODEL.flow.time_features, STACK.width
    frames, channels = 16, 80
    number = functools.partial(shape, dtype=dtype)
    params = flow_params(
        number, chunk=frames * channels, state=state, features=features, width=width, blocks=blocks
    )
    call = functools.partial(flow.sample, steps=MODEL.flow.steps, implementation=TPU, where=where)
    return call, (params, shape(rows, frames, channels, dtype=jnp.float32), number(rows, state))


RING = STACK["local"].window + 64 + 48 + 9  # window and one micro-turn's slots; no whole block
CALLS = {
    "local_attention": (attention_call("local", RING, 7), 1),
    "global_attention": (attention_call("global_", MODEL.global_slots, 2), 1),
    "few_row_experts": (experts_call(LANES * SLOTS), 1),
    "grouped_experts": (experts_call(640, GROUPED, number=64), 2),
    "flow_streamed": (flow_call(LANES), 1),
    "flow_resident": (flow_call(LANES, jnp.float32, width=256, blocks=3), 1),
}


@pytest.mark.tpu_compile
@pytest.mark.parametrize("chip", TOPOLOGIES)
@pytest.mark.parametrize("name", CALLS)
def test_compiles_for_tpu(name, chip, request):
    """Temporary memory stays far below one expert (48 MiB) or one layer's cache: the kernels read
    both where they lie. A layer cut out of the stack or an expert gathered would show here."""
    if name == "grouped_experts" and chip in ("v5p", "tpu7x"):
        reason = "the library's grouped product takes 262 MiB here, for a reason not yet found"
        request.applymarker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
    (call, shapes), kernels = CALLS[name]
    compiled = compile_for_tpu(call, shapes, chip)
    assert compiled.as_text().count("tpu_custom_call") >= kernels
    bound = 110 * MEBIBYTE if name == "grouped_experts" else 40 * MEBIBYTE
    assert compiled.memory_analysis().temp_size_in_bytes < bound


@pytest.mark.parametrize("name", CALLS)
def test_exports_for_tpu_and_reads_back(name):
    """One platform per artefact; an abstract device stands for the chip."""
    (call, shapes), kernels = CALLS[name]
    with jax.sharding.use_abstract_mesh(abstract_mesh("TPU v6 lite", "tpu")):
        exported = jax.export.export(jax.jit(call), platforms=["tpu"])(*shapes)
    text = exported.mlir_module()
    assert text.count("tpu_custom_call") >= kernels
    back = jax.export.deserialize(exported.serialize())
    assert back.platforms == ("tpu",)
    assert [x.shape for x in back.out_avals] == [x.shape for x in exported.out_avals]


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("name", ["attention", "experts"])
def test_exports_for_gpu(name):
    """Triton calls carry no promise of compatibility, so exporting them has to say so."""
    gpu = Implementation.PALLAS_GPU
    call, shapes = (
        attention_call("global_", 4096, 2, gpu)
        if name == "attention"
        else experts_call(LANES * SLOTS, gpu)
    )
    unpromised = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    with jax.sharding.use_abstract_mesh(abstract_mesh("NVIDIA H200", "gpu", 132)):
        exported = jax.export.export(
            jax.jit(call), platforms=["cuda"], disabled_checks=[unpromised]
        )(*shapes)
    assert "__gpu$xla.gpu.triton" in exported.mlir_module()
    assert jax.export.deserialize(exported.serialize()).platforms == ("cuda",)
