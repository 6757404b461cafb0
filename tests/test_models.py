"""The stack, the embedding and the flow head, each held to what it promises.

In: tiny random models. Out: the leaves of the compiled step at two depths, the two layouts of
attention against each other, what zero-initialised tags leave unchanged, and the flow head
against paths whose answer is known.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.kernels import flow as flow_kernel
from interaction.models import (
    attention,
    declare,
    embed,
    flow,
    interaction_model,
    parameters,
    transformer,
)
from interaction.models.attention import Whereabouts
from interaction.models.config import AttentionConfig, PositionScheme, VisionConfig
from interaction.models.transformer import Segment, segments
from interaction.session.state import init_state
from interaction.session.step import microturn_step
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, MicroTurn, Stream, TextIn
from tests.models_for_tests import DENSE, GLOBAL, LOCAL, MOE, padded, random_params, tiny

CONFIG = tiny()

# ---------------------------------------------------------------------------- depth


def deep(layers: int):
    """Layers in the released pattern: five sliding to one global, two dense at the bottom."""
    attention_kinds = tuple(GLOBAL if i % 6 == 5 else LOCAL for i in range(layers))
    mlp_kinds = tuple(DENSE if i < 2 else MOE for i in range(layers))
    return tiny(attention_kinds=attention_kinds, mlp_kinds=mlp_kinds)


def step_leaves(config) -> int:
    """Arrays that go into and come out of the compiled step."""
    params = parameters.abstract_params(config)
    state = jax.eval_shape(lambda: init_state(config, 2))
    inputs = weave_inputs(
        [LaneInput(0), None], config.weave, slots=config.max_input_slots, patches=2
    )
    return len(jax.tree.leaves((params, state, inputs)))


def test_leaves_of_the_step_do_not_depend_on_depth():
    counts = [step_leaves(deep(layers)) for layers in (6, 42)]
    print("leaves", counts)
    assert counts[0] == counts[1] <= 128


def test_the_step_gives_back_the_state_it_takes():
    """Same tree, shapes and dtypes: so it can be donated, saved and fed in again."""
    config = deep(6)
    state = jax.eval_shape(lambda: init_state(config, 3))
    inputs = weave_inputs([LaneInput(0), None, None], config.weave, slots=5, patches=0)
    after, _ = jax.eval_shape(
        lambda p, s, i: microturn_step(p, s, i, config),
        parameters.abstract_params(config), state, inputs,
    )  # fmt: skip
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


A, B, C = (LOCAL, DENSE), (LOCAL, MOE), (GLOBAL, MOE)
SEGMENTS = {
    "nothing repeats": ((A, B, C), (((A,), 1), ((B,), 1), ((C,), 1))),
    "one kind": ((B,) * 5, (((B,), 5),)),
    "period": ((B, B, C) * 3, (((B, B, C), 3),)),
    "dense below": ((A, A, B, C, B, C), (((A,), 2), ((B, C), 2))),
    "rest above": ((B, C, B, C, B), (((B, C), 2), ((B,), 1))),
    "released, all experts": (((B,) * 5 + (C,)) * 7, (((B,) * 5 + (C,), 7),)),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_segments_cover_every_layer_once(case):
    kinds, want = SEGMENTS[case]
    found = segments(kinds)
    assert tuple((s.pattern, s.repeats) for s in found) == want
    starts = np.cumsum([0, *(len(s.pattern) * s.repeats for s in found)])
    assert [s.start for s in found] == starts[:-1].tolist()
    assert starts[-1] == len(kinds)
    assert isinstance(found[0], Segment)


# ---------------------------------------------------------------------------- attention


@pytest.mark.parametrize(("window", "extent"), [(None, 4), (None, 50), (7, 3), (7, 7), (7, 20)])
@pytest.mark.parametrize("scaled", [False, True])
def test_training_layout_equals_the_general_one(window, extent, scaled):
    """Shifted bias and attention in blocks, all at once or in parts, against gathered bias and a
    plain mask: values and gradients."""
    B, T, N, K, H = 2, 29, 4, 2, 6
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    lengths = jnp.asarray([[T], [17]])
    position = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
    where = Whereabouts(position=position, order=jnp.where(position < lengths, position, -1))
    arrays = draw(B, T, N, H), draw(B, T, K, H), draw(B, T, K, H), draw(B, T, N, extent)
    heads = AttentionConfig(N, K, H, window, extent)
    scale = 1.0 + 0.1 * position.astype(jnp.float32) if scaled else None

    there = where.order >= 0
    weight = draw(B, T, N, H) * there[..., None, None]

    def call(consecutive, query_slots=0):
        def mixed(arrays):
            out = attention.attend(
                *arrays, queries=where, keys=where, heads=heads, scale=1 / H,
                length_scale_BT=scale, consecutive=consecutive, query_slots=query_slots,
            )  # fmt: skip
            return jnp.sum(out * weight), out

        (_, out), gradient = jax.jit(jax.value_and_grad(mixed, has_aux=True))(arrays)
        return out[there], *gradient

    plain = call(False)
    for found in (call(True), call(True, query_slots=5)):
        for mine, wanted in zip(found, plain, strict=True):
            np.testing.assert_allclose(mine, wanted, atol=5e-6)


def test_length_scaling_starts_at_its_floor():
    config = dataclasses.replace(CONFIG.transformer, scaling_floor=10, scaling_alpha=0.5)
    position = jnp.asarray([[0, 8, 9, 10, 99]])
    want = [1, 1, 1, 1 + 0.5 * np.log(1.1), 1 + 0.5 * np.log(10)]
    np.testing.assert_allclose(attention.length_scale(position, config)[0], want, rtol=1e-6)
    off = dataclasses.replace(config, scaling_floor=None)
    assert attention.length_scale(position, off) is None


@pytest.mark.parametrize("scheme", PositionScheme)
def test_plain_decoder_runs_without_convolutions(scheme):
    """The Llama-class variant has no leaf that it does not use, and none missing."""
    config = tiny(
        position_scheme=scheme, convolution_width=0, embedding_norm=False, tied=True,
        mlp_kinds=(DENSE,) * 4, scaling_floor=None,
    ).transformer  # fmt: skip
    params = declare.abstract(parameters.transformer_specs(config))
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert not any("conv" in name or "unembed" in name for name in names)
    tokens = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    out = jax.eval_shape(lambda p, t: transformer.forward_tokens(p, t, config), params, tokens)
    assert out.shape == (2, 5, config.logits_size)


# ---------------------------------------------------------------------------- embedding


def test_tags_start_at_zero_and_leave_text_as_it_is():
    """An imported backbone sees what it was trained on, in whatever micro-turn."""
    specs = parameters.interaction_specs(CONFIG)
    tags = declare.init(jax.random.key(3), {"tags": specs["tags"]})["tags"]
    assert tags.keys() == {"time", "stream", "lateness"}
    assert not any(np.asarray(leaf).any() for leaf in tags.values())
    params = random_params(CONFIG)
    text = TextIn(Control.TOOL, (7, 8))
    batch = padded([[MicroTurn(5, text_in=(text,)), MicroTurn(900, text_in=(text, text))]], CONFIG)
    token, valid = batch.slots.token, np.asarray(batch.slots.valid)
    embedded = jax.jit(lambda p: embed.embed(p, batch.slots, batch.payloads, CONFIG))
    plain = jax.jit(lambda p: transformer.embed_tokens(p, token, CONFIG.transformer))(
        params["transformer"]
    )
    with_zero = embedded({**params, "tags": tags})
    np.testing.assert_array_equal(with_zero[valid], plain[valid])
    assert not np.asarray(with_zero)[~valid].any()
    tagged = np.asarray(embedded(params) - plain)
    # Time is added at the first slot of each micro-turn alone; the stream's tag everywhere.
    stream = np.asarray(params["tags"]["stream"][int(Stream.TEXT_IN)])
    constant = stream + np.asarray(params["tags"]["lateness"][0])
    first = np.asarray(batch.slots.first)
    np.testing.assert_allclose(
        tagged[valid & ~first], np.broadcast_to(constant, (7, len(constant))), atol=1e-5
    )
    assert (np.abs(tagged[first] - constant).max(-1) > 0.1).all()


def test_time_is_as_exact_after_a_day_as_at_the_start():
    scales = 6
    late = 2**scales * 6750  # a day of micro-turns
    near = np.asarray(embed.time_features(jnp.arange(0, 130), scales))
    far = np.asarray(embed.time_features(jnp.arange(late, late + 130), scales))
    np.testing.assert_array_equal(near, far)
    assert near.shape == (130, 2 * scales)
    assert len(np.unique(near.round(4), axis=0)) == 2**scales
    np.testing.assert_array_equal(near[2**scales :], near[: 130 - 2**scales])


def test_stages_must_fold_the_whole_tubelet():
    vision = VisionConfig(patch=6, stages=((1, 2, 5), (2, 2, 0)))
    with pytest.raises(ValueError, match=r"2 frames of 4 pixels.*2 of 6"):
        vision.plan(24)
    assert VisionConfig(patch=4, stages=((1, 2, 5), (2, 2, 0))).plan(24) == (
        (1, 2, 12, 5),
        (2, 2, 40, 24),
    )


def test_hmlp_equals_its_definition():
    """Folding by reshape against cutting blocks out by hand, stage by stage."""
    params = random_params(CONFIG)["vision"]
    pixels = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 3)).astype(np.float32)
    found = embed.vision_stem(params, jnp.asarray(pixels), CONFIG)

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(weight)

    coarse = np.zeros((3, 2, 2, 2, 11))
    for f, i, j in np.ndindex(2, 2, 2):
        block = pixels[:, f, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(3, -1)
        state = norm(block @ np.asarray(params["linear_0"]), params["norm_0"])
        coarse[:, f, i, j] = jax.nn.gelu(jnp.asarray(state), approximate=False)
    want = norm(coarse.reshape(3, -1) @ np.asarray(params["linear_1"]), params["final_norm"])
    np.testing.assert_allclose(found, want, atol=2e-5)


# ---------------------------------------------------------------------------- flow head

R, Z = CONFIG.grid.mel_frames, CONFIG.mel.bands


def chunks(number: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(number, R, Z)), jnp.float32)


def test_the_path_runs_straight_from_noise_to_data():
    noise, mel = chunks(3, 0), chunks(3, 1)
    at_start, velocity = flow.interpolate(noise, mel, jnp.zeros(3))
    at_end, _ = flow.interpolate(noise, mel, jnp.ones(3))
    np.testing.assert_array_equal(at_start, noise)
    np.testing.assert_array_equal(at_end, mel)
    t = jnp.asarray([0.1, 0.5, 0.7])
    between, same = flow.interpolate(noise, mel, t)
    np.testing.assert_array_equal(velocity, same)
    np.testing.assert_allclose(between, noise + t[:, None, None] * velocity, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_the_sampler_integrates_a_straight_path_exactly(steps, monkeypatch):
    """With the true velocity of the path any number of steps arrives at the data."""
    noise, mel = chunks(2, 0), chunks(2, 1)
    monkeypatch.setattr(flow_kernel, "velocity", lambda p, x, t, c: mel - noise)
    np.testing.assert_allclose(flow_kernel.reference({}, noise, None, steps), mel, atol=2e-6)


@pytest.mark.parametrize("steps", [5, 16])
def test_the_sampler_steps_as_euler_does(steps, monkeypatch):
    """A velocity linear in x and t, whose Euler sum is known; times run from 0 to 1 - 1/steps."""
    noise = chunks(2, 0)
    monkeypatch.setattr(
        flow_kernel, "velocity", lambda p, x, t, c: 0.5 * x + 3.0 * t[:, None, None]
    )
    want = np.asarray(noise, np.float64)
    for index in range(steps):
        want = want + (0.5 * want + 3.0 * index / steps) / steps
    np.testing.assert_allclose(flow_kernel.reference({}, noise, None, steps), want, atol=1e-5)


def test_a_head_that_knows_the_mel_points_at_it(monkeypatch):
    """The velocity at any point is the way to the predicted mel over the time left."""
    noise, mel = chunks(3, 0), chunks(3, 1)
    monkeypatch.setattr(flow_kernel, "predict", lambda *a: mel)
    t = jnp.asarray([0.0, 0.4, 0.9])
    x_t, wanted = flow.interpolate(noise, mel, t)
    found = flow.velocity({}, x_t, t, None)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_head_reads_time_and_condition():
    params = random_params(CONFIG)["flow"]
    rng = np.random.default_rng(0)
    x_t, t = chunks(2, 0), jnp.asarray([0.2, 0.6])
    condition = jnp.asarray(rng.normal(size=(2, CONFIG.transformer.width)), jnp.float32)
    velocity = jax.jit(lambda x, t, c: flow.velocity(params, x, t, c))
    base = velocity(x_t, t, condition)
    assert base.shape == (2, R, Z)
    # A chunk depends on its own time and condition, and on no other's.
    for other in (velocity(x_t, t.at[0].set(0.9), condition),
                  velocity(x_t, t, condition.at[0].add(1.0))):  # fmt: skip
        assert float(jnp.abs(other[0] - base[0]).max()) > 1e-3
        np.testing.assert_array_equal(other[1], base[1])


# ---------------------------------------------------------------------------- choosing ids


@pytest.mark.parametrize(
    ("bias", "index", "chosen"),
    [(0.0, 0, Control.PASS), (0.9, 0, Control.PASS), (1.1, 0, Control.SAY), (1.1, 1, Control.PASS)],
)
def test_a_bias_against_silence_acts_where_output_begins(bias, index, chosen):
    config = dataclasses.replace(CONFIG, pass_bias=bias)
    score = np.zeros((1, config.transformer.logits_size), np.float32)
    score[0, config.ordinary_tokens + Control.PASS] = 3.0
    score[0, config.ordinary_tokens + Control.SAY] = 2.0
    token = interaction_model._choose(jnp.asarray(score), jnp.int32(index), config)
    assert int(token[0]) == config.ordinary_tokens + chosen


def test_the_last_place_takes_closers_only():
    score = np.zeros((1, CONFIG.transformer.logits_size), np.float32)
    score[0, CONFIG.ordinary_tokens + Control.SAY] = 9.0
    score[0, CONFIG.ordinary_tokens + Control.END] = 1.0
    token = interaction_model._choose(
        jnp.asarray(score), jnp.int32(CONFIG.max_text_out - 1), CONFIG
    )
    assert int(token[0]) == CONFIG.ordinary_tokens + Control.END
