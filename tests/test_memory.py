"""Typed memory: who gives way; `forward` with the schedule equals `advance` with the store.

In: tiny models whose global store overflows many times, random conversations. Out: places and
schedules checked against plain lists, hidden states within 1e-4.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction.models import interaction_model, memory
from interaction.models.memory import Evictable, Holding, MemoryConfig, Policy
from interaction.streams.weave import weave
from interaction.types import (
    AudioChunk,
    Control,
    Forced,
    MicroTurn,
    Payloads,
    Slots,
    Stream,
    TextIn,
)
from tests.models_for_tests import DENSE, padded, random_params, tiny

PLACES = 43
POLICIES = {
    "typed": MemoryConfig(recent=2),
    "typed, control first": MemoryConfig(
        recent=0,
        evicted=(Evictable.CONTROL, Evictable.AUDIO, Evictable.VIDEO, Evictable.SPEECH),
    ),
    "window": MemoryConfig(policy=Policy.WINDOW),
    "sinks": MemoryConfig(policy=Policy.SINKS, sinks=5),
}


def configured(case: str):
    """Both kinds of attention; no experts, which see each slot alone and take long to compile."""
    return tiny(mlp_kinds=(DENSE,) * 4, global_slots=PLACES, memory=POLICIES[case])


def conversation(lane: int, config, count: int = 14) -> list[MicroTurn]:
    """Video, typed and pinned text, sound and own words and speech in an irregular mixture."""
    rng = np.random.default_rng(lane)
    vision, control = config.vision, config.weave.control
    turns, time = [], 3 * lane
    for index in range(count):
        time += 1 + (rng.random() < 0.2) * int(rng.integers(4))
        video = None
        if rng.random() < 0.5:
            shape = (int(rng.integers(1, 4)), vision.frames, vision.patch, vision.patch, 3)
            video = rng.integers(0, 256, shape).astype(np.uint8)
        text_in = ()
        if index == 1:
            text_in = (TextIn(Control.SYSTEM, (70, 71)),)
        elif rng.random() < 0.25:
            text_in = (TextIn(Control.USER, (int(rng.integers(256)),)), TextIn(Control.TOOL, ()))
        bins = rng.integers(0, 16, (4, 80)).astype(np.uint8)
        audio = (AudioChunk(bins),) if rng.random() < 0.7 else ()
        speaks = rng.random() < 0.4
        closer = control(Control.SPEAK if speaks else Control.PASS)
        said = tuple(int(t) for t in rng.integers(0, 256, rng.integers(0, 3)))
        opened = (control(Control.WRITE), *said) if said else ()
        mel = rng.normal(size=(config.grid.mel_frames, config.mel.bands)).astype(np.float32)
        turns.append(
            MicroTurn(time, video, text_in, audio, (*opened, closer), mel if speaks else None)
        )
    return turns


def worded(lane: int, config, count: int = 14) -> list[MicroTurn]:
    """Typed text and written words alone, five of them in every micro-turn."""
    control = config.weave.control
    words = np.random.default_rng(lane).integers(0, 256, (count, 4)).tolist()
    return [
        MicroTurn(
            now, None, (TextIn(Control.USER, (a, b)),), (),
            (control(Control.WRITE), c, d, control(Control.PASS)), None,
        )
        for now, (a, b, c, d) in enumerate(words)
    ]  # fmt: skip


def input_slots(woven, config) -> tuple[Slots, Payloads, int]:
    """The input part of one woven micro-turn, padded, as the live step gets it."""
    begin = config.weave.control(Control.BEGIN)
    count = 1 + int(np.flatnonzero(woven.slots.token == begin)[0])
    room = config.max_input_slots

    def pad(array, length):
        out = np.zeros((1, length, *array.shape[1:]), array.dtype)
        out[0, : len(array)] = array
        return jnp.asarray(out)

    slots = Slots(
        **{
            f.name: pad(getattr(woven.slots, f.name)[:count], room)
            for f in dataclasses.fields(Slots)
        }
    )
    now = jnp.full((1, room), int(woven.slots.micro_turn[0]), jnp.int32)
    payloads = Payloads(
        audio=pad(woven.payloads.audio, 8),
        patches=pad(woven.payloads.patches, config.vision.max_patches),
        speech=jnp.zeros((1, 0, config.speech_features)),
    )
    return dataclasses.replace(slots, micro_turn=now), payloads, count


@functools.cache
def stepper(config):
    return jax.jit(
        lambda params, cache, slots, payloads, forced: interaction_model.advance(
            params,
            cache,
            slots,
            payloads,
            jnp.zeros((1, config.grid.mel_frames, config.mel.bands)),
            config,
            active=jnp.ones((1,), bool),
            forced=forced,
        )
    )


def advanced(params, turns, config):
    """Hidden states of every slot from micro-turn after micro-turn, and the last cache."""
    step, cache = stepper(config), interaction_model.init_cache(config, 1)
    hidden = []
    for turn in turns:
        woven = weave([turn], config.weave)
        slots, payloads, count = input_slots(woven, config)
        tokens = np.full((1, config.max_text_out), -1, np.int32)
        tokens[0, : len(turn.text_out)] = turn.text_out
        mel = np.zeros((1, config.grid.mel_frames, config.mel.bands), np.float32)
        if turn.speech is not None:
            mel[0] = turn.speech
        forced = Forced(jnp.asarray(tokens), jnp.asarray(mel))
        cache, out = step(params, cache, slots, payloads, forced)
        hidden += [out.hidden_in[0, :count], out.hidden_out[0, : len(turn.text_out)]]
        if turn.speech is not None:
            hidden.append(out.hidden_speech[0])
    return np.concatenate(hidden), cache


@functools.cache
def compared(case: str, turns_of=conversation):
    """Live hidden states and store of one conversation, its batch, and the schedule."""
    config = configured(case)
    params = random_params(config)
    turns = turns_of(1, config)
    batch = padded([turns], config)
    row = jax.tree.map(lambda leaf: np.asarray(leaf)[0], batch.slots)
    until = memory.last_seen(row, config.weave, config.global_slots, config.memory)
    hidden, cache = advanced(params, turns, config)
    return config, params, batch, until, hidden, cache


@functools.cache
def forward(config):
    return jax.jit(lambda params, batch: interaction_model.forward(params, batch, config))


def difference(params, batch, until, hidden, config) -> float:
    batch = dataclasses.replace(batch, until=None if until is None else until[None])
    trained = forward(config)(params, batch).hidden[0, : len(hidden)]
    return float(np.max(np.abs(np.asarray(trained) - hidden)))


@pytest.mark.parametrize(
    ("case", "turns_of"), [("typed", conversation), ("sinks", conversation), ("typed", worded)]
)
def test_forward_with_the_schedule_equals_advance(case, turns_of):
    config, params, batch, until, hidden, cache = compared(case, turns_of)
    if case == "typed":  # text goes where it is all that is left
        assert (int(cache["lost_text"][0]) > 10) == (turns_of is worded)
    assert len(hidden) > 2 * PLACES
    assert difference(params, batch, until, hidden, config) < 1e-4
    assert difference(params, batch, None, hidden, config) > 1e-2  # without it they differ
    one_late = np.where(until < len(until), until + 1, until)
    assert difference(params, batch, one_late, hidden, config) > 1e-4


@pytest.mark.parametrize("case", POLICIES)
def test_the_schedule_holds_as_many_slots_as_there_are_places(case):
    config = configured(case)
    for lane in range(3):
        woven = weave(conversation(lane, config, 40), config.weave)
        until = memory.last_seen(woven.slots, config.weave, PLACES, config.memory)
        total = len(until)
        for _, stop, _ in memory.calls(woven.slots):
            seen = np.sum(until[:stop] >= stop)
            assert seen == min(stop, PLACES)
        held = memory.holdings(woven.slots.stream[None], woven.slots.token[None], config.weave, np)
        kept = until >= total
        if config.memory.policy is Policy.WINDOW:
            assert np.flatnonzero(kept)[0] == total - PLACES
        elif config.memory.policy is Policy.SINKS:
            assert kept[: config.memory.sinks].all()
        else:
            assert kept[held[0] == int(Holding.PINNED)].all()


def entry(rows):
    """A store of one lane from (holding, order, time) per place."""
    columns = np.asarray(rows, np.int32).T
    return {
        name: jnp.asarray(columns[i])[None] for i, name in enumerate(("holding", "order", "time"))
    }


def test_places_are_taken_in_the_order_of_the_policy():
    rows = [
        (Holding.TEXT, 0, 0),  # 0: old text
        (Holding.PINNED, 1, 0),  # 1
        (Holding.AUDIO, 2, 1),  # 2: old sound
        (Holding.VIDEO, 3, 2),  # 3: old video
        (Holding.VIDEO, 4, 9),  # 4: recent video
        (Holding.AUDIO, 5, 9),  # 5: recent sound
        (Holding.CONTROL, 6, 3),  # 6
        (Holding.SPEECH, 7, 3),  # 7
        (Holding.NOTHING, -1, 0),  # 8: free
        (Holding.VIDEO, 8, 1),  # 9: old video, later in order
        (Holding.NOTHING, -1, 0),  # 10: free
        (Holding.TEXT, 9, 9),  # 11: recent text
    ]
    count, now = jnp.array([10]), jnp.array([10])
    typed = memory.room(entry(rows), count, now, 12, MemoryConfig(recent=3))
    assert typed.place[0].tolist() == [8, 10, 3, 9, 2, 7, 6, 4, 5, 0, 11, 1]
    window = memory.room(entry(rows), count, now, 12, POLICIES["window"])
    assert window.place[0].tolist() == [8, 10, 0, 1, 2, 3, 4, 5, 6, 7, 9, 11]
    sinks = memory.room(entry(rows), count, now, 12, MemoryConfig(Policy.SINKS, sinks=2))
    assert sinks.place[0].tolist() == [8, 10, 2, 3, 4, 5, 6, 7, 9, 11, 0, 1]


def test_text_that_gives_way_is_counted():
    *_, cache = compared("typed")
    kept = np.asarray(cache["global"]["holding"][0])
    assert int(cache["lost_text"][0]) == 0 and (kept == int(Holding.TEXT)).sum() > 3
    *_, batch, until, _, window = compared("sinks")
    row = jax.tree.map(lambda leaf: np.asarray(leaf)[0], batch.slots)
    held = memory.holdings(row.stream[None], row.token[None], configured("sinks").weave, np)[0]
    lost = (held == int(Holding.TEXT)) & (until < np.iinfo(np.int32).max)
    assert int(window["lost_text"][0]) == lost.sum() > 0


def test_text_in_is_pinned_by_its_source():
    weave_config = tiny().weave
    system, user = weave_config.control(Control.SYSTEM), weave_config.control(Control.USER)
    token = np.array([[0, user, 5, system, 6, 7, user, 8, weave_config.control(Control.BEGIN), 9]])
    stream = np.array([[Stream.VIDEO, *[Stream.TEXT_IN] * 7, *[Stream.TEXT_OUT] * 2]], np.int32)
    expected = "VIDEO TEXT TEXT PINNED PINNED PINNED TEXT TEXT CONTROL TEXT".split()
    for held in (
        memory.holdings(stream, token, weave_config, np),
        memory.holdings(jnp.asarray(stream), jnp.asarray(token), weave_config),
    ):
        assert [Holding(int(h)).name for h in held[0]] == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recent": -1}, "recent=-1"),
        ({"sinks": -2}, "sinks=-2"),
        ({"evicted": (Evictable.VIDEO,)}, r"evicted=\['video'\]"),
    ],
)
def test_a_policy_checks_itself(values, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**values)
