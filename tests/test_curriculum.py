"""The curriculum: every behaviour gives sessions whose truth holds, and that weave and fit."""

import itertools

import numpy as np
import pytest

from interaction.data.clips import Split
from interaction.data.curriculum import lexicon, talking, voice
from interaction.data.curriculum.script import Full, Script
from interaction.data.curriculum.sessions import (
    HEARD,
    SEEN,
    Curriculum,
    CurriculumConfig,
    outputs,
    to_micro_turns,
)
from interaction.data.digits import TEST_VOICES, TRAIN_VOICES
from interaction.data.pipeline import fitted
from interaction.data.voices import EspeakVoice, espeak_words, resized
from interaction.microturn import MICRO_TURN_SECONDS
from interaction.streams.audio import CHUNK
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import ByteTokenizer, ChannelReader
from interaction.types import Control

pytest.importorskip("espeakng_loader")

TOKENS = ByteTokenizer()
CONFIG = CurriculumConfig()
UNBANKED = [name for name in (*HEARD, *SEEN) if name != "digits"]  # these need recorded digits


@pytest.fixture(scope="module")
def supply() -> Curriculum:
    return Curriculum(CONFIG, None, Split.TRAIN)


@pytest.mark.parametrize("behaviour", UNBANKED)
def test_what_is_due_lies_after_what_calls_for_it_and_never_overlaps(supply, behaviour):
    for seed in range(3):
        session = supply.session(seed, behaviour, varied=False)
        assert session.behaviours == (behaviour,)
        for due in session.due:
            assert due.border >= due.after - 1e-9
            assert due.ends <= session.micro_turns
            assert due.say in ("", *lexicon.SAYABLE)
        for before, later in zip(session.due, session.due[1:], strict=False):
            assert before.ends <= later.micro_turn
        assert session.sound is not None
        assert len(session.sound) == session.micro_turns * CHUNK
        turns = to_micro_turns(session, np.random.default_rng(0))
        woven = fitted(turns, CONFIG)
        assert len(woven.slots.stream) <= CONFIG.slots


def test_answers_of_training_come_late_now_and_then_and_what_has_its_time_never():
    config = CurriculumConfig(late_share=0.5)
    found = {}
    for split in Split:
        sessions = Curriculum(config, None, split)
        for behaviour in ("in_seconds", "start_and_stop"):
            errors = [
                (due.border - due.after) / MICRO_TURN_SECONDS
                for seed in range(8)
                for due in sessions.session(seed, behaviour, varied=False).due
                if due.behaviour in ("in seconds", "start", "stop")
            ]
            found[split, behaviour] = errors
    assert max(found[Split.TRAIN, "in_seconds"]) < 1e-6  # the word comes when its time has come
    assert 2.0 < max(found[Split.TRAIN, "start_and_stop"]) < 4.0
    assert max(found[Split.TEST, "start_and_stop"]) < 2.0  # 0.2 s, and the way to the border
    for behaviour in UNBANKED:
        for seed in range(2):
            due = Curriculum(config, None, Split.TRAIN).session(seed, behaviour, varied=False).due
            assert all(a.ends <= b.micro_turn for a, b in itertools.pairwise(due))


def test_a_seed_gives_the_same_session_and_splits_differ(supply):
    one, two = supply.session(7), supply.session(7)
    np.testing.assert_array_equal(one.sound, two.sound)
    assert one.due == two.due
    other = Curriculum(CONFIG, None, Split.TEST).session(7)
    assert other.due != one.due
    assert not set(TRAIN_VOICES) & set(TEST_VOICES)
    for words in (lexicon.OTHERS, lexicon.FILLING, lexicon.STORY, lexicon.HARMLESS):
        assert not set(words[Split.TRAIN]) & set(words[Split.TEST])


def test_a_hesitation_is_silent_and_the_answer_follows_the_end(supply):
    session = supply.session(3, "pause", varied=False)
    (hole,) = session.moments
    assert session.sound is not None
    inside = session.sound[int((hole.start + 0.1) * 16_000) : int(hole.end * 16_000)]
    assert np.max(np.abs(inside)) < 1e-3
    assert session.due[0].border > hole.end


