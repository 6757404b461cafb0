"""Agreement of the scorers of RepCount-A, Charades and ProactiveVideoQA with independent code.

In: `--reference`, the Python of an environment with the packages (see `timing.md`), and `--port`, a
copy of VLMEvalKit's `vlmeval/dataset/proactive_videoqa.py`. Out: `timing.json`: for each check the
number of cases, how many agree to 1e-9, the greatest difference, and the first that differ.

    python experiments/scorer_agreement/timing.py --reference PYTHON --port FILE

About a minute on one core. Expected: all of them agree.
"""

import argparse
import json
import pathlib
import subprocess
import time

import numpy as np

from interaction.eval.records import Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Mode, Scoring, Verdict, Word
from interaction.eval.suites.charades import Charades, overlap
from interaction.eval.suites.pauc import Reply, Turn, pauc, replies_by_second, turn_pauc
from interaction.eval.suites.repcount import counted, counted_by_transcript

FOLDER = pathlib.Path(__file__).parent
COUNT = 20_000
SAME = 1e-9
TEXTS = (
    "six", "Six", "six.", " twenty ", "twenty one", "none", "None", "zero", "no idea", "", "7",
    "7 reps", "I count 12", "1, 2, 3", "1,024", "3.5", "2.5", "about 7.6 of them", "-3", "one",
    "nineteen", "thirty", "5-6", "10 or 11", "it was 8, no, 9", "0", "the answer is 4.", "1 2 3 4",
)  # fmt: skip


