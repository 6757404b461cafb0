"""Weaving: layout by hand, exact inverse, limits, batches, and the same layout in the live step."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interaction.streams.weave import LaneInput, WeaveConfig, batch, unweave, weave, weave_inputs
from interaction.types import TEXT_SOURCES, AudioChunk, Control, MicroTurn, Stream, TextIn
from tests.equality_for_tests import assert_same

# Every dimension different, so that a swapped axis shows.
CONFIG = WeaveConfig(
    audio_frames=4,
    mel_frames=6,
    mel_bands=7,
    speech_slots=3,
    patch=5,
    max_patches=3,
    max_text_in=9,
    max_text_out=8,
    max_audio_chunks=2,
    max_lateness=3,
    audio_bands=11,
    samples=32,
)


PASS, END, SPEAK, YIELD, BEGIN, SAY = (CONFIG.control(Control(i)) for i in range(6))
USER = CONFIG.control(Control.USER)


def random_micro_turn(rng: np.random.Generator, time: int, config=CONFIG) -> MicroTurn:
    """A micro-turn with any mixture of streams."""
    chunk = (config.audio_frames, config.audio_bands)
    closer = int(rng.integers(4)) if rng.random() < 0.8 else None
    words = tuple(rng.integers(0, config.ordinary_tokens, rng.integers(0, 4)).tolist())
    channel = (config.control(Control.WRITE),) if words else ()
    speaks = closer == Control.SPEAK
    says = closer is not None
    return MicroTurn(
        micro_turn=time,
        video=rng.integers(
            0, 256, (rng.integers(1, config.max_patches + 1), *config.tubelet_shape), np.uint8
        )
        if rng.random() < 0.4
        else None,
        text_in=tuple(
            TextIn(
                TEXT_SOURCES[rng.integers(len(TEXT_SOURCES))],
                tuple(rng.integers(0, config.ordinary_tokens, rng.integers(0, 4)).tolist()),
            )
            for _ in range(rng.integers(0, 3))
        ),
        audio=tuple(
            AudioChunk(rng.integers(0, 16, chunk, np.uint8), int(late))
            for late in sorted(rng.integers(0, 4, rng.integers(0, 3)), reverse=True)
        ),
        text_out=(*channel, *words, config.control(Control(closer))) if says else None,
        speech=rng.normal(size=(config.mel_frames, config.mel_bands)).astype(np.float32)
        if speaks
        else None,
        text_weight=float(rng.integers(0, 4)) / 4 if says else 1.0,
        speech_weight=float(rng.integers(0, 4)) / 4 if speaks else 1.0,
    )


def random_conversation(seed: int, gaps: list[int], config=CONFIG) -> list[MicroTurn]:
    rng, time, result = np.random.default_rng(seed), -1, []
    for gap in gaps:
        time += gap
        result.append(random_micro_turn(rng, time, config))
    return result


def is_empty(item: MicroTurn) -> bool:
    return item.video is None and not item.text_in and not item.audio and item.text_out is None


def full_micro_turn(time=5) -> MicroTurn:
    rng = np.random.default_rng(1)
    return MicroTurn(
        micro_turn=time,
        video=rng.integers(0, 256, (2, *CONFIG.tubelet_shape), np.uint8),
        text_in=(TextIn(Control.USER, (3, 4)), TextIn(Control.TOOL, ())),
        audio=(
            AudioChunk(rng.integers(0, 16, (4, 11), np.uint8), 2),
            AudioChunk(rng.integers(0, 16, (4, 11), np.uint8), 0),
        ),
        text_out=(SAY, 10, SPEAK),
        speech=np.arange(42, dtype=np.float32).reshape(6, 7),
        text_weight=0.5,
        speech_weight=0.25,
    )


def test_layout_by_hand():
    item = full_micro_turn()
    woven = weave([MicroTurn(3, text_out=(PASS,)), item], CONFIG, first_position=100)
    slots, targets = woven.slots, woven.targets
    V, X, A, O, W = (int(s) for s in list(Stream)[1:])
    assert slots.stream.tolist() == [O, O, V, V, X, X, X, X] + [A] * 8 + [O] * 4 + [W] * 3
    tool = CONFIG.control(Control.TOOL)
    expected = [BEGIN, PASS, 0, 0, USER, 3, 4, tool] + [0] * 8 + [BEGIN, SAY, 10, SPEAK, 0, 0, 0]
    assert slots.token.tolist() == expected
    assert slots.payload.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, *range(8), 0, 0, 0, 0, 0, 1, 2]
    assert slots.lateness.tolist() == [0] * 8 + [2] * 4 + [0] * 11
    assert slots.position.tolist() == list(range(100, 123))
    assert slots.micro_turn.tolist() == [3] * 2 + [5] * 21
    assert np.flatnonzero(slots.first).tolist() == [0, 2]
    wanted = np.full(23, -1)
    wanted[0], wanted[16:19] = PASS, (SAY, 10, SPEAK)
    assert targets.token.tolist() == wanted.tolist()
    weight = np.zeros(23)
    weight[0], weight[16:19] = 1, 0.5
    assert targets.token_weight.tolist() == weight.tolist()
    assert targets.chunk_slot.tolist() == [19]
    assert slots.token[targets.chunk_slot[0]] == SPEAK
    assert targets.chunk_weight.tolist() == [0.25]
    # A SPEECH slot holds consecutive frames of the chunk.
    np.testing.assert_array_equal(woven.payloads.speech[1], item.speech[2:4].ravel())
    np.testing.assert_array_equal(woven.payloads.audio[4:], item.audio[1].bins)
    for array in jax.tree.leaves(slots):
        assert array.dtype == (bool if array is slots.first else np.int32)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), gaps=st.lists(st.integers(1, 40), max_size=12))
def test_unweave_is_the_inverse_of_weave(seed, gaps):
    conversation = random_conversation(seed, gaps)
    woven = weave(conversation, CONFIG, first_position=seed % 1000)
    again = unweave(woven, CONFIG)
    assert_same(again, [item for item in conversation if not is_empty(item)])
    # And once more through padding.
    sizes = {"slots": 600, "audio": 120, "patches": 40, "speech": 40, "chunks": 13}
    row = jax.tree.map(lambda array: array[1], batch([weave([], CONFIG), woven], **sizes))
    assert_same(unweave(row, CONFIG), again)


def test_a_dropped_slot_moves_no_other_micro_turn():
    conversation = random_conversation(7, [1] * 20)
    lost = [
        dataclasses.replace(item, audio=()) if item.micro_turn == 4 else item
        for item in conversation
    ]
    whole, thin = weave(conversation, CONFIG).slots, weave(lost, CONFIG).slots
    assert whole.micro_turn[-1] == thin.micro_turn[-1]
    assert whole.first.sum() == thin.first.sum()


SPEECH = np.zeros((6, 7), np.float32)
BINS = np.zeros((4, 11), np.uint8)
BAD = {
    "too many patches": ({"video": np.zeros((4, 2, 5, 5, 3), np.uint8)}, "4 video patches.*=3"),
    "no patches": ({"video": np.zeros((0, 2, 5, 5, 3), np.uint8)}, "0 video patches"),
    "patch size": ({"video": np.zeros((1, 2, 5, 6, 3), np.uint8)}, r"uint8\[1, 2, 5, 6, 3\]"),
    "video dtype": ({"video": np.zeros((1, 2, 5, 5, 3), np.float32)}, "float32"),
    "too much text in": ({"text_in": (TextIn(Control.USER, (1,) * 9),)}, "10 slots.*=9"),
    "control as text in": ({"text_in": (TextIn(Control.USER, (PASS,)),)}, "256"),
    "source": ({"text_in": (TextIn(Control.SAY, (1,)),)}, "SAY"),
    "too many chunks": ({"audio": (AudioChunk(BINS),) * 3}, "3 audio chunks.*=2"),
    "too late": ({"audio": (AudioChunk(BINS, 4),)}, "lateness=4.*=3"),
    "from the future": ({"audio": (AudioChunk(BINS, -1),)}, "lateness=-1"),
    "bins shape": ({"audio": (AudioChunk(BINS[:3]),)}, r"\[3, 11\].*\[4, 11\]"),
    "bins level": ({"audio": (AudioChunk(BINS + 16),)}, "reach 16"),
    "closer missing": ({"text_out": (SAY, 1)}, "does not end with a closer"),
    "nothing put out": ({"text_out": ()}, "does not end with a closer"),
    "after the closer": ({"text_out": (END, 1, PASS)}, "after its closer"),
    "too much text out": ({"text_out": (*[1] * 8, END)}, "9 ids.*=8"),
    "unknown id": ({"text_out": (270, END)}, "270"),
    "speech without SPEAK": ({"text_out": (END,), "speech": SPEECH}, "without a SPEAK"),
    "speech without output": ({"speech": SPEECH}, "without a SPEAK"),
    "SPEAK without speech": ({"text_out": (SPEAK,)}, "speech is None"),
    "speech shape": ({"text_out": (SPEAK,), "speech": SPEECH.T}, r"\[7, 6\].*\[6, 7\]"),
    "NaN": ({"text_out": (SPEAK,), "speech": SPEECH * np.nan}, "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_micro_turns_are_named(name):
    fields, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        weave([MicroTurn(2, **fields)], CONFIG)


def test_times_must_rise():
    with pytest.raises(ValueError, match="micro_turn=2 follows micro_turn=2"):
        weave([MicroTurn(2), MicroTurn(2)], CONFIG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speech_slots": 5}, "speech_slots=5.*mel_frames=16"),
        ({"max_text_out": 0}, "max_text_out=0"),
        ({"samples": 3_201}, "audio_frames=4.*samples=3201"),
    ],
)
def test_config_checks_itself(fields, message):
    with pytest.raises(ValueError, match=message):
        WeaveConfig(**fields)


@pytest.mark.parametrize("short", ["slots", "audio", "patches", "speech", "chunks"])
def test_batch_names_what_does_not_fit(short):
    sizes = {"slots": 21, "audio": 8, "patches": 2, "speech": 3, "chunks": 1}
    woven = weave([full_micro_turn()], CONFIG)
    packed = batch([woven, weave([], CONFIG)], **sizes)
    assert packed.slots.valid.sum(-1).tolist() == [21, 0]
    assert packed.targets.token[1].tolist() == [-1] * 21
    assert packed.targets.chunk_weight.tolist() == [[0.25], [0]]
    sizes[short] -= 1
    with pytest.raises(ValueError, match=rf"{sizes[short] + 1} {short}, {short}={sizes[short]}$"):
        batch([woven], **sizes)


# ---------------------------------------------------------------- the live step


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31))
def test_live_layout_equals_training_layout(seed):
    rng = np.random.default_rng(seed)
    items = [random_micro_turn(rng, int(rng.integers(5, 99))) for _ in range(3)]
    lanes = [
        LaneInput(
            item.micro_turn,
            item.video,
            item.text_in,
            tuple(
                (item.micro_turn - c.lateness, rng.normal(size=32).astype(np.float32))
                for c in item.audio
            ),
        )
        for item in items
    ]
    inputs = weave_inputs([lanes[0], None, *lanes[1:]], CONFIG, slots=23, patches=3)
    assert inputs.active.tolist() == [True, False, True, True]
    assert not inputs.stream[1].any()
    assert inputs.chunk_time[1].tolist() == [-1, -1]
    for row, item, lane in zip((0, 2, 3), items, lanes, strict=True):
        woven = weave([dataclasses.replace(item, text_out=(PASS,), speech=None)], CONFIG)
        used = len(woven.slots.stream) - 1  # all but the closer
        for name in ("stream", "token", "payload", "lateness"):
            live = getattr(inputs, name)[row]
            np.testing.assert_array_equal(live[:used], getattr(woven.slots, name)[:used])
            assert not live[used:].any()
        assert inputs.token[row, used - 1] == BEGIN
        patches = woven.payloads.patches
        np.testing.assert_array_equal(inputs.patches[row, : len(patches)], patches)
        for c, (time, samples) in enumerate(lane.audio):
            assert inputs.chunk_time[row, c] == time
            np.testing.assert_array_equal(inputs.waveform[row, c], samples)


@pytest.mark.parametrize(
    ("lane", "message"),
    [
        (LaneInput(3, audio=((0, np.zeros(31, np.float32)),)), r"\[31\].*\[32\]"),
        (LaneInput(3, audio=((4, np.zeros(32, np.float32)),)), "lateness=-1"),
        (LaneInput(9, audio=((5, np.zeros(32, np.float32)),)), "lateness=4"),
        (LaneInput(3, video=np.zeros((2, 2, 5, 5, 3), np.uint8)), "2 patches, patches=1"),
        (LaneInput(3, text_in=(TextIn(Control.USER, (1,) * 7),)), "9 slots, slots=8"),
    ],
)
def test_live_input_that_does_not_fit_is_named(lane, message):
    with pytest.raises(ValueError, match=message):
        weave_inputs([lane], CONFIG, slots=8, patches=1)


def test_weaving_is_quick_enough_for_the_pipeline():
    """48 micro-turns take about a millisecond; the bound leaves room for a busy machine."""
    import time

    config = WeaveConfig()
    conversation = random_conversation(5, [1] * 48, config)
    best = min(_timed(lambda: weave(conversation, config), time.perf_counter) for _ in range(10))
    assert best < 0.02


def _timed(call, clock):
    start = clock()
    call()
    return clock() - start
