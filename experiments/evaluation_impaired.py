"""Question: what is left of a checkpoint's abilities when its input comes late or not at all?

Command:
    python launch.py eval --suite small_world --size 4 --ears text --out eval_impaired \\
      --system silent,oracle,model:checkpoints/mini --impair '' --impair loss=0.2 \\
      --impair delay=2 --impair late=0.3,delay=1,jitter=3
    python -m experiments.evaluation_impaired eval_impaired/report.json --fill docs/evaluation.md
    python -m experiments.evaluation_impaired experiments/evaluation_impaired.json \\
      --fill docs/evaluation.md
The last one only writes the table again, from what was kept.
Cost: 117 s of the processor to play and score, beside compiling and the page; the wall clock of
what is committed is that of a core shared with other work.
Expectation: the oracle knows the truth and silence says nothing, so that no network moves them;
mini loses what hangs on single sounds first, and with every chunk 0.4 s late what has to come in
time.
Finding: `evaluation_impaired.json` beside this file, and the table that this prints and fills in.

Small on purpose: it shows that a network is an axis of every suite. `checkpoints/mini` has the
curve over rates of loss.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from experiments.evaluation_small import CLOCK, MODE, fill
from interaction.eval.intervals import SHARE, bootstrap

HERE = pathlib.Path(__file__).parent
MARKS = "<!-- impaired: begin -->", "<!-- impaired: end -->"
SUITE = "small_world"
MEAN = "mean of all shares, by session"
FIGURES = (
    "turn-taking: right answer",
    "TimeSpeak",
    "CueSpeak",
    "translation: words right",
    "start and stop: IoU",
)


def parted(system: str) -> tuple[str, str]:
    """``mini [loss=0.2]`` as system and network; no network is "none"."""
    name, _, network = system.removesuffix("]").partition(" [")
    return name, network or "none"


def session_means(report: dict) -> dict[str, list[float]]:
    """Of every system the mean of each session's shares; what should be low is taken from 1."""
    kept = {r["name"]: r["better"] for r in report["rows"] if not r["name"].endswith(", s")}
    means: dict[str, list[float]] = {}
    for sample in report["samples"]:
        values = sample["values"].get(f"{MODE}, {CLOCK}", {})
        shares = [
            1.0 - value if kept[name] == "lower" else value
            for name, value in values.items()
            if name in kept and value is not None
        ]
        if shares:
            means.setdefault(sample["system"], []).append(float(np.mean(shares)))
    return means


def finding(report: dict) -> dict[str, Any]:
    """What is committed: how it was run, and figure -> system -> network -> measured.

    Raises:
        ValueError: the report is not of this suite, or lacks a figure.
    """
    rows = {
        row["name"]: row["systems"]
        for row in report["rows"]
        if (row["suite"], row["mode"], row["clock"]) == (SUITE, MODE, CLOCK)
    }
    missing = [name for name in FIGURES if name not in rows]
    if missing:
        raise ValueError(f"the report has no {SUITE} row {'; '.join(missing)}")
    means = {
        system: bootstrap(values, np.mean, bounds=SHARE).as_dict()
        for system, values in session_means(report).items()
    }
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for name, systems in {MEAN: means, **{name: rows[name] for name in FIGURES}}.items():
        for system, measured in systems.items():
            own, network = parted(system)
            figures.setdefault(name, {}).setdefault(own, {})[network] = measured
    return {
        "evaluation": report["evaluation"],
        "suite": SUITE,
        "mode": MODE,
        "clock": CLOCK,
        "figures": figures,
    }


def cell(measured: dict | None) -> str:
    """Value, interval, n; a dash where nothing could be measured."""
    if measured is None or measured["value"] is None or not measured["count"]:
        return "–"
    low, high = measured["low"], measured["high"]
    around = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f"{measured['value']:.2f}{around} ({measured['count']:g})"


def table(found: dict) -> str:
    """Markdown: a row per figure and system, a column per network."""
    networks = found["evaluation"]["impairments"]
    lines = [f"| figure | system | {' | '.join(networks)} |", "|---" * (2 + len(networks)) + "|"]
    for name, systems in found["figures"].items():
        for system, by_network in systems.items():
            cells = " | ".join(cell(by_network.get(network)) for network in networks)
            lines.append(f"| {name} | {system} | {cells} |")
    how = found["evaluation"]
    lines += [
        "",
        f"`{found['suite']}`, sessions per scene: {how['size']}, seed {how['seed']}, "
        f"{found['mode']}, {found['clock']}: value, 95 % interval, n "
        "(`experiments/evaluation_impaired.json`, written by the script of that name). Loss and "
        "lateness in chunks of 200 ms.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="A suite through several networks.")
    parser.add_argument("report", type=pathlib.Path, help="report.json of the evaluation")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "evaluation_impaired.json")
    parser.add_argument("--fill", type=pathlib.Path, help="page whose marks get the table")
    options = parser.parse_args()
    given = json.loads(options.report.read_text(encoding="utf-8"))
    found = finding(given) if "rows" in given else given
    options.output.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    text = table(found)
    if options.fill:
        fill(options.fill, text, MARKS)
    print(text)


if __name__ == "__main__":
    main()
