"""The live step, the lanes, the clock and recorded sessions.

In: tiny random models and made-up sound. Out: lanes that never touch each other (bit for bit),
one trace per bucket, state that can be copied and taken up again, playback that never overlaps,
and what becomes of chunks that come late or never.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interaction.microturn import ONSET_MARGIN_SECONDS
from interaction.session import lanes as lanes_module
from interaction.session.lanes import Lanes, buckets
from interaction.session.loop import Pace, Playback, converse
from interaction.session.recording import Recording
from interaction.session.state import init_state
from interaction.session.step import compile_step
from interaction.streams.events import TextEvent, VideoFrames
from interaction.streams.text import read_tokenizer
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, TextIn
from tests.models_for_tests import LIVE as CONFIG
from tests.models_for_tests import LIVE_LANES as LANES
from tests.models_for_tests import random_params

SAMPLES = CONFIG.grid.samples


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def step(params):
    """The compiled step with the model's parameters; gives its state away."""
    compiled = compile_step(CONFIG)
    return lambda state, inputs: compiled(params, state, inputs)


def sound(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=SAMPLES).astype(np.float32)


def heard(micro_turn: int, seed: int) -> LaneInput:
    return LaneInput(micro_turn, audio=((micro_turn, sound(seed)),))


def seen(micro_turn: int, seed: int) -> LaneInput:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 2, 4, 4, 3)).astype(np.uint8)
    return LaneInput(micro_turn, video=pixels, audio=((micro_turn, sound(seed)),))


def woven(inputs, bucket: int = 0):
    size = buckets(CONFIG)[bucket]
    return weave_inputs(inputs, CONFIG.weave, slots=size.slots, patches=size.patches)


def plain(tree):
    """A copy on the host, keys as their numbers."""

    def take(leaf):
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if typed else leaf)

    return jax.tree.map(take, tree)


