"""Question: what do our checkpoints, the stitched baseline and the anchors score in every suite?

Command:
    python launch.py eval --suite all --size 1 --out eval_small \\
      --system silent,oracle,model:checkpoints/nano,model:checkpoints/mini,stitched
    python -m experiments.evaluation_small eval_small/report.json --fill README.md
    python -m experiments.evaluation_small experiments/evaluation_small.json --fill README.md
The last one only writes the table again, from what was kept.
Cost: the aim is less than 15 minutes on two free cores; what it took is in the JSON, by system and
suite, with the time that playing, listening and scoring took of the processor.
Expectation: the oracle at the top of every scale and silence at its documented floor; a stitched
baseline that is right more often and later than a checkpoint as small as ours.
Finding: `evaluation_small.json` beside this file, and the table that this prints and fills in.

One sample per scene shows that everything runs and where the anchors lie; an interval of one sample
covers most of its scale, and nothing here is to be read as a comparison with published figures.
Where the oracle is not at the top, it was misheard or is off by a little in time; `--ears text`
tells.
"""

import argparse
import collections
import json
import pathlib

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
MODE, CLOCK = "strict", "compute time measured"
# Suite -> its main rows: scene, figure, as the report names them.
MAIN = {
    "fdb_v1": (
        ("generated_pause_handling", "takeover rate"),
        ("generated_turn_taking", "takeover rate"),
        ("generated_turn_taking", "latency of turns taken in time (s)"),
        ("generated_backchannel", "Jensen-Shannon distance to people"),
        ("generated_user_interruption", "takeover rate"),
    ),
    "fdb_v15": (("all", "right behaviour, mean of scenes (%)"),),
    "fdb_v2": (("all", "turn-taking fluency (1-5)"), ("all", "instruction following (1-5)")),
    "fdb_v3": (("all", "tool selection F1"), ("all", "Pass@1, exact")),
    "timespeak": (("spoken", "macro accuracy, window of 1 s either side (%)"),),
    "cuespeak": (("spoken", "macro accuracy, window of 1 s either side (%)"),),
    "repcount": (("spoken", "off-by-one accuracy (%)"),),
    "qivd": (("all", "answer contained (%)"),),
    "audio_multichallenge": (("all", "APR: every rubric item met (%)"),),
    "bigbench_audio": (("all", "accuracy (%)"),),
    "proactive_video_qa": (("spoken", "PAUC at omega 0.5, mean of turns"),),
    "charades": (("spoken", "mIoU (%)"),),
    "harmbench": (("all", "refusal rate (%)"), ("benign", "over-refusal (%)")),
    "ifeval": (("text", "mean of the four accuracies (%)"),),
    "ifeval_spoken": (("spoken", "mean of the four accuracies (%)"),),
    "small_world": (
        ("all", "turn-taking: right answer"),
        ("all", "TimeSpeak"),
        ("all", "CueSpeak"),
        ("all", "start and stop: IoU"),
    ),
}


def main_rows(report: dict) -> list[dict]:
    """The main rows in the order of `MAIN`.

    Raises:
        ValueError: one is not in the report.
    """
    known = {
        (row["suite"], row["scene"], row["name"]): row
        for row in report["rows"]
        if (row["mode"], row["clock"]) == (MODE, CLOCK)
    }
    chosen = [(suite, *row) for suite, rows in MAIN.items() for row in rows]
    missing = [" / ".join(key) for key in chosen if key not in known]
    if missing:
        raise ValueError(f"the report has no row {'; '.join(missing)}")
    kept = ("suite", "scene", "name", "better", "oracle", "silent", "judge", "systems")
    return [{name: known[key][name] for name in kept} for key in chosen]


def finding(report: dict) -> dict:
    """What is committed: how it was run, what it took, the main rows."""
    took: dict[str, dict[str, float]] = collections.defaultdict(dict)
    for item in report["processor_seconds"]:
        parts = (item[name] for name in ("playing", "listening", "scoring"))
        took[item["system"]][item["suite"]] = round(sum(parts), 1)
    return {
        "evaluation": report["evaluation"],
        "mode": MODE,
        "clock": CLOCK,
        "systems": [
            {k: v for k, v in system.items() if k != "parts"} for system in report["systems"]
        ],
        "processor_seconds": took,
        "rows": main_rows(report),
    }


def cell(measured: dict | None) -> str:
    """A value with its n, a dash where nothing could be measured."""
    if measured is None or measured["value"] is None or not measured["count"]:
        return "–"
    return f"{measured['value']:.3g} ({measured['count']:g})"


def table(found: dict) -> str:
    """The rows as Markdown, one column per system, and what each of them took."""
    systems = [system["name"] for system in found["systems"]]
    lines = [f"| suite | scene: figure | {' | '.join(systems)} |"]
    lines.append("|---" * (2 + len(systems)) + "|")
    for row in found["rows"]:
        cells = [cell(row["systems"].get(system)) for system in systems]
        label = f"{row['scene'].removeprefix('generated_')}: {row['name']}"
        arrow = {"higher": "↑", "lower": "↓"}.get(row["better"], "")
        lines.append(f"| {row['suite']} | {label} {arrow} | {' | '.join(cells)} |")
    took = [f"{system['processor_seconds']:.0f} s" for system in found["systems"]]
    lines.append(f"| | processor time | {' | '.join(took)} |")
    wall, how = found["evaluation"]["wall_seconds"], found["evaluation"]["processes"]
    spent = sum(system["processor_seconds"] for system in found["systems"])
    lines.append("")
    lines.append(
        "In brackets n, the system's samples to which the figure applies; – where it applies to "
        "none (strict v1.5 asks only of who was speaking). "
        f"One sample per scene, seed {found['evaluation']['seed']}, {found['mode']} scoring, "
        f"{found['clock']}, words by the ears `{found['evaluation']['ears']}`; "
        f"{wall / 60:.1f} minutes in {how} processes; {spent:,.0f} s of processor time, so "
        f"{spent / how / 60:.1f} minutes where each has a core of its own (computed) "
        "(`experiments/evaluation_small.json`)."
    )
    return "\n".join(lines)


def fill(file: pathlib.Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the table between the marks of a page.

    Raises:
        ValueError: the page has no such marks.
    """
    page, (begin, end) = file.read_text(encoding="utf-8"), marks
    if begin not in page or end not in page:
        raise ValueError(f"{file} has no {begin} and {end}")
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Main rows of a report.")
    parser.add_argument("report", type=pathlib.Path, help="report.json of the evaluation")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "evaluation_small.json")
    parser.add_argument("--fill", type=pathlib.Path, help="page whose marks get the table")
    options = parser.parse_args()
    given = json.loads(options.report.read_text(encoding="utf-8"))
    found = finding(given) if "suites" in given else given
    options.output.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    text = table(found)
    if options.fill:
        fill(options.fill, text)
    print(text)


if __name__ == "__main__":
    main()
