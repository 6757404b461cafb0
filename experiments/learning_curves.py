"""Question: how did the shipped checkpoints learn?

Command: python -m experiments.learning_curves checkpoints/mini runs/nano runs/mini \\
    runs/mini_late runs/mini_clock runs/mini_shown runs/mini_wider runs/mini_whole \\
    runs/mini_moved runs/mini_counted runs/mini_quieter runs/mini_evened
    (the file ``curves.json`` of earlier parts may stand in place of their folders)
Cost: seconds; it reads the ``metrics.jsonl`` of the parts of a training, in order.
Expectation: text loss down, decisions right up, and a step back where a part brings something new.
Finding: ``curves.json`` (a line for every 100 steps) and ``curves.png`` in the first folder.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

EVERY = 100
SHOWN = {"text": "text loss", "speech": "speech loss", "decision_accuracy": "decisions right"}


def parts(folders: list[pathlib.Path]) -> list[dict]:
    """Means over every `EVERY` steps of each part; `step` counts from the first part's start."""
    lines, before = [], 0
    for folder in folders:
        if folder.suffix == ".json":
            lines += json.loads(folder.read_text())
            before = lines[-1]["step"]
            continue
        rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "text" in row]  # not those of validations
        last = max(row["step"] for row in rows)
        for start in range(0, last, EVERY):
            inside = [row for row in rows if start < row["step"] <= start + EVERY]
            if inside:
                means = {
                    name: round(float(np.mean([r[name] for r in inside])), 5) for name in SHOWN
                }
                lines.append({"part": folder.name, "step": before + start + EVERY, **means})
        before += last
    return lines


def draw(lines: list[dict], out: pathlib.Path) -> None:
    """One panel for every figure, the parts one after another."""
    figure, axes = plt.subplots(len(SHOWN), figsize=(7, 6), sharex=True, layout="constrained")
    names = list(dict.fromkeys(line["part"] for line in lines))
    for axis, (name, label) in zip(axes, SHOWN.items(), strict=True):
        for number, part in enumerate(names):
            mine = [line for line in lines if line["part"] == part]
            steps, values = [x["step"] for x in mine], [x[name] for x in mine]
            axis.plot(steps, values, label=part, color=plt.colormaps["tab20"](number))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if name != "decision_accuracy":
            axis.set_yscale("log")
    axes[-1].set_xlabel("steps")
    axes[0].legend(fontsize=7, ncols=3)
    figure.savefig(out, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    target, *runs = (pathlib.Path(argument) for argument in sys.argv[1:])
    found = parts(runs)
    (target / "curves.json").write_text(
        "[\n" + ",\n".join(json.dumps(line) for line in found) + "\n]\n"
    )
    draw(found, target / "curves.png")
