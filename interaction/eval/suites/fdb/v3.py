"""Full-Duplex-Bench v3: spoken requests that need tools.

In: a folder in the authors' layout, runs. Out: samples and figures, in two modes; results of any
system are read from and written to `result_{provider}.json`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from interaction.eval.board import Board
from interaction.eval.intervals import SHARE
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import (
    Better,
    Figure,
    Hearing,
    Judge,
    Mode,
    Question,
    Scoring,
    Source,
)
from interaction.eval.suites.fdb import layout, v3_rules
from interaction.eval.suites.fdb.perfect import next_border, said
from interaction.eval.suites.fdb.tools import TOOLS
from interaction.eval.suites.fdb.v3_generate import write_v3
from interaction.eval.suites.fdb.v3_results import FOLDER, as_file, as_run, from_file, result_of
from interaction.eval.suites.fdb.v3_rules import Result
from interaction.eval.suites.fdb.world import CLOSED, says

ANSWER_SECONDS = 12.0

_ARGUMENTS = """A voice assistant called the function {function}.
Expected arguments: {expected}
Actual arguments: {actual}
Do they mean the same? A value that begins with "$" stands for anything a previous call may have
given; spelling, case, common short names and the writing of dates do not matter; numbers may be
5 % off. Answer yes or no."""
_RESPONSE = """A user asked a voice assistant for something that needs tools.
What should come of it: {expected}
What the assistant said: {said}
Did it do the right thing, completely? More detail than expected is fine; refusing, doing another
thing or only a part of it is not. Answer yes or no."""


@dataclasses.dataclass(frozen=True)
class FullDuplexBenchV3:
    """The suite; `speakers` are the engines whose voices speak its generated set."""

    speakers: tuple[str, ...] = ("espeak",)

    name = "fdb_v3"
    source = Source(
        title="Full-Duplex-Bench v3",
        citation="Lin et al., arXiv 2604.04847; github.com/DanielLin94144/Full-Duplex-Bench",
        licence="CC BY-NC 4.0",
        size="100 recordings of 12 people, 79 scenarios, 150 expected calls, 736 MB",
        obtain="unpack fdb_v3_data_released",
        generated="espeak-ng voices (--voices: piper and flite too): requests in four domains, "
        "every second one takes something back half-way; mock results are fixed",
    )

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Writes `size` recordings of each of four kinds."""
        write_v3(folder, size=size, seed=seed, engines=self.speakers)

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Reads every `{example_id}_{speaker}` folder.

        Raises:
            ValueError: there is none, or one without its metadata.
        """
        places = [p for p in layout.sample_folders(folder) if FOLDER.match(p.name)]
        if not places:
            raise ValueError(
                f"{folder} has no folder NAME_SPEAKER (24 hex digits) with an input.wav"
            )
        return [self._sample(place) for place in places]

    def _sample(self, place: pathlib.Path) -> Sample:
        path = place / "metadata.json"
        entry = layout.read_json(path, "v3")
        for key in ("id", "domain", "difficulty", "expected_tool_calls"):
            if key not in entry:
                raise ValueError(f"{path} has no {key!r}")
        audio = layout.read_sound(place / "input.wav")
        seconds = len(audio) / SAMPLE_RATE
        truth = {**entry, "folder": place.name, "input_seconds": seconds}
        return Sample(
            suite=self.name,
            scene=entry["domain"],
            id=place.name,
            seconds=seconds + ANSWER_SECONDS,
            audio=audio,
            tools=TOOLS,
            truth=truth,
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """Calls what is expected as soon as the user has ended, then says what came of it."""
        truth = sample.truth
        heard = layout.from_chunks({"chunks": truth.get("input_asr_chunks", [])})
        end = v3_rules.user_end(heard) or truth["input_seconds"]
        now = next_border(end)
        calls = [
            OutputEvent(now, Kind.TOOL, {"function": c["function"], "args": dict(c["args"])})
            for c in truth["expected_tool_calls"]
        ]
        return [*calls, said(now + 0.2, _intent(sample) or "It is done, as you asked.")]

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure, from runs."""
        results = {s.id: result_of(s, runs[s.id], how) for s in samples}
        return score_results(samples, results, mode=how.mode, clock=how.clock, judge=how.judge)

    def write(
        self, root: pathlib.Path, samples: Sequence[Sample], runs: Mapping[str, Run], how: Hearing
    ) -> None:
        """Writes `output_{system}.wav` and `result_{system}.json` of every run."""
        for sample in samples:
            run = runs[sample.id]
            folder = root / sample.truth["folder"]
            layout.write_sound(folder / f"output_{run.system}.wav", run.waveform(how.clock))
            result = result_of(sample, run, how)
            content = as_file(sample, result, run.system)
            layout.write_json(folder / f"result_{run.system}.json", content)

    def read(
        self, root: pathlib.Path, samples: Sequence[Sample], provider: str
    ) -> dict[str, Result]:
        """Results of any system, by sample id; a recording without one is left out, as the
        authors do."""
        results = {}
        for sample in samples:
            path = root / sample.truth["folder"] / f"result_{provider}.json"
            if path.is_file():
                results[sample.id] = from_file(layout.read_json(path, "v3"))
        return results

    def recorded(self, root: pathlib.Path, sample: Sample, system: str) -> Run | None:
        """The recording of one sample, None if there is none.

        It is `result_{system}.json`, or the only `result_*.json` there is; its words become `say`
        events and its calls tool events, `output_*.wav` beside it the sound.
        """
        folder = root / sample.truth["folder"]
        found = [p for p in [folder / f"result_{system}.json"] if p.is_file()]
        found = found or sorted(folder.glob("result_*.json"))
        if len(found) != 1:
            return None
        provider = found[0].stem.removeprefix("result_")
        result = from_file(layout.read_json(found[0], "v3"))
        run = as_run(sample, result, folder / f"output_{provider}.wav", system)
        return dataclasses.replace(run, recording=found[0].resolve())


