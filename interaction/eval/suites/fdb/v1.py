"""Full-Duplex-Bench v1: pauses, backchannels, turn-taking, interruption.

In: a folder in the authors' layout, runs. Out: samples and figures, in two modes. The scene of a
folder is told by the end of its name (`candor_pause_handling`, `generated_turn_taking`, ...).
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from interaction.eval.board import Board
from interaction.eval.intervals import SHARE
from interaction.eval.records import SAMPLE_RATE, OutputEvent, Run, Sample
from interaction.eval.suite import (
    Better,
    Figure,
    Hearing,
    Judge,
    Mode,
    Question,
    Scoring,
    Source,
    Word,
)
from interaction.eval.suites.fdb import generate, layout, v1_rules
from interaction.eval.suites.fdb.perfect import answered, next_border, said, yielding
from interaction.eval.suites.fdb.timing import MODEL_MERGE_GAP, merged
from interaction.eval.suites.fdb.world import CLOSED, says
from interaction.eval.suites.transcripts import choice_of

ANSWER_SECONDS = 3.0
"""Silence after a pause sample's sound, in which an answer is welcome; COMPAT never hears it."""

RATINGS = (0.0, 5.0)
_TASKS = ("pause_handling", "turn_taking", "backchannel", "user_interruption")
_RATING = """A user and a voice assistant talk. The user asks something; while the assistant
answers, the user interrupts it with something else. Rate from 0 (has nothing to do with the
interruption) to 5 (a perfect reply to it) what the assistant says after the interruption.
First request: {context}
Interruption: {interrupt}
Assistant afterwards: {answer}"""


def task_of(scene: str) -> str | None:
    """Which of the four tasks a folder of this name holds."""
    return next((task for task in _TASKS if scene.endswith(task)), None)


