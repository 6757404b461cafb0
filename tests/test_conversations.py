"""Conversations: answers at the right time, lost and late sound, the same again from a seed."""

import dataclasses

import numpy as np
import pytest

from interaction.data import conversations as talk
from interaction.data import sounds
from interaction.data.clips import ClipBank, Sound, Split
from interaction.data.config import KINDS
from interaction.data.speaking import Slip, answer_tokens, speak
from interaction.microturn import output_seconds
from interaction.streams.audio import CHUNK, DMelStream
from interaction.streams.text import ByteTokenizer
from interaction.types import Control
from tests.data_for_tests import SMALL, tiny_bank

TOKENS = ByteTokenizer()
PASS, SPEAK, YIELD = (TOKENS.control(c) for c in (Control.PASS, Control.SPEAK, Control.YIELD))


@pytest.fixture(scope="module")
def spoken() -> talk.Conversations:
    return talk.Conversations(SMALL, tiny_bank(), Split.TRAIN)


def answer_errors(scene: talk.Scene, delay: float) -> list[float]:
    """Seconds from `delay` after each cause's end to the border of its answer."""
    return [output_seconds(a.micro_turn) - (a.end + delay) for a in scene.answers]


@pytest.mark.parametrize("seed", range(6))
def test_digits_are_answered_at_the_first_border(spoken, seed):
    scene = spoken.scene(seed, "digits")
    assert scene.answers
    errors = answer_errors(scene, SMALL.answer_delay)
    assert min(errors) > -1e-6 and max(errors) < 0.2
    assert all(a.spoken == a.written + 1 for a in scene.answers)
    late = dataclasses.replace(
        scene,
        answers=tuple(dataclasses.replace(a, micro_turn=a.micro_turn + 1) for a in scene.answers),
    )
    assert max(answer_errors(late, SMALL.answer_delay)) >= 0.2  # one micro-turn late is noticed


@pytest.mark.parametrize("kind", ["flashes", "kicks"])
@pytest.mark.parametrize("seed", range(4))
def test_events_are_counted_at_the_first_border(spoken, kind, seed):
    scene = spoken.scene(seed, kind)
    counts = [a.written for a in scene.answers if a.cause == kind]
    assert counts == list(range(1, len(counts) + 1)) and counts
    borders = [a.micro_turn for a in scene.answers]
    assert min(np.diff(borders), default=4) >= 4  # digits spoken in between keep their distance
    errors = answer_errors(scene, SMALL.event_delay)
    assert min(errors) > -1e-6 and max(errors) < 0.2


@pytest.mark.parametrize("kind", ["digits", "kicks"])
def test_some_answers_come_a_micro_turn_late_where_there_is_room(spoken, kind):
    late = talk.Conversations(dataclasses.replace(SMALL, late_share=1.0), tiny_bank(), Split.TRAIN)
    moved = 0
    for seed in range(4):
        on_time, scene = spoken.scene(seed, kind), late.scene(seed, kind)
        ends = [a.micro_turn for a in on_time.answers[1:]] + [on_time.micro_turns]
        for before, after, end in zip(on_time.answers, scene.answers, ends, strict=True):
            room = end - before.micro_turn > 4
            assert after == dataclasses.replace(before, micro_turn=before.micro_turn + room)
            moved += room
    assert moved
    assert not late.scene(0, "quiet").answers


@pytest.mark.parametrize("kind", ["negatives", "quiet", "still"])
def test_nothing_is_put_out_where_nothing_is_asked(spoken, kind):
    for seed in range(3):
        turns = spoken.micro_turns(seed, kind)
        asked = {a.micro_turn for a in spoken.scene(seed, kind).answers}
        assert not asked or kind == "still"  # digits may be spoken over a still video
        assert asked or {turn.text_out for turn in turns} == {(PASS,)}


def test_slips_stand_in_the_history_and_are_not_learnt():
    slipping = talk.Conversations(
        dataclasses.replace(SMALL, slip_share=1.0), tiny_bank(), Split.TRAIN
    )
    seen = set()
    for seed in range(4):
        scene = slipping.scene(seed, "digits")
        turns = slipping.micro_turns(seed, "digits")
        for answer in scene.answers:
            turn = turns[answer.micro_turn]
            seen.add(answer.slip)
            assert turn.text_weight == 0.0
            if answer.slip is Slip.MISSED:
                assert turn.text_out == (PASS,)
            else:
                assert turn.text_out == answer_tokens(answer.written, answer.spoken)
                assert answer.spoken == answer.written + 1
        slipped = {answer.micro_turn for answer in scene.answers}
        assert all(t.text_weight == 1.0 for m, t in enumerate(turns) if m not in slipped)
    assert seen == {Slip.MISSED, Slip.WRONG}


