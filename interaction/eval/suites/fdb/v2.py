"""Full-Duplex-Bench v2: conversations in four stages, judged on scales of 1 to 5.

In: results in the authors' layout, or conversations with a scripted examiner. Out: figures per
split. The authors' examiner is a live model behind WebRTC, which is no part of this; a generated
conversation instead plays a fixed script, and its replies are scored by rules of ours. What the
authors' judge left (`eval_results/SPLIT/TASK*.json`) is a recording of the system that was judged:
the data and the system `recorded` are both that folder. Both come as `_processed.json` and are
summed by the same code.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.runner import quantised
from interaction.eval.suite import Better, Figure, Hearing, Mode, Scoring, Source, Word
from interaction.eval.suites.fdb import generate, layout, v2_rules, world
from interaction.eval.suites.fdb.perfect import next_border, said

SPLITS = ("Daily", "Correction", "EntityTracking", "Safety")
REPLY_SECONDS = 4.0
SCALE = (1.0, 5.0)
THEIR_JUDGE = "the judge of eval_results"
JUDGED = "judged"
_PROMPTS = "prompts_staged_generated.json"
_NAMES = ("Sam", "Peter", "Anna", "Mary")
_COLOURS = ("red", "blue", "green", "yellow")
_THINGS = ("apple", "orange", "pencil", "basket")


def _daily(random: np.random.Generator) -> list[dict]:
    asked = [world.request(random) for _ in range(4)]
    return [{"say": a.text, "answer": a.answer, "key": a.key} for a in asked]


def _remember(values) -> dict:
    first = values[0]
    return {
        "say": f"Please remember the colour {first}.",
        "answer": f"I will remember {first}.",
        "key": first,
    }


def _correction(random) -> list[dict]:
    wrong, right = (_COLOURS[k] for k in random.permutation(4)[:2])
    other = world.request(random)
    return [
        _remember([wrong]),
        {"say": other.text, "answer": other.answer, "key": other.key},
        {
            "say": f"Sorry, not {wrong}. Remember {right} instead.",
            "answer": f"Okay, then I remember {right}.",
            "key": right,
        },
        {
            "say": "Which colour should you remember?",
            "answer": f"The colour is {right}.",
            "key": right,
        },
    ]


def _entities(random) -> list[dict]:
    (a, b), (x, y) = random.permutation(4)[:2], random.permutation(4)[:2]
    told = lambda name, thing: {
        "say": f"{_NAMES[name]} has the {_THINGS[thing]}.",
        "answer": f"So {_NAMES[name]} has the {_THINGS[thing]}.",
        "key": _THINGS[thing],
    }
    asked = lambda name, thing: {
        "say": f"Who has the {_THINGS[thing]}?",
        "answer": f"That would be {_NAMES[name]}.",
        "key": _NAMES[name],
    }
    return [told(a, x), told(b, y), asked(a, x), asked(b, y)]


_MAKERS = {"Daily": _daily, "Correction": _correction, "EntityTracking": _entities}


@dataclasses.dataclass(frozen=True)
class FullDuplexBenchV2:
    """The suite; `speakers` are the engines whose voices speak its generated set."""

    speakers: tuple[str, ...] = ("espeak",)

    name = "fdb_v2"
    source = Source(
        title="Full-Duplex-Bench v2",
        citation="Lin et al., arXiv 2510.07838; github.com/DanielLin94144/Full-Duplex-Bench",
        licence="CC BY-NC 4.0",
        size="200 staged tasks (text); conversations of 120 s are made live",
        obtain="run the authors' examiner and judge: --data and --system recorded: are the folder "
        "of their eval_results",
        generated="espeak-ng voice (--voices: piper and flite too) of a scripted examiner: four "
        "stages each with 4 s for a reply, in three of the four splits (no Safety); scored by "
        "rules of ours, not by their judge",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes `size` conversations of each of three splits, and their staged prompts."""
        splits = {}
        for place, (split, make) in enumerate(_MAKERS.items()):
            tasks = []
            for number in range(1, size + 1):
                random = np.random.default_rng([seed, 2, place, number])
                task = {"id": f"{split}.{number:03d}", "script": make(random)}
                task["staged_reveal"] = {
                    f"T{k}": stage["say"] for k, stage in enumerate(task["script"], 1)
                }
                voice = generate.a_voice(random, self.speakers)
                _write_examiner(folder / split / task["id"], task, voice)
                tasks.append(task)
            splits[split] = {"tasks": tasks}
        layout.write_json(folder / _PROMPTS, {"splits": splits})

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads `{split}/{task}/A.wav` with its script, or the tasks that a judge has judged.

        Raises:
            ValueError: there are neither, or one without its files.
        """
        places = sorted(path.parent for split in SPLITS for path in folder.glob(f"{split}/*/A.wav"))
        if places:
            return [self._sample(place) for place in places]
        try:
            judged = self.results(folder)
        except ValueError as error:
            wanted = f"no SPLIT/TASK/A.wav (splits: {', '.join(SPLITS)})"
            raise ValueError(f"{folder} has {wanted}, and {error}") from None
        return [_judged_sample(self.name, key) for key in judged]

    def _sample(self, place: pathlib.Path) -> Sample:
        script = layout.read_json(place / "script.json", "the generated set")
        heard = layout.read_json(place / "A.json", "v2")["chunks"]
        audio = layout.read_sound(place / "A.wav")
        split = place.parent.name
        truth = {
            "folder": f"{split}/{place.name}",
            "input_seconds": len(audio) / SAMPLE_RATE,
            "script": script,
            "said": [chunk["timestamp"] for chunk in heard],
        }
        seconds = len(audio) / SAMPLE_RATE
        return Sample(self.name, split, f"{split}/{place.name}", seconds, audio, truth=truth)

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Replies to every stage as soon as it is said."""
        stages = zip(sample.truth["script"], sample.truth["said"], strict=True)
        return [said(next_border(end), stage["answer"]) for stage, (_, end) in stages]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure: of judged conversations what their judge wrote, of scripted ones by rules.

        Raises:
            ValueError: a conversation that has no script was not judged.
        """
        judged = {s.id: content for s in samples if (content := judgement(runs[s.id])) is not None}
        rest = [s for s in samples if s.id not in judged]
        if rest and (judged or "script" not in rest[0].truth):
            raise ValueError(
                f"{runs[rest[0].id].system} on {rest[0].id}: there is neither a judgement nor a "
                "script; judged conversations are read as recorded:FOLDER"
            )
        found = judged or {s.id: processed_of(s, how.words(runs[s.id])) for s in samples}
        by = THEIR_JUDGE if judged else world.CLOSED
        return score_results(found, mode=how.mode, clock=how.clock, judged_by=by)

    def recorded(self, root: pathlib.Path, sample: Sample, system: str) -> Run | None:
        """What the authors' judge wrote of one conversation, with its `B.wav` if that is there;
        None where there is no judgement."""
        try:
            path = _judgements(root).get(sample.id)
        except ValueError:
            return None
        if path is None:
            return None
        events = [OutputEvent(0.0, Kind.UI, {JUDGED: _read_judgement(path)})]
        sound = root / sample.id / "B.wav"
        if sound.is_file():
            events.append(OutputEvent(0.0, Kind.AUDIO, quantised(layout.read_sound(sound))))
        return Run(sample.suite, sample.scene, sample.id, system, sample.seconds, tuple(events))

    def write(
        self, root: pathlib.Path, samples: Sequence[Sample], runs: Mapping[str, Run], how: Hearing
    ) -> None:
        """Writes `B.wav`, `B.json` beside the examiner's and `eval_results/SPLIT/TASK*.json`."""
        for sample in samples:
            words = how.words(runs[sample.id])
            folder = root / sample.truth["folder"]
            layout.write_sound(folder / "B.wav", runs[sample.id].waveform(how.clock))
            layout.write_json(folder / "B.json", layout.to_chunks(words))
            result = root / "eval_results" / sample.scene / folder.name
            layout.write_json(
                result.with_name(f"{folder.name}_processed.json"), processed_of(sample, words)
            )

    def results(self, root: pathlib.Path) -> dict[str, dict]:
        """Judged conversations below `eval_results` (or `root` itself), by ``split/task``.

        A `_processed.json` is read as it is, a judge's reply without one is parsed.

        Raises:
            ValueError: there are none.
        """
        return {key: _read_judgement(path) for key, path in _judgements(root).items()}