@dataclasses.dataclass(frozen=True)
class FullDuplexBenchV1:
    """The suite; `speakers` are the engines whose voices speak its generated set."""

    speakers: tuple[str, ...] = ("espeak",)

    name = "fdb_v1"
    source = Source(
        title="Full-Duplex-Bench v1.0",
        citation="Lin et al., arXiv 2503.04721; github.com/DanielLin94144/Full-Duplex-Bench",
        licence="CC BY-NC 4.0 (Candor, ICC), MIT (synthetic)",
        size="727 recordings: pauses 216 + 137, backchannels 55, turn-taking 119, "
        "interruptions 200",
        obtain="unpack v1.0 of the authors' data; put their icc_gt_distribution.json beside the "
        "scenes' folders",
        generated="espeak-ng voices (--voices: piper and flite too): requests with a pause, "
        "requests, stories, interrupted counting; the distribution of backchannels is made up by "
        "us, not measured on people",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes `size` samples of each of the four scenes."""
        generate.write_v1(folder, size=size, seed=seed, engines=self.speakers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads every scene below `folder` (or the one scene that it is).

        Raises:
            ValueError: no scene there, or a scene without its files.
        """
        return [self._sample(place) for place in layout.places(folder, _TASKS)]

    def _sample(self, place: pathlib.Path) -> Sample:
        audio, scene = layout.read_sound(place / "input.wav"), place.parent
        seconds = len(audio) / SAMPLE_RATE
        task = task_of(scene.name)
        assert task is not None
        truth = {"folder": place.name, "task": task, "input_seconds": seconds}
        truth |= _TRUTHS[task](place, seconds)
        tail = ANSWER_SECONDS if task == "pause_handling" else 0.0
        return Sample(
            suite=self.name,
            scene=scene.name,
            id=f"{scene.name}/{place.name}",
            seconds=seconds + tail,
            audio=audio,
            truth=truth,
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Waits for the user's end, makes small sounds where a story leaves room, and stops
        counting when interrupted."""
        truth = sample.truth
        if truth["task"] == "pause_handling":
            return [answered(truth, max(truth["user_end"], truth["input_seconds"]))]
        if truth["task"] == "turn_taking":
            return [answered(truth, truth["user_end"])]
        if truth["task"] == "backchannel":
            return [said(next_border(spot), "yeah") for spot in truth["spots"]]
        return yielding(truth)

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure of every scene."""
        board = Board(how.mode, how.clock)
        for scene in sorted({sample.scene for sample in samples}):
            chosen = [sample for sample in samples if sample.scene == scene]
            task = chosen[0].truth["task"]
            if task == "pause_handling":
                _score_pauses(board, scene, chosen, runs, how)
            elif task == "turn_taking":
                _score_turns(board, scene, chosen, runs, how)
            elif task == "backchannel":
                _score_backchannels(board, scene, chosen, runs, how)
            else:
                _score_interruptions(board, scene, chosen, runs, how)
        return board.figures

    def write(
        self, root: pathlib.Path, samples: Sequence[Sample], runs: Mapping[str, Run], how: Hearing
    ) -> None:
        """Writes every run's `output.wav` and `output.json` beside its input."""
        for sample in samples:
            run = runs[sample.id]
            words = heard(sample, run, how, Mode.COMPAT)
            layout.write_run(root, sample, run, words, how.clock)

    def read(self, root: pathlib.Path, samples: Sequence[Sample], system: str) -> dict[str, Run]:
        """The recorded runs of a tree."""
        return {s.id: layout.read_run(root, s, system) for s in samples}


# ---------------------------------------------------------------- reading truths


def _answer(place: pathlib.Path) -> dict:
    path = place / "answer.json"
    return layout.read_json(path, "the generated set") if path.is_file() else {}


def _pause_truth(place: pathlib.Path, seconds: float) -> dict:
    path = place / "pause.json"
    pauses = [layout.interval(path, entry) for entry in layout.read_json(path, "pause handling")]
    words = place / "transcription.json"
    user_end = pauses[-1][1] if pauses else seconds
    if words.is_file():
        chunks = layout.read_json(words, "pause handling")
        chunks = chunks["chunks"] if isinstance(chunks, dict) else chunks
        ends = [chunk["timestamp"][1] for chunk in chunks if chunk["timestamp"][1] is not None]
        user_end = max([user_end, *ends])
    return {"pauses": pauses, "user_end": float(user_end), **_answer(place)}


def _turn_truth(place: pathlib.Path, _seconds: float) -> dict:
    path = place / "turn_taking.json"
    entries = layout.read_json(path, "smooth turn-taking")
    if not entries:
        raise ValueError(f"{path} is empty")
    return {"user_end": layout.interval(path, entries[0])[0], **_answer(place)}


def _backchannel_truth(place: pathlib.Path, _seconds: float) -> dict:
    scene, root = place.parent, place.parent.parent
    found = [*scene.glob("*gt_distribution.json"), *root.glob("*gt_distribution.json")]
    if not found:
        raise ValueError(
            f"neither {scene} nor {root} has a *gt_distribution.json (the authors' code carries "
            "icc_gt_distribution.json): copy it there"
        )
    people = layout.read_json(found[0], "backchannel").get(place.name)
    if people is None:
        raise ValueError(f"{found[0]} has no distribution for sample {place.name!r}")
    spots = place / "spots.json"
    known = layout.read_json(spots, "the generated set") if spots.is_file() else []
    return {"people": people, "spots": known}


def _interruption_truth(place: pathlib.Path, _seconds: float) -> dict:
    path = place / "interrupt.json"
    entries = layout.read_json(path, "user interruption")
    if not entries:
        raise ValueError(f"{path} is empty")
    entry, overlap = entries[0], layout.interval(path, entries[0])
    truth = {key: entry[key] for key in ("context", "interrupt", "answer", "key") if key in entry}
    begun = float(entry.get("context_end", max(0.0, overlap[0] - 3.0)))
    return {"overlap": overlap, "context_end": begun, **truth}


_TRUTHS = {
    "pause_handling": _pause_truth,
    "turn_taking": _turn_truth,
    "backchannel": _backchannel_truth,
    "user_interruption": _interruption_truth,
}


# ---------------------------------------------------------------- scoring scenes


def heard(sample: Sample, run: Run, how: Hearing, mode: Mode) -> list[Word]:
    """The run's words as this mode hears them.

    COMPAT: those within the input's length, or of a recording those of the whole file; of an
    interruption those of the sound after its end. Words of a transcript that lies beside a
    recording are taken as they stand there.
    """
    if mode is Mode.STRICT or how.by_transcript:
        return how.words(run)
    run, within = layout.whole(run), _seconds(sample, run)
    if sample.truth["task"] == "user_interruption":
        end = sample.truth["overlap"][1]
        words = layout.moved(how.words(layout.cropped(run, end, how.clock)), end)
    else:
        words = how.words(run)
    return [word for word in words if word.start < within]


def _seconds(sample: Sample, run: Run) -> float:
    """Length of the file that the authors' code opens: a recording's own, else the input's, as
    `write` cuts it."""
    return sample.truth["input_seconds"] if run.recording is None else layout.whole(run).seconds


def _score_pauses(board: Board, scene, samples, runs, how: Scoring) -> None:
    results = {}
    for sample in samples:
        words = heard(sample, runs[sample.id], how, how.mode)
        results[sample.id] = v1_rules.pause(words, sample.truth["user_end"], board.mode)
    taken = {i: float(r.takeover) for i, r in results.items()}
    board.mean(scene, "takeover rate", taken, Better.LOWER, oracle=0.0, silent=0.0, bounds=SHARE)
    if board.mode is Mode.STRICT:
        answered = {i: float(bool(r.answered)) for i, r in results.items()}
        name = "answered after the user's end (rate)"
        board.mean(scene, name, answered, Better.HIGHER, oracle=1.0, silent=0.0, bounds=SHARE)


def _latencies(board: Board, scene: str, results: Mapping[str, v1_rules.Turn]) -> None:
    clipped = {i: r.clipped for i, r in results.items() if r.clipped is not None}
    board.mean(scene, "latency, clipped at 0 (s)", clipped, Better.LOWER)
    if board.mode is Mode.STRICT:
        raw = {i: r.unclipped for i, r in results.items() if r.unclipped is not None}
        board.mean(scene, "latency, unclipped (s)", raw, Better.LOWER)
        timely = {i: r.unclipped for i, r in results.items() if r.takeover and not r.premature}
        kept = {i: value for i, value in timely.items() if value is not None}
        board.mean(scene, "latency of turns taken in time (s)", kept, Better.LOWER)


def _score_turns(board: Board, scene, samples, runs, how: Scoring) -> None:
    results = {}
    for sample in samples:
        words = heard(sample, runs[sample.id], how, how.mode)
        results[sample.id] = v1_rules.turn_taking(words, sample.truth["user_end"], board.mode)
    taken = {i: float(r.takeover) for i, r in results.items()}
    board.mean(scene, "takeover rate", taken, Better.HIGHER, oracle=1.0, silent=0.0, bounds=SHARE)
    _latencies(board, scene, results)
    if board.mode is Mode.STRICT:
        early = {i: float(bool(r.premature)) for i, r in results.items()}
        name = "premature starts (rate)"
        board.mean(scene, name, early, Better.LOWER, oracle=0.0, silent=0.0, bounds=SHARE)


def _score_backchannels(board: Board, scene, samples, runs, how: Scoring) -> None:
    results = {}
    for sample in samples:
        run, compat = runs[sample.id], how.mode is Mode.COMPAT
        # The authors' code does not tell Silero the file's rate.
        spoken = (
            layout.official_speech(run, how, layout.RateRule.AS_IF_16K)
            if compat
            else how.speech(run)
        )
        results[sample.id] = v1_rules.backchannels(
            spoken,
            heard(sample, run, how, how.mode),
            _seconds(sample, run) if compat else sample.truth["input_seconds"],
            sample.truth["people"],
            board.mode,
        )
    taken = {i: float(r.takeover) for i, r in results.items()}
    board.mean(scene, "takeover rate", taken, Better.LOWER, oracle=0.0, silent=0.0, bounds=SHARE)
    often = {i: r.frequency for i, r in results.items()}
    board.mean(scene, "backchannels per second", often, Better.HIGHER, silent=0.0)
    far = {i: r.distance for i, r in results.items()}
    compat = board.mode is Mode.COMPAT
    none = v1_rules.NO_BACKCHANNEL_COMPAT if compat else v1_rules.NO_BACKCHANNEL_STRICT
    name = "Jensen-Shannon distance to people"
    board.mean(scene, name, far, Better.LOWER, silent=none, bounds=SHARE)


def _score_interruptions(board: Board, scene, samples, runs, how: Scoring) -> None:
    results, ratings, strict = {}, {}, board.mode is Mode.STRICT
    for sample in samples:
        run, overlap = runs[sample.id], sample.truth["overlap"]
        words = heard(sample, run, how, how.mode)
        speech = merged(how.speech(run), MODEL_MERGE_GAP) if strict else []
        result = v1_rules.interruption(words, speech, overlap, board.mode)
        results[sample.id] = result
        if result.takeover:
            after = v1_rules.after_yielding(words, overlap[1]) if strict else words
            rating = _rating(sample, " ".join(w.text for w in after), how.judge)
            if rating is not None:
                ratings[sample.id] = rating
    judged = {i: r for i, r in results.items() if r.applicable}
    taken = {i: float(r.takeover) for i, r in judged.items()}
    floor = None if strict else 0.0
    board.mean(scene, "takeover rate", taken, Better.HIGHER, oracle=1.0, silent=floor, bounds=SHARE)
    kept = {i: value for i, value in ratings.items() if i in judged}
    closed = all(sample.truth.get("key") for sample in samples)
    best, judged_by = (5.0, CLOSED) if closed else (None, how.judge.name)
    name = "rating of the reply (0-5)"
    board.mean(scene, name, kept, Better.HIGHER, oracle=best, judge=judged_by, bounds=RATINGS)
    _latencies(board, scene, judged)
    if strict:
        ran_on = {i: float(bool(r.premature)) for i, r in judged.items()}
        name = "talked on through it (rate)"
        board.mean(scene, name, ran_on, Better.LOWER, oracle=0.0, bounds=SHARE)
        off = {i: float(not r.applicable) for i, r in results.items()}
        name = "not applicable: not speaking then (rate)"
        board.mean(scene, name, off, Better.NEITHER, oracle=0.0, silent=1.0, bounds=SHARE)


def _rating(sample: Sample, answer: str, judge: Judge) -> float | None:
    """5 or 0 by the key word where there is one, else as the judge rates it; None if it cannot."""
    key = sample.truth.get("key")
    if key:
        return 5.0 if says(answer, key) else 0.0
    context, interrupt = sample.truth["context"], sample.truth["interrupt"]
    question = Question(
        task="rating",
        prompt=_RATING.format(context=context, interrupt=interrupt, answer=answer),
        answer=answer,
        choices=("5", "4", "3", "2", "1", "0"),
    )
    choice = choice_of(judge, question)
    return None if choice is None else float(choice)
