"""The live step with the TPU kernels inside: equal to plain XLA, and it compiles for TPUs.

In: a small model of widths that the kernels take. Out: `advance` of several micro-turns in TPU
interpret mode within 1e-4 of the reference; the whole step compiled for named chips with no TPU.
"""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels.implementation import Implementation
from interaction.models import interaction_model
from interaction.models.config import AttentionConfig, CacheType, FlowConfig
from interaction.serving.export import Kernels, export_model
from interaction.serving.manifest import Platform, read_manifest
from interaction.session.lanes import buckets
from interaction.session.state import init_state
from interaction.session.step import microturn_step
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, Forced, Payloads, Slots
from tests.artefact_for_tests import exported
from tests.kernels_for_tests import compile_for_tpu, interpreted
from tests.models_for_tests import random_params, tiny

CONFIG = dataclasses.replace(
    tiny(
        width=128,
        local=AttentionConfig(heads=4, kv_heads=2, head_width=128, window=13, bias_extent=9),
        global_=AttentionConfig(heads=3, kv_heads=1, head_width=128, window=None, bias_extent=19),
        expert_width=128,
        dense_width=64,
        global_slots=256,
    ),
    flow=FlowConfig(width=128, blocks=2, time_features=12, steps=3),
)


def with_kernels(implementation: Implementation):
    stack = dataclasses.replace(CONFIG.transformer, implementation=implementation)
    return dataclasses.replace(CONFIG, transformer=stack)


def played(config, params, steps: int = 3):
    """Hidden states, logits and mel of micro-turns in which the lane writes and speaks."""
    advance = jax.jit(
        lambda cache, slots, payloads, noise, active, forced: interaction_model.advance(
            params, cache, slots, payloads, noise, config, active=active, forced=forced
        )
    )
    cache = interaction_model.init_cache(config, 2)
    control = config.weave.control
    tokens = jnp.array([[control(Control.SAY), 65, control(Control.SPEAK), -1, -1]] * 2)
    found = []
    for now in range(steps):
        rng = np.random.default_rng(now)
        inputs = weave_inputs(
            [LaneInput(now, audio=((now, np.zeros(3200, np.float32)),)), None],
            config.weave, slots=buckets(config)[0].slots, patches=0,
        )  # fmt: skip
        slots = Slots(
            stream=inputs.stream, token=inputs.token, payload=inputs.payload,
            lateness=inputs.lateness, position=np.zeros_like(inputs.stream),
            micro_turn=np.full_like(inputs.stream, now), first=inputs.stream == 3,
        )  # fmt: skip
        payloads = Payloads(
            audio=jnp.asarray(rng.integers(0, 16, (2, 8, 80))),
            patches=jnp.zeros((2, 0, 2, 4, 4, 3), jnp.uint8),
            speech=jnp.zeros((2, 0, config.speech_features)),
        )
        noise = jnp.asarray(rng.normal(size=(2, config.grid.mel_frames, config.mel.bands)))
        own = jnp.asarray(rng.normal(size=noise.shape), jnp.float32)
        cache, out = advance(
            cache, jax.tree.map(jnp.asarray, slots), payloads, noise.astype(jnp.float32),
            jnp.asarray(inputs.active), Forced(tokens, own),
        )  # fmt: skip
        found += [out.hidden_in[0], out.logits[0], out.hidden_speech[0]]
    return [np.asarray(x) for x in found]


@pytest.mark.parametrize(
    "implementation",
    [Implementation.NATIVE, pytest.param(Implementation.PALLAS_TPU, marks=pytest.mark.slow)],
    ids=lambda i: i.name,
)
def test_the_live_step_with_kernels_equals_plain_xla(implementation):
    params = random_params(CONFIG)
    plain = played(with_kernels(Implementation.REFERENCE), params)
    with interpreted(implementation):
        kernels = played(with_kernels(implementation), params)
    for a, b in zip(plain, kernels, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert max(np.abs(x).max() for x in plain) > 0.5


@pytest.mark.parametrize(
    "implementation",
    [
        Implementation.REFERENCE,
        Implementation.NATIVE,
        pytest.param(Implementation.PALLAS_TPU, marks=pytest.mark.slow),
    ],
    ids=lambda i: i.name,
)
def test_keys_and_values_in_bfloat16_move_the_live_step_a_little(implementation):
    """Half of the bytes, one part in 256 of each number; states stay float32."""
    params, half = random_params(CONFIG), CacheType.BFLOAT16
    config = dataclasses.replace(with_kernels(implementation), cache_type=half)
    cache = interaction_model.init_cache(config, 2)["global"]
    assert cache["key"].dtype == cache["value"].dtype == jnp.dtype(half.value)
    plain = played(with_kernels(Implementation.REFERENCE), params)
    with interpreted(implementation):
        found = played(config, params)
    for a, b in zip(plain, found, strict=True):
        assert b.dtype == np.float32
        assert 1e-5 < np.abs(a - b).max() < 0.1 * a.std()


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    ("chip", "kept"),
    [("v5e", CacheType.FLOAT32), ("v6e", CacheType.FLOAT32), ("v6e", CacheType.BFLOAT16)],
)
def test_the_live_step_compiles_for_a_tpu_with_its_kernels_inside(chip, kept):
    config = dataclasses.replace(with_kernels(Implementation.PALLAS_TPU), cache_type=kept)
    params = jax.eval_shape(lambda: random_params(config))
    state = jax.eval_shape(lambda: init_state(config, 2))
    size = buckets(config)[1]
    inputs = weave_inputs([None, None], config.weave, slots=size.slots, patches=size.patches)
    step = functools.partial(microturn_step, config=config)
    compiled = compile_for_tpu(step, (params, state, inputs), chip, donate=(1,))
    assert compiled.as_text().count("tpu_custom_call") >= 5
    cache = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.cache))
    assert compiled.memory_analysis().alias_size_in_bytes > 0.9 * cache


@pytest.mark.parametrize("kept", CacheType, ids=lambda kept: kept.value)
@pytest.mark.parametrize(
    ("platform", "call"),
    [(Platform.TPU, "tpu_custom_call"), (Platform.CUDA, "__gpu$xla.gpu.triton")],
)
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_an_artefact_holds_the_kernels_of_its_platform(tmp_path, platform, call, kept):
    config = dataclasses.replace(CONFIG, cache_type=kept)
    folder = exported(
        random_params(CONFIG), tmp_path / "made", slice(0, 1), config=config, platform=platform,
        kernels=Kernels.PALLAS,
    )  # fmt: skip
    (bucket,) = read_manifest(folder).buckets
    content = (folder / f"{bucket.program}.exported").read_bytes()
    text = str(jax.export.deserialize(content).mlir_module())
    assert text.count(call) >= 5


def test_kernels_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"kernels=pallas has no kernels for platform=cpu"):
        export_model({}, CONFIG, tmp_path / "made", platform=Platform.CPU, kernels=Kernels.PALLAS)
    assert not (tmp_path / "made").exists()