def test_stop_ends_the_counting(supply):
    seen = 0
    for seed in range(12):
        session = supply.session(seed, "count_aloud", varied=False)
        stops = [m for m in session.moments if m.name == "stop"]
        if not stops:
            continue
        seen += 1
        last = session.due[-1]
        limit = stops[0].end + 0.3
        assert last.border <= limit
        put_out = outputs(session.due, session.micro_turns, np.random.default_rng(1))
        speaks = TOKENS.control(Control.SPEAK)
        spoken = [m for m, o in enumerate(put_out) if o.tokens[-1] == speaks]
        assert 0.2 * (spoken[-1] + 1) <= limit
    assert seen > 2


def test_what_is_understood_is_shown_as_it_is_heard(supply):
    """The number while the sentence goes on, then once a second; a cue beside its look-alikes."""
    voices = [supply.session(seed, "in_seconds", varied=False) for seed in range(6)]
    spoken = [session for session in voices if not session.typed]
    assert spoken
    for session in spoken:
        (moment,) = [m for m in session.moments if m.name == "in seconds"]
        number = str(round(moment.end - moment.start))
        heard, clock, word, *left = [d for d in session.due if d.behaviour != "turn"]
        assert (heard.write, clock.write, word.write) == (number, number, moment.detail)
        assert heard.border < moment.start <= clock.border < word.border
        assert left[-1].say == moment.detail
        assert clock.micro_turn + 5 * int(number) == left[-1].micro_turn
    for seed in range(4):
        for due in supply.session(seed, "cue", varied=False).due:
            assert due.write in lexicon.CUES
            assert (due.say == "now") == (due.behaviour == "cue")


def test_a_throat_changes_pace_and_leaves_the_words():
    spoken = espeak_words("red seven", EspeakVoice("en-us+max"))
    smaller = resized(spoken, 1.25)
    assert len(smaller.samples) == pytest.approx(len(spoken.samples) / 1.25, abs=2)
    assert [w.text for w in smaller.words] == [w.text for w in spoken.words]
    assert smaller.words[-1].end == pytest.approx(spoken.words[-1].end / 1.25)


def test_outputs_read_back_as_what_was_due(supply):
    for behaviour in ("delegate", "translate", "count_aloud"):
        session = supply.session(1, behaviour, varied=False)
        put_out = outputs(session.due, session.micro_turns, np.random.default_rng(2))
        reader, said, handed = ChannelReader(TOKENS), "", ""
        for micro_turn, output in enumerate(put_out):
            read = reader.push(micro_turn, output.tokens)
            assert not read.stray
            for piece in read.pieces:
                if piece.channel is Control.SAY:
                    said += " " + piece.text
                elif piece.channel is Control.DELEGATE:
                    handed += piece.text
        assert said.split() == [due.say for due in session.due if due.say]
        assert handed == "".join(due.delegate for due in session.due)


def test_an_answer_left_out_has_no_loss(supply):
    session = supply.session(2, "ask", varied=False)
    put_out = outputs(session.due, session.micro_turns, np.random.default_rng(0), missed=1.0)
    passing = (TOKENS.control(Control.PASS),)
    assert all(output.tokens == passing for output in put_out)
    assert [m for m, o in enumerate(put_out) if o.weight == 0] == [session.due[0].micro_turn]


def test_an_episode_that_does_not_fit_leaves_no_trace():
    script = Script(np.random.default_rng(0), Split.TRAIN, 4, None, text_share=0.0)
    mark = script.mark()
    with pytest.raises(Full):
        talking.ask(script)
    script.undo(mark)
    assert not script.sound.any()
    assert not script.due
    assert not script.moments


def test_the_voice_knows_every_word():
    assert set(lexicon.SAYABLE) <= set(voice.word_chunks())
    room = WeaveConfig().max_text_out - 2  # SAY before it, SPEAK after it
    assert all(len(word) <= room for word in lexicon.SAYABLE)


@pytest.mark.parametrize(
    ("field", "value"), [("text_share", 1.5), ("behaviours", (("juggling", 1.0),))]
)
def test_bad_configurations_name_the_argument(field, value):
    with pytest.raises(ValueError, match=field):
        CurriculumConfig(**{field: value})