def made(random) -> dict:
    """Cases of every check; JSON values."""

    def span(end=30.0):
        low, high = np.sort(np.round(random.uniform(0, end, 2), 3))
        return [float(low), float(high)]

    def scores(length):
        times = random.choice(np.arange(0, 40), int(random.integers(0, 6)), replace=False) / 40
        return [[float(t * length), float(random.integers(0, 3))] for t in times]

    def turn():
        low = float(random.integers(0, 60))
        length = float(random.integers(1, 20))
        return [[low, low + length], [[low + t, s] for t, s in scores(length)]]

    counting = [
        [
            str(random.choice(TEXTS)) if random.random() < 0.5 else str(random.integers(0, 40)),
            int(random.integers(1, 30)),
        ]
        for _ in range(COUNT)
    ]
    omegas = (0.0, 0.5, 1.0)
    areas = []
    for _ in range(COUNT):
        length = float(random.uniform(0.5, 20))
        areas.append([scores(length), length, float(random.choice(omegas))])
    return {
        "counting": counting,
        "formulas": [
            [float(random.integers(0, 60)) / 2, int(random.integers(1, 30))] for _ in range(COUNT)
        ],
        "spans": [[span(), span()] for _ in range(COUNT)],
        "localisation": [
            [[span() if random.random() < 0.9 else None, span()] for _ in range(40)]
            for _ in range(COUNT // 200)
        ],
        "areas": areas,
        "turns": [
            [[turn() for _ in range(5)], float(random.choice(omegas))] for _ in range(COUNT // 5)
        ],
        "rounds": [
            [round(float(random.uniform(0.5, 60)), 2), round(float(random.uniform(0.5, 60)), 1)]
            for _ in range(COUNT // 5)
        ],
    }


class _Ears:
    """Said text as words."""

    name = "text"

    def words(self, run: Run, clock: Clock) -> list[Word]:
        return [Word(e.payload["text"], e.t, e.t) for e in run.events]

    def speech(self, run: Run, clock: Clock) -> list[tuple[float, float]]:
        return []


class _Judge:
    name = "none"

    def verdict(self, question) -> Verdict:
        raise AssertionError("nothing here needs a judge")


def localised(group) -> dict:
    """mIoU and recalls of one group by the whole suite, two words put out for every span."""
    samples, runs = [], {}
    for number, (span, truth) in enumerate(group):
        key = str(number)
        samples.append(
            Sample("charades", "typed", key, 40.0, truth={"span": truth, "video_start": 0.0})
        )
        words = zip(span or (), ("start", "stop"), strict=False)
        events = (OutputEvent(t, Kind.TEXT, {"channel": "say", "text": w}) for t, w in words)
        runs[key] = Run("charades", "typed", key, "random", 40.0, tuple(events))
    how = Scoring(_Ears(), Clock.INSTANT, _Judge(), Mode.COMPAT)
    figures = Charades().score(samples, runs, how)
    values = {figure.name: figure.measured.value for figure in figures}
    return {
        "mIOU": values["mIoU (%)"],
        **{f"IOU@{n}": values[f"R@0.{n} (%)"] for n in (3, 5, 7)},
    }


def rounds(duration: float, last: float) -> int:
    """The last second that is asked about, from replies in every second."""
    every = [Reply(second + 0.5, str(second)) for second in range(61)]
    return int(replies_by_second(every, duration, last)[-1].time)


def compared(ours, theirs, cases) -> dict:
    """How many agree; each result a number or a list of numbers."""
    one, other = np.asarray(ours, float), np.asarray(theirs, float)
    apart = np.abs(one - other).reshape(len(one), -1).max(axis=1)
    differ = np.flatnonzero(apart > SAME)
    return {
        "cases": len(one),
        "agree": int(len(one) - len(differ)),
        "greatest difference": float(apart.max()),
        "differ": [
            {"case": cases[i], "ours": one[i].tolist(), "theirs": other[i].tolist()}
            for i in differ[:5]
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--port", type=pathlib.Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    cases = made(np.random.default_rng(0))
    command = [options.reference, str(FOLDER / "timing_reference.py")]
    command += [] if options.port is None else ["--port", str(options.port)]
    done = subprocess.run(
        command, input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)
    counts = [counted_by_transcript(text, count) for text, count in cases["counting"]]
    formulas = [counted(number, count) for number, count in cases["formulas"]]
    groups = [localised(group) for group in cases["localisation"]]
    areas = [pauc(dict(scores), length, omega) for scores, length, omega in cases["areas"]]
    keys = sorted(groups[0])
    checks = {
        "RepCount-A compat: lmms-eval obo and mae_norm": compared(
            [[c.off_by_one, c.error] for c in counts], theirs["counting"], cases["counting"]
        ),
        "RepCount-A strict: the authors' formulas on numpy arrays": compared(
            [[c.off_by_one, c.error] for c in formulas], theirs["formulas"], cases["formulas"]
        ),
        "Charades: lmms-eval IoU of two spans": compared(
            [overlap(tuple(a), tuple(b)) for a, b in cases["spans"]],
            theirs["spans"],
            cases["spans"],
        ),
        "Charades compat, whole suite: lmms-eval mIoU and R@0.3/0.5/0.7": compared(
            [[g[k] for k in keys] for g in groups],
            [[g[k] for k in keys] for g in theirs["localisation"]],
            cases["localisation"],
        ),
        "PAUC: scipy trapezoid": compared(areas, theirs["areas"]["scipy"], cases["areas"]),
        "PAUC: numpy trapezoid": compared(areas, theirs["areas"]["numpy"], cases["areas"]),
    }
    if theirs["turns"] is not None:
        checks["PAUC, mean of turns: VLMEvalKit's port"] = compared(
            [
                np.mean([turn_pauc(Turn("", tuple(s), tuple(s)), dict(v), omega) for s, v in turns])
                for turns, omega in cases["turns"]
            ],
            theirs["turns"],
            cases["turns"],
        )
        checks["PAUC compat, seconds asked about: VLMEvalKit's port"] = compared(
            [rounds(*case) for case in cases["rounds"]], theirs["rounds"], cases["rounds"]
        )
    result = {
        "seed": 0,
        "tolerance": SAME,
        "versions": theirs["versions"],
        "checks": checks,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    (FOLDER / "timing.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, check in checks.items():
        print(f"{check['agree']}/{check['cases']}  {check['greatest difference']:.1e}  {name}")


if __name__ == "__main__":
    main()
