"""Full-Duplex-Bench v1.5: four kinds of overlap, each sample run twice.

In: a folder in the authors' layout, runs. Out: samples (`scene/ID` with the overlap,
`scene/ID/clean` without) and figures, in two modes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from interaction.eval.board import Board
from interaction.eval.intervals import SHARE
from interaction.eval.records import SAMPLE_RATE, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Hearing, Mode, Scoring, Source, Word
from interaction.eval.suites.fdb import generate, layout, v15_prosody
from interaction.eval.suites.fdb.perfect import counting, next_border, yielding
from interaction.eval.suites.fdb.v15_prosody import Prosody
from interaction.eval.suites.fdb.v15_rules import (
    Behaviour,
    Latencies,
    Overlap,
    at_overlap,
    behaviour_question,
    judged_words,
    latencies,
    told_by_key_words,
    wanted,
)
from interaction.eval.suites.fdb.world import CLOSED, NUMBERS
from interaction.eval.suites.transcripts import choice_of

_SCENES = generate.V15_SCENES


@dataclasses.dataclass(frozen=True)
class FullDuplexBenchV15:
    """The suite.

    Attributes:
        speakers: engines whose voices speak its generated set.
        prosody: how much is measured of the voice before and after the overlap.
    """

    speakers: tuple[str, ...] = ("espeak",)
    prosody: Prosody = Prosody.RATE

    name = "fdb_v15"
    source = Source(
        title="Full-Duplex-Bench v1.5",
        citation="Lin et al., arXiv 2507.23159; github.com/DanielLin94144/Full-Duplex-Bench",
        licence="MIT",
        size="498 pairs of recordings: interruption 200, backchannel 98, talking to another 100, "
        "background speech 100",
        obtain="unpack v1.5 of the authors' data",
        generated="espeak-ng voices (--voices: piper and flite too): the user asks to count to "
        "twenty; 3 s later an overlap",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes `size` samples of each of the four scenes."""
        generate.write_v15(folder, size=size, seed=seed, engines=self.speakers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads every scene below `folder`, two samples per recording.

        Raises:
            ValueError: no scene there, or a recording without its files.
        """
        found = layout.places(folder, _SCENES)
        return [self._sample(place, clean) for place in found for clean in (False, True)]

    def _sample(self, place: pathlib.Path, clean: bool) -> Sample:
        path = place / "metadata.json"
        entry = layout.read_json(path, "v1.5")
        overlap = layout.interval(path, entry, "timestamps")
        sound = place / ("clean_input.wav" if clean else "input.wav")
        if not sound.is_file():
            raise ValueError(f"{sound} is missing; the layout of v1.5 has it")
        audio = layout.read_sound(sound)
        scene = place.parent.name
        truth = {
            "folder": place.name,
            "clean": clean,
            "input_seconds": len(audio) / SAMPLE_RATE,
            "overlap": overlap,
            "context": entry.get("context_text", ""),
            "current": entry.get("current_turn_text", ""),
            "context_end": float(entry.get("context_end", max(0.0, overlap[0] - 3.0))),
            "user_speech": entry.get("user_speech", [])[: 1 if clean else None],
            "answer": entry.get("answer", ""),
            "key": entry.get("key"),
        }
        return Sample(
            suite=self.name,
            scene=scene,
            id=f"{scene}/{place.name}" + ("/clean" if clean else ""),
            seconds=len(audio) / SAMPLE_RATE,
            audio=audio,
            truth=truth,
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Counts; stops and answers where the user interrupts, else counts on."""
        truth = sample.truth
        if truth["clean"] or wanted(sample.scene) is Behaviour.RESUME:
            return counting(next_border(truth["context_end"]), sample.seconds - 0.6)
        return yielding(truth)

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure of every scene; a recording counts once both its runs are there."""
        board = Board(how.mode, how.clock)
        if how.mode is Mode.COMPAT:
            runs = {i: layout.whole(run) for i, run in runs.items()}
        by_id = {sample.id: sample for sample in samples}
        pairs = [s for s in samples if not s.truth["clean"] and f"{s.id}/clean" in by_id]
        closed = all(sample.truth["key"] is not None for sample in pairs)
        judged_by = CLOSED if closed else how.judge.name
        right: dict[str, dict[str, float]] = {}
        for scene in sorted({sample.scene for sample in pairs}):
            chosen = [sample for sample in pairs if sample.scene == scene]
            overlap = {s.id: at_overlap(how.speech(runs[s.id]), s.truth["overlap"]) for s in chosen}
            told = {s.id: _behaviour(s, by_id[f"{s.id}/clean"], runs, how) for s in chosen}
            classes = {i: c for i, c in told.items() if c is not None}
            if how.mode is Mode.STRICT:
                classes = {i: c for i, c in classes.items() if overlap[i].applicable}
            _score_behaviour(board, scene, classes, judged_by)
            right[scene] = {i: float(c is wanted(scene)) for i, c in classes.items()}
            voices = {s.id: v15_prosody.sides(s, runs[s.id], how, self.prosody) for s in chosen}
            responded = {i for i, c in classes.items() if c is Behaviour.RESPOND}
            v15_prosody.score(board, scene, voices, responded)
            if how.mode is Mode.COMPAT:
                _score_timing(board, scene, chosen, runs, how)
            else:
                _score_overlaps(board, scene, overlap)
        board.mean_of_scenes(  # the announced "v1.5 average" is not defined; this reading is ours
            "right behaviour, mean of scenes (%)",
            right,
            Better.HIGHER,
            oracle=100.0,
            silent=0.0 if how.mode is Mode.COMPAT else None,
            judge=judged_by,
            scale=100.0,
        )
        return board.figures

    def write(
        self, root: pathlib.Path, samples: Sequence[Sample], runs: Mapping[str, Run], how: Hearing
    ) -> None:
        """Writes all four transcripts, both outputs and `latency_intervals.json` of every pair."""
        for sample in samples:
            run = runs[sample.id]
            layout.write_run(root, sample, run, how.words(run), how.clock)
            folder = layout.sample_folder(root, sample)
            name = "clean_input.json" if sample.truth["clean"] else "input.json"
            layout.write_json(folder / name, _input_transcript(sample))
            if not sample.truth["clean"]:
                measured = _latencies(sample, run, how)
                layout.write_json(folder / "latency_intervals.json", measured.as_file())

    def read(self, root: pathlib.Path, samples: Sequence[Sample], system: str) -> dict[str, Run]:
        """The recorded runs of a tree."""
        return {s.id: layout.read_run(root, s, system) for s in samples}

    def recorded(self, root: pathlib.Path, sample: Sample, system: str) -> Run | None:
        """The recording of one sample (`output.wav`, `clean_output.wav`), None if there is none."""
        path = layout.sample_folder(root, sample) / layout.output_names(sample)[0]
        return layout.read_run(root, sample, system) if path.is_file() else None


def _input_transcript(sample: Sample) -> dict:
    """What the user said, from the annotation; times of the context are those of its whole."""
    truth = sample.truth
    said_first = Word(truth["context"], 0.0, truth["context_end"])
    said_then = Word(truth["current"], *truth["overlap"])
    return layout.to_chunks([said_first] if truth["clean"] else [said_first, said_then])


def _behaviour(
    sample: Sample, clean: Sample, runs: Mapping[str, Run], how: Scoring
) -> Behaviour | None:
    """Its class by key words where the answer is closed, else the judge's; None if it cannot."""
    words = how.words(runs[sample.id])
    overlap = sample.truth["overlap"]
    answer = " ".join(word.text for word in judged_words(words, overlap))
    key = sample.truth["key"]
    if key is not None:
        return told_by_key_words(answer, [key], NUMBERS[1:])
    transcripts = [
        _input_transcript(clean),
        _input_transcript(sample),
        layout.to_chunks(how.words(runs[clean.id])),
        layout.to_chunks(words),
    ]
    question = behaviour_question(transcripts, answer, overlap, sample.scene)
    choice = choice_of(how.judge, question)
    return None if choice is None else Behaviour(choice)


def _latencies(sample: Sample, run: Run, how: Hearing) -> Latencies:
    """As the authors' code has them, but the user's speech of a generated set is as annotated."""
    annotated = [(start, end) for start, end in sample.truth["user_speech"]]
    user = annotated or layout.official_speech(layout.input_run(sample), how)
    return latencies(user, layout.official_speech(run, how))


def _score_behaviour(
    board: Board, scene: str, classes: Mapping[str, Behaviour], judged_by: str
) -> None:
    strict, right = board.mode is Mode.STRICT, wanted(scene)
    for behaviour in Behaviour:
        shares = {i: float(c is behaviour) for i, c in classes.items()}
        silent = None if strict else float(behaviour is Behaviour.UNKNOWN)
        better = {right: Better.HIGHER, Behaviour.UNKNOWN: Better.LOWER}
        board.mean(
            scene,
            f"{behaviour.value} (share)",
            shares,
            better.get(behaviour, Better.NEITHER),
            oracle=float(behaviour is right),
            silent=silent,
            judge=judged_by,
            decimals=None if strict else 2,
            bounds=SHARE,
        )


def _score_timing(board: Board, scene, samples, runs, how: Hearing) -> None:
    found = {s.id: _latencies(s, runs[s.id], how) for s in samples}
    rows = (("stop latency (s)", "stop"), ("response latency (s)", "response"))
    for name, attribute in rows:
        lengths = {i: [e - s for s, e in getattr(f, attribute)] for i, f in found.items()}
        means = {i: sum(v) / len(v) for i, v in lengths.items() if v}
        every = [value for values in lengths.values() for value in values]
        board.mean(scene, name, means, Better.LOWER, values=every)


def _score_overlaps(board: Board, scene: str, overlap: Mapping[str, Overlap]) -> None:
    off = {i: float(not o.applicable) for i, o in overlap.items()}
    name = "not applicable: not speaking then (rate)"
    board.mean(scene, name, off, Better.NEITHER, oracle=0.0, silent=1.0, bounds=SHARE)
    yields = wanted(scene) is Behaviour.RESPOND
    at = {i: o for i, o in overlap.items() if o.applicable}
    stopped = {i: float(o.stopped) for i, o in at.items()}
    better = Better.HIGHER if yields else Better.LOWER
    name = "stopped within the overlap (rate)"
    board.mean(scene, name, stopped, better, oracle=float(yields), bounds=SHARE)
    if yields:
        stop = {i: o.stop for i, o in at.items() if o.stop is not None}
        board.mean(scene, "stop latency from the overlap's start (s)", stop, Better.LOWER)
        gap = {i: o.response for i, o in at.items() if o.response is not None}
        board.mean(scene, "response latency from the overlap's end (s)", gap, Better.LOWER)
