"""Events to the grid of micro-turns and back: sound, frames of any rate, text, outputs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interaction.streams.audio import dmel
from interaction.streams.events import (
    Events,
    HeardAudio,
    Output,
    TextEvent,
    TextInQueue,
    VideoFrames,
    from_grid,
    on_grid,
)
from interaction.streams.text import ByteTokenizer
from interaction.streams.weave import WeaveConfig, unweave, weave
from interaction.types import TEXT_SOURCES, Control
from tests.equality_for_tests import assert_same

REAL = WeaveConfig()


def test_sound_on_the_grid_is_the_dmel_of_the_whole_and_gaps_take_no_slot():
    rng = np.random.default_rng(3)
    samples = rng.uniform(-0.5, 0.5, 16_000).astype(np.float32)
    events = Events(audio=[HeardAudio(0.0, samples)])
    heard = from_grid(on_grid(events, ByteTokenizer(), REAL), ByteTokenizer()).audio
    np.testing.assert_array_equal(np.concatenate([h.bins for h in heard]), dmel(samples))
    # Chunk 2 is lost: chunk 3 hears silence before it, the others are as they were.
    broken = on_grid(dataclasses.replace(events, lost=frozenset({2})), ByteTokenizer(), REAL)
    assert [len(item.audio) for item in broken] == [1, 1, 0, 1, 1]
    apart = dmel(samples[9_600:12_800])
    np.testing.assert_array_equal(broken[3].audio[0].bins, apart)
    assert (apart != heard[3].bins).any()  # a carry that was kept would fail the line above


def test_late_sound_arrives_late_first_and_two_pieces_join():
    rng = np.random.default_rng(4)
    pieces = [
        HeardAudio(0.2, rng.uniform(-0.5, 0.5, 5_000).astype(np.float32)),
        HeardAudio(0.6, rng.uniform(-0.5, 0.5, 3_200).astype(np.float32)),
    ]
    turns = on_grid(Events(audio=pieces, late={2: 1}), ByteTokenizer(), REAL)
    assert [[c.lateness for c in item.audio] for item in turns] == [[], [0], [], [1, 0]]
    # 1.0 is silence after the first piece's 5,000 samples; nothing is lost of either piece.
    whole = np.concatenate([pieces[0].samples, np.zeros(1_400, np.float32), pieces[1].samples])
    bins = np.concatenate([c.bins for item in turns for c in item.audio])
    np.testing.assert_array_equal(bins, dmel(whole))


def test_frames_of_any_rate_come_once_per_interval():
    times = np.arange(20) / 30  # 30 per second, two thirds of a second
    frames = np.stack([np.full((40, 40, 3), i, np.uint8) for i in range(20)])
    config = dataclasses.replace(REAL, max_patches=1)
    turns = on_grid(Events(video=VideoFrames(times, frames)), ByteTokenizer(), config)
    shown = [item.video[0, :, 0, 0, 0].tolist() for item in turns]
    assert shown == [[2, 5], [8, 11], [14, 17], [19, 19]]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (Events(audio=[HeardAudio(0, np.zeros(4_000)), HeardAudio(0.1, np.zeros(9))]), "begins"),
        (Events(text=[TextEvent(-1, Control.USER, "a")]), "before 0"),
        (Events(text=[TextEvent(0, Control.END, "a")]), "source"),
        (Events(outputs=[Output(1, "a"), Output(1, "b")]), "two outputs"),
        (Events(outputs=[Output(1, "a" * 11)]), "max_text_out=12"),
        (Events(outputs=[Output(1, delegate="a" * 30), Output(2, "b")]), "earlier request"),
        (Events(audio=[HeardAudio(0, np.zeros(9))], late={0: 4}), "max_lateness=3"),
        (Events(audio=[HeardAudio(0, np.zeros(9_600))], late={0: 2, 1: 1}), "3 chunks arrive"),
    ],
)
def test_events_that_do_not_fit_are_named(events, message):
    with pytest.raises(ValueError, match=message):
        on_grid(events, ByteTokenizer(), REAL)


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)  # up to 12 bytes


@st.composite
def outputs(draw):
    result = []
    for time in sorted(draw(st.sets(st.integers(0, 30), max_size=8))):
        kind = draw(st.sampled_from(["write", "say", "delegate", "yield", "speak", "both"]))
        speech = np.full((16, 80), time, np.float32) if kind in ("speak", "both") else None
        words = draw(st.text("aé€", min_size=1, max_size=2))
        fields = {"both": "say", "speak": "say", "yield": "write"}.get(kind, kind)
        given_words = {fields: words} if kind != "speak" else {}
        weight = draw(st.sampled_from([0.0, 0.5, 1.0]))
        result.append(
            Output(
                4 * time, speech=speech, yields=kind == "yield", text_weight=weight, **given_words
            )
        )
        if kind == "delegate":  # long requests spill into the free micro-turns after them
            result[-1] = dataclasses.replace(result[-1], delegate=words * 9)
    return result


@settings(deadline=None, max_examples=40)
@given(
    outputs=outputs(),
    text=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(TEXT_SOURCES), WORDS), max_size=6),
    pieces=st.lists(st.tuples(st.integers(1, 9_000), st.integers(0, 9_000)), max_size=3),
    fps=st.sampled_from([None, 1.0, 7.3, 10.0, 29.97]),
)
def test_any_mixture_of_events_comes_back(outputs, text, pieces, fps):
    tokenizer, config = ByteTokenizer(), dataclasses.replace(REAL, max_text_in=14, max_patches=1)
    config = dataclasses.replace(config, max_text_out=16)
    rng, audio, at = np.random.default_rng(0), [], 0
    for length, gap in pieces:
        at += gap
        audio.append(HeardAudio(at / 16_000, rng.normal(size=length).astype(np.float32) * 0.1))
        at += length
    video = None
    if fps is not None:
        frames = rng.integers(0, 256, (5, 6, 9, 3), np.uint8)
        video = VideoFrames(0.3 + np.arange(5) / fps, frames)
    text = sorted({time: (time, source, words) for time, source, words in text}.values())
    typed = [TextEvent(time * 0.2, source, words) for time, source, words in text]
    events = Events(audio, video, typed, outputs)
    turns = on_grid(events, tokenizer, config)
    woven = weave(turns, config)
    again = unweave(woven, config)
    assert_same(again, turns)
    read = from_grid(again, tokenizer)
    assert_same(list(read.outputs), outputs)
    assert [(e.seconds, e.source, e.text) for e in read.text] == [
        (pytest.approx(e.seconds), e.source, e.text) for e in typed
    ]
    covered = {t for piece in audio for t in _covered(piece)}
    assert {h.chunk_time for h in read.audio} == covered


def _covered(piece):
    start = round(piece.start * 16_000)
    return range(start // 3_200, -(-(start + len(piece.samples)) // 3_200))


def test_long_text_goes_on_in_the_next_micro_turns():
    tokenizer, config = ByteTokenizer(), REAL
    words = "naïve " * 9 + "€"
    events = Events(text=[TextEvent(0.5, Control.TOOL, words), TextEvent(0.6, Control.USER, "hm")])
    turns = on_grid(events, tokenizer, config)
    weave(turns, config)
    read = from_grid(turns, tokenizer).text
    assert "".join(e.text for e in read if e.source is Control.TOOL) == words
    assert "".join(e.text for e in read if e.source is Control.USER) == "hm"
    assert read[0].seconds == pytest.approx(0.4)
    queue = TextInQueue(tokenizer, config)
    assert not queue
    assert queue.take() == ()
