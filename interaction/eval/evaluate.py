"""An evaluation: suites put to systems, scored, and written down.

In: an `Evaluation` (which suites, which systems, whose ears and judgement). Out: a folder with
``runs/SYSTEM/SUITE/ID/``, ``scores/SYSTEM/SUITE.json``, ``report.json`` and ``report.html``. Runs
and scores that are there and still hold are not made again, so that an evaluation that was killed
goes on where it was.
"""

import dataclasses
import enum
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.progress

from interaction.eval.figure_files import figure_from_dict, figure_to_dict
from interaction.eval.impairment import Impairment
from interaction.eval.records import Clock, Kind, Run, Sample
from interaction.eval.run_files import fingerprint
from interaction.eval.runner import Spec, imported
from interaction.eval.suite import Ears, Figure, Judge, Mode, Scoring, Suite
from interaction.eval.suites.fdb.v15_prosody import Prosody
from interaction.eval.worker import Players

SMALL = 4  # samples per scene of a generated set
SHOWN = 12  # failures of each system in each suite on the page
OWN_TEXT = Spec("text", "interaction.eval.ears:FromText")


class Background(enum.Enum):
    """Who answers what a system hands over in words.

    NONE: nobody. ORACLE: a scripted agent that knows each sample's truth and gives back the
    oracle's words, to every system alike: figures then say what a system makes of help, not what
    it knows.
    """

    NONE = "none"
    ORACLE = "oracle"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated and how.

    Attributes:
        suites: name -> ``module:Class``.
        systems: under test.
        out: folder for everything.
        data: a set in the official layout (of several suites: a folder per suite name); None: the
            small set, generated under `out`.
        size, seed: of the generated set (samples per scene).
        speakers: engines whose voices speak generated dialogues (suites with a field `speakers`).
        prosody: how much is measured of the voice around an overlap (a suite with such a field).
        impairments: networks; every system is put to every suite through each.
        background: who answers what is handed over in words.
        modes: COMPAT, STRICT or both.
        ears, judge: ``module:callable`` that makes them.
        processes: that play side by side.
        shown: failures of each system in each suite that the page itself holds; what is left lies
            beside it.
    """

    suites: Mapping[str, str]
    systems: Sequence[Spec]
    out: pathlib.Path
    data: pathlib.Path | None = None
    size: int = SMALL
    seed: int = 0
    speakers: tuple[str, ...] = ("espeak",)
    prosody: Prosody = Prosody.RATE
    impairments: Sequence[Impairment] = (Impairment(),)
    background: Background = Background.NONE
    modes: Sequence[Mode] = (Mode.COMPAT, Mode.STRICT)
    ears: Spec = OWN_TEXT
    judge: Spec = Spec("closed", "interaction.eval.judges:ClosedAnswer")
    processes: int = 2
    shown: int = SHOWN

    def __post_init__(self):
        for name in ("suites", "systems", "modes", "impairments"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: an evaluation needs at least one")
        for spec in self.systems:
            plain = tuple(self.impairments) == (Impairment(),)
            if spec.factory.endswith(":Recorded"):
                if not plain or self.background is not Background.NONE:
                    raise ValueError(
                        f"system {spec.name} is recorded: impairments="
                        f"{[str(i) for i in self.impairments]} and background="
                        f"{self.background.value} cannot change what it met"
                    )
            elif self.ears.factory.endswith(":Transcripts"):
                raise ValueError(
                    f"ears={self.ears.name} read transcripts beside recordings: system {spec.name} "
                    "is none (recorded:FOLDER is)"
                )
        names = [spec.name for spec in self.systems]
        if len(set(names)) != len(names):
            raise ValueError(f"systems={names}: a name is there twice")
        if len({str(impairment) for impairment in self.impairments}) != len(self.impairments):
            raise ValueError(
                f"impairments={[str(i) for i in self.impairments]}: one is there twice"
            )
        if self.size < 1 or self.processes < 1:
            raise ValueError(f"size={self.size}, processes={self.processes} must be at least 1")
        if self.shown < 0:
            raise ValueError(f"shown={self.shown} must not be negative")


@dataclasses.dataclass(frozen=True)
class Part:
    """One suite's data."""

    name: str
    suite: Suite
    samples: list[Sample]
    folder: pathlib.Path
    generated: bool


