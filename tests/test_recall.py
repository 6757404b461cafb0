"""The memory experiment's sessions: facts are stated, noted, asked for, and kept by typed memory.

In: made-up spoken digits. Out: arrivals, targets and schedules checked against what was stated.
"""

import dataclasses

import numpy as np
import pytest

from experiments import recall as experiment
from interaction.data import recall
from interaction.data.clips import Clip, Sound, Split
from interaction.models.memory import Holding, holdings
from interaction.types import Control

CONFIG = recall.RecallConfig(slots=336, audio=176, patches=16, voice_share=0.5)


def clips() -> list[Clip]:
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.normal(size=6000 + 300 * digit).astype(np.float32) for digit in range(10)]
    return [
        Clip(f"digit {d}", Sound.DIGIT, "voice", Split.TRAIN, wave, d, len(wave) / 16_000)
        for d, wave in enumerate(waves)
    ]


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(recall, "voices", lambda split: clips())
    return recall.RecallSource(CONFIG, 1000)


def test_every_question_has_its_fact_and_every_spoken_fact_its_note():
    for seed in range(20):
        random = np.random.default_rng(seed)
        turns, times = recall.training_session(random, CONFIG, clips())
        assert times == sorted(set(times))
        known, spoken = {}, 0
        for turn in turns:
            if turn.asks:
                assert turn.text == f"{turn.asks}?" and turn.due == known[turn.asks]
            elif turn.due:
                known[turn.due[0]] = turn.due[1]
                spoken += 1
            elif len(turn.text) == 2 and turn.text[0] in recall.KEYS:
                known[turn.text[0]] = turn.text[1]
        assert sum(bool(turn.asks) for turn in turns) == len(known) >= CONFIG.facts[0]


def test_a_spoken_fact_is_noted_once_the_digit_has_ended():
    for seed, clip in enumerate(clips()):
        turns = recall.voice_fact(np.random.default_rng(seed), "b", clip)
        wave = np.concatenate([turn.samples for turn in turns])
        ends = np.flatnonzero(np.abs(wave) > 1e-3)[-1] / 16_000
        (noted,) = [m for m, turn in enumerate(turns) if turn.due]
        assert turns[noted].due == f"b{clip.label}" and turns[0].text == "b"
        assert 0.2 * (noted + 1) > ends and 0.2 * noted < ends + 0.3


def test_the_schedule_never_lets_text_go_while_something_else_is_there(source):
    evicted, roomy = 0, dataclasses.replace(CONFIG, places=(64, 96))
    for index in range(12):
        session = dataclasses.replace(source, config=roomy)[index]
        slots = session.woven.slots
        held = holdings(slots.stream[None], slots.token[None], CONFIG.weave, np)[0]
        gone = session.until < len(slots.stream)
        evicted += gone.sum()
        assert not gone[held == int(Holding.TEXT)].any()
    assert evicted > 100


def test_a_batch_repeats_from_its_seed_and_holds_its_schedules(source):
    one, two = (recall.stack(CONFIG, [source[i] for i in range(4)]) for _ in range(2))
    np.testing.assert_array_equal(one.slots.token, two.slots.token)
    np.testing.assert_array_equal(one.until, two.until)
    assert one.until.shape == one.slots.token.shape == (4, CONFIG.slots)
    assert (one.until[one.slots.stream == 0] == np.iinfo(np.int32).max).all()
    other = recall.stack(CONFIG, [source[i] for i in range(4, 8)])
    assert (other.slots.token != one.slots.token).any()


def test_an_hour_states_facts_in_the_first_minute_and_asks_each_once():
    _, planned, questions = experiment.session(3, CONFIG, (2, 10, 30, 60), clips())
    assert [minute for *_, minute in questions] == [2, 2, 10, 10, 30, 30, 60, 60]
    for asked, (key, digit, spoken), note, minute in questions:
        assert planned[asked].text == f"{key}?" and planned[asked].due == str(digit)
        assert abs(asked - 300 * minute) <= 20
        assert (note is not None) == spoken and (note is None or note < 300)
    stated = [now for now in planned if now < 300]
    assert len(stated) == len(planned) - len(questions)


def test_figures_are_by_minute_and_kind():
    answers = [
        {"minute": 2, "spoken": spoken, "right": right, "noted": noted, "slots": 9}
        for spoken, right, noted in [
            (False, True, True), (False, False, True), (True, True, True), (True, False, False)
        ]
    ]  # fmt: skip
    found = experiment.summarise(answers)["minute 2"]
    assert found["typed facts"]["value"] == 0.5 and found["typed facts"]["count"] == 2
    assert found["spoken facts"]["value"] == 0.5
    assert found["spoken facts that were noted rightly"]["value"] == 1.0


def test_more_sessions_are_counted_in_and_none_twice():
    def answer(seed, minute, right):
        return {"seed": seed, "minute": minute, "spoken": False, "right": right, "noted": True,
                "slots": 100 * (1 + seed)}  # fmt: skip

    first = [answer(seed, 2, seed == 1) for seed in range(3)]
    entry = experiment.added({}, first, seconds=7.4, places=9)
    assert (entry["sessions"], entry["seconds"], entry["slots_of_a_session_mean"]) == (3, 7, 200)
    assert experiment.sessions_at(entry, 2) == 3 and experiment.sessions_at(entry, 10) == 0
    # The next run goes to minute 10: seed 0 comes again there, seed 3 for the first time.
    again = [answer(0, 2, True), answer(0, 10, True), answer(3, 2, True), answer(3, 10, False)]
    more = experiment.added(entry, again, seconds=1, places=20)
    assert more["minute 2"]["typed facts"]["count"] == 4
    assert more["minute 2"]["typed facts"]["value"] == 0.5  # seeds 1 and 3
    assert more["minute 10"]["typed facts"]["count"] == 2
    assert (more["sessions"], more["places"]) == (5, 20)
    assert experiment.summarise([*first, again[2]])["minute 2"] == more["minute 2"]


def test_places_must_hold_a_micro_turn():
    with pytest.raises(ValueError, match=r"places=\(9,\).*23 slots"):
        dataclasses.replace(CONFIG, places=(9,))


def test_answers_are_ids_with_their_closer():
    assert recall.Arrival().text_out == (256 + int(Control.PASS),)
    due = recall.Arrival(due="7").text_out
    assert due == (256 + int(Control.WRITE), ord("7"), 256 + int(Control.END))
