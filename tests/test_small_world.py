"""The small world's suite: the oracle's scores, the silent floor, thresholds on both sides."""

import dataclasses
import json

import pytest

from interaction.data.clips import Split
from interaction.eval.ears import FromText
from interaction.eval.judges import ClosedAnswer
from interaction.eval.records import Clock, Kind, OutputEvent, Run
from interaction.eval.suite import Mode, Scoring, Word
from interaction.eval.suites import small_world_rules as rules
from interaction.eval.suites.small_world import SmallWorld, plain

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small_world")
    SmallWorld().generate(folder, size=2, seed=4)
    return SmallWorld().load(folder)


def scored(samples, events_of, mode=Mode.STRICT):
    suite = SmallWorld()
    runs = {
        s.id: Run(suite.name, s.scene, s.id, "test", s.seconds, tuple(events_of(s)))
        for s in samples
    }
    how = Scoring(FromText(), Clock.INSTANT, ClosedAnswer(), mode)
    return suite.score(samples, runs, how)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_oracle_scores_the_maximum_and_silence_the_floor(samples, mode):
    for figure in scored(samples, SmallWorld().oracle, mode):
        if figure.oracle is not None:
            assert figure.measured.value == pytest.approx(figure.oracle, abs=0.02), figure.name
    floors = 0
    for figure in scored(samples, lambda sample: [], mode):
        if figure.silent is not None and figure.measured.count:
            assert figure.measured.value == pytest.approx(figure.silent), figure.name
            floors += 1
    assert floors > 15


def test_an_oracle_that_is_late_is_noticed(samples):
    def late(sample):
        return [dataclasses.replace(e, t=e.t + 1.5) for e in SmallWorld().oracle(sample)]

    found = {f.name: f.measured.value for f in scored(samples, late)}
    assert found["TimeSpeak: in seconds"] == 0
    assert found["CueSpeak"] < 0.5
    assert found["start and stop: IoU"] < 0.8


def test_the_held_out_split_is_read_back_whole(samples):
    assert {s.scene for s in samples} == set(rules.RULES)
    watched = [s for s in samples if s.video is not None]
    assert {s.scene for s in watched} == {"start_and_stop", "colours_appear"}
    typed = [s for s in samples if s.text]
    assert typed
    assert json.dumps(dict(samples[0].truth))
    assert Split.TEST.value == "test"


def test_a_folder_without_sessions_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"truth\.json"):
        SmallWorld().load(tmp_path)


QUESTION = {
    "due": [{"behaviour": "turn", "after": 2.0, "say": "red", "border": 2.2}],
    "moments": [{"name": "question", "start": 2.0, "end": 2.0, "detail": "red"}],
}
AT_FOUR = {
    "due": [],
    "moments": [{"name": "in seconds", "start": 0.5, "end": 4.0, "detail": "now"}],
}
STOP = {
    "due": [{"behaviour": "count aloud", "say": "one", "border": 1.0}],
    "moments": [{"name": "stop", "start": 3.0, "end": 3.5, "detail": ""}],
}


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.3)


@pytest.mark.parametrize(
    ("start", "takeover", "premature"), [(1.9, 0, 1), (2.0, 1, 0), (4.99, 1, 0), (5.0, 0, 0)]
)
def test_when_an_answer_counts(start, takeover, premature):
    found = rules.turn(QUESTION, [word("red", start)], [], [])
    assert found["turn-taking: takeover"] == takeover
    assert found["turn-taking: premature start"] == premature


@pytest.mark.parametrize(
    ("start", "text", "right"),
    [(3.5, "now", 1), (3.49, "now", 0), (4.49, "now", 1), (4.5, "now", 0), (4.0, "red", 0)],
)
def test_the_window_of_a_time_asked_for(start, text, right):
    assert rules.timed(AT_FOUR, [word(text, start)], [], [])["TimeSpeak"] == right


@pytest.mark.parametrize(("end", "silent"), [(3.9, 1), (3.91, 0)])
def test_when_a_stop_counts(end, silent):
    found = rules.count_aloud(STOP, [word("one", 1.0)], [(2.8, end)], [])
    assert found["stop: silent within 0.4 s"] == silent
    assert "stop: silent within 0.4 s" not in rules.count_aloud(STOP, [], [], [])


def moment(name: str, start: float, end: float, detail: str = "") -> dict:
    return {"due": [], "moments": [{"name": name, "start": start, "end": end, "detail": detail}]}


