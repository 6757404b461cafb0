"""Requests in words: who answers them, when, and that it is the same for every system.

In: a system that hands over whatever it hears, toy samples. Out: the words that come back, the
micro-turn in which they do, runs of their own.
"""

import json

import pytest

from interaction.eval import choose
from interaction.eval.evaluate import Background, Evaluation, background_words, evaluate
from interaction.eval.records import Kind, OutputEvent, Sample
from interaction.eval.run_files import fingerprint
from interaction.eval.runner import Spec, play
from interaction.eval.suites import load_suite
from interaction.microturn import output_seconds
from interaction.types import Control
from tests.toy_suite import PLACE, Toy


class HandsOver:
    """Asks in words when something is typed, and says what comes back."""

    name = "hands over"

    def converse(self, sample):
        self.heard = []
        return self

    def step(self, given):
        border, events = output_seconds(given.micro_turn), []
        for text in given.text:
            self.heard.append((given.micro_turn, text.source, text.text))
            if text.source is Control.BACKGROUND:
                said = {"channel": "say", "text": text.text}
                events.append(OutputEvent(border, Kind.TEXT, said))
            else:
                events.append(OutputEvent(border, Kind.TOOL, {"request": f"next of {text.text}?"}))
        return events

    def close(self):
        """Nothing to close."""


def toy(tmp_path, size=1) -> list[Sample]:
    Toy().generate(tmp_path, size=size, seed=0)
    return Toy().load(tmp_path)


def test_a_request_in_words_is_answered_a_second_later(tmp_path):
    (sample,) = toy(tmp_path)
    system = HandsOver()
    run = play(system, sample, background="one")
    # Typed at 0.7 s: asked at the border of 0.8 s, answered at 1.8 s, which is micro-turn 9.
    assert system.heard == [(3, Control.USER, "zero"), (9, Control.BACKGROUND, "one")]
    assert run.text("say") == "one"
    assert play(system, sample).text("say") == ""
    assert [turn for turn, *_ in system.heard] == [3]


def test_the_oracles_words_come_back_to_whoever_asks(tmp_path):
    (sample,) = toy(tmp_path)
    assert background_words(Background.ORACLE, Toy(), sample) == "one"
    assert background_words(Background.NONE, Toy(), sample) is None
    official = Sample("ifeval", "text", "x", 1.0, truth={"prompt": "?"})
    assert background_words(Background.ORACLE, load_suite("ifeval"), official) is None
    assert len({fingerprint(sample), fingerprint(sample, None, "one")}) == 2


@pytest.mark.parametrize(
    ("background", "name"),
    [(Background.NONE, "hands over"), (Background.ORACLE, "hands over [background=oracle]")],
)
def test_an_evaluation_says_who_answered(tmp_path, background, name):
    made = Evaluation(
        suites={"toy": PLACE},
        systems=[Spec("hands over", "tests.test_eval_background:HandsOver")],
        out=tmp_path,
        size=2,
        background=background,
        processes=1,
    )
    (outcome,) = evaluate(made)
    assert outcome.system == name
    said = {run.text("say") for run in outcome.runs.values()}
    assert said == ({""} if background is Background.NONE else {"one", "two"})
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["evaluation"]["background"] == background.value


def test_what_is_recorded_cannot_be_helped_any_more(tmp_path):
    with pytest.raises(ValueError, match="background=oracle cannot change"):
        Evaluation(
            suites={"toy": PLACE},
            systems=choose.systems(f"recorded:{tmp_path}", choose.Given()),
            out=tmp_path,
            background=Background.ORACLE,
        )
