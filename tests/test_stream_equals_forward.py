"""Live micro-turns give what training computed: `microturn_step` against `forward`.

In: the conversation of `conversation_for_tests`. Out: the largest difference of hidden states, text
logits and flow velocity, held under 1e-4 in float32, with outputs forced and with the model's own.
A wrong mask or leaked padding must show.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.models import (
    attention,
    attention_tiles,
    embed,
    flow,
    interaction_model,
    transformer,
)
from interaction.session.state import init_state
from interaction.session.step import compile_step
from interaction.types import Stream
from tests.conversation_for_tests import (
    CONFIG,
    LANES,
    LARGEST,
    SOUND_ALONE,
    Leak,
    Live,
    conversation,
    differences,
    fitting,
    live,
    looking_step,
    places,
    replayed,
    whole,
    worst_of,
    woven_inputs,
)
from tests.models_for_tests import LIVE, LIVE_LANES, padded, random_params

TOLERANCE = 1e-4
VISIBLE = 1e-2


@pytest.fixture(scope="module")
def params():
    made = random_params(CONFIG)
    # Closers a little likelier, so that a free run closes at different lengths.
    first = CONFIG.ordinary_tokens
    unembed = made["transformer"]["unembed"].at[:, first : first + 4].multiply(2.2)
    # Velocities of about 1, so that absolute differences mean something.
    head = dict(made["flow"], output=0.05 * made["flow"]["output"])
    return dict(made, flow=head, transformer=dict(made["transformer"], unembed=unembed))


@pytest.fixture(scope="module")
def step():
    """The live step that is looked at; one compilation for all tests of forced outputs."""
    return looking_step(CONFIG)


@pytest.fixture(scope="module")
def forced_run(params, step):
    return live(params, step)


@pytest.fixture(scope="module")
def forced_differences(params, forced_run):
    return differences(params, forced_run, *whole(params, forced_run))


# ---------------------------------------------------------------------------- equality


@pytest.mark.parametrize("lane", range(len(LANES)), ids=LANES)
def test_forced_outputs(forced_differences, lane):
    found = forced_differences[lane]
    print(LANES[lane], {name: f"{value:.1e}" for name, value in found.items()})
    assert found.keys() == {
        "velocity", "logits", "condition", "hidden of the input", "hidden of the output",
        "hidden of own speech",
    }  # fmt: skip
    assert max(found.values()) <= TOLERANCE


def test_the_conversation_is_as_hard_as_it_claims(forced_run):
    """Beyond window, extents, floor and ring; lanes of different length; late chunks."""
    stack, used = CONFIG.transformer, forced_run.outputs[-1].slots
    assert used[0] > 3 * CONFIG.local_slots() > stack.local.window > stack.local.bias_extent
    assert used.min() > 2 * stack.scaling_floor > stack.global_.bias_extent
    assert len(set(used.tolist())) == len(LANES)
    late = [i.micro_turn - t for row in forced_run.inputs if row[2] for i in row[2:3]
            for t, _ in i.audio]  # fmt: skip
    assert {0, 1, CONFIG.max_lateness} == set(late)
    assert len({fitting(row) for row in forced_run.inputs}) == 2


def test_free_run_is_replayed_by_forward(params):
    """The model's own tokens and sampled mel, fed to `forward`, give the states it had.

    By the live step as it is (vocoder, own outputs, state given away), in both buckets, with a
    global store that overflows.
    """
    step, state = compile_step(LIVE), init_state(LIVE, LIVE_LANES, seed=4)
    run = Live([row[:LIVE_LANES] for row in conversation()], [], [])
    for lanes in run.inputs:
        state, outputs = step(params, state, woven_inputs(lanes, fitting(lanes)))
        run.outputs.append(jax.tree.map(np.asarray, outputs))
    assert {fitting(lanes) for lanes in run.inputs} == {SOUND_ALONE, LARGEST}
    assert run.outputs[-1].slots.max() > 1.5 * LIVE.global_slots
    batch, out = whole(params, run, LIVE)
    found = differences(params, run, batch, out)
    print(found)
    assert worst_of(found) <= TOLERANCE
    lengths = {place.tokens for place in places(run, batch.slots)}
    assert len(lengths) > 2, "the free run should close at different lengths"
    # What the live step spoke is what the flow gives from the states that `forward` had.
    chunks = [p for p in places(run, batch.slots) if run.outputs[p.step].speaks[p.lane]]
    assert len(chunks) > 4
    condition = np.stack([out.hidden[p.lane, p.slots[p.inputs + p.tokens - 1]] for p in chunks])
    noise, mel = (
        np.stack([getattr(run.outputs[p.step], name)[p.lane] for p in chunks])
        for name in ("noise", "mel")
    )
    again = jax.jit(lambda p, x, c: flow.sample(p, x, c, LIVE))(params["flow"], noise, condition)
    np.testing.assert_allclose(again, mel, atol=TOLERANCE)


# ---------------------------------------------------------------------------- broken variants


def _later_by_one(queries: attention.Whereabouts) -> attention.Whereabouts:
    return attention.Whereabouts(position=queries.position, order=queries.order + 1)


def _seeing_ahead(honest):
    """Attention that sees one slot more, for keys of this very call, in its general form."""

    def attend(*arrays, queries, consecutive, **rest):
        del consecutive
        return honest(*arrays, queries=_later_by_one(queries), consecutive=False, **rest)

    return attend


def _tiles_seeing_ahead(honest):
    """The same where whole sequences go in tiles: in each key's place stands the next one."""

    def in_tiles(query, key, value, *rest, **named):
        return honest(query, jnp.roll(key, -1, axis=1), jnp.roll(value, -1, axis=1), *rest, **named)

    return in_tiles


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        pytest.param(transformer, "attend_whole", _seeing_ahead, marks=pytest.mark.slow),
        (attention_tiles, "in_tiles", _tiles_seeing_ahead),
    ],
)
def test_a_mask_that_is_not_causal_is_noticed(params, forced_run, monkeypatch, module, name, fault):
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    found = differences(params, forced_run, *whole(params, forced_run, fresh=True))
    assert worst_of(found) > VISIBLE