@dataclasses.dataclass
class Spent:
    """Seconds of the processor, all processes together; what was already there costs none."""

    playing: float = 0.0
    listening: float = 0.0
    scoring: float = 0.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one system did in one suite."""

    system: str
    part: Part
    runs: Mapping[str, Run]
    figures: Sequence[Figure]
    spent: Spent


def load_part(evaluation: Evaluation, name: str) -> Part:
    """A suite's samples, from where they lie or generated."""
    suite: Any = imported(evaluation.suites[name])()  # a Suite; some have `speakers`
    if hasattr(suite, "prosody"):
        suite = dataclasses.replace(suite, prosody=evaluation.prosody)
    several = evaluation.speakers != ("espeak",) and hasattr(suite, "speakers")
    if evaluation.data is not None:
        if not evaluation.data.is_dir():
            source = suite.source
            raise ValueError(
                f"data={evaluation.data} is no folder. {source.title} ({source.size}; licence: "
                f"{source.licence}): {source.obtain}"
            )
        nested = evaluation.data / name
        folder = nested if nested.is_dir() else evaluation.data
        if len(evaluation.suites) > 1 and not nested.is_dir():
            raise ValueError(f"data={evaluation.data} has no folder {name} (one per suite)")
    else:
        label = f"{name}-size{evaluation.size}-seed{evaluation.seed}"
        if several:
            suite = dataclasses.replace(suite, speakers=evaluation.speakers)
            label += "-" + "-".join(evaluation.speakers)
        folder = evaluation.out / "data" / label
        if not folder.is_dir():
            fresh = folder.with_name(f".{folder.name}")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            suite.generate(fresh, size=evaluation.size, seed=evaluation.seed)
            fresh.rename(folder)
    return Part(name, suite, suite.load(folder), folder, evaluation.data is None)


def evaluate(evaluation: Evaluation) -> list[Outcome]:
    """Runs, scores and the report of every system in every suite.

    Raises:
        SampleError: a system broke; calling again goes on after what was finished.
    """
    began = time.monotonic()
    parts = [load_part(evaluation, name) for name in evaluation.suites]
    outcomes = []
    with Players(processes=evaluation.processes) as players, _progress() as progress:
        for spec in evaluation.systems:
            plays = [
                _Play(spec, part, impairment, evaluation.background)
                for part in parts
                for impairment in evaluation.impairments
            ]
            outcomes += _evaluate_system(evaluation, plays, players, progress)
    from interaction.eval.report import write_report

    write_report(evaluation, outcomes, wall_seconds=time.monotonic() - began)
    return outcomes


@dataclasses.dataclass(frozen=True)
class _Play:
    """A system, what it is put to, and through which network."""

    spec: Spec
    part: Part
    impairment: Impairment
    background: Background

    @property
    def name(self) -> str:
        helped = self.background is not Background.NONE
        labels = [str(self.impairment), f"background={self.background.value}" * helped]
        label = ",".join(filter(None, labels))
        return self.spec.name + (f" [{label}]" if label else "")

    def place(self, evaluation: Evaluation) -> pathlib.Path:
        """Where its figures are kept."""
        return evaluation.out / "scores" / self.name / f"{self.part.name}.json"


@dataclasses.dataclass(frozen=True)
class _Played:
    """What came of it."""

    play: _Play
    runs: Mapping[str, Run]
    spent: Spent

    def stored(self, evaluation: Evaluation) -> list[Figure] | None:
        """Figures that were scored before and still hold."""
        place = self.play.place(evaluation)
        return stored_figures(evaluation, self.play.part, self.runs, place)


def _evaluate_system(
    evaluation: Evaluation,
    plays: Sequence[_Play],
    players: Players,
    progress: rich.progress.Progress,
) -> list[Outcome]:
    """Plays everything to one system, then hears all of it, then scores: no process waits long."""
    played = [_played(evaluation, play, players, progress) for play in plays]
    _listen(evaluation, played, players, progress)
    outcomes = []
    for one in played:
        began, part = time.process_time(), one.play.part
        figures = score(evaluation, part, one.runs, one.play.place(evaluation))
        one.spent.scoring += time.process_time() - began
        outcomes.append(Outcome(one.play.name, part, one.runs, figures, one.spent))
    return outcomes


