"""Charades: does it say "start" and "stop" when a person starts and stops doing something?

In: a folder in the official layout, ``Charades_v1_test.csv``, ``Charades_v1_classes.txt`` and
``Charades_v1_480/ID.mp4``. Out: samples and figures. Protocol as announced with
TML-Interaction-Small: "Say 'start' when the person starts doing {action} then say 'Stop' when they
stop.", then the video; the predicted interval runs from the onset of the first word to that of the
second, missing either is an IoU of 0.

Videos hold many actions that overlap; which one to ask for was not announced. Our rule
(`chosen_action`): of the classes that occur once in the video, with both borders at least `MARGIN`
seconds inside it and at least `SHORTEST` long, the longest; the lowest class of equals. Videos
without one are left out.
COMPAT computes as lmms-eval 0.7.3's `charades_sta`: the first "start" and the first "stop" in
whatever order, made an interval. STRICT takes the first "start" and the first "stop" after it.
"""

import csv
import dataclasses
import math
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT
from interaction.eval.records import Kind, OutputEvent, Run, Sample
from interaction.eval.spans import Span, iou
from interaction.eval.suite import Better, Figure, Mode, Scoring, Source, Word
from interaction.eval.suites import films, rendered
from interaction.eval.suites.instructed_films import instructed_film
from interaction.eval.suites.instructions import Form
from interaction.eval.suites.replies import put_out

