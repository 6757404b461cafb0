"""One hard conversation, played live and given to training, and how far the two are apart.

In: parameters of the tiny model. Out: inputs of several lanes with video, text, late and lost
sound, lanes that stand still, long enough to leave the window, the extents and the scaling floor
and to wrap the sliding rings; what the live step put out on them; the same as a batch for
`forward`; the largest difference of every kind of output.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.models import attention, flow, interaction_model, memory, transformer, vocoder
from interaction.models.interaction_model import AdvanceOutputs
from interaction.session.lanes import Bucket, buckets
from interaction.session.state import init_state
from interaction.session.step import microturn_step
from interaction.streams.audio import DMelStream
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import AudioChunk, Control, Forced, MicroTurn, Slots, Stream, TextIn
from tests.models_for_tests import padded, tiny

CONFIG = tiny()
LANES = ("everything", "sound, stands still", "late and lost", "no sound, ends early")
STEPS = 15


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
    """What the live step gave (numpy): per step its inputs, what each lane put out, and its
    hidden states where they were looked at."""

    inputs: list
    outputs: list
    states: list[AdvanceOutputs]


class Leak(enum.IntEnum):
    """Faults of the live step that can be switched on: they take no compilation of their own."""

    NONE = 0
    CONVOLUTIONS = 1  # the carried state is the call's last slots, valid or not
    CACHE = 2  # padding takes a place in the stores, and is attended to


def looking_step(config) -> Callable:
    """`microturn_step`, compiled, that also gives what `advance` gave, with a `Leak`.

    It does not vocode, which nothing here looks at and which takes long to compile.
    """

    def step(params, state, inputs, forced, leak):
        seen = []
        advance, admit = interaction_model.advance, transformer.admit
        convolution = attention.short_convolution

        def look(*args, **keywords):
            result = advance(*args, **keywords)
            seen.append(result[1])
            return result

        def mute(params, state, mel, config):
            return jnp.zeros((mel.shape[0], CONFIG.grid.samples)), state

        def convolve(x, weight, state, added):
            if added is not None:
                added = jnp.where(leak == Leak.CONVOLUTIONS, x.shape[1], added)
            return convolution(x, weight, state, added)

        def admit_all(cache, at, valid, stored):
            return admit(cache, at, valid | (leak == Leak.CACHE), stored)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "short_convolution", convolve)
            patch.setattr(transformer, "admit", admit_all)
            patch.setattr(interaction_model, "advance", look)
            patch.setattr(vocoder, "vocode_chunk", mute)
            state, outputs = microturn_step(params, state, inputs, config, forced=forced)
        return state, outputs, seen[0]

    return jax.jit(step)


SOUND_ALONE, LARGEST = buckets(CONFIG)[0], buckets(CONFIG)[-1]


def fitting(lanes) -> Bucket:
    """The bucket for sound alone where the inputs fit, else the largest."""
    fits = all(i is None or (i.video is None and not i.text_in and len(i.audio) < 2) for i in lanes)
    return SOUND_ALONE if fits else LARGEST


def woven_inputs(lanes, bucket: Bucket):
    """The step's inputs, padded to a bucket."""
    return weave_inputs(lanes, CONFIG.weave, slots=bucket.slots, patches=bucket.patches)


def live(params, step, leak: Leak = Leak.NONE) -> Live:
    """Run the conversation with forced outputs, in the largest bucket."""
    state = init_state(CONFIG, len(LANES), seed=3)
    run = Live(conversation(), [], [])
    for lanes, forced in zip(run.inputs, forced_outputs(), strict=True):
        inputs = woven_inputs(lanes, LARGEST)
        state, *seen = step(params, state, inputs, forced, jnp.int32(leak))
        outputs, states = jax.tree.map(np.asarray, seen)
        run.outputs.append(outputs)
        run.states.append(states)
    return run


def replayed(run: Live) -> list[list[MicroTurn]]:
    """Each lane's conversation with the outputs it had, as training would get it."""
    speak = CONFIG.ordinary_tokens + int(Control.SPEAK)
    lanes = []
    for lane in range(len(run.inputs[0])):
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
    """`forward` over the replayed conversations: the batch and its outputs.

    What does not fit into the model's global store is no longer seen, by its schedule.
    """
    batch = padded(replayed(run), config)
    if batch.slots.stream.shape[1] > config.global_slots:
        batch = dataclasses.replace(batch, until=jnp.asarray(_until(batch.slots, config)))
    out = (_forward.__wrapped__ if fresh else _forward)(config)(params, batch)
    return jax.tree.map(np.asarray, (batch, out))


def _until(slots: Slots, config) -> np.ndarray:
    def of_lane(lane: int) -> np.ndarray:
        row = jax.tree.map(lambda leaf: np.asarray(leaf[lane]), slots)
        return memory.last_seen(row, config.weave, config.global_slots, config.memory)

    return np.stack([of_lane(lane) for lane in range(len(slots.stream))])


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
    """Every micro-turn of every lane; `slots` in numpy."""
    found = []
    begin = CONFIG.ordinary_tokens + int(Control.BEGIN)
    for step, row in enumerate(run.inputs):
        for lane, item in enumerate(row):
            if item is None:
                continue
            there = slots.valid[lane] & (slots.micro_turn[lane] == item.micro_turn)
            mine = np.flatnonzero(there)
            asks = (slots.token[lane, mine] == begin) & (
                slots.stream[lane, mine] == int(Stream.TEXT_OUT)
            )
            count = int(np.sum(run.outputs[step].tokens[lane] >= 0))
            found.append(Place(lane, step, mine, int(np.flatnonzero(asks)[0]) + 1, count))
    return found


def velocities(params, run: Live, batch, hidden, found: list[Place]) -> dict[int, float]:
    """Lane -> largest difference of the velocity at the same random (x_t, t) of its chunks."""
    spoken = [p for p in found if run.outputs[p.step].speaks[p.lane]]
    for lane, listed in enumerate(batch.targets.chunk_slot):
        mine = [int(p.slots[p.inputs + p.tokens - 1]) for p in spoken if p.lane == lane]
        assert mine == listed[: len(mine)].tolist()
    noise, mel, live_state = (
        np.stack([getattr(run.outputs[p.step], name)[p.lane] for p in spoken])
        for name in ("noise", "mel", "condition")
    )
    states = np.stack([hidden[p.lane, p.slots[p.inputs + p.tokens - 1]] for p in spoken])
    t = np.random.default_rng(8).uniform(0.0, 0.9, size=len(spoken)).astype(np.float32)

    @jax.jit
    def error(params, state, other):
        x_t, _ = flow.interpolate(noise, mel, t)
        a, b = (flow.velocity(params, x_t, t, s) for s in (state, other))
        return jnp.max(jnp.abs(a - b), axis=(1, 2))

    errors = np.asarray(error(params["flow"], live_state, states))
    return {
        lane: float(max(e for p, e in zip(spoken, errors, strict=True) if p.lane == lane))
        for lane in sorted({p.lane for p in spoken})
    }


def differences(params, run: Live, batch, out) -> dict[int, dict[str, float]]:
    """Lane -> largest absolute difference of each kind of output."""
    found = places(run, batch.slots)
    hidden, logits = out.hidden, out.logits
    worst: dict[int, dict[str, float]] = {lane: {} for lane in range(len(hidden))}
    for lane, value in velocities(params, run, batch, hidden, found).items():
        worst[lane]["velocity"] = value

    def note(lane, name, ours, theirs):
        assert ours.shape == theirs.shape
        error = float(np.abs(ours - theirs).max(initial=0.0))
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