def _played(
    evaluation: Evaluation, play: _Play, players: Players, progress: rich.progress.Progress
) -> _Played:
    part, before = play.part, players.processor_seconds
    total = sum(sample.seconds for sample in part.samples)
    bar = progress.add_task(f"{play.name} on {part.name}", total=total)
    runs = players.run(
        dataclasses.replace(play.spec, name=play.name),
        part.samples,
        evaluation.out / "runs" / play.name / part.name,
        impairment=play.impairment,
        background=lambda sample: background_words(evaluation.background, part.suite, sample),
        finished=lambda sample: progress.advance(bar, sample.seconds),
    )
    return _Played(play, runs, Spent(playing=players.processor_seconds - before))


def _listen(
    evaluation: Evaluation,
    played: Sequence[_Played],
    players: Players,
    progress: rich.progress.Progress,
) -> None:
    """Lets the ears hear, in all processes, whatever has sound and is still to be scored."""
    waiting: list[list[Run]] = []
    spent: dict[tuple[str, str], Spent] = {}
    for one in played:
        sounding = [run for run in one.runs.values() if run.of(Kind.AUDIO)]
        heard = ears_of(evaluation, one.play.part.suite) == evaluation.ears
        if sounding and heard and one.stored(evaluation) is None:
            waiting.append(sounding)
            spent[sounding[0].system, sounding[0].suite] = one.spent
    if not waiting:
        return
    bar = progress.add_task("listening", total=sum(run.seconds for runs in waiting for run in runs))
    for runs, seconds in players.listen(evaluation.ears, waiting):
        spent[runs[0].system, runs[0].suite].listening += seconds
        progress.advance(bar, sum(run.seconds for run in runs))


def background_words(background: Background, suite: Suite, sample: Sample) -> str | None:
    """What the scripted agent gives back in a sample; None: there is none, or no text is right."""
    if background is Background.NONE:
        return None
    try:
        events = suite.oracle(sample)
    except ValueError:  # an official set without answers
        return None
    said = [event.payload["text"] for event in events if event.kind is Kind.TEXT]
    return " ".join(said) or None


# ---------------------------------------------------------------- scores


def ears_of(evaluation: Evaluation, suite: Suite) -> Spec:
    """Who finds words in sound; a suite may want a system's own text believed (`own_text`)."""
    return OWN_TEXT if getattr(suite, "own_text", False) else evaluation.ears


def score(
    evaluation: Evaluation, part: Part, runs: Mapping[str, Run], place: pathlib.Path
) -> list[Figure]:
    """Every figure in every mode and under both clocks; read from `place` where they still hold."""
    known = stored_figures(evaluation, part, runs, place)
    if known is not None:
        return known
    ears: Ears = ears_of(evaluation, part.suite).build()
    judge: Judge = evaluation.judge.build()
    figures = [
        figure
        for mode in evaluation.modes
        for clock in Clock
        for figure in part.suite.score(part.samples, runs, Scoring(ears, clock, judge, mode))
    ]
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(".new")
    key = _score_key(evaluation, part, runs)
    stored = {"key": key, "figures": [figure_to_dict(figure) for figure in figures]}
    fresh.write_text(json.dumps(stored, ensure_ascii=False, indent=1))
    fresh.rename(place)
    return figures


def stored_figures(
    evaluation: Evaluation, part: Part, runs: Mapping[str, Run], place: pathlib.Path
) -> list[Figure] | None:
    """The figures at `place`, None where there are none or they do not hold any more."""
    try:
        known = json.loads(place.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if known["key"] != _score_key(evaluation, part, runs):
        return None
    return [figure_from_dict(figure) for figure in known["figures"]]


def _score_key(evaluation: Evaluation, part: Part, runs: Mapping[str, Run]) -> str:
    """Of all that a score depends on: runs, truth, ears, judge, and the code that scores."""
    digest = hashlib.sha256()
    for sample in part.samples:
        run = runs[sample.id]
        digest.update(fingerprint(sample).encode())
        events = [(e.t, e.kind.value, e.delay) for e in run.events]
        texts = [e.payload for e in run.events if not hasattr(e.payload, "dtype")]
        digest.update(json.dumps([events, texts], sort_keys=True, default=str).encode())
        digest.update(run.waveform().tobytes())
        if run.recording is not None:
            for file in (run.recording, run.recording.with_suffix(".json")):
                digest.update(file.read_bytes() if file.is_file() else b"none")
    ears = ears_of(evaluation, part.suite)
    how = [[m.value for m in evaluation.modes], ears, evaluation.judge, evaluation.prosody]
    digest.update(str(how).encode())
    for file in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _progress() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
    )
