"""QIVD: someone acts in front of the camera and asks about it in the same clip.

In: a folder with videos and a table (``annotations.json``, ``.jsonl``, ``.csv`` or parquet) of id,
video, question, answer and, where given, short_answer, category and timestamp, the time at which
an answer is due. Out: accuracy by the judge (published figures are a language model's), exact
match and containment by rule, per category and over all, in per cent; when the first word comes
against the truth time, in seconds, and how often before it. The clip is sent raw, from its
beginning. COMPAT grades whatever was put out, as a transcript is graded; STRICT adds accuracy that
asks for no word before the truth time.
"""

import csv
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT, bootstrap
from interaction.eval.normalise import normalise
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Mode, Question, Scoring, Source
from interaction.eval.suites import hub_rows
from interaction.eval.suites.films import film, film_seconds
from interaction.eval.suites.qivd_scenes import CATEGORIES, Scene, scene, write_clip
from interaction.eval.suites.replies import put_out
from interaction.eval.suites.transcripts import judged, reply
from interaction.streams.media import MediaError, read_audio

ANSWER_SECONDS = 6.0
_EARLY = 0.2  # seconds before the truth time that are still no guess: one micro-turn
# A column's name, and others that tables of this kind give it. The hub's table could not be looked
# at from here; a table with other names is told which are missing.
COLUMNS = {
    "id": ("id", "index", "video_id", "uid"),
    "video": ("video", "file_name", "video_path", "filename", "video_file"),
    "question": ("question",),
    "answer": ("answer",),
    "short_answer": ("short_answer", "short answer"),
    "category": ("category",),
    "timestamp": ("timestamp", "answer_timestamp", "answer_time", "time"),
}
_NEEDED = ("id", "video", "question", "answer")
_TABLES = (
    "annotations.json", "annotations.jsonl", "annotations.csv", "annotations/*.json",
    "annotations/*.jsonl", "annotations/*.csv", "*.json", "*.jsonl", "*.csv", "*.parquet",
    "data/*.parquet",
)  # fmt: skip


def seconds_of(cell: object) -> float | None:
    """Seconds of a time cell: a number, ``mm:ss`` or ``hh:mm:ss``; None where it is empty.

    Raises:
        ValueError: anything else.
    """
    text = "" if cell is None else str(cell).strip()
    if not text or text.lower() == "nan":
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise ValueError(f"timestamp={cell!r} is no number of seconds and no mm:ss")
    value = 0.0
    for part in text.split(":"):
        value = 60 * value + float(part)
    return value


def contains(transcript: str, answer: str) -> bool:
    """Whether an answer's words follow each other in a transcript, both made comparable."""
    wanted = normalise(answer)
    return bool(wanted) and f" {wanted} " in f" {normalise(transcript)} "


def exact(transcript: str, answers: Sequence[str]) -> bool:
    """Whether a transcript is one of the answers, both made comparable."""
    given = normalise(transcript)
    return bool(given) and given in {normalise(answer) for answer in answers}


def _table(folder: pathlib.Path) -> list[dict]:
    for pattern in _TABLES:
        files = sorted(folder.glob(pattern))
        if files and files[0].suffix == ".csv":
            with files[0].open(newline="", encoding="utf-8") as stream:
                return [_named(row) for row in csv.DictReader(stream)]
        if files:
            return [_named(row) for row in hub_rows.rows(folder, (pattern,))]
    raise ValueError(f"{folder} holds no table of annotations: {', '.join(_TABLES)}")


def _named(row: Mapping) -> dict:
    found = {}
    for name, others in COLUMNS.items():
        given = [row[other] for other in others if row.get(other) not in (None, "")]
        if given:
            found[name] = given[0]
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise ValueError(f"a row lacks {missing}; it has {sorted(row)}")
    return found


