"""RepCount-A: does it count the repetitions of an action?

In: a folder in the official layout, ``annotation/test.csv`` (``type,name,count,L1,L2,...``, frames
at which each repetition starts and ends) and ``video/test/NAME``. Out: samples and figures.

Protocol as announced with TML-Interaction-Small: "Please count out reps for {action}.", then the
video; what counts is the last number put out after the penultimate repetition has ended.
STRICT: exactly that, with the formulas of the data set's authors (TransRAC, Hu et al., CVPR 2022):
OBO is the share with ``|round(number) - count| <= 1``, MAE the mean of
``|number - count| / (count + 0.1)``; no number is no hit, and 0 in MAE.
COMPAT: what lmms-eval 0.7.3 makes of a transcript: the first number of all the text, words only if
the whole text is one word up to twenty; no number is no hit, and the count itself in MAE.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT
from interaction.eval.number_words import ONES
from interaction.eval.records import Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Mode, Scoring, Source
from interaction.eval.suites import films, rendered
from interaction.eval.suites.instructed_films import instructed_film
from interaction.eval.suites.instructions import Form
from interaction.eval.suites.replies import Number, numbers, put_out

PROMPT = "Please count out reps for {action}."
_GAP = 0.5  # seconds between the instruction and the video
_TAIL = 3.0  # seconds for the last number
_SPLIT = "test"


@dataclasses.dataclass(frozen=True)
class Repeated:
    """A row of the annotation: an action, its video, its count and the frames L1, L2, ..."""

    action: str
    name: str
    count: int
    frames: tuple[float, ...]

    def penultimate_end(self, rate: float) -> float:
        """Seconds of the video at which the last but one repetition ends; 0 if there is none."""
        ends = self.frames[1::2]
        return ends[-2] / rate if len(ends) >= 2 else 0.0


def read_annotation(path: pathlib.Path) -> list[Repeated]:
    """Rows of an annotation file; further columns are passed over.

    Raises:
        ValueError: a column is missing.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"type", "name", "count"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        marks = [c for c in reader.fieldnames or () if re.fullmatch(r"L\d+", c)]
        marks.sort(key=lambda column: int(column[1:]))
        return [
            Repeated(
                row["type"],
                row["name"],
                int(float(row["count"])),
                tuple(float(row[c]) for c in marks if row[c] not in ("", None, "nan")),
            )
            for row in reader
            if row["count"]
        ]


# ---------------------------------------------------------------- scoring


@dataclasses.dataclass(frozen=True)
class Counted:
    """Off by at most one (1.0 or 0.0), and the normalised error."""

    off_by_one: float
    error: float


def counted(number: float | None, count: int) -> Counted:
    """The formulas of the data set's authors; no number is no hit and an error as if it were 0."""
    off_by_one = number is not None and abs(round(number) - count) <= 1
    return Counted(float(off_by_one), abs((number or 0.0) - count) / (count + 0.1))


def number_counted(said: Sequence[Number], after: float) -> float | None:
    """The last number put out at `after` seconds or later."""
    values = [number.value for number in said if number.time >= after - 1e-6]
    return values[-1] if values else None


def number_in_transcript(text: str) -> int | None:
    """The number that lmms-eval 0.7.3 finds in a transcript."""
    words = text.strip().lower().replace(",", "")
    known = ("zero", *ONES[1:20], "twenty")
    if words in known:
        return known.index(words)
    if words == "none":
        return 0
    found = re.search(r"-?\d+(?:\.\d+)?", words)
    return round(float(found[0])) if found else None


def counted_by_transcript(text: str, count: int) -> Counted:
    """lmms-eval's `obo` and `mae_norm`."""
    number = number_in_transcript(text)
    if number is None:
        return Counted(0.0, float(abs(count)))
    return Counted(float(abs(number - count) <= 1), abs(number - count) / (count + 0.1))


# ---------------------------------------------------------------- the suite


