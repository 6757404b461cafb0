"""Live micro-turns give what training computed: `microturn_step` against `forward`.

In: conversations of several lanes with video, text, late and lost sound, lanes that stand still,
long enough to leave the window, the extents and the scaling floor and to wrap the sliding rings.
Out: the largest difference of hidden states, text logits and flow velocity, held under 1e-4 in
float32, with outputs forced and with the model's own. A wrong mask or leaked padding must show.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.models import attention, embed, flow, interaction_model, transformer, vocoder
from interaction.models.interaction_model import AdvanceOutputs
from interaction.session.lanes import buckets
from interaction.session.state import init_state
from interaction.session.step import microturn_step
from interaction.streams.audio import DMelStream
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import AudioChunk, Control, Forced, MicroTurn, Slots, Stream, TextIn
from tests.models_for_tests import padded, random_params, tiny

CONFIG = tiny()
LANES = ("everything", "sound, stands still", "late and lost", "no sound, ends early")
STEPS = 15
TOLERANCE = 1e-4
VISIBLE = 1e-2
CLOSERS = (Control.PASS, Control.SPEAK, Control.YIELD, Control.SPEAK, Control.END)
# Arrivals of "late and lost": micro-turn -> times of its chunks. 2 and 6 never come, 4 comes with
# 5, 7 (the latest allowed) after 8 and 9, and 11 in the same micro-turn as 12.
ARRIVALS = {2: (), 4: (), 5: (4, 5), 6: (), 7: (), 10: (7, 10), 11: (), 12: (11, 12)}


def still(lane: int, step: int) -> bool:
    """Whether the lane holds no input at this step."""
    if lane == 1:
        return step in (0, 1, 6, 7, 12)
    return lane == 3 and step >= 9


def inputs_of(lane: int, now: int, rng: np.random.Generator) -> LaneInput:
    """What the lane takes in at its own micro-turn `now`."""
    vision, video, text_in = CONFIG.vision, None, ()
    sees = (lane == 0 and now % 3 != 1) or (lane == 3 and now % 3 == 2)
    if sees:
        shape = (1 + now % 3, vision.frames, vision.patch, vision.patch, 3)
        video = rng.integers(0, 256, shape).astype(np.uint8)
    if lane in (0, 3) and now % 4 == 3:
        text_in = (TextIn(Control.USER, (65, 66, 67)), TextIn(Control.TOOL, (9,)))
    times = {2: ARRIVALS.get(now, (now,)), 3: ()}.get(lane, (now,))
    samples = [0.1 * rng.normal(size=CONFIG.grid.samples).astype(np.float32) for _ in times]
    return LaneInput(now, video, text_in, tuple(zip(times, samples, strict=True)))


@functools.cache
def conversation() -> list[list[LaneInput | None]]:
    """For every step, every lane's input; a lane that stands still keeps its session time."""
    rng = np.random.default_rng(5)
    now = [0] * len(LANES)
    steps = []
    for step in range(STEPS):
        row: list[LaneInput | None] = []
        for lane in range(len(LANES)):
            if still(lane, step):
                row.append(None)
                continue
            row.append(inputs_of(lane, now[lane], rng))
            now[lane] += 1
        steps.append(row)
    return steps


@functools.cache
def forced_outputs() -> list[Forced]:
    """For every step, ids with their closer (1 to 5 of them) and a mel chunk for every lane."""
    rng = np.random.default_rng(6)
    first, limit = CONFIG.ordinary_tokens, CONFIG.max_text_out
    steps = []
    for step in range(STEPS):
        tokens = np.full((len(LANES), limit), -1, np.int32)
        for lane in range(len(LANES)):
            count = (lane + 2 * step) % limit
            text = rng.integers(0, first, count)
            text[:1] = first + int(Control.WRITE)
            closer = first + int(CLOSERS[(lane + step) % len(CLOSERS)])
            tokens[lane, : count + 1] = [*text, closer]
        mel = rng.normal(size=(len(LANES), CONFIG.grid.mel_frames, CONFIG.mel.bands))
        steps.append(Forced(jnp.asarray(tokens), jnp.asarray(mel, jnp.float32)))
    return steps


@dataclasses.dataclass(frozen=True)
class Live:
    """What the live step gave: per step its inputs, what each lane put out, and its hidden
    states where they were looked at."""

    inputs: list
    outputs: list
    states: list[AdvanceOutputs]


def looking_step(config) -> Callable:
    """`microturn_step`, compiled, that also gives what `advance` gave.

    It does not vocode, which nothing here looks at and which takes long to compile.
    """

    def step(params, state, inputs, forced):
        seen = []
        advance = interaction_model.advance

        def look(*args, **keywords):
            result = advance(*args, **keywords)
            seen.append(result[1])
            return result

        def mute(params, state, mel, config):
            return jnp.zeros((mel.shape[0], CONFIG.grid.samples)), state

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interaction_model, "advance", look)
            patch.setattr(vocoder, "vocode_chunk", mute)
            state, outputs = microturn_step(params, state, inputs, config, forced=forced)
        return state, outputs, seen[0]

    return jax.jit(step)


