"""Audio MultiChallenge: the last turn of a spoken conversation, judged by a rubric.

In: the hub's table (parquet, or JSON lines with paths of wav files): id, axis, user_turn_N_audio,
user_turn_N_transcript, assistant_turn_N_transcript, rubric. Out: APR, the share of conversations
whose rubric is met in every item, and ARS, the mean share of items met, per axis and over all, in
per cent. The user's turns come by sound; the assistant's earlier turns are given as text when the
turn before has ended. What a system puts out from the end of the last turn on is its answer;
COMPAT and STRICT agree. A judge says of every item whether it is met; conversations with an item
that it cannot tell are left out and counted.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Judge, Question, Scoring, Source
from interaction.eval.suites import hub_rows
from interaction.eval.suites.memory_dialogues import AXES, Dialogue, dialogue
from interaction.eval.suites.transcripts import after, choice_of, reply
from interaction.streams.events import TextEvent
from interaction.types import Control

ANSWER_SECONDS = 8.0
_PAUSE = 0.4  # after a user's turn, before the assistant's is given as text
_READING = 1.2  # for that text, before the next turn is spoken
_TURNS = range(1, 9)


def rubric_items(cell: object) -> tuple[str, ...]:
    """The items of a rubric cell: a list (of texts, or of mappings with one), JSON, or lines.

    Raises:
        ValueError: there is none.
    """
    if isinstance(cell, str):
        try:
            return rubric_items(json.loads(cell))
        except json.JSONDecodeError:
            items = tuple(line.strip() for line in cell.splitlines() if line.strip())
    elif isinstance(cell, Mapping):
        items = tuple(t for v in cell.values() for t in rubric_items(v))
    elif isinstance(cell, Sequence):
        items = tuple(_item(part) for part in cell)
    else:
        items = ()
    if not items:
        raise ValueError(f"rubric={cell!r} holds no items")
    return items


def _item(part: object) -> str:
    if isinstance(part, Mapping):
        names = ("criterion", "criteria", "rubric", "text", "description", "question")
        found = [part[name] for name in names if isinstance(part.get(name), str)]
        if not found:
            raise ValueError(f"rubric item {part!r} has none of {names}")
        return found[0].strip()
    return str(part).strip()


def criterion(item: str, answer: str, conversation: str) -> Question:
    """What a judge is asked about one item.

    Words that the item quotes are the reference of a judge by rule; an item that asks for their
    absence turns the verdicts round.
    """
    text = (
        "You check one criterion on an assistant's reply to the last turn of a conversation. "
        'Give JSON: {"explanation": "...", "criteria_met": "yes" or "no"}.\n\n'
        f"[Conversation]\n{conversation}\n\n[Reply]\n{answer}\n\n[Criterion]\n{item}"
    )
    quoted = re.findall(r'"([^"]+)"', item)
    absent = re.search(r"\b(?:does not|doesn't|must not|never)\b", item) is not None
    choices = ("no", "yes") if absent else ("yes", "no")
    reference = quoted[0] if len(quoted) == 1 else ""
    return Question("criterion", text, answer, reference, choices)


class AudioMultiChallenge:
    """Multi-turn conversations by sound; the last turn is answered."""

    name = "audio_multichallenge"
    source = Source(
        title="Audio MultiChallenge",
        citation="Scale AI 2025, arXiv 2512.14865",
        licence="MIT",
        size="452 conversations, 47 speakers, 1,712 rubric items, 5.7 GB",
        obtain="the hub's data set ScaleAI/audiomc, its parquet files as they are, into a folder "
        "(or its data/ below one); or audiomc.jsonl with paths of wav files in the audio columns",
        generated="dialogues of our own on the four axes, spoken by espeak-ng, with rubrics whose "
        "items quote the words that decide them",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes ``data/test-00000-of-00001.parquet`` and ``answers.jsonl``.

        Raises:
            ImportError: the `voices` extra is missing.
        """
        random, table, answers = np.random.default_rng(seed), [], []
        for index in range(size):
            for axis in AXES:
                drawn, key = dialogue(random, axis), f"{axis}_{index}"
                table.append({"id": key, "axis": axis} | _columns(drawn))
                answers.append({"id": key, "response": drawn.answer})
        hub_rows.write_parquet(folder / "data" / "test-00000-of-00001.parquet", table)
        hub_rows.write_lines(folder / "answers.jsonl", answers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads the conversations.

        Raises:
            ValueError: no table, or a conversation without turns, sound or rubric.
        """
        answers = {}
        if (folder / "answers.jsonl").is_file():
            rows = hub_rows.rows(folder, ("answers.jsonl",))
            answers = {str(row["id"]): row["response"] for row in rows}
        names = ("data/*.parquet", "*.parquet", "audiomc.jsonl")
        return [self._sample(row, folder, answers) for row in hub_rows.rows(folder, names)]

    def _sample(self, row: Mapping, folder: pathlib.Path, answers: Mapping[str, str]) -> Sample:
        missing = {"id", "axis", "rubric", "user_turn_1_audio"} - set(row)
        if missing:
            raise ValueError(f"a row lacks {sorted(missing)}; it has {sorted(row)}")
        turns = [n for n in _TURNS if row.get(f"user_turn_{n}_audio")]
        if turns != list(range(1, len(turns) + 1)) or not turns:
            raise ValueError(f"{row['id']}: user turns {turns} are not 1, 2, ...")
        pieces, typed, told, now = [], [], [], 0.0
        for n in turns:
            name = f"user_turn_{n}_audio"
            wave = hub_rows.sound(row[name], folder, f"{row['id']}, {name}")
            pieces.append((now, wave))
            now += len(wave) / SAMPLE_RATE
            told.append(f"User: {row.get(f'user_turn_{n}_transcript') or '(by sound only)'}")
            if n < len(turns):
                answered = row.get(f"assistant_turn_{n}_transcript")
                if not answered:
                    raise ValueError(f"{row['id']}: assistant_turn_{n}_transcript is missing")
                text = f"You answered: {answered}"
                typed.append(TextEvent(now + _PAUSE, Control.SYSTEM, text))
                told.append(f"Assistant: {answered}")
                now += _PAUSE + _READING
        truth = {
            "rubric": list(rubric_items(row["rubric"])),
            "conversation": "\n".join(told),
            "question_end": now,
        }
        if str(row["id"]) in answers:
            truth["answer"] = answers[str(row["id"])]
        audio = np.zeros(round(now * SAMPLE_RATE) + 1, np.float32)
        for start, wave in pieces:
            at = round(start * SAMPLE_RATE)
            audio[at : at + len(wave)] = wave[: len(audio) - at]
        key, seconds = f"{self.name}-{row['id']}", now + ANSWER_SECONDS
        return Sample(
            self.name, row["axis"], key, seconds, audio=audio, text=tuple(typed), truth=truth
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Says an answer that meets the rubric; only generated sets hold one.

        Raises:
            ValueError: the sample comes from the official set.
        """
        answer = sample.truth.get("answer")
        if answer is None:
            raise ValueError(f"{sample.id}: the official set gives no answer that meets the rubric")
        start = sample.truth["question_end"] + _PAUSE
        return [OutputEvent(start, Kind.TEXT, {"channel": "say", "text": answer})]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """APR, ARS and how many could be judged; a silent run meets no item, so its floor is 0."""
        met: dict[str, list[bool]] = {}
        for sample in samples:
            ended = after(runs[sample.id], sample.truth["question_end"])
            verdicts = _met(sample, reply(ended, how), how.judge)
            if verdicts is not None:
                met[sample.id] = verdicts
        scenes = sorted({s.scene for s in samples})
        groups = {scene: [s.id for s in samples if s.scene == scene] for scene in scenes}
        groups["all"] = [s.id for s in samples]
        board = Board(how.mode, how.clock)
        for scene, keys in groups.items():
            told = [key for key in keys if key in met]
            every = {key: 100.0 * all(met[key]) for key in told}
            share = {key: 100.0 * sum(met[key]) / len(met[key]) for key in told}
            could = {key: 100.0 * (key in met) for key in keys}
            for name, values in (
                ("APR: every rubric item met (%)", every),
                ("ARS: rubric items met (%)", share),
            ):
                by = how.judge.name
                board.mean(
                    scene,
                    name,
                    values,
                    Better.HIGHER,
                    oracle=100.0,
                    silent=0.0,
                    judge=by,
                    bounds=PERCENT,
                )
            name = "conversations that could be judged (%)"
            board.mean(scene, name, could, Better.NEITHER, judge=how.judge.name, bounds=PERCENT)
        return board.figures


def _met(sample: Sample, answer: str, judge: Judge) -> list[bool] | None:
    """Which items an answer meets; None: the judge cannot tell of one. Silence meets none."""
    items = sample.truth["rubric"]
    if not answer.strip():
        return [False] * len(items)
    choices = [
        choice_of(judge, criterion(item, answer, sample.truth["conversation"])) for item in items
    ]
    return None if None in choices else [choice == "yes" for choice in choices]


def _columns(drawn: Dialogue) -> dict:
    row: dict = {"rubric": list(drawn.rubric)}
    for n, text in enumerate(drawn.user, start=1):
        sound = hub_rows.wav_bytes(hub_rows.spoken(text))
        row[f"user_turn_{n}_audio"] = {"bytes": sound, "path": f"turn_{n}.wav"}
        row[f"user_turn_{n}_transcript"] = text
    for n, text in enumerate(drawn.assistant, start=1):
        row[f"assistant_turn_{n}_transcript"] = text
    return row