@pytest.mark.parametrize("off", [pytest.param(-1, marks=pytest.mark.slow), 1])
def test_a_window_off_by_one_is_noticed(params, forced_run, off):
    local = dataclasses.replace(
        CONFIG.transformer.local, window=CONFIG.transformer.local.window + off
    )
    stack = dataclasses.replace(CONFIG.transformer, local=local)
    config = dataclasses.replace(CONFIG, transformer=stack)
    found = differences(params, forced_run, *whole(params, forced_run, config))
    assert worst_of(found) > VISIBLE


@pytest.mark.parametrize("leak", [Leak.CONVOLUTIONS, Leak.CACHE])
def test_padding_that_leaks_in_the_live_step_is_noticed(params, step, leak):
    run = live(params, step, leak)
    found = differences(params, run, *whole(params, run))
    assert worst_of(found) > VISIBLE


@pytest.mark.slow
def test_a_ring_too_short_is_noticed(params, monkeypatch):
    """New slots overwrite keys that older slots of the same call still see."""
    monkeypatch.setattr(type(CONFIG), "local_slots", lambda self: self.transformer.local.window)
    run = live(params, looking_step(CONFIG))
    found = differences(params, run, *whole(params, run))
    assert worst_of(found) > VISIBLE


# ---------------------------------------------------------------------------- time runs one way


@pytest.fixture(scope="module")
def pull_back(params, forced_run):
    """The batch, and what gives the gradient of weighted hidden states with respect to every slot
    state and every row of the tables of sound, patches and own speech."""
    batch = padded(replayed(forced_run), CONFIG)
    honest_tables, honest_embed = embed._tables, embed.embed
    B, T = batch.slots.stream.shape
    sizes = {
        Stream.AUDIO: batch.payloads.audio.shape[1],
        Stream.VIDEO: batch.payloads.patches.shape[1],
        Stream.SPEECH: batch.payloads.speech.shape[1],
    }
    width = CONFIG.transformer.width
    zero = {int(stream): jnp.zeros((B, rows, width)) for stream, rows in sizes.items()}
    zero[int(Stream.PAD)] = jnp.zeros((B, T, width))

    @jax.jit
    def gradient(weight_BT):
        def total(extra):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(embed, "_tables", lambda *a: {
                    stream: table + extra[int(stream)]
                    for stream, table in honest_tables(*a).items()
                })  # fmt: skip
                patch.setattr(embed, "embed", lambda *a: honest_embed(*a) + extra[0])
                hidden = interaction_model.forward(params, batch, CONFIG).hidden
            direction = jax.random.normal(jax.random.key(2), hidden.shape)
            return jnp.sum(hidden * direction * weight_BT[..., None])

        return jax.grad(total)(zero)

    return batch, gradient


@pytest.mark.parametrize("middle", [2, 7])
def test_gradients_never_run_backwards_in_time(pull_back, middle):
    """Outputs of micro-turn m depend on what came up to it, and on nothing after it."""
    batch, gradient = pull_back
    slots = jax.tree.map(np.asarray, batch.slots)
    valid, time = slots.valid, slots.micro_turn
    slopes = gradient(jnp.asarray(valid & (time == middle), jnp.float32))
    norm = np.linalg.norm(np.asarray(slopes[int(Stream.PAD)]), axis=-1)
    assert (norm[valid & (time <= middle)] > 0).all()
    assert (norm[valid & (time > middle)] == 0).all()
    assert (norm[~valid] == 0).all()
    for stream in (Stream.AUDIO, Stream.VIDEO, Stream.SPEECH):
        lane, slot = np.nonzero(slots.stream == int(stream))
        rows = np.asarray(slopes[int(stream)])[lane, slots.payload[lane, slot]]
        norm, when = np.linalg.norm(rows, axis=-1), time[lane, slot]
        assert (when < middle).any()
        assert (when > middle).any()
        assert (norm[when <= middle] > 0).all(), stream
        assert (norm[when > middle] == 0).all(), stream
