"""The suites `ifeval` (typed prompts) and `ifeval_spoken` (VoiceBench's, spoken).

In: Google's ``input_data.jsonl`` or VoiceBench's ``ifeval`` table. Out: the four accuracies
{prompt, instruction} x {strict, loose}, the mean of the four, and the strict accuracy of every
family of instructions, in per cent with bootstrap intervals.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from interaction.eval.board import Board
from interaction.eval.intervals import PERCENT, Measured, bootstrap, within
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Better, Figure, Scoring, Source
from interaction.eval.suites import hub_rows
from interaction.eval.suites.ifeval import generate
from interaction.eval.suites.ifeval.checkers import Followed, follows, rules_for
from interaction.eval.suites.transcripts import reply
from interaction.streams.events import TextEvent
from interaction.types import Control

ANSWER_SECONDS = 16.0  # for answering, beside 0.4 s for every word that the prompt asks for
TYPING_SECONDS = 0.02  # per character of a typed prompt, until it has been read in


def _answer_seconds(arguments: Sequence[Mapping]) -> float:
    words = [a.get("num_words") or 0 for a in arguments if a.get("relation") == "at least"]
    return ANSWER_SECONDS + 0.4 * max([0, *words])


def ratio(followed: Mapping[str, Sequence[bool]], *, draws: int = 2_000) -> Measured:
    """Per cent of followed instructions over all prompts; whole prompts are drawn anew, and where
    every prompt has the same share Wilson's interval of as many prompts is given."""
    right = np.array([sum(values) for values in followed.values()], float)
    count = np.array([len(values) for values in followed.values()], float)
    if not count.sum():
        return Measured(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(0).integers(0, len(count), (draws, len(count)))
    shares = 100 * right[drawn].sum(axis=1) / np.maximum(count[drawn].sum(axis=1), 1)
    low, high = np.percentile(shares, [2.5, 97.5])
    value = float(100 * right.sum() / count.sum())
    if np.ptp(right / np.maximum(count, 1)) == 0:  # no width: the rule of `intervals`
        low, high = within(value, len(count), PERCENT)
    return Measured(value, float(low), float(high), len(count))


def accuracies(results: Mapping[str, Followed]) -> dict[str, tuple[Measured, dict[str, float]]]:
    """The four accuracies in per cent with per-prompt values, and their mean.

    Args:
        results: what each prompt's answer follows, by its id.

    Returns:
        name -> (figure, value of each prompt).
    """
    table = {}
    for way in ("strict", "loose"):
        followed = {key: getattr(result, way) for key, result in results.items()}
        whole = {key: 100.0 * all(values) for key, values in followed.items()}
        parts = {key: 100.0 * sum(values) / len(values) for key, values in followed.items()}
        prompt = bootstrap(list(whole.values()), np.mean, bounds=PERCENT)
        table[f"prompt accuracy, {way} (%)"] = prompt, whole
        table[f"instruction accuracy, {way} (%)"] = ratio(followed), parts
    values = np.array([list(samples.values()) for _, samples in table.values()])
    mean = float(np.mean([measured.value for measured, _ in table.values()]))
    around = bootstrap(values.mean(axis=0).tolist(), np.mean, bounds=PERCENT)
    shift = mean - around.value  # the instruction accuracies weigh prompts by their length
    measured = Measured(mean, around.low + shift, around.high + shift, around.count)
    keys = list(results)
    table["mean of the four accuracies (%)"] = (
        measured,
        dict(zip(keys, values.mean(axis=0).tolist(), strict=True)),
    )
    return table


class IFEval:
    """IFEval as its authors pose it: typed prompts, written answers."""

    name = "ifeval"
    source = Source(
        title="IFEval",
        citation="Zhou et al. 2023, arXiv 2311.07911; google-research/instruction_following_eval",
        licence="Apache-2.0",
        size="541 prompts, 25 kinds of instruction, under 1 MB",
        obtain="instruction_following_eval/data/input_data.jsonl of github.com/google-research/"
        "google-research, or ifeval_input_data.jsonl of the hub's google/IFEval, into a folder",
        generated="prompts of our own from sixteen templates over all 25 kinds of instruction",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes ``input_data.jsonl``; the answers that follow go to ``answers.jsonl``."""
        drawn = generate.prompts(np.random.default_rng(seed), size)
        hub_rows.write_lines(folder / "input_data.jsonl", _table(drawn))
        answers = [{"key": i, "response": p.answer} for i, p in enumerate(drawn)]
        hub_rows.write_lines(folder / "answers.jsonl", answers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads the prompts.

        Raises:
            ValueError: no table of prompts in the folder, or a row that is none.
        """
        samples = []
        answers = _answers(folder)
        names = ("input_data.jsonl", "ifeval_input_data.jsonl", "*.parquet")
        for row in hub_rows.rows(folder, names):
            truth = _truth(row, answers)
            typed = TextEvent(0.0, Control.USER, row["prompt"])
            seconds = TYPING_SECONDS * len(row["prompt"]) + _answer_seconds(truth["kwargs"])
            key = f"{self.name}-{row['key']}"
            samples.append(Sample(self.name, "text", key, seconds, text=(typed,), truth=truth))
        return samples

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """An answer that follows every instruction; only generated sets hold one.

        Raises:
            ValueError: the sample comes from the official set.
        """
        answer = sample.truth.get("answer")
        if answer is None:
            raise ValueError(f"{sample.id}: the official set gives no answer to follow")
        start = TYPING_SECONDS * len(sample.truth["prompt"])
        return [OutputEvent(start, Kind.TEXT, {"channel": "write", "text": answer})]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """The accuracies; a silent run follows nothing, so its floor is 0."""
        rules, results = rules_for(how.mode), {}
        for sample in samples:
            truth = sample.truth
            answer = reply(runs[sample.id], how)
            names = truth["instruction_id_list"]
            results[sample.id] = follows(answer, names, truth["kwargs"], rules)
        scene = samples[0].scene if samples else "all"
        board = Board(how.mode, how.clock)
        for name, (measured, values) in accuracies(results).items():
            board.add(scene, name, measured, values, Better.HIGHER, oracle=100.0, silent=0.0)
        families: dict[str, dict[str, list[bool]]] = {}
        for sample in samples:
            flags = results[sample.id].strict
            for name, flag in zip(sample.truth["instruction_id_list"], flags, strict=True):
                family = families.setdefault(name.split(":")[0], {})
                family.setdefault(sample.id, []).append(flag)
        for family, followed in sorted(families.items()):
            values = {key: 100.0 * sum(f) / len(f) for key, f in followed.items()}
            name = f"{family}: instruction accuracy, strict (%)"
            measured = ratio(followed)
            board.add(scene, name, measured, values, Better.HIGHER, oracle=100.0, silent=0.0)
        return board.figures


class IFEvalSpoken(IFEval):
    """IFEval as VoiceBench poses it: the prompts are spoken, the text of the answer is checked."""

    name = "ifeval_spoken"
    source = Source(
        title="IFEval, VoiceBench",
        citation="Chen et al. 2024, arXiv 2410.17196; github.com/MatthewCYM/VoiceBench",
        licence="Apache-2.0",
        size="the config ifeval of the hub's hlt-lab/voicebench: a spoken part of the 541 prompts",
        obtain="the parquet files below ifeval/ of the hub's data set hlt-lab/voicebench, with "
        "the columns prompt, audio, key, instruction_id_list, kwargs, into a folder ifeval/",
        generated="the generated typed prompts, spoken by espeak-ng",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes ``ifeval/test-00000-of-00001.parquet`` and ``answers.jsonl``.

        Raises:
            ImportError: the `voices` extra is missing.
        """
        drawn = generate.prompts(np.random.default_rng(seed), size)
        table = _table(drawn)
        names = sorted({name for row in table for given in row["kwargs"] for name in given})
        for row, prompt in zip(table, drawn, strict=True):
            sound = hub_rows.wav_bytes(hub_rows.spoken(prompt.text))
            row["audio"] = {"bytes": sound, "path": f"{row['key']}.wav"}
            row["kwargs"] = [{n: given.get(n) for n in names} for given in row["kwargs"]]
        hub_rows.write_parquet(folder / "ifeval" / "test-00000-of-00001.parquet", table)
        answers = [{"key": i, "response": p.answer} for i, p in enumerate(drawn)]
        hub_rows.write_lines(folder / "answers.jsonl", answers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads the prompts and their sound.

        Raises:
            ValueError: no table of prompts in the folder, or a row without sound.
        """
        samples, answers = [], _answers(folder)
        for row in hub_rows.rows(folder, ("ifeval/*.parquet", "ifeval*.parquet", "ifeval.jsonl")):
            truth = _truth(row, answers)
            audio = hub_rows.sound(row.get("audio"), folder, f"row {row['key']}, audio")
            spoken = len(audio) / SAMPLE_RATE
            seconds = spoken + _answer_seconds(truth["kwargs"])
            truth["spoken_seconds"] = spoken
            key = f"{self.name}-{row['key']}"
            samples.append(Sample(self.name, "spoken", key, seconds, audio=audio, truth=truth))
        return samples

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """The answer that follows, written when the prompt has been spoken."""
        (event,) = super().oracle(
            Sample(sample.suite, sample.scene, sample.id, sample.seconds, truth=sample.truth)
        )
        return [OutputEvent(sample.truth["spoken_seconds"] + 0.4, Kind.TEXT, event.payload)]


def _table(drawn: Sequence[generate.Prompt]) -> list[dict]:
    return [
        {
            "key": index,
            "prompt": prompt.text,
            "instruction_id_list": list(prompt.instructions),
            "kwargs": [dict(given) for given in prompt.arguments],
        }
        for index, prompt in enumerate(drawn)
    ]


def _answers(folder: pathlib.Path) -> dict[str, str]:
    if not (folder / "answers.jsonl").is_file():
        return {}
    return {str(r["key"]): r["response"] for r in hub_rows.rows(folder, ("answers.jsonl",))}


def _truth(row: Mapping, answers: Mapping[str, str]) -> dict:
    missing = {"key", "prompt", "instruction_id_list", "kwargs"} - set(row)
    if missing:
        raise ValueError(f"a row lacks {sorted(missing)}; it has {sorted(row)}")
    kept = [{k: v for k, v in (given or {}).items() if v is not None} for given in row["kwargs"]]
    truth = {
        "prompt": row["prompt"],
        "instruction_id_list": list(row["instruction_id_list"]),
        "kwargs": kept,
    }
    return truth | ({"answer": answers[str(row["key"])]} if str(row["key"]) in answers else {})
