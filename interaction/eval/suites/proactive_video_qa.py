"""ProactiveVideoQA: does it speak up, unasked, when the video answers the question?

In: a folder in the official layout, ``{TASK}/anno.json`` and ``{TASK}/videos/``. Out: samples and
figures. Protocol as announced with TML-Interaction-Small: the question, two seconds of silence,
then the video without its sound, subtitles burnt in.

PAUC (Wang et al. 2025, arXiv 2507.09313) of a turn: everything put out within its reply span, up
to each moment, is rated 1 to 3; the curve of rating - 1 over time starts at 0.5, steps to each
score at its time (squeezed by ``1 - omega``) and is held to the end; PAUC is the area under it by
the greatest possible one. So silence scores 25, and one who answers wrongly scores less.
COMPAT follows the published code (read in VLMEvalKit's port): one reply a second, stamped with
that second's end. STRICT takes every reply at its own onset, and one that begins up to
`EAR_ERROR` seconds before its span as its beginning (the ears are no better than that). The
official figure does not mind what is said outside every span; "replies outside" tells.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.data.config import DataConfig
from interaction.eval.averages import macro, mean
from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT, rate
from interaction.eval.records import Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Mode, Scoring, Source
from interaction.eval.suites import films, rendered
from interaction.eval.suites.instructed_films import instructed_film
from interaction.eval.suites.instructions import Form
from interaction.eval.suites.pauc import (
    OMEGA,
    OMEGAS,
    Reply,
    Turn,
    outside,
    rated,
    rater,
    replies_by_second,
    turn_pauc,
)
from interaction.eval.suites.replies import put_out, utterances
from interaction.streams.media import MediaError, read_video

PROMPT = (
    "Watch the video and stay quiet until a new moment answers the question. When one happens, "
    "say a concise answer. {question}"
)
TASKS = ("WEB", "EGO", "TV", "VAD")
SILENCE = 2.0
_TAIL = 1.0
_FILM = "opencv_tree_hand.mp4"
_HAND = 3.0  # seconds of that film at which a hand has come into the picture


class ProactiveVideoQA:
    """The suite."""

    name = "proactive_video_qa"
    source = Source(
        title="ProactiveVideoQA",
        citation="Wang et al. 2025, arXiv 2507.09313; protocol as announced",
        licence="not stated where it was looked for; videos of Shot2Story, Ego4D, TVQA, UCF-Crime",
        size="1,377 videos, 1,427 questions in four tasks",
        obtain="the authors' repository: {TASK}/anno.json and {TASK}/videos in one folder",
        generated="WEB and TV: a coloured shape appears; VAD: a rendered figure moves; EGO: a "
        "filmed hand, where INTERACTION_MEDIA is set",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """`size` videos, tasks WEB, VAD, TV in turn, and the filmed one where it is there."""
        folder = pathlib.Path(folder)
        entries: dict[str, list[dict]] = {}
        for index in range(size):
            random = np.random.default_rng([seed, index, 73])
            task = ("WEB", "VAD", "TV")[index % 3]
            make = _moving if task == "VAD" else _appearing
            frames, entry = make(random, f"{task.lower()}_{index:03d}")
            if task == "TV":
                entry["conversation"] += [
                    {"role": "user", "content": "Nothing to see yet.", "time": 0.5},
                    {"role": "user", "content": "Oh, look at that!", "time": 5.0},
                ]
            films.write_film(folder / task / "videos" / entry["video"], frames)
            entries.setdefault(task, []).append(entry)
        filmed = _filmed(folder)
        if filmed is not None:
            entries["EGO"] = [filmed]
        for task, listed in entries.items():
            (folder / task / "anno.json").write_text(json.dumps(listed, indent=1) + "\n")

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Each question spoken and typed.

        Raises:
            ValueError: no task's annotation, an entry without a key, a video that is not there.
        """
        folder = pathlib.Path(folder)
        tasks = [task for task in TASKS if (folder / task / "anno.json").is_file()]
        if not tasks:
            raise ValueError(f"{folder} has no TASK/anno.json with TASK one of {', '.join(TASKS)}")
        return [
            self._sample(folder / task, entry, form)
            for task in tasks
            for entry in json.loads((folder / task / "anno.json").read_text(encoding="utf-8"))
            for form in Form
        ]

    def _sample(self, folder: pathlib.Path, entry: dict, form: Form) -> Sample:
        missing = {"video", "question_id", "conversation", "answer"} - entry.keys()
        if missing or not entry.get("answer") or not entry.get("conversation"):
            named = ", ".join(sorted(missing)) or "question or answer"
            raise ValueError(
                f"{folder}/anno.json: {entry.get('question_id', '?')!r} has no {named}"
            )
        path = folder / "videos" / str(entry["video"])
        turns = [Turn.of(answer) for answer in entry["answer"]]
        question = entry["conversation"][0]["content"]
        subtitles = tuple(
            (float(line.get("time", 0)), str(line["content"]))
            for line in entry["conversation"][1:]
            if line.get("role", "user") == "user" and line.get("content")
        )
        return instructed_film(
            self.name,
            f"{folder.name}-{entry['question_id']}",
            PROMPT.format(question=question),
            form,
            path,
            named_by=f"{folder.name}/anno.json",
            gap=SILENCE,
            shown=lambda: max(turn.reply_span[1] for turn in turns) + _TAIL,
            subtitles=subtitles,
            truth=lambda begin: {
                "task": folder.name,
                "question": question,
                "video_start": begin,
                "duration": float(entry.get("duration", films.film_seconds(path))),
                "answer": [turn.as_json() for turn in turns],
                "closed": bool(entry.get("closed", False)),
            },
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Each answer at the beginning of its reply span."""
        begin = sample.truth["video_start"]
        return [
            OutputEvent(
                begin + turn.reply_span[0],
                Kind.TEXT,
                {"channel": "say", "text": turn.content},
            )
            for turn in map(Turn.of, sample.truth["answer"])
        ]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """PAUC at every omega over turns and over tasks, by task, and replies outside."""
        rate_answer, board = rater(how.judge), Board(how.mode, how.clock)
        for scene in sorted({sample.scene for sample in samples}):
            chosen = [sample for sample in samples if sample.scene == scene]
            replies, scores = {}, {}
            for sample in chosen:
                truth = sample.truth
                turns = [Turn.of(answer) for answer in truth["answer"]]
                said = _replies(put_out(runs[sample.id], how), truth["video_start"])
                if how.mode is Mode.COMPAT:
                    said = replies_by_second(said, truth["duration"], turns[-1].reply_span[1])
                replies[sample.id] = said
                scores[sample.id] = [
                    (turn, rated(turn, said, truth, rate_answer, how.mode)) for turn in turns
                ]
            _paucs(board, scene, chosen, scores, how.judge.name)
            _outside(board, scene, chosen, replies, how.judge.name)
        return board.figures


def _replies(words, begin: float) -> list[Reply]:
    """Utterances from the video's beginning on, in seconds of the video."""
    return [
        Reply(utterance.start - begin, utterance.text)
        for utterance in utterances([w for w in words if w.start >= begin - 1e-6])
    ]


def _paucs(board: Board, scene: str, samples: Sequence[Sample], scores, judge: str) -> None:
    """One figure for each omega over turns and over tasks, and each task at the default."""
    task_of = {sample.id: sample.truth["task"] for sample in samples}

    def add(name, measured, values):
        board.add(
            scene, name, measured, values, Better.HIGHER, oracle=100.0, silent=25.0, judge=judge
        )

    for omega in OMEGAS:
        turns = {
            key: [100 * turn_pauc(turn, score, omega) for turn, score in listed]
            for key, listed in scores.items()
        }
        values = {key: float(np.mean(listed)) for key, listed in turns.items()}
        flat = [value for listed in turns.values() for value in listed]
        by_task: dict[str, list[float]] = {}
        for key, listed in turns.items():
            by_task.setdefault(task_of[key], []).extend(listed)
        add(f"PAUC at omega {omega:g}, mean of turns", mean(flat, bounds=PERCENT), values)
        if omega == OMEGA:
            add(f"PAUC at omega {omega:g}, mean of tasks", macro(by_task, bounds=PERCENT), values)
            for task, listed in sorted(by_task.items()):
                own = {key: value for key, value in values.items() if task_of[key] == task}
                add(f"PAUC at omega {omega:g} of {task}", mean(listed, bounds=PERCENT), own)


def _outside(board: Board, scene: str, samples: Sequence[Sample], replies, judge: str) -> None:
    values = {
        sample.id: float(outside(replies[sample.id], map(Turn.of, sample.truth["answer"])))
        for sample in samples
    }
    minutes = sum(s.seconds - s.truth["video_start"] for s in samples) / 60
    measured = rate(int(sum(values.values())), minutes)
    name = "replies outside every reply span (per minute of video)"
    board.add(scene, name, measured, values, Better.LOWER, oracle=0.0, silent=0.0, judge=judge)


# ---------------------------------------------------------------- the generated set


def _entry(name: str, question: str, seconds: float, events) -> dict:
    return {
        "video": f"{name}.mp4",
        "question_id": name,
        "duration": seconds,
        "conversation": [{"role": "user", "content": question, "time": 0}],
        "answer": [
            {
                "content": content,
                "related_timespan": [start, start + 2.0],
                "reply_timespan": [start, min(start + 4.0, seconds)],
            }
            for start, content in events
        ],
        "closed": True,  # ours: the answer is these words, two verdicts do
    }


def _appearing(random: np.random.Generator, name: str) -> tuple[np.ndarray, dict]:
    first = float(random.integers(2, 4))
    shown = rendered.appearances(random, (first, first + 5.0), seconds=first + 10.0)
    question = "Which shape has just appeared, and in which colour?"
    return shown.frames, _entry(name, question, first + 10.0, shown.events)


def _moving(random: np.random.Generator, name: str) -> tuple[np.ndarray, dict]:
    motion, start = str(random.choice(list(rendered.ACTIONS))), float(random.integers(2, 5))
    film = rendered.repetitions(random, motion, 1, lead=start, tail=4.0, pause=0.0)
    seconds = math.floor(len(film.frames) / films.RATE)
    question = "What does the person suddenly do: a kick, a punch or a jump?"
    events = [(film.span[0], f"a {motion}")]
    return film.frames[: seconds * films.RATE], _entry(name, question, float(seconds), events)


def _filmed(folder: pathlib.Path) -> dict | None:
    """The entry of a film in which a hand appears, brought into the folder; None: not there."""
    media = DataConfig().folders.folder("media")
    if media is None:
        return None
    try:
        frames, _ = read_video(media / "video" / _FILM, rate=films.RATE)
    except MediaError:
        return None
    films.write_film(folder / "EGO" / "videos" / "tree_hand.mp4", frames)
    seconds = len(frames) / films.RATE
    return _entry("tree_hand", "What comes into view?", seconds, [(_HAND, "a hand")])