def _judgements(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """File of each judged conversation, by ``split/task``.

    Raises:
        ValueError: there are none.
    """
    root = root / "eval_results" if (root / "eval_results").is_dir() else root
    found: dict[str, pathlib.Path] = {}
    for path in sorted(p for split in SPLITS for p in root.glob(f"{split}/**/*.json")):
        if path.name.endswith(".raw_api.json"):
            continue
        processed = path.name.endswith("_processed.json")
        task = path.stem.removesuffix("_processed")
        key = f"{path.relative_to(root).parts[0]}/{task}"
        if processed or key not in found:
            found[key] = path
    if not found:
        raise ValueError(f"{root} has no SPLIT/TASK.json of a judge")
    return found


def _read_judgement(path: pathlib.Path) -> dict:
    if path.name.endswith("_processed.json"):
        return layout.read_json(path, "v2")
    return v2_rules.parse_judgement(path.read_text(encoding="utf-8"))


def _write_examiner(place: pathlib.Path, task: dict, voice: generate.Voice) -> None:
    pieces, chunks, now = [], [], generate.LEAD
    for stage in task["script"]:
        sound = generate.spoken(stage["say"], voice)
        end = now + generate.length(sound)
        pieces.append((now, sound))
        chunks.append({"text": stage["say"], "timestamp": generate.stamp(now, end)})
        now = end + REPLY_SECONDS
    layout.write_sound(place / "A.wav", generate.placed(pieces, now))
    text = " ".join(chunk["text"] for chunk in chunks)
    layout.write_json(place / "A.json", {"text": text, "chunks": chunks})
    layout.write_json(place / "prompt.json", {"staged_reveal": task["staged_reveal"]})
    layout.write_json(place / "script.json", task["script"])


def _judged_sample(suite: str, key: str) -> Sample:
    """A conversation of which there is nothing but a judgement."""
    return Sample(suite, key.split("/")[0], key, v2_rules.LAST_SECOND, truth={"folder": key})


def judgement(run: Run) -> dict | None:
    """What a judge wrote of a recorded conversation, None where none did."""
    told = (e.payload for e in run.of(Kind.UI) if isinstance(e.payload, dict))
    return next((payload[JUDGED] for payload in told if JUDGED in payload), None)


def processed_of(sample: Sample, words: Sequence[Word]) -> dict:
    """A scripted conversation's events and scores, in the form of `_processed.json`.

    Each stage is one event, from its end to the next stage's end. Turn-taking goes by the time
    until the reply (`v2_rules.reply_score`); instruction following is 5 with the stage's key word
    in the reply and 1 without; the task's score is that of the last stage.
    """
    stages = list(zip(sample.truth["script"], sample.truth["said"], strict=True))
    begins = [begin for _, (begin, _) in stages]
    ends = [*(end for _, (_, end) in stages), sample.truth["input_seconds"]]
    events = []
    for place, (stage, (_, end)) in enumerate(stages):
        begin, until = begins[place], [*begins[1:], ends[-1]][place]
        reply = [word for word in words if begin <= word.start < until]
        latency = reply[0].start - end if reply else None
        followed = world.says(" ".join(word.text for word in reply), stage["key"])
        interval = [round(end, 3), round(until, 3)]
        events.append([interval, v2_rules.reply_score(latency), 5 if followed else 1])
    return {v2_rules.EVENTS: events, v2_rules.TASK: events[-1][2]}


def score_results(
    processed: Mapping[str, Mapping], *, mode: Mode, clock: Clock, judged_by: str
) -> list[Figure]:
    """Means over the tasks of every split (and of all), from judged conversations."""
    board = Board(mode, clock)
    scores = {i: v2_rules.task_scores(content, mode) for i, content in processed.items()}
    rows = (
        ("turn-taking fluency (1-5)", "turn_taking"),
        ("instruction following (1-5)", "instructions"),
        ("task-specific score (1-5)", "task"),
    )
    splits = sorted({i.split("/")[0] for i in scores})
    for name, attribute in rows:
        for scene in (*splits, "all"):
            chosen = {
                i: getattr(s, attribute)
                for i, s in scores.items()
                if scene in ("all", i.split("/")[0]) and getattr(s, attribute) is not None
            }
            closed = judged_by == world.CLOSED
            board.mean(
                scene,
                name,
                chosen,
                Better.HIGHER,
                oracle=5.0 if closed else None,
                silent=1.0 if closed else None,
                judge=judged_by,
                bounds=_bounds(chosen),
            )
    _over_time(board, processed, judged_by)
    return board.figures


def _bounds(scores: Mapping[str, float]) -> tuple[float, float] | None:
    """Those of the scale; None where a judge left it (COMPAT takes whatever it wrote)."""
    least, most = SCALE
    return SCALE if all(least <= score <= most for score in scores.values()) else None


def _over_time(board: Board, processed: Mapping[str, Mapping], judged_by: str) -> None:
    """Both scores in every 15 s of conversation in which somebody was judged."""
    binned = {i: v2_rules.over_time(content) for i, content in processed.items()}
    for place in range(int(v2_rules.LAST_SECOND / v2_rules.BIN_SECONDS)):
        there = {i: values for i, bins in binned.items() if (values := bins[place]) is not None}
        begin = int(place * v2_rules.BIN_SECONDS)
        label = f"{begin}-{begin + int(v2_rules.BIN_SECONDS)} s (1-5)"
        for which, name in enumerate(("turn-taking fluency", "instruction following")):
            chosen = {i: values[which] for i, values in there.items()}
            if chosen:
                title = f"{name}, {label}"
                board.mean(
                    "all",
                    title,
                    chosen,
                    Better.HIGHER,
                    judge=judged_by,
                    bounds=_bounds(chosen),
                )