def lane_of(state, lane: int) -> list[np.ndarray]:
    """The leaves of one lane's state."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain(state)):
        axis = leaf.shape.index(LANES) if LANES in leaf.shape else None
        assert axis is not None, path
        found.append(np.take(leaf, lane, axis))
    return found


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------------------- lanes


def run_lane_one(step, others: str, steps: int = 5):
    """Lane 1 hears the same sound whatever the other lanes do; its outputs and last state."""
    state = init_state(CONFIG, LANES, seed=7)
    outputs = []
    for now in range(steps):
        row = [None, heard(now, 50 + now), None]
        if others == "busy":
            row[0], row[2] = heard(now, 90 + now), heard(now, 70 + now)
        elif others == "broken":
            noise = np.full(SAMPLES, np.nan, np.float32)
            row[0] = LaneInput(now, audio=((now, noise),))
        elif others == "coming and going" and now % 2:
            row[2] = heard(now // 2, now)
        state, out = step(state, woven(row))
        outputs.append(jax.tree.map(lambda leaf: leaf[1], plain(out)))
    return outputs, lane_of(state, 1)


@pytest.mark.parametrize("others", ["busy", "broken", "coming and going"])
def test_a_lane_does_not_feel_the_others(step, others):
    alone = run_lane_one(step, "empty")
    assert np.isfinite(alone[0][-1].logits).all()
    assert_same(run_lane_one(step, others), alone)


def test_a_lane_that_stands_still_keeps_its_state(step):
    state = init_state(CONFIG, LANES, seed=1)
    for now in range(2):
        state, _ = step(state, woven([heard(now, 3 * now + lane) for lane in range(LANES)]))
    before = [lane_of(state, lane) for lane in range(LANES)]
    state, out = step(state, woven([None, heard(2, 9), None]))
    for lane, moved in enumerate([False, True, False]):
        after = lane_of(state, lane)
        if moved:
            assert any((a != b).any() for a, b in zip(before[lane], after, strict=True))
        else:
            assert_same(after, before[lane])
            assert (np.asarray(out.tokens[lane]) == -1).all()
            assert not np.asarray(out.waveform[lane]).any()


def test_a_lane_recovers_from_broken_sound(step):
    state = init_state(CONFIG, LANES, seed=1)
    broken = LaneInput(0, audio=((0, np.full(SAMPLES, np.inf, np.float32)),))
    state, out = step(state, woven([broken, None, None]))
    for now in (1, 2):
        state, out = step(state, woven([heard(now, now), None, None]))
    assert np.isfinite(np.asarray(out.logits[0])).all()
    assert np.isfinite(np.asarray(out.waveform[0])).all()


def test_every_lane_closes_its_micro_turn(step):
    state = init_state(CONFIG, LANES, seed=2)
    closers = set()
    first = CONFIG.ordinary_tokens
    for now in range(6):
        state, out = step(state, woven([heard(now, 10 * now + lane) for lane in range(LANES)]))
        for row, speaks in zip(np.asarray(out.tokens), np.asarray(out.speaks), strict=True):
            ids = row[row >= 0]
            is_closer = (ids >= first) & (ids < first + 4)
            assert is_closer.tolist() == [False] * (len(ids) - 1) + [True]
            assert (row[len(ids) :] == -1).all()
            assert bool(speaks) == (ids[-1] == first + int(Control.SPEAK))
            closers.add(int(ids[-1]))
    assert len(closers) > 1


def test_padding_of_a_larger_bucket_changes_nothing(step):
    row = [heard(0, 1), None, heard(0, 2)]
    runs = [step(init_state(CONFIG, LANES, seed=5), woven(row, bucket)) for bucket in (0, 2)]
    (small_state, small), (large_state, large) = map(plain, runs)
    assert_same(small.tokens, large.tokens)
    np.testing.assert_allclose(small.logits, large.logits, atol=1e-5)
    np.testing.assert_allclose(small.mel, large.mel, atol=1e-4)
    for a, b in zip(jax.tree.leaves(small_state), jax.tree.leaves(large_state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_lanes_draw_different_noise_and_a_seed_repeats_it(step):
    row = [heard(0, 1)] * LANES
    noise = [
        np.asarray(step(init_state(CONFIG, LANES, seed=seed), woven(row))[1].noise)
        for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(noise[0], noise[1])
    for a, b in itertools.combinations([*noise[0], *noise[2]], 2):
        assert np.abs(a - b).max() > 0.1


# ---------------------------------------------------------------------------- buckets and state


def varied(now: int) -> list[LaneInput | None]:
    """Sound, video, text in turn, so that the smallest bucket and the largest are needed."""
    row: list[LaneInput | None] = [heard(now, now), None, None]
    if now % 3 == 1:
        row[0] = seen(now, now)
    if now % 7 == 2:
        row[0] = LaneInput(now, text_in=(TextIn(Control.USER, (65, 66, 67)),))
    return row


def test_one_trace_per_bucket_however_long_it_runs(params, monkeypatch):
    """And the state is given away: its arrays are gone, without a warning.

    With the smallest bucket and the largest; what was traced before is not traced again.
    """
    monkeypatch.setattr(lanes_module, "buckets", lambda config: buckets(config)[::2])
    before = compile_step(CONFIG)._cache_size()
    lanes = Lanes(params, CONFIG, lanes=LANES)
    lanes.warm_up()
    traces = compile_step(CONFIG)._cache_size()
    assert traces - before <= len(set(buckets(CONFIG)[::2])) == 2 <= traces
    old = lanes.state
    for now in range(50):
        outputs = lanes.step(varied(now))
        assert outputs[0] is not None
        assert outputs[1:] == [None, None]
    assert compile_step(CONFIG)._cache_size() == traces
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert lanes.state.micro_turn.tolist() == [50, 0, 0]


def test_a_copied_state_goes_on_as_the_original(params):
    """To the host and back, into other lanes: the same bits."""
    first = Lanes(params, CONFIG, lanes=LANES, seed=3)
    for now in range(3):
        first.step([heard(now, now), None, None])
    snapshot = jax.device_get(first.state)
    wanted = [first.step([heard(now, now), None, None])[0] for now in (3, 4, 5)]
    second = Lanes(params, CONFIG, lanes=LANES, seed=99)
    second.state = jax.device_put(snapshot)
    for now, want in zip((3, 4, 5), wanted, strict=True):
        found = second.step([heard(now, now), None, None])[0]
        assert found.tokens == want.tokens
        np.testing.assert_array_equal(found.mel, want.mel)
        np.testing.assert_array_equal(found.waveform, want.waveform)


REFUSED = {
    "time": (LaneInput(4), "lane 0 is at micro_turn=0, its input is of micro_turn=4"),
    "patches": (
        LaneInput(0, video=np.zeros((4, 2, 4, 4, 3), np.uint8)),
        "4 video patches.*max_patches=3",
    ),
    "text": (
        LaneInput(0, text_in=(TextIn(Control.USER, tuple(range(7))),)),
        "8 slots.*max_text_in=7",
    ),
    "late": (LaneInput(0, audio=((-4, sound(0)),)), "lateness=4.*max_lateness=3"),
    "samples": (LaneInput(0, audio=((0, sound(0)[:-1]),)), r"\[3199\], expected \[3200\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_loses_nothing(params, case):
    item, message = REFUSED[case]
    lanes = Lanes(params, CONFIG, lanes=LANES)
    with pytest.raises(ValueError, match=message):
        lanes.step([item, None, None])
    assert lanes.step([heard(0, 0), None, None])[0] is not None


# ---------------------------------------------------------------------------- playback

# (micro-turn, seconds of the step, speaks) -> start
PLAYBACK = {
    "on time, joined, and the tail": (
        [(0, 0.0, True), (1, 0.1, True), (2, 0.0, False), (3, 0.0, True)],
        [0.2 + 0.03, 0.5, 0.7, 0.9],
    ),
    "silence leaves no trace": ([(0, 0.1, False), (1, 0.01, True)], [0.33, 0.44]),
    "too slow: next border": ([(0, 0.25, True), (1, 0.05, True)], [0.6 + 0.03, 0.83]),
    "a new sound waits for the tail": (
        [(0, 0.19, True), (1, 0.0, False), (2, 0.0, True)],
        [0.42, 0.62, 0.82],
    ),
}


@pytest.mark.parametrize("case", PLAYBACK)
def test_when_sound_plays(case):
    steps, starts = PLAYBACK[case]
    playback = Playback()
    assert playback.margin == ONSET_MARGIN_SECONDS == 0.03
    assert [playback.start(*one) for one in steps] == pytest.approx(starts)


@given(st.lists(st.tuples(st.floats(0.0, 0.7), st.booleans()), min_size=1, max_size=20))
def test_sound_never_overlaps_nor_comes_early(steps):
    playback = Playback()
    end, spoke = 0.0, False
    for now, (seconds, speaks) in enumerate(steps):
        start = playback.start(now, seconds, speaks)
        assert start >= 0.2 * (now + 1) + seconds - 1e-9
        if speaks or spoke:
            assert start >= end - 1e-9
            end = start + 0.2
        spoke = speaks


# ---------------------------------------------------------------------------- recordings


def arrivals(recording: Recording):
    return recording.arrivals(CONFIG, read_tokenizer())


def times(found) -> list[tuple[int, ...]]:
    return [tuple(time for time, _ in arrived.lane.audio) for arrived in found]


AUDIO = np.concatenate([np.full(SAMPLES, 0.01 * (i + 1), np.float32) for i in range(6)])
LATE = {
    "on time": ({}, [], [(0,), (1,), (2,), (3,), (4,), (5,)], {}),
    "lost": ({}, [1, 4], [(0,), (), (2,), (3,), (), (5,)], {}),
    "late by one": ({2: 1}, [], [(0,), (1,), (), (2, 3), (4,), (5,)], {}),
    "latest allowed": ({0: 3}, [], [(), (1,), (2,), (0, 3), (4,), (5,)], {}),
    "too late": ({0: 4}, [], [(), (1,), (2,), (3,), (4,), (5,)], {4: 1}),
    "more than fit: the newest stay": (
        {1: 2, 2: 1}, [], [(0,), (), (), (2, 3), (4,), (5,)], {3: 1},
    ),
    "after the end": ({5: 2}, [], [(0,), (1,), (2,), (3,), (4,), ()], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_chunks_that_come_late_or_never(case):
    late, lost, want, dropped = LATE[case]
    found = arrivals(Recording(AUDIO, late=late, lost=frozenset(lost)))
    assert times(found) == want
    assert {a.lane.micro_turn: a.dropped for a in found if a.dropped} == dropped
    for arrived in found:
        for time, samples in arrived.lane.audio:
            np.testing.assert_array_equal(samples, AUDIO[time * SAMPLES : (time + 1) * SAMPLES])


def test_a_chunk_before_its_time_is_refused():
    with pytest.raises(ValueError, match=r"\{3: -1\}"):
        Recording(AUDIO, late={2: 1, 3: -1})


def test_text_arrives_in_the_micro_turn_of_its_time():
    """A border belongs to what follows it, also where floats round up (0.6 < 3 * 0.2)."""
    events = [TextEvent(seconds, Control.USER, text) for seconds, text in
              ((0.6, "c"), (0.0, "a"), (0.59, "b"), (1.0, "d"))]  # fmt: skip
    found = arrivals(Recording(text=events))
    assert {a.lane.micro_turn: a.text for a in found if a.text} == {
        0: ("a",), 2: ("b",), 3: ("c",), 5: ("d",),
    }  # fmt: skip
    assert len(found) == 6
    assert found[3].lane.text_in == (TextIn(Control.USER, (ord("c"),)),)


def test_length_and_frames():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    video = VideoFrames(np.arange(9) / 10, frames)
    found = arrivals(Recording(AUDIO[: SAMPLES + 1], video=video, seconds=0.41))
    assert len(found) == 3
    assert [int(a.frame[0, 0, 0]) for a in found] == [1, 3, 5]
    assert all(a.lane.video.shape[1:] == (2, 4, 4, 3) for a in found)
    assert times(found) == [(0,), (1,), ()]
    np.testing.assert_array_equal(found[1].lane.audio[0][1][1:], 0)
    assert len(arrivals(Recording(video=video))) == 5


# ---------------------------------------------------------------------------- a whole session


def test_a_session_is_the_same_at_any_pace(params):
    """Only the clock differs; lateness and drops stand in the record."""
    recording = Recording(
        AUDIO, text=[TextEvent(0.5, Control.USER, "hi")], late={1: 1, 3: 2}, lost=frozenset({0})
    )
    records, watched = {}, []
    for pace in (Pace.INSTANT, Pace.MEASURED):
        lanes = Lanes(params, CONFIG, lanes=LANES, seed=11)
        records[pace] = converse(lanes, recording, pace=pace, observe=watched.append)
    instant, measured = (records[p].micro_turns for p in (Pace.INSTANT, Pace.MEASURED))
    assert len(instant) == len(measured) == 6
    assert watched == [*instant, *measured]
    assert [r.lateness for r in instant] == [(), (), (1, 0), (), (0,), (2, 0)]
    assert [r.text_in for r in instant] == [(), (), ("hi",), (), (), ()]
    for a, b in zip(instant, measured, strict=True):
        assert (a.written, a.said, a.delegated, a.closer) == (
            b.written,
            b.said,
            b.delegated,
            b.closer,
        )
        np.testing.assert_array_equal(a.spoken_audio, b.spoken_audio)
        assert a.play_start_seconds == pytest.approx(0.2 * (a.micro_turn + 1))
        assert b.play_start_seconds >= 0.2 * (b.micro_turn + 1) + 1e-3 * b.step_milliseconds
    assert records[Pace.MEASURED].pace == Pace.MEASURED.value
    with pytest.raises(ValueError, match="lane 0 is at micro_turn=6"):
        converse(lanes, recording, pace=Pace.INSTANT)


def test_the_record_says_where_text_gave_way(params):
    """Typed at every micro-turn, until the store of 61 slots holds nothing else."""
    typed = [TextEvent(0.2 * now, Control.USER, "ABCDE") for now in range(14)]
    lanes = Lanes(params, CONFIG, lanes=LANES, seed=11)
    record = converse(lanes, Recording(text=typed), pace=Pace.INSTANT)
    told = [turn.forgotten_text for turn in record.micro_turns]
    assert sum(told) == int(lanes.state.cache["lost_text"][0]) > 0
    assert not any(told[:5]) and told[-1] > 0  # 5 micro-turns take less than the store holds