class QIVD:
    """Clips with sound; the question is in the clip."""

    name = "qivd"
    source = Source(
        title="QIVD (Qualcomm Interactive Video Dataset)",
        citation="Pourreza et al. 2025, arXiv 2503.19356",
        licence="Qualcomm's own (the hub calls it other); read it before use",
        size="2,900 clips with spoken questions",
        obtain="videos.zip and annotations.zip of Qualcomm's developer page, or the hub's "
        "Qualcomm-AI-Research/QIVD, unpacked into a folder: the table in it, videos below it",
        generated="rendered clips of four kinds with a question spoken by espeak-ng",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes ``annotations.jsonl`` and ``videos/N.mp4``.

        Raises:
            ImportError: the `voices` extra is missing.
        """
        random, table = np.random.default_rng(seed), []
        for _ in range(size):
            for category in CATEGORIES:
                drawn = scene(random, category)
                voice = hub_rows.spoken(drawn.question)
                name = f"videos/{len(table):05d}.mp4"
                row, sound = _annotated(drawn, voice)
                write_clip(folder / name, drawn.frames, sound)
                table.append({"id": f"{len(table):05d}", "video": name} | row)
        hub_rows.write_lines(folder / "annotations.jsonl", table)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads the clips; frames are decoded when they are looked at.

        Raises:
            ValueError: no table, a column or a video is missing, or a clip has no sound.
        """
        samples = []
        for row in _table(folder):
            path = self._video(row, folder)
            try:
                audio, length = read_audio(path), film_seconds(path)
            except MediaError as error:
                raise ValueError(f"{row['id']}: {error}") from error
            audio = audio[: round(length * SAMPLE_RATE)]
            truth = {
                "question": str(row["question"]),
                "answer": str(row["answer"]),
                "short": str(row.get("short_answer", "")),
                "due": seconds_of(row.get("timestamp")),
                "clip_seconds": length,
            }
            category, key = str(row.get("category", "all clips")), f"{self.name}-{row['id']}"
            seconds, video = length + ANSWER_SECONDS, film(path, start=0.0)
            samples.append(
                Sample(self.name, category, key, seconds, audio=audio, video=video, truth=truth)
            )
        return samples

    def _video(self, row: Mapping, folder: pathlib.Path) -> pathlib.Path:
        cell = row["video"]
        name = cell.get("path") if isinstance(cell, Mapping) else cell
        places = [folder / str(name), folder / "videos" / str(name)]
        places += [place.with_name(place.name + ".mp4") for place in places]
        found = [place for place in places if place.is_file()]
        if not found:
            raise ValueError(
                f"{row['id']}: no video {name!r} in {folder} or its videos/; videos inside a "
                "table are to be written out as files first"
            )
        return found[0]

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Says the answer when it is due (else when the clip ends)."""
        due = sample.truth["due"]
        start = (sample.truth["clip_seconds"] if due is None else due) + 0.2
        event = {"channel": "say", "text": sample.truth["answer"]}
        return [OutputEvent(start, Kind.TEXT, event)]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Accuracies and times; a silent run answers nothing: its floor is 0 and it has no time."""
        board = Board(how.mode, how.clock)
        said = {s.id: reply(runs[s.id], how) for s in samples}
        words = {s.id: put_out(runs[s.id], how) for s in samples}
        first = {key: found[0].start for key, found in words.items() if found}
        rules: dict[str, dict[str, bool]] = {
            "exact match (%)": {
                s.id: exact(said[s.id], (s.truth["answer"], s.truth["short"])) for s in samples
            },
            "answer contained (%)": {
                s.id: contains(said[s.id], s.truth["short"] or s.truth["answer"]) for s in samples
            },
        }
        due = {s.id: s.truth["due"] for s in samples if s.truth["due"] is not None}
        if how.mode is Mode.STRICT and due:
            held = rules["answer contained (%)"]
            rules["answer contained, no word too early (%)"] = {
                key: held[key] and key in first and first[key] >= time - _EARLY
                for key, time in due.items()
            }
        for name, values in rules.items():
            _shares(board, samples, values, name)
        told = judged(samples, said, how.judge, _same_meaning, "yes")
        if told:
            name = f"accuracy (%), {how.judge.name}"
            _shares(board, samples, told, name, judge=how.judge.name)
        _times(board, samples, first, due)
        return board.figures


def _annotated(drawn: Scene, voice: np.ndarray) -> tuple[dict, np.ndarray]:
    """The table's row of a scene, and the clip's sound with the voice where the question is."""
    end = drawn.asked + len(voice) / SAMPLE_RATE
    sound = np.concatenate([np.zeros(round(drawn.asked * SAMPLE_RATE), np.float32), voice])
    row = {
        "question": drawn.question,
        "answer": drawn.answer,
        "short_answer": drawn.short,
        "category": drawn.category,
        "timestamp": round(max(end, drawn.known), 3),
    }
    return row, sound


def _same_meaning(sample: Sample, answer: str) -> Question:
    truth = sample.truth
    text = (
        "A question was asked about a video. Does the given answer mean the same as the right "
        "one? Answer yes or no.\n\n"
        f"[Question]\n{truth['question']}\n\n[Right answer]\n{truth['answer']}\n\n"
        f"[Given answer]\n{answer}"
    )
    return Question("same meaning", text, answer, truth["short"] or truth["answer"])


def _groups(samples: Sequence[Sample], keys) -> dict[str, list[str]]:
    scenes = sorted({s.scene for s in samples})
    groups = {
        scene: [s.id for s in samples if s.scene == scene and s.id in keys] for scene in scenes
    }
    return groups | {"all": [s.id for s in samples if s.id in keys]}


def _shares(
    board: Board, samples: Sequence[Sample], right: Mapping[str, bool], name: str, judge: str = ""
) -> None:
    for scene_name, keys in _groups(samples, right).items():
        values = {key: 100.0 * right[key] for key in keys}
        board.mean(
            scene_name,
            name,
            values,
            Better.HIGHER,
            oracle=100.0,
            silent=0.0,
            judge=judge,
            bounds=PERCENT,
        )


def _times(
    board: Board, samples: Sequence[Sample], first: Mapping[str, float], due: Mapping[str, float]
) -> None:
    """How long after the truth time the first word comes, and how often before it."""
    for scene_name, keys in _groups(samples, set(first) & set(due)).items():
        late = {key: first[key] - due[key] for key in keys}
        name = "first word after the truth time, median (s)"
        board.add(scene_name, name, bootstrap(list(late.values())), late, Better.LOWER)
        early = {key: 100.0 * (value < -_EARLY) for key, value in late.items()}
        name = "first word too early (%)"
        board.mean(scene_name, name, early, Better.LOWER, oracle=0.0, bounds=PERCENT)