def woven_inputs(lanes, small_fits: bool = True):
    """The step's inputs, in the bucket for sound alone where they fit, else in the largest."""
    small, *_, large = buckets(CONFIG)
    fits = small_fits and all(
        i is None or (i.video is None and not i.text_in and len(i.audio) < 2) for i in lanes
    )
    bucket = small if fits else large
    return weave_inputs(lanes, CONFIG.weave, slots=bucket.slots, patches=bucket.patches)


def live(params, step, steps: int = STEPS, buckets: int = 2) -> Live:
    """Run the conversation with forced outputs, in two buckets or in the largest alone."""
    state = init_state(CONFIG, len(LANES), seed=3)
    run = Live(conversation()[:steps], [], [])
    for lanes, forced in zip(run.inputs, forced_outputs(), strict=False):
        inputs = woven_inputs(lanes, small_fits=buckets > 1)
        state, outputs, states = step(params, state, inputs, forced)
        run.outputs.append(outputs)
        run.states.append(states)
    return run


def replayed(run: Live) -> list[list[MicroTurn]]:
    """Each lane's conversation with the outputs it had, as training would get it."""
    speak = CONFIG.ordinary_tokens + int(Control.SPEAK)
    lanes = []
    for lane in range(len(LANES)):
        heard, turns = DMelStream(), []
        for row, outputs in zip(run.inputs, run.outputs, strict=True):
            item = row[lane]
            if item is None:
                continue
            audio = tuple(
                AudioChunk(heard.push(samples, time), item.micro_turn - time)
                for time, samples in item.audio
            )
            ids = tuple(int(token) for token in outputs.tokens[lane] if token >= 0)
            mel = np.asarray(outputs.mel[lane]) if ids[-1] == speak else None
            turns.append(MicroTurn(item.micro_turn, item.video, item.text_in, audio, ids, mel))
        lanes.append(turns)
    return lanes


def whole(params, run: Live, config=CONFIG, fresh: bool = False):
    """`forward` over the replayed conversations: the batch and its outputs."""
    batch = padded(replayed(run), config)
    return batch, (_forward.__wrapped__ if fresh else _forward)(config)(params, batch)


@functools.cache
def _forward(config):
    return jax.jit(lambda params, batch: interaction_model.forward(params, batch, config))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one lane's micro-turn lies in the whole sequence."""

    lane: int
    step: int
    slots: np.ndarray
    inputs: int
    tokens: int


def places(run: Live, slots: Slots) -> list[Place]:
    """Every micro-turn of every lane."""
    found = []
    begin = CONFIG.ordinary_tokens + int(Control.BEGIN)
    for step, row in enumerate(run.inputs):
        for lane, item in enumerate(row):
            if item is None:
                continue
            there = np.asarray(slots.valid[lane] & (slots.micro_turn[lane] == item.micro_turn))
            mine = np.flatnonzero(there)
            asks = np.asarray(slots.token[lane, mine] == begin) & np.asarray(
                slots.stream[lane, mine] == int(Stream.TEXT_OUT)
            )
            count = int(np.sum(np.asarray(run.outputs[step].tokens[lane]) >= 0))
            found.append(Place(lane, step, mine, int(np.flatnonzero(asks)[0]) + 1, count))
    return found


def velocities(params, run: Live, batch, hidden, found: list[Place]) -> dict[int, float]:
    """Lane -> largest difference of the velocity at the same random (x_t, t) of its chunks."""
    rng = np.random.default_rng(8)
    worst = {}
    for lane in range(len(LANES)):
        mine = [p for p in found if p.lane == lane and bool(run.outputs[p.step].speaks[lane])]
        slots = np.asarray(batch.targets.chunk_slot[lane])[: len(mine)]
        assert [int(p.slots[p.inputs + p.tokens - 1]) for p in mine] == slots.tolist()
        noise, mel, live_state = (
            jnp.stack([getattr(run.outputs[p.step], name)[lane] for p in mine])
            for name in ("noise", "mel", "condition")
        )
        t = jnp.asarray(rng.uniform(0.0, 0.9, size=len(mine)), jnp.float32)
        x_t, _ = flow.interpolate(noise, mel, t)
        a = flow.velocity(params["flow"], x_t, t, live_state)
        b = flow.velocity(params["flow"], x_t, t, hidden[lane, slots])
        worst[lane] = float(jnp.max(jnp.abs(a - b)))
    return worst