# ---------------------------------------------------------------- scoring


def _intent(sample: Sample) -> str:
    dialogue = sample.truth.get("dialogue", [])
    return dialogue[-1].get("ai", "") if dialogue else ""


def _judged_arguments(judge: Judge, mode: Mode, closed: bool) -> v3_rules.SameArguments:
    """Exactly the same, or the judge says that they mean the same (a `closed` world: the strict
    comparison says so)."""
    exact = _exact(mode)

    def same(expected: Mapping, actual: Mapping, function: str) -> bool:
        if exact(expected, actual, function):
            return True
        if closed:
            return v3_rules.strict_arguments(expected, actual, function)
        given = json.dumps(dict(expected)), json.dumps(dict(actual))
        prompt = _ARGUMENTS.format(function=function, expected=given[0], actual=given[1])
        question = Question("same meaning", prompt, answer=given[1], reference=given[0])
        return judge.verdict(question).choice == "yes"

    return same


def _exact(mode: Mode) -> v3_rules.SameArguments:
    compat = mode is Mode.COMPAT
    return v3_rules.exact_arguments if compat else v3_rules.strict_arguments


def _quality(sample: Sample, result: Result, judge: Judge) -> float:
    if not result.transcript.strip():
        return 0.0
    keys = sample.truth.get("keys")
    if keys is not None:
        return float(all(says(result.transcript, key) for key in keys))
    prompt = _RESPONSE.format(expected=_intent(sample), said=result.transcript)
    question = Question("same meaning", prompt, result.transcript, _intent(sample))
    return float(judge.verdict(question).choice == "yes")


def score_results(
    samples: Sequence[Sample],
    results: Mapping[str, Result],
    *,
    mode: Mode,
    clock: Clock,
    judge: Judge,
) -> list[Figure]:
    """Every figure, from results of any system.

    COMPAT averages selection, arguments and quality over recordings in which the agent spoke,
    leaves interruptions out of the mean latency and rounds as the authors do; STRICT averages over
    all recordings and shows the latency with interruptions too.
    """
    board = Board(mode, clock)
    there = [sample for sample in samples if sample.id in results]
    decimals = 3 if mode is Mode.COMPAT else None
    board_mean = lambda *a, **k: board.mean("all", *a, decimals=decimals, **k)
    strict = mode is Mode.STRICT
    taken = {s.id: float(results[s.id].turn_taken) for s in there}
    board_mean("turn taken (rate)", taken, Better.HIGHER, oracle=1.0, silent=0.0, bounds=SHARE)
    chosen = [s for s in there if strict or results[s.id].turn_taken]
    floor = 0.0 if strict else None
    closed = all("keys" in s.truth for s in there)
    judged_by = CLOSED if closed else judge.name
    matches = _matches(there, results, mode, judge)
    _score_calls(board_mean, chosen, results, matches, mode, judged_by, floor)
    quality = {s.id: _quality(s, results[s.id], judge) for s in chosen}
    board_mean(
        "response quality",
        quality,
        Better.HIGHER,
        oracle=1.0 if closed else None,
        silent=floor,
        judge=judged_by,
        bounds=SHARE,
    )
    _score_passes(board, there, results, matches, judged_by)
    _score_times(board_mean, there, results, strict)
    return board.figures


