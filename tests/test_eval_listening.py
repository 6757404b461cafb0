"""What ears hear, and how often: sounds apart from each other, both clocks, many processes.

In: made-up sounds and recognisers, an evaluation of a toy suite. Out: that a sound is heard once
wherever it lies, and that what is heard side by side is what is heard alone.
"""

import json
import pathlib

import numpy as np
import pytest

from interaction.eval import choose, ears, whisper
from interaction.eval.ears import FromText, TwoPass, sounds_apart
from interaction.eval.evaluate import Evaluation, evaluate
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run
from interaction.eval.runner import Spec
from interaction.eval.whisper import Written
from tests.toy_suite import PLACE, Toy

SECOND = SAMPLE_RATE


def wave(seconds, *tones, noise=0.0):
    """Tones (start, length, level) in a recording of so many seconds."""
    result = np.random.default_rng(0).normal(0, noise, round(seconds * SECOND))
    for start, length, level in tones:
        size = round(length * SECOND)
        result[round(start * SECOND) :][:size] = level * np.sin(np.arange(size) * 0.35 + 0.5)
    return result.astype(np.float32)


@pytest.mark.parametrize(
    ("recording", "places"),
    [
        (wave(4.0), []),
        (wave(4.0, (1.0, 0.5, 0.3)), [(0.5, 2.0)]),
        (wave(4.0, (0.2, 0.5, 0.3)), [(0.0, 1.2)]),
        (wave(4.0, (0.6, 0.5, 0.3), (2.05, 0.5, 0.3)), [(0.1, 3.05)]),  # 0.95 s between them
        (wave(4.0, (0.6, 0.5, 0.3), (2.15, 0.5, 0.3)), [(0.1, 1.6), (1.65, 3.15)]),  # 1.05 s
        (wave(4.0, (1.0, 0.5, 0.3), (3.8, 0.2, 0.3)), [(0.5, 2.0), (3.3, 4.0)]),
        (wave(4.0, (1.0, 0.5, 0.3), (3.0, 0.2, 0.3), noise=3e-4), [(0.0, 4.0)]),
    ],
)
def test_sounds_are_parted_by_digital_silence(recording, places):
    found = [(at / SECOND, (at + len(sound)) / SECOND) for at, sound in sounds_apart(recording)]
    assert found == [pytest.approx(place, abs=1e-3) for place in places]
    for at, sound in sounds_apart(recording):
        assert np.array_equal(sound, recording[at : at + len(sound)])


def run_of(*sounds, late=0.0, seconds=8.0):
    events = [
        OutputEvent(at, Kind.AUDIO, np.full(round(length * SECOND), level, np.float32), late)
        for at, length, level in sounds
    ]
    return Run("toy", "next", "n", "s", seconds, tuple(events))


@pytest.fixture
def asked(monkeypatch):
    """Lengths of all that a made-up recogniser heard; every sound is one word of 0.3 s."""
    found = []

    def segments(sound):
        loud = np.flatnonzero(sound) / SECOND
        return [(float(loud[0]), float(loud[-1]))]

    def hear(clips, threads):
        found.extend(round(len(clip) / SECOND, 2) for clip in clips)
        levels = [round(10 * float(np.abs(clip).max())) for clip in clips]
        return [Written([f"level{level}"]) for level in levels]

    monkeypatch.setattr(ears.silero, "speech_segments", segments)
    monkeypatch.setattr(ears.whisper, "hear", hear)
    monkeypatch.setattr(
        ears.word_alignment, "align", lambda clip, text: [(0.5, len(clip) / SECOND - 0.5)]
    )
    monkeypatch.setattr(ears, "_versions", lambda: ["1"])
    return found


