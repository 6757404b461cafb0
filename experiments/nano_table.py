"""Question: what can `interaction-nano` do, in one table?

Command: python -m experiments.nano_table checkpoints/nano/metrics.json
Cost: nothing; it reads what `experiments/nano_evaluation.py` wrote.
Expectation: the goals beside the figures.
Finding: the table of `checkpoints/nano/README.md` and of README.md, which a test holds to it.
"""

import json
import pathlib
import sys


def _share(figure: dict) -> str:
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    chance = f"; chance {100 * figure['chance']:.0f} %" if figure.get("chance") else ""
    return f"{value:.1f} % ({low:.1f} to {high:.1f}, n = {figure['count']}{chance})"


def _seconds(figure: dict) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    around = "" if low is None else f"{low:.2f} to {high:.2f}, "
    return f"{value:.2f} s ({around}n = {figure['count']})"


def _per_minute(figure: dict) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return f"{value:.2f} / min ({low:.2f} to {high:.2f}, n = {figure['count']:.0f})"


def table(figures: dict) -> list[str]:
    """The lines of the Markdown table."""
    takes, theo, voices = (
        figures["digits"][name] for name in ("unseen takes", "unseen speaker", "unseen voices")
    )
    timed, counted = figures["digits, step time measured"], figures["counting"]
    silence = figures["silence"]
    answered = {name: _share(f["answered"]) for name, f in silence.items() if "answered" in f}
    reference = figures["voice"]["reference_recordings_through_vocoder"]
    rows = (
        ("digit written right, unseen takes of three heard speakers",
         _share(takes["written_right"]), "95 %"),
        ("the same, speaker never heard (theo)", _share(theo["written_right"]), "80 %"),
        ("the same, synthetic voices never heard", _share(voices["written_right"]), ""),
        ("next number said and recognised, unseen takes", _share(takes["spoken_recognised"]),
         "85 %"),
        ("the same, speaker never heard", _share(theo["spoken_recognised"]), ""),
        ("target voice through the vocoder, recognised", _share(reference), ""),
        ("sound after the digit's end, median, step time measured",
         _seconds(timed["latency_median_seconds"]), ""),
        ("the same, 90th percentile", _seconds(timed["latency_p90_seconds"]), ""),
        ("sound within 0.4 s, step time measured", _share(timed["sound_within_0.4_seconds"]), ""),
        ("sound within 0.4 s, step time 0", _share(takes["sound_within_0.4_seconds"]), ""),
        ("exact count, 200 unseen videos", _share(counted["all videos"]["exact"]), "80 %"),
        ("flashes; kicks",
         f"{_share(counted['flashes']['exact'])}; {_share(counted['kicks']['exact'])}", ""),
        ("false answers per minute of noise",
         _per_minute(silence["noise"]["false_answers_per_minute"]), "1 / min"),
        ("words by people answered", answered["words by people"], "10 %"),
        ("words by synthetic voices answered", answered["words by voices"], "10 %"),
        ("sentences by people; by voices answered",
         f"{answered['sentences by people']}; {answered['sentences by voices']}", "10 %"),
        ("still videos; real films answered",
         f"{answered['still videos']}; {answered['films']}", ""),
    )  # fmt: skip
    head = ["| what | figure (95 % interval) | goal |", "|---|---|---|"]
    return head + [f"| {what} | {figure} | {goal} |" for what, figure, goal in rows]


if __name__ == "__main__":
    print("\n".join(table(json.loads(pathlib.Path(sys.argv[1]).read_text())["figures"])))