class RepCount:
    """The suite."""

    name = "repcount"
    source = Source(
        title="RepCount-A",
        citation="TransRAC, Hu et al., CVPR 2022, arXiv 2204.01018; protocol as announced",
        licence="annotation Apache-2.0 (its repository); videos by their owners, research use",
        size="1,041 videos, 152 of them for test",
        obtain="the dataset's home page: annotation/test.csv and video/test/*.mp4 in one folder",
        generated="rendered motion capture (DeepMimic, MIT): kicks, punches and, never trained, "
        "jumps",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """`size` films of 2 to 6 repetitions, actions in turn, the unseen one first."""
        folder = pathlib.Path(folder)
        rows = []
        for index in range(size):
            random = np.random.default_rng([seed, index, 71])
            motion = ("jump", "kick", "punch")[index % 3]
            film = rendered.repetitions(random, motion, int(random.integers(2, 7)))
            name = f"{motion}_{index:03d}.mp4"
            films.write_film(folder / "video" / _SPLIT / name, film.frames)
            marks = [round(t * films.RATE) for cycle in film.cycles for t in cycle]
            rows.append([rendered.ACTIONS[motion], name, len(film.cycles), *marks])
        path = folder / "annotation" / f"{_SPLIT}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        longest = max((len(row) - 3 for row in rows), default=0)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["type", "name", "count", *(f"L{i + 1}" for i in range(longest))])
            writer.writerows([*row, *[""] * (longest + 3 - len(row))] for row in rows)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Each video with the instruction spoken and typed.

        Raises:
            ValueError: no annotation, or a video that it names is not there.
        """
        folder = pathlib.Path(folder)
        path = folder / "annotation" / f"{_SPLIT}.csv"
        if not path.is_file():
            raise ValueError(f"{folder} has no annotation/{_SPLIT}.csv, RepCount-A's layout")
        return [self._sample(folder, row, form) for row in read_annotation(path) for form in Form]

    def _sample(self, folder: pathlib.Path, row: Repeated, form: Form) -> Sample:
        path = folder / "video" / _SPLIT / row.name
        action = row.action.replace("_", " ")

        def truth(begin: float) -> dict:
            rate = films.frames_per_second(path)
            last = row.frames[-1] / rate if row.frames else films.film_seconds(path)
            return {
                "count": row.count,
                "action": action,
                "penultimate_end": begin + row.penultimate_end(rate),
                "last_end": begin + last,
            }

        return instructed_film(
            self.name,
            pathlib.Path(row.name).stem,
            PROMPT.format(action=action),
            form,
            path,
            named_by=f"annotation/{_SPLIT}.csv",
            gap=_GAP,
            shown=lambda: films.film_seconds(path) + _TAIL,
            truth=truth,
            voice=row.name,
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """The count, once, when the last repetition ends.

        Not every number as it goes: COMPAT reads the first number of the transcript.
        """
        # In a sentence and in digits: a recogniser mishears a lone "five", COMPAT reads digits.
        event = {"channel": "say", "text": f"That makes {sample.truth['count']}."}
        return [OutputEvent(sample.truth["last_end"], Kind.TEXT, event)]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """OBO and MAE by scene, and OBO of each action."""
        board = Board(how.mode, how.clock)
        for scene in sorted({sample.scene for sample in samples}):
            chosen = [sample for sample in samples if sample.scene == scene]
            results, floor = {}, []
            for sample in chosen:
                truth = sample.truth
                words = put_out(runs[sample.id], how)
                count = int(truth["count"])
                if how.mode is Mode.COMPAT:
                    text = " ".join(word.text.strip(".!?;:") for word in words)
                    results[sample.id] = counted_by_transcript(text, count)
                    floor.append(counted_by_transcript("", count).error)
                else:
                    number = number_counted(numbers(words), truth["penultimate_end"])
                    results[sample.id] = counted(number, count)
                    floor.append(counted(None, count).error)
            obo = {key: 100 * result.off_by_one for key, result in results.items()}
            name = "off-by-one accuracy (%)"
            board.mean(scene, name, obo, Better.HIGHER, oracle=100.0, silent=0.0, bounds=PERCENT)
            errors = {key: result.error for key, result in results.items()}
            name, silent = "mean normalised error (MAE)", float(np.mean(floor))
            board.mean(scene, name, errors, Better.LOWER, oracle=0.0, silent=silent)
            for action in sorted({s.truth["action"] for s in chosen}):
                own = {s.id: obo[s.id] for s in chosen if s.truth["action"] == action}
                name = f"off-by-one accuracy of {action} (%)"
                board.mean(
                    scene, name, own, Better.HIGHER, oracle=100.0, silent=0.0, bounds=PERCENT
                )
        return board.figures