def differences(params, run: Live, batch, out) -> dict[int, dict[str, float]]:
    """Lane -> largest absolute difference of each kind of output."""
    found = places(run, batch.slots)
    hidden, logits = np.asarray(out.hidden), np.asarray(out.logits)
    worst = {lane: {"velocity": v} for lane, v in
             velocities(params, run, batch, out.hidden, found).items()}  # fmt: skip

    def note(lane, name, ours, theirs):
        assert ours.shape == theirs.shape
        error = float(np.abs(np.asarray(ours) - theirs).max(initial=0.0))
        worst[lane][name] = max(worst[lane].get(name, 0.0), error)

    for place in found:
        lane, n, u = place.lane, place.inputs, place.tokens
        row, scores = hidden[lane, place.slots], logits[lane, place.slots]
        outputs = run.outputs[place.step]
        note(lane, "logits", outputs.logits[lane, :u], scores[n - 1 : n - 1 + u])
        note(lane, "condition", outputs.condition[lane], row[n + u - 1])
        if not run.states:
            continue
        states = run.states[place.step]
        note(lane, "hidden of the input", states.hidden_in[lane, :n], row[:n])
        note(lane, "hidden of the output", states.hidden_out[lane, :u], row[n : n + u])
        if bool(outputs.speaks[lane]):
            note(lane, "hidden of own speech", states.hidden_speech[lane], row[n + u :])
        else:
            assert len(row) == n + u
    return worst


def worst_of(found: dict[int, dict[str, float]]) -> float:
    return max(max(kinds.values()) for kinds in found.values())


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
def forced_run(params):
    return live(params, looking_step(CONFIG))


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
    stack, used = CONFIG.transformer, np.asarray(forced_run.outputs[-1].slots)
    assert used[0] > 3 * CONFIG.local_slots() > stack.local.window > stack.local.bias_extent
    assert used.min() > 2 * stack.scaling_floor > stack.global_.bias_extent
    assert len(set(used.tolist())) == len(LANES)
    late = [i.micro_turn - t for row in forced_run.inputs if row[2] for i in row[2:3]
            for t, _ in i.audio]  # fmt: skip
    assert {0, 1, CONFIG.max_lateness} == set(late)
    assert len({woven_inputs(row).stream.shape for row in forced_run.inputs}) == 2


def test_free_run_is_replayed_by_forward(params):
    """The model's own tokens and sampled mel, fed to `forward`, give the states it had."""
    step = looking_step(CONFIG)
    state = init_state(CONFIG, len(LANES), seed=4)
    run = Live(conversation(), [], [])
    for lanes in run.inputs:
        inputs = woven_inputs(lanes, small_fits=False)
        state, outputs, _ = step(params, state, inputs, None)
        run.outputs.append(outputs)
    batch, out = whole(params, run)
    found = differences(params, run, batch, out)
    print(found)
    assert worst_of(found) <= TOLERANCE
    lengths = {place.tokens for place in places(run, batch.slots)}
    assert len(lengths) > 2, "the free run should close at different lengths"
    # What the live step spoke is what the flow gives from the states that `forward` had.
    chunks = [p for p in places(run, batch.slots) if bool(run.outputs[p.step].speaks[p.lane])]
    assert len(chunks) > 4
    condition = jnp.stack([out.hidden[p.lane, p.slots[p.inputs + p.tokens - 1]] for p in chunks])
    noise, mel = (
        jnp.stack([getattr(run.outputs[p.step], name)[p.lane] for p in chunks])
        for name in ("noise", "mel")
    )
    again = flow.sample(params["flow"], noise, condition, CONFIG)
    np.testing.assert_allclose(again, mel, atol=TOLERANCE)


# ---------------------------------------------------------------------------- broken variants


def _later_by_one(queries: attention.Whereabouts) -> attention.Whereabouts:
    return attention.Whereabouts(position=queries.position, order=queries.order + 1)


def _seeing_ahead():
    """Attention that sees one slot more, for keys of this very call."""
    honest = attention.attend

    def attend(*arrays, queries, consecutive, **rest):
        del consecutive
        return honest(*arrays, queries=_later_by_one(queries), consecutive=False, **rest)

    return attend


def test_a_mask_that_is_not_causal_is_noticed(params, forced_run, monkeypatch):
    monkeypatch.setattr(attention, "attend", _seeing_ahead())
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


def _padding_in_convolutions(monkeypatch):
    """The carried state is the call's last slots, valid or not."""
    honest = attention.short_convolution

    def leaking(x, weight, state, added):
        return honest(x, weight, state, None if added is None else jnp.full_like(added, x.shape[1]))

    monkeypatch.setattr(attention, "short_convolution", leaking)


def _padding_in_cache(monkeypatch):
    """Padding takes a place in the ring, and is attended to."""
    honest = transformer.admit
    monkeypatch.setattr(
        transformer,
        "admit",
        lambda cache, at, valid, stored: honest(cache, at, jnp.ones_like(valid), stored),
    )


def _ring_too_short(monkeypatch):
    """New slots overwrite keys that older slots of the same call still see."""
    monkeypatch.setattr(type(CONFIG), "local_slots", lambda self: self.transformer.local.window)


@pytest.mark.parametrize(
    "leak",
    [
        _padding_in_convolutions,
        pytest.param(_padding_in_cache, marks=pytest.mark.slow),
        pytest.param(_ring_too_short, marks=pytest.mark.slow),
    ],
)
def test_a_leak_in_the_live_step_is_noticed(params, leak, monkeypatch):
    leak(monkeypatch)
    run = live(params, looking_step(CONFIG), steps=4, buckets=1)
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
