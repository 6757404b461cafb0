"""BigBench Audio: spoken logic questions with closed answers.

In: a folder with ``metadata.jsonl`` (or ``.csv``, or a parquet file) of category, official_answer,
file_name, id, and the sound files it names. Out: accuracy per category and over all, by the rule
of `closed_answers` and by the judge where it can tell, in per cent. COMPAT and STRICT agree; what
is heard is scored beside the system's own text where it gives one.
"""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Question, Scoring, Source
from interaction.eval.suites import hub_rows
from interaction.eval.suites.closed_answers import right
from interaction.eval.suites.logic_puzzles import KINDS, puzzle
from interaction.eval.suites.transcripts import heard, judged, reply

ANSWER_SECONDS = 8.0
# Chance of a blind guess; counting has no fixed one.
_CHANCE = {"formal_fallacies": 50.0, "navigate": 50.0, "web_of_lies": 50.0}


def _rows(folder: pathlib.Path) -> tuple[list[dict], pathlib.Path]:
    """Rows, and the folder that their file names start from."""
    for base in (folder, folder / "data"):
        if (base / "metadata.csv").is_file():
            with (base / "metadata.csv").open(newline="", encoding="utf-8") as stream:
                return list(csv.DictReader(stream)), base
        if (base / "metadata.jsonl").is_file():
            lines = (base / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines if line.strip()], base
        if any(base.glob("*.parquet")):
            return list(hub_rows.rows(base, ("*.parquet",))), base
    raise ValueError(f"{folder} holds no metadata.jsonl, metadata.csv or parquet file (or data/)")


class BigBenchAudio:
    """Questions by sound, answers by sound or text."""

    name = "bigbench_audio"
    source = Source(
        title="Big Bench Audio",
        citation="Artificial Analysis 2024, after Suzgun et al. 2022, arXiv 2210.09261",
        licence="MIT",
        size="1,000 spoken questions, 250 of each of four categories",
        obtain="the hub's data set ArtificialAnalysis/big_bench_audio, its metadata and sound "
        "files as they are, into a folder",
        generated="puzzles of the four kinds with computed answers, spoken by espeak-ng",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes ``metadata.jsonl`` and ``data/question_N.wav``; answers alternate.

        Raises:
            ImportError: the `voices` extra is missing.
        """
        random = np.random.default_rng(seed)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = []
        for index in range(size):
            for kind in KINDS:
                drawn = puzzle(random, kind, answer=index % 2 == 0)
                name = f"data/question_{len(table)}.wav"
                soundfile.write(folder / name, hub_rows.spoken(drawn.question), SAMPLE_RATE)
                row = {"category": kind, "official_answer": drawn.answer, "file_name": name}
                table.append(row | {"id": len(table), "question": drawn.question})
        hub_rows.write_lines(folder / "metadata.jsonl", table)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads the questions.

        Raises:
            ValueError: no metadata, a column or a sound file is missing, or an answer is open.
        """
        table, base = _rows(folder)
        samples = []
        for row in table:
            missing = {"category", "official_answer", "id"} - set(row)
            if missing:
                raise ValueError(f"a row lacks {sorted(missing)}; it has {sorted(row)}")
            right("", str(row["official_answer"]))  # an open answer is refused here
            audio = self._sound(row, folder, base)
            spoken = len(audio) / SAMPLE_RATE
            truth = {"official_answer": str(row["official_answer"]), "spoken_seconds": spoken}
            truth["question"] = row.get("question", "")
            key, seconds = f"{self.name}-{row['id']}", spoken + ANSWER_SECONDS
            sample = Sample(self.name, row["category"], key, seconds, audio=audio, truth=truth)
            samples.append(sample)
        return samples

    def _sound(self, row: Mapping, folder: pathlib.Path, base: pathlib.Path) -> np.ndarray:
        cell = row.get("audio") or row.get("file_name")
        if isinstance(cell, str) and not (base / cell).is_file():
            base = folder
        return hub_rows.sound(cell, base, f"row {row['id']}")

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Says the answer 0.4 s after the question."""
        start = sample.truth["spoken_seconds"] + 0.4
        text = f"The answer is {sample.truth['official_answer'].lower()}."
        return [OutputEvent(start, Kind.TEXT, {"channel": "say", "text": text})]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Accuracies; a silent run settles on nothing, so its floor is 0."""
        board = Board(how.mode, how.clock)
        replies = {s.id: reply(runs[s.id], how) for s in samples}
        ruled = {s.id: right(replies[s.id], s.truth["official_answer"]) for s in samples}
        _score(board, samples, ruled, "accuracy (%)")
        voiced = [s for s in samples if runs[s.id].of(Kind.AUDIO)]
        if voiced:
            truth = {s.id: s.truth["official_answer"] for s in voiced}
            said = {key: right(heard(runs[key], how), truth[key]) for key in truth}
            _score(board, voiced, said, "accuracy of what is heard (%)", oracle=None)
        told = judged(samples, replies, how.judge, _same_answer, "yes")
        there = [s for s in samples if s.id in told]
        if there:
            name = f"accuracy (%), {how.judge.name}"
            _score(board, there, told, name, judge=how.judge.name)
        return board.figures


def _same_answer(sample: Sample, answer: str) -> Question:
    official = sample.truth["official_answer"]
    text = (
        "A logic question was put to an assistant by voice. Does the transcript of its reply "
        "settle on the right answer? Answer yes or no.\n\n"
        f"[Question]\n{sample.truth['question'] or '(by sound only)'}\n\n"
        f"[Right answer]\n{official}\n\n[Transcript]\n{answer}"
    )
    return Question("same answer", text, answer, official)


def _score(
    board: Board,
    samples: Sequence[Sample],
    correct: Mapping[str, bool],
    name: str,
    *,
    oracle: float | None = 100.0,
    judge: str = "",
) -> None:
    """The share of each category and of all."""
    scenes = sorted({s.scene for s in samples})
    groups = {scene: [s.id for s in samples if s.scene == scene] for scene in scenes}
    groups["all"] = [s.id for s in samples]
    for scene, keys in groups.items():
        values = {key: 100.0 * correct[key] for key in keys}
        chance = _CHANCE.get(scene)
        board.mean(
            scene,
            name,
            values,
            Better.HIGHER,
            chance=chance,
            oracle=oracle,
            silent=0.0,
            judge=judge,
            bounds=PERCENT,
        )