def test_a_sound_is_heard_once_wherever_and_whenever_it_is_put_out(asked, tmp_path):
    run = run_of((1.0, 0.6, 0.2), (3.0, 0.7, 0.5), (5.5, 0.6, 0.2), late=0.03)
    two_pass = TwoPass(tmp_path)
    two_pass.prepare([run], tuple(Clock))
    assert asked == [1.6, 1.7]  # half a second of silence on either side
    instant = two_pass.words(run, Clock.INSTANT)
    assert [(w.text, round(w.start, 2), round(w.end, 2)) for w in instant] == [
        ("level2", 1.0, 1.6),
        ("level5", 3.0, 3.7),
        ("level2", 5.5, 6.1),
    ]
    measured = two_pass.words(run, Clock.MEASURED)
    assert [w.start - 0.03 for w in measured] == pytest.approx([w.start for w in instant])
    assert two_pass.speech(run, Clock.MEASURED)[1] == pytest.approx((3.03, 3.73), abs=1e-3)
    assert len(asked) == 2
    two_pass.words(run_of((1.0, 0.6, 0.3)), Clock.INSTANT)
    assert asked == [1.6, 1.7, 1.6]


def test_where_somebody_speaks_is_told_without_a_recogniser(asked, tmp_path):
    assert TwoPass(tmp_path).speech(run_of((2.0, 0.5, 0.4)), Clock.INSTANT)[0][0] == 2.0
    assert asked == []


class Noting(FromText):
    """Ears that write down what they are given to prepare, in whichever process."""

    def __init__(self, folder: str):
        super().__init__()
        self._folder = pathlib.Path(folder)

    def prepare(self, runs, clocks):
        for run in runs:
            for clock in clocks:
                name = f"{run.system} {run.id} {clock.name}".replace("/", "_")
                (self._folder / name).touch(exist_ok=False)


@pytest.mark.parametrize("processes", [1, 2])
def test_everything_that_sounds_is_heard_once_before_it_is_scored(tmp_path, processes):
    given = choose.Given(suites={"toy": PLACE})
    noted = tmp_path / "noted"
    noted.mkdir()
    made = Evaluation(
        suites={"toy": PLACE},
        systems=choose.systems("silent,echo", given),
        out=tmp_path / "out",
        size=3,
        ears=Spec("noting", "tests.test_eval_listening:Noting", {"folder": str(noted)}),
        processes=processes,
    )
    outcomes = evaluate(made)
    names = sorted(f"echo n_{i} {clock.name}" for i in range(3) for clock in Clock)
    assert sorted(p.name for p in noted.iterdir()) == names
    assert all(o.spent.playing > 0 and o.spent.scoring > 0 for o in outcomes)
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(t["system"], t["suite"]) for t in told["processor_seconds"]] == [
        ("silent", "toy"),
        ("echo", "toy"),
    ]
    assert told["evaluation"]["wall_seconds"] > 0
    evaluate(made)  # scores that still hold need no ears: `Noting` would find its files


class Told(Toy):
    """A suite that believes a system's own text."""

    own_text = True


def test_a_suite_may_want_the_systems_own_text(tmp_path):
    given = choose.Given(suites={"toy": PLACE})
    made = Evaluation(
        suites={"toy": "tests.test_eval_listening:Told"},
        systems=choose.systems("echo,oracle", given),
        out=tmp_path,
        size=2,
        ears=Spec("deaf", "tests.test_eval_listening:Deaf"),
        processes=1,
    )
    outcomes = {outcome.system: outcome for outcome in evaluate(made)}
    assert {figure.measured.value for figure in outcomes["oracle"].figures} == {1.0}
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["suites"][0]["ears"] == "text"
    assert told["evaluation"]["ears"] == "deaf"


class Deaf(FromText):
    """Ears that nobody may ask."""

    def prepare(self, runs, clocks):
        raise AssertionError("asked to listen")

    def words(self, run, clock):
        raise AssertionError("asked for words")


@pytest.mark.parametrize("loops", [True, False])
def test_a_pack_that_repeats_itself_is_heard_clip_by_clip(monkeypatch, loops):
    alone = 1.0 * whisper.SAMPLE_RATE
    calls = []

    def timed_words(wave, *, threads):
        calls.append(len(wave))
        if len(wave) > 3 * alone and loops:
            return [whisper.TimedText("stop,", 0.1 * i, 0.1 * i + 0.1) for i in range(60)]
        at = (0.5, 2.7) if len(wave) > 3 * alone else (0.5,)
        return [whisper.TimedText("okay", time, time + 0.3) for time in at]

    monkeypatch.setattr(whisper, "timed_words", timed_words)
    heard = whisper.hear([np.ones(int(alone), np.float32)] * 2)
    assert heard == [Written(["okay"], alone=loops)] * 2
    assert len(calls) == (3 if loops else 1)