def test_no_more_chunks_arrive_together_than_the_weave_takes():
    losing = talk.Conversations(
        dataclasses.replace(SMALL, loss_share=1.0), tiny_bank(), Split.TRAIN
    )
    random = np.random.default_rng(0)
    for _ in range(300):
        arrivals = [when for when in losing.arrivals(random, 9) if when >= 0]
        assert max(np.bincount(arrivals)) <= 2


def test_mel_bands_are_stretched_and_masked():
    random = np.random.default_rng(0)
    drawn = [talk.mel_bands(random, SMALL) for _ in range(200)]
    assert all(len(bands) == 80 and min(bands) >= -1 and max(bands) <= 79 for bands in drawn)
    assert any(-1 in bands for bands in drawn)
    assert any(bands == tuple(range(80)) for bands in drawn)
    plain = dataclasses.replace(SMALL, warp=0.0, masked_share=0.0)
    assert talk.mel_bands(random, plain) == tuple(range(80))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_conversation(spoken, kind):
    first, second = spoken.micro_turns(8, kind), spoken.micro_turns(8, kind)
    other = spoken.micro_turns(9, kind)
    for one, two in zip(first, second, strict=True):
        assert one.text_out == two.text_out and one.micro_turn == two.micro_turn
        for name in ("video", "speech"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        for a, b in zip(one.audio, two.audio, strict=True):
            np.testing.assert_array_equal(a.bins, b.bins)

    def everything(turns):
        return [(t.video, [c.bins for c in t.audio]) for t in turns]

    assert repr(everything(first)) != repr(everything(other))


def test_splits_do_not_share_conversations(spoken):
    test = talk.Conversations(SMALL, tiny_bank(), Split.TEST)
    scene = test.scene(3, "digits")
    assert all(a.cause.startswith("test/") for a in scene.answers)
    assert all(a.cause.startswith("train/") for a in spoken.scene(3, "digits").answers)


def test_a_bank_without_negatives_is_refused():
    clips = [c for c in tiny_bank().clips if c.sound is not Sound.WORD]
    with pytest.raises(ValueError, match="no word in split 'train'"):
        talk.Conversations(SMALL, ClipBank(clips), Split.TRAIN)


def test_outputs_of_an_answer():
    outputs = speak(
        [talk.Answer(2, 9, 10, 0.3), talk.Answer(9, 12, 12, 1.6)], 13, np.random.default_rng(0)
    )
    assert outputs[2].tokens == answer_tokens(9, 10)
    assert outputs[2].tokens == (
        TOKENS.control(Control.WRITE), ord("9"), TOKENS.control(Control.SAY), *b"ten", SPEAK,
    )  # fmt: skip
    closers = [output.tokens[-1] for output in outputs]
    assert closers[:2] == [PASS, PASS]
    assert closers[2:5] == [SPEAK, SPEAK, YIELD]  # "ten" lasts between 0.2 and 0.4 s
    assert closers[5:9] == [PASS] * 4
    assert closers[9:13] in ([SPEAK] * 3 + [YIELD], [SPEAK] * 3 + [YIELD])
    for output in outputs:
        assert (output.mel is not None) == (output.tokens[-1] == SPEAK)


def test_lost_and_late_chunks_sound_as_they_do_live():
    sound = np.random.default_rng(2).normal(0, 0.1, 7 * CHUNK).astype(np.float32)
    arrivals = (0, 1, -1, 4, 4, 5, 6)  # chunk 2 is lost, chunk 3 is one late
    heard = talk.heard_chunks(sound, arrivals)
    assert sorted(heard) == [0, 1, 4, 5, 6]
    assert [chunk.lateness for chunk in heard[4]] == [1, 0]
    live = DMelStream()
    expected = [live.push(sound[:CHUNK]), live.push(sound[CHUNK : 2 * CHUNK])]
    live.missing()
    expected += [live.push(sound[i * CHUNK : (i + 1) * CHUNK]) for i in range(3, 7)]
    found = [chunk.bins for when in sorted(heard) for chunk in heard[when]]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)
    whole = talk.heard_chunks(sound, tuple(range(7)))
    assert not np.array_equal(whole[3][0].bins, heard[4][0].bins)  # the carry matters


def test_levels_and_tilts_keep_the_end():
    clip = tiny_bank().clips[3]
    for seed in range(5):
        heard = sounds.varied(np.random.default_rng(seed), clip)
        assert len(heard.samples) / heard.end == pytest.approx(
            len(clip.samples) / clip.end, rel=0.01
        )
        assert np.max(np.abs(heard.samples)) <= 1.0