PROMPT = "Say 'start' when the person starts doing {action} then say 'Stop' when they stop."
THRESHOLDS = (0.3, 0.5, 0.7)
MARGIN = 1.0
SHORTEST = 2.0
_GAP = 0.5
_TAIL = 1.0
_TABLE, _CLASSES, _VIDEOS = "Charades_v1_test.csv", "Charades_v1_classes.txt", "Charades_v1_480"
_COLUMNS: tuple[str, ...] = (
    "id", "subject", "scene", "quality", "relevance", "verified", "script", "objects",
    "descriptions", "actions", "length",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Action:
    """A labelled action: its class (``c092``) and its span in seconds of the video."""

    label: str
    span: Span


def read_actions(text: str) -> list[Action]:
    """Reads ``c092 11.90 21.20;c147 0.00 12.60``.

    Raises:
        ValueError: not of that form.
    """
    actions = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        pieces = part.split()
        if len(pieces) != 3:
            raise ValueError(f"action {part!r} is not 'class start end'")
        actions.append(Action(pieces[0], (float(pieces[1]), float(pieces[2]))))
    return actions


def chosen_action(actions: Sequence[Action], length: float) -> Action | None:
    """The action to ask for by the rule in the file's first lines; None: there is none."""
    count = Counter(action.label for action in actions)
    fit = [
        action
        for action in actions
        if count[action.label] == 1
        and action.span[0] >= MARGIN
        and action.span[1] <= length - MARGIN
        and action.span[1] - action.span[0] >= SHORTEST
    ]
    return min(fit, key=lambda a: (a.span[0] - a.span[1], a.label), default=None)


# ---------------------------------------------------------------- scoring


def predicted(words: Sequence[Word], begin: float, mode: Mode) -> Span | None:
    """The span between the two words in session seconds; None if one is missing.

    Args:
        words: what was put out, in order of time.
        begin: words before the video does not count.
        mode: see the file's first lines.
    """
    heard = [(w.text.strip(".,;:!?\"'").lower(), w.start) for w in words if w.start >= begin - 1e-6]
    starts = [time for text, time in heard if text == "start"]
    stops = [time for text, time in heard if text == "stop"]
    if mode is Mode.STRICT:
        stops = [time for time in stops if starts and time >= starts[0]]
    if not starts or not stops:
        return None
    return min(starts[0], stops[0]), max(starts[0], stops[0])


def overlap(span: Span | None, truth: Span) -> float:
    """Intersection over union; 0 without a span."""
    return 0.0 if span is None else iou(span, truth)


def mean_delay(pairs: Sequence[tuple[Span, Span]]) -> float:
    """Mean of both words' lateness in seconds over (predicted, truth); nan of none."""
    late = [p - t for predicted, truth in pairs for p, t in zip(predicted, truth, strict=True)]
    return float(np.mean(late)) if late else math.nan


# ---------------------------------------------------------------- the suite


class Charades:
    """The suite."""

    name = "charades"
    source = Source(
        title="Charades, temporal localisation",
        citation="Sigurdsson et al., ECCV 2016, arXiv 1604.01753; protocol as announced",
        licence="AI2's licence for non-commercial use",
        size="9,848 videos of 30 s, 1,863 of them for test; 13 GB at 480p",
        obtain="the authors' page: Charades.zip (tables) and Charades_v1_480.zip in one folder",
        generated="rendered motion capture (DeepMimic, MIT): kicking, punching and, never "
        "trained, jumping for a while",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """`size` films of a figure that stands, does one thing for a while, and stands."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        labels = {motion: f"c{number:03d}" for number, motion in enumerate(rendered.DOING)}
        names = [f"{labels[m]} {doing.capitalize()}" for m, doing in rendered.DOING.items()]
        (folder / _CLASSES).write_text("\n".join([*names, "c003 Being in the picture"]) + "\n")
        with (folder / _TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS, restval="")
            writer.writeheader()
            for index in range(size):
                random = np.random.default_rng([seed, index, 79])
                motion = ("jump", "kick", "punch")[index % 3]
                lead, count = round(float(random.uniform(1.5, 3.0)), 1), int(random.integers(2, 5))
                film = rendered.repetitions(random, motion, count, lead=lead, tail=2.0, pause=0.0)
                name = f"G{index:04d}"
                films.write_film(folder / _VIDEOS / f"{name}.mp4", film.frames)
                length, (start, end) = len(film.frames) / films.RATE, film.span
                actions = f"{labels[motion]} {start:.2f} {end:.2f};c003 0.00 {length:.2f}"
                row = {"id": name, "scene": "Rendered", "verified": "Yes"}
                writer.writerow(row | {"actions": actions, "length": f"{length:.2f}"})

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Each video that has an action to ask for, with the instruction spoken and typed.

        Raises:
            ValueError: a table or a video is missing.
        """
        folder = pathlib.Path(folder)
        for name in (_TABLE, _CLASSES):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}, Charades' layout")
        lines = (folder / _CLASSES).read_text(encoding="utf-8").splitlines()
        classes = dict(line.split(" ", 1) for line in lines if " " in line)
        samples = []
        with (folder / _TABLE).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"id", "actions", "length"} - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{_TABLE} has no column {', '.join(sorted(missing))}")
            for row in reader:
                action = chosen_action(read_actions(row["actions"]), float(row["length"]))
                if action is not None:
                    path = folder / _VIDEOS / f"{row['id']}.mp4"
                    samples += [self._sample(path, action, classes, form) for form in Form]
        return samples

    def _sample(self, path: pathlib.Path, action: Action, classes, form: Form) -> Sample:
        if action.label not in classes:
            raise ValueError(f"class {action.label} of {path.stem} is not in {_CLASSES}")
        doing = classes[action.label]
        doing = doing[:1].lower() + doing[1:]
        return instructed_film(
            self.name,
            path.stem,
            PROMPT.format(action=doing),
            form,
            path,
            named_by=_TABLE,
            gap=_GAP,
            shown=lambda: films.film_seconds(path) + _TAIL,
            truth=lambda begin: {
                "action": doing,
                "label": action.label,
                "video_start": begin,
                "span": [begin + action.span[0], begin + action.span[1]],
            },
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """The two words at the borders."""
        return [
            OutputEvent(time, Kind.TEXT, {"channel": "say", "text": text})
            for time, text in zip(sample.truth["span"], ("start", "stop"), strict=True)
        ]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """mIoU, recall at each threshold, both words missing or not, and the diagnosis of delay."""
        board = Board(how.mode, how.clock)
        for scene in sorted({sample.scene for sample in samples}):
            spans, truths = {}, {}
            for sample in (sample for sample in samples if sample.scene == scene):
                words = put_out(runs[sample.id], how)
                spans[sample.id] = predicted(words, sample.truth["video_start"], how.mode)
                truths[sample.id] = (sample.truth["span"][0], sample.truth["span"][1])
            _score(board, scene, spans, truths)
        return board.figures


def _score(
    board: Board, scene: str, spans: Mapping[str, Span | None], truths: Mapping[str, Span]
) -> None:
    """Figures of one scene from predicted and true spans by sample."""
    found = {key: span for key, span in spans.items() if span is not None}
    delay = mean_delay([(span, truths[key]) for key, span in found.items()])
    moved = {
        key: None if span is None else (span[0] - delay, span[1] - delay)
        for key, span in spans.items()
    }
    plain = {key: overlap(span, truths[key]) for key, span in spans.items()}
    late = {key: mean_delay([(span, truths[key])]) for key, span in found.items()}
    rows: list[tuple[str, dict[str, float], Better, float | None, float | None]] = [
        ("mIoU (%)", {k: 100 * v for k, v in plain.items()}, Better.HIGHER, 100.0, 0.0)
    ]
    for threshold in THRESHOLDS:
        hits = {key: 100.0 * (value >= threshold) for key, value in plain.items()}
        rows.append((f"R@{threshold:g} (%)", hits, Better.HIGHER, 100.0, 0.0))
    both = {key: 100.0 * (span is not None) for key, span in spans.items()}
    shifted = {key: 100 * overlap(span, truths[key]) for key, span in moved.items()}
    rows += [
        ("both words said (%)", both, Better.HIGHER, 100.0, 0.0),
        ("diagnosis: mIoU without the mean delay (%)", shifted, Better.HIGHER, 100.0, 0.0),
        ("diagnosis: mean delay of both words (s)", late, Better.LOWER, 0.0, None),
    ]
    for name, values, better, oracle, silent in rows:
        bounds = PERCENT if name.endswith("(%)") else None
        board.mean(scene, name, values, better, oracle=oracle, silent=silent, bounds=bounds)
