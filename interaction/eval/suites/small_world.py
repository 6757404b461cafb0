"""The small world: every behaviour of the curriculum on voices, stories and scenes held out.

In: a folder of sessions (`generate` writes one from `interaction.data.curriculum`, test split).
Out: samples and figures. The set and its rules are ours. Layout: ``SCENE/ID/input.wav``,
``truth.json`` (typed text, what is due, what happened) and, where there is something to see,
``frames.npz`` (uint8 frames at 10 per second).
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from interaction.data.clips import Split
from interaction.data.curriculum.script import TYPING
from interaction.data.curriculum.sessions import HEARD, SEEN, Curriculum, CurriculumConfig, Session
from interaction.data.voices import SAMPLE_RATE
from interaction.eval.board import Board
from interaction.eval.intervals import SHARE, bootstrap
from interaction.eval.number_words import spell
from interaction.eval.records import Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Scoring, Source
from interaction.eval.suites.small_world_rules import RULES
from interaction.microturn import MICRO_TURN_SECONDS, output_seconds
from interaction.streams.events import TextEvent, VideoFrames
from interaction.types import Control

_MARKS = ".,;:!?\"'()[]"
TAIL = 2.0  # seconds after the last thing that happens or is due
ROOM = 3e-4  # standard deviation of the noise of a quiet room
LOWER = ("premature", "takeover in it", "answered", "talks into", "harmless refused", ", s")


class SmallWorld:
    """The suite."""

    name = "small_world"
    # Single words without context are no fair test of a recogniser, and half of them are Spanish.
    own_text = True
    source = Source(
        title="Small world",
        citation="this project: interaction/data/curriculum, scored by small_world_rules.py",
        licence="Apache-2.0 (generated; espeak-ng voices)",
        size="endless; as many sessions per scene as asked for",
        obtain="generated",
        generated="held-out espeak-ng voices, names, stories, fillers and scenes; what can be "
        "said, cues, dangers and places to look up are those of training",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes `size` sessions of every behaviour."""
        generate(folder, size=size, seed=seed, split=Split.TEST)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads every scene.

        Raises:
            ValueError: a folder without sessions.
        """
        places = sorted(folder.glob("*/*/truth.json"))
        if not places:
            raise ValueError(f"{folder} holds no SCENE/ID/truth.json")
        return [self._sample(place.parent) for place in places]

    def _sample(self, place: pathlib.Path) -> Sample:
        truth = json.loads((place / "truth.json").read_text())
        audio, rate = soundfile.read(place / "input.wav", dtype="float32")
        if rate != SAMPLE_RATE:
            raise ValueError(f"{place / 'input.wav'} has {rate} samples per second, not 16000")
        video = None
        if (place / "frames.npz").exists():
            frames = np.load(place / "frames.npz")["frames"]
            video = VideoFrames(np.arange(len(frames)) / 10.0, frames)
        scene = place.parent.name
        return Sample(
            suite=self.name,
            scene=scene,
            id=f"{scene}/{place.name}",
            seconds=truth["seconds"],
            audio=audio,
            video=video,
            text=typed(truth["typed"]),
            truth=truth,
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Puts out what is due when it is due; what is seen is told the moment it happens."""
        events = []
        moves = {"start": "start", "stop": "end"}
        (movement,) = [m for m in sample.truth["moments"] if m["name"] == "movement"] or [{}]
        for due in sample.truth["due"]:
            border = due["border"]
            if due["behaviour"] in moves and movement:
                border = movement[moves[due["behaviour"]]]
            elif due["behaviour"] in ("appears", "names"):
                border = due["after"]
            for kind, payload in (
                (Kind.TOOL, {"request": due["delegate"]} if due["delegate"] else None),
                (Kind.TEXT, {"channel": "say", "text": due["say"]} if due["say"] else None),
            ):
                if payload is not None:
                    events.append(OutputEvent(border, kind, payload))
        return events

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure; the two modes agree, since the rules are our own."""
        values: dict[str, dict[str, float]] = {}
        for sample in samples:
            run = runs[sample.id]
            requests = [(e.at(how.clock), e.payload.get("request", "")) for e in run.of(Kind.TOOL)]
            words = [dataclasses.replace(w, text=plain(w.text)) for w in how.words(run)]
            numbers = RULES[sample.scene](sample.truth, words, how.speech(run), requests)
            if sample.scene not in ("delegate",):
                numbers["delegation: handed over without need"] = float(bool(requests))
            for name, value in numbers.items():
                values.setdefault(name, {})[sample.id] = value
        board = Board(how.mode, how.clock)
        for name, found in sorted(values.items()):
            _add(board, name, found)
        return board.figures


def typed(pieces: Sequence[Mapping[str, Any]]) -> tuple[TextEvent, ...]:
    """What is typed, as fast as people type: a message of more than `TYPING` letters in pieces."""
    events = []
    for piece, after in itertools.zip_longest(pieces, pieces[1:]):
        follows = after is not None and (after["micro_turn"], after["source"]) == (
            piece["micro_turn"] + 1,
            piece["source"],
        )
        time, source = piece["micro_turn"] * MICRO_TURN_SECONDS, Control[piece["source"]]
        more = follows and len(piece["text"]) == TYPING
        events.append(TextEvent(time, source, piece["text"], more))
    return tuple(events)


def generate(folder: pathlib.Path, *, size: int, seed: int, split: Split) -> None:
    """Writes `size` sessions of every behaviour of a split; see `SmallWorld` for the layout."""
    supply = Curriculum(CurriculumConfig(seed=seed), None, split)
    for scene in (*HEARD, *SEEN):
        if scene not in RULES:
            continue  # single digits are people's: experiments/nano_evaluation.py
        for index in range(size):
            session = supply.session(index, scene, varied=False)
            write(folder / scene / f"{index:04d}", session, seed=index)


def plain(word: str) -> str:
    """A word as the truth writes it: no marks, small letters, numbers in letters."""
    text = word.strip(_MARKS).lower()
    return spell(int(text)) if text.isdecimal() and len(text) < 3 else text


def _add(board: Board, name: str, found: Mapping[str, float]) -> None:
    """The mean over samples (the median of times), with its bootstrap interval."""
    times = name.endswith(", s")
    lower = any(part in name for part in LOWER) or "without need" in name
    best = None if times else float(not lower)
    silent = {"appearance: PAUC": 0.25}.get(name, 0.0)
    if "nothing" in name or "goes on" in name or times or name.startswith("stop"):
        silent = 1.0 if "says nothing" in name else None
    better = Better.LOWER if lower else Better.HIGHER
    values = list(found.values())
    measured = bootstrap(values) if times else bootstrap(values, np.mean, bounds=SHARE)
    board.add("all", name, measured, found, better, oracle=best, silent=silent)


def write(place: pathlib.Path, session: Session, *, seed: int) -> None:
    """Writes one session, cut `TAIL` seconds after the last thing that happens or is due."""
    place.mkdir(parents=True, exist_ok=True)
    assert session.sound is not None
    last = max(
        [float(np.flatnonzero(session.sound)[-1]) / SAMPLE_RATE if session.sound.any() else 0.0]
        + [m.end for m in session.moments]
        + [output_seconds(d.ends) for d in session.due]
        + [output_seconds(t.micro_turn) for t in session.typed]
    )
    count = min(session.micro_turns, int(np.ceil((last + TAIL) / MICRO_TURN_SECONDS)))
    if session.tubelets is not None:
        count = session.micro_turns
        np.savez_compressed(place / "frames.npz", frames=frames_of(session.tubelets))
    seconds = count * MICRO_TURN_SECONDS
    sound = session.sound[: round(seconds * SAMPLE_RATE)]
    noise = np.random.default_rng(seed).normal(0, ROOM, len(sound))
    soundfile.write(place / "input.wav", sound + noise, SAMPLE_RATE, subtype="PCM_16")
    truth = {
        "seconds": round(seconds, 3),
        "typed": [dataclasses.asdict(t) | {"source": t.source.name} for t in session.typed],
        "due": [dataclasses.asdict(d) | {"border": d.border} for d in session.due],
        "moments": [dataclasses.asdict(m) for m in session.moments],
    }
    (place / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def frames_of(tubelets: np.ndarray) -> np.ndarray:
    """Frames uint8 ``[2 M, 80, 80, 3]`` of tubelets ``[M, 4, 2, 40, 40, 3]``."""
    count, _, _, patch, _, _ = tubelets.shape
    parts = tubelets.reshape(count, 2, 2, 2, patch, patch, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    return parts.reshape(2 * count, 2 * patch, 2 * patch, 3)