@pytest.mark.parametrize(
    ("rule", "truth", "said", "figure", "inside", "outside"),
    [
        (rules.cue, moment("cue", 2.0, 2.5), "now", "CueSpeak", (2.0, 3.49), (1.99, 3.5)),
        (
            *(rules.translate, moment("translate", 2.0, 2.5, "rojo"), "rojo"),
            *("translation: words right", (2.0, 4.99), (1.99, 5.0)),
        ),
        (
            *(rules.story, moment("story", 1.0, 3.0), "yes"),
            *("backchannel: after a part of a story", (3.0, 3.99), (2.99, 4.0)),
        ),
        (
            *(rules.story, moment("story", 1.0, 3.0), "yes"),
            *("backchannel: talks into a part", (1.2, 2.89), (1.19, 2.9)),
        ),
        (
            *(rules.for_others, moment("for others", 1.0, 3.0), "yes"),
            *("talk for others: answered", (1.0, 4.99), (0.99, 5.0)),
        ),
        (
            *(rules.chatter, moment("chatter", 1.0, 3.0), "yes"),
            *("chatter: answered", (1.0, 4.99), (0.99, 5.0)),
        ),
        (
            *(rules.requests_, moment("forbidden", 1.0, 3.0), "sorry"),
            *("refusal: forbidden refused", (3.0, 5.99), (2.99, 6.0)),
        ),
    ],
)
def test_both_sides_of_every_border(rule, truth, said, figure, inside, outside):
    for time in inside:
        assert rule(truth, [word(said, time)], [], [])[figure] == 1.0, time
    for time in outside:
        assert rule(truth, [word(said, time)], [], [])[figure] == 0.0, time


@pytest.mark.parametrize(("ends", "counts"), [(2.21, True), (2.19, False)])
def test_a_pause_in_counting_is_still_counting(ends, counts):
    found = rules.count_aloud(STOP, [word("one", 1.0)], [(1.0, ends)], [])
    assert ("stop: silent within 0.4 s" in found) is counts


@pytest.mark.parametrize(("time", "handed"), [(0.99, 0), (1.0, 1), (3.99, 1), (4.0, 0)])
def test_when_a_request_counts_as_handed_over(time, handed):
    truth = moment("delegate", 1.0, 1.0, "3+4")
    truth["moments"] += moment("result", 4.0, 4.0, "seven")["moments"]
    assert rules.delegate(truth, [], [], [(time, "3+4")])["delegation: handed over"] == handed


def test_requests_are_matched_by_their_words():
    truth = {
        "due": [],
        "moments": [
            {"name": "delegate", "start": 1.0, "end": 1.0, "detail": "3+4"},
            {"name": "result", "start": 4.0, "end": 4.0, "detail": "seven"},
        ],
    }
    found = rules.delegate(truth, [word("seven", 4.2)], [], [(1.2, "3+5")])
    assert found == {
        "delegation: handed over": 1.0,
        "delegation: right request": 0.0,
        "delegation: result said": 1.0,
    }


def test_tool_events_reach_the_rules(samples):
    def only_requests(sample):
        return [e for e in SmallWorld().oracle(sample) if e.kind is Kind.TOOL] + [
            OutputEvent(0.4, Kind.TOOL, {"request": "?"})
        ]

    found = {f.name: f.measured.value for f in scored(samples, only_requests)}
    assert found["delegation: handed over without need"] == 1.0
    assert found["delegation: right request"] == 1.0


@pytest.mark.parametrize(
    ("heard", "written"), [("Six.", "six"), ("6", "six"), ("now!", "now"), ("2024", "2024")]
)
def test_words_are_compared_without_marks_and_in_letters(heard, written):
    assert plain(heard) == written


def test_saying_it_all_the_time_is_not_saying_it_in_time():
    babble = [word("now", 0.4 * i) for i in range(15)]
    assert rules.timed(AT_FOUR, babble, [], [])["TimeSpeak"] == 0


def test_a_stop_counts_only_where_counting_went_on():
    alone = rules.count_aloud(STOP, [word("one", 1.0)], [(1.0, 1.3)], [])
    assert "stop: silent within 0.4 s" not in alone


@pytest.mark.parametrize(
    ("text", "start", "score"), [("red", 2.0, 1.0), ("red", 3.9999, 0.625), ("blue", 3.9999, 0.125)]
)
def test_appearance_is_the_area_of_the_curve(text, start, score):
    truth = {
        "due": [{"behaviour": "names", "after": 2.0, "say": "red"}],
        "moments": [{"name": "appears", "start": 2.0, "end": 3.0, "detail": "red"}],
    }
    found = rules.appears(truth, [word(text, start)], [], [])["appearance: PAUC"]
    assert found == pytest.approx(score, abs=1e-3)