def _per_sample(value: float, mode: Mode) -> float:
    return round(value, 3) if mode is Mode.COMPAT else value


Matches = Mapping[str, Mapping[str, list[bool]]]
"""How arguments were compared -> sample -> whether each expected call was made with its own."""


def _matches(samples, results: Mapping[str, Result], mode: Mode, judge: Judge) -> Matches:
    matches: dict[str, dict[str, list[bool]]] = {"exact": {}, "judged": {}}
    for s in samples:
        expected, calls = s.truth["expected_tool_calls"], results[s.id].calls
        rules = {"exact": _exact(mode), "judged": _judged_arguments(judge, mode, "keys" in s.truth)}
        for kind, same in rules.items():
            matches[kind][s.id] = v3_rules.argument_matches(expected, calls, same, mode)
    return matches


def _score_calls(add, samples, results, matches: Matches, mode: Mode, judged_by, floor) -> None:
    f1 = {}
    for sample in samples:
        chosen = v3_rules.selection(sample.truth["expected_tool_calls"], results[sample.id].calls)
        f1[sample.id] = _per_sample(chosen.f1, mode)
    add("tool selection F1", f1, Better.HIGHER, oracle=1.0, silent=floor, bounds=SHARE)
    for kind, right in matches.items():
        shares = {
            s.id: _per_sample(sum(right[s.id]) / len(right[s.id]) if right[s.id] else 1.0, mode)
            for s in samples
        }
        name = judged_by if kind == "judged" else ""
        title = f"argument accuracy, {kind}"
        add(title, shares, Better.HIGHER, oracle=1.0, silent=floor, judge=name, bounds=SHARE)


def _score_passes(board: Board, samples, results, matches: Matches, judged_by: str) -> None:
    groups = {"all": samples}
    for sample in samples:
        groups.setdefault(sample.truth["difficulty"], []).append(sample)
        taken_back = "taken back" if sample.truth.get("state_rollback_test") else "not taken back"
        groups.setdefault(taken_back, []).append(sample)
    decimals = 3 if board.mode is Mode.COMPAT else None
    for kind, right in matches.items():
        passed = {}
        for s in samples:
            expected, calls = s.truth["expected_tool_calls"], results[s.id].calls
            passed[s.id] = float(v3_rules.passes(expected, calls, right[s.id]))
        for group, members in groups.items():
            board.mean(
                group,
                f"Pass@1, {kind}",
                {s.id: passed[s.id] for s in members},
                Better.HIGHER,
                oracle=1.0,
                silent=0.0,
                judge=judged_by if kind == "judged" else "",
                decimals=decimals,
                bounds=SHARE,
            )
    if board.mode is Mode.STRICT:
        _score_stale(board, samples, results)


def _score_stale(board: Board, samples, results: Mapping[str, Result]) -> None:
    """How often a call was made that the user had taken back, where the truth names it."""
    stale = {}
    for sample in samples:
        old = sample.truth.get("superseded_tool_calls", [])
        if old:
            right = v3_rules.argument_matches(
                old, results[sample.id].calls, v3_rules.strict_arguments, Mode.STRICT
            )
            stale[sample.id] = float(any(right))
    name = "called what was taken back (rate)"
    board.mean("taken back", name, stale, Better.LOWER, oracle=0.0, silent=0.0, bounds=SHARE)


def _score_times(add, samples, results: Mapping[str, Result], strict: bool) -> None:
    late = {}
    for sample in samples:
        value = v3_rules.latency(results[sample.id])
        if value is not None and results[sample.id].turn_taken:
            late[sample.id] = value
    polite = {i: v for i, v in late.items() if v >= 0}
    add("latency without interruptions (s)", polite, Better.LOWER)
    cut_in = {i: float(v < 0) for i, v in late.items()}
    add("interrupted the user (rate)", cut_in, Better.LOWER, oracle=0.0, bounds=SHARE)
    if not strict:
        return
    add("latency, unclipped (s)", late, Better.LOWER)
    calls = {s.id: v3_rules.call_latency(results[s.id]) for s in samples}
    add("first call after the user's end (s)", _known(calls), Better.LOWER)
    done = {
        s.id: v3_rules.completion_latency(results[s.id], s.truth.get("keys", ())) for s in samples
    }
    add("everything said after the user's end (s)", _known(done), Better.LOWER)


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {i: v for i, v in values.items() if v is not None}
