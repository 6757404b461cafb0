"""What `interaction-mini` can do beside the small world's table: motions, losses, its own voice.

Questions: does it count movements that it never saw made? what is left of its behaviours when
chunks are lost or late? does a recogniser understand what it says?
Command: python -m experiments.mini_evaluation --checkpoint checkpoints/mini
    (extras `voices` and `eval`)
Cost: about fifteen minutes of one core.
Expectation: off by one at most in >= 80 % of unseen motions; behaviours fall slowly with losses;
word error of its speech <= 20 %.
Finding: `abilities.json` and `degradation.png` beside the checkpoint.
"""

import argparse
import functools
import json
import os
import pathlib
import tempfile
import time

# Several lanes on a CPU: see `interaction/eval/respond.py`. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import matplotlib

matplotlib.use("Agg")
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from interaction.data import video as videos
from interaction.data.clips import Split
from interaction.data.curriculum.lexicon import SPOKEN_AS
from interaction.data.curriculum.voice import word_chunks
from interaction.data.figure import MOTIONS
from interaction.eval import counting, whisper
from interaction.eval.ears import FromText, audible
from interaction.eval.impairment import Impairment
from interaction.eval.intervals import SHARE, Measured, bootstrap, share
from interaction.eval.judges import ClosedAnswer
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, Run, Sample
from interaction.eval.respond import Stimulus, respond
from interaction.eval.runner import play
from interaction.eval.suite import Better, Mode, Scoring
from interaction.eval.suites import rendered, small_world
from interaction.eval.systems.model import LanesBoard, Model
from interaction.eval.word_errors import word_errors
from interaction.models.checkpoint import load_model
from interaction.models.vocoder import vocode

SEED = 21_000
MOST = 6  # repetitions: what a session of training holds at most
IMPAIRMENTS = (
    "", "loss=0.02", "loss=0.05", "loss=0.1", "loss=0.2", "late=0.1,delay=1,jitter=1",
    "late=0.3,delay=1,jitter=2",
)  # fmt: skip


# ---------------------------------------------------------------- motions


def motion_stimuli(name: str, count: int) -> list[Stimulus]:
    """Silent videos of a figure that does one motion 1 to `MOST` times; truth: when each ends."""
    stimuli = []
    for index in range(count):
        random = np.random.default_rng([SEED, MOTIONS.index(name), index])
        film = rendered.repetitions(random, name, 1 + index % MOST, tail=1.5)
        frames = film.frames[: len(film.frames) // 2 * 2]
        ends = tuple(end for _, end in film.cycles)
        stimuli.append(Stimulus(tubelets=videos.tubelets(frames), truth=ends))
    return stimuli


def pixels_changed(tubelets: np.ndarray) -> float:
    """How many pixels change colour by more than 20 of 255 from one micro-turn to the next."""
    change = np.abs(np.diff(tubelets.astype(np.int16), axis=0)).max(axis=-1)
    return float((change > 20).sum(axis=(1, 2, 3, 4)).mean()) / tubelets.shape[2]


def by_change(stimuli: list[Stimulus], results: list[counting.CountResult]) -> list[dict]:
    """Off by one at most, by quarter of the videos: from those that move least to most."""
    changed = np.array([pixels_changed(stimulus.tubelets) for stimulus in stimuli])
    return [
        {
            "pixels changed, mean": round(float(changed[quarter].mean())),
            **share(sum(results[i].within_one for i in quarter), len(quarter)).as_dict(),
        }
        for quarter in np.array_split(np.argsort(changed, kind="stable"), 4)
    ]


def motions(answer, *, each: int) -> dict[str, dict]:
    """Counts of every motion; chance is one constant answer, the best there is."""
    found = {}
    for name in MOTIONS:
        stimuli = motion_stimuli(name, each)
        results = [
            counting.score_count(s, r) for s, r in zip(stimuli, answer(stimuli), strict=True)
        ]
        figures = counting.summarise(results)
        near = figures["within_one"]
        truths = [r.truth for r in results]
        chance = max(np.mean([abs(t - c) <= 1 for t in truths]) for c in range(1, MOST + 1))
        found[name] = {
            "exact": figures["exact"].as_dict(),
            "off by one at most": near.as_dict() | {"chance": round(float(chance), 4)},
            "off by one at most, from the quarter of videos that move least": by_change(
                stimuli, results
            ),
            "last number by truth": {
                str(n): " ".join(
                    r.written[-1] if r.written else "-" for r in results if r.truth == n
                )
                for n in sorted(set(truths))
            },
        }
    return found


# ---------------------------------------------------------------- losses


def held_out(each: int) -> list[Sample]:
    """`each` sessions of every behaviour, held-out voices, names and scenes."""
    with tempfile.TemporaryDirectory() as folder:
        small_world.generate(pathlib.Path(folder), size=each, seed=SEED, split=Split.TEST)
        return small_world.SmallWorld().load(pathlib.Path(folder))


def behaviours(samples: list[Sample], runs: dict[str, Run]) -> tuple[dict[str, float], Measured]:
    """The small world's shares, and the mean over behaviours with its interval over sessions.

    Shares that should be low are taken from 1.
    """
    scoring = Scoring(FromText(), Clock.INSTANT, ClosedAnswer(), Mode.STRICT)
    figures = small_world.SmallWorld().score(samples, runs, scoring)
    shares = [f for f in figures if not f.name.endswith(", s")]
    by_session: dict[str, list[float]] = {}
    for figure in shares:
        for sample, value in figure.samples.items():
            good = 1.0 - value if figure.better is Better.LOWER else value
            by_session.setdefault(sample, []).append(good)
    means = [float(np.mean(values)) for values in by_session.values()]
    return {f.name: round(f.measured.value, 4) for f in shares}, bootstrap(
        means, np.mean, bounds=SHARE
    )


def degradation(system: Model, samples: list[Sample]) -> tuple[list[dict], dict[str, Run]]:
    """Every impairment's shares; and the runs without one."""
    rows, clean = [], {}
    for text in IMPAIRMENTS:
        impairment = Impairment.parse(text)
        runs = {s.id: play(system, s, impairment=impairment) for s in samples}
        clean = clean or runs
        shares, mean = behaviours(samples, runs)
        rows.append({"impairment": text or "none", "mean": mean.as_dict(), "shares": shares})
    return rows, clean


def draw(rows: list[dict], out: pathlib.Path) -> None:
    """The mean over behaviours against the share of chunks that are lost."""
    lost = [r for r in rows if r["impairment"] == "none" or r["impairment"].startswith("loss")]
    x = [100 * Impairment.parse(r["impairment"].replace("none", "")).loss for r in lost]
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    means = [100 * r["mean"]["value"] for r in lost]
    low = [100 * (r["mean"]["value"] - r["mean"]["low"]) for r in lost]
    high = [100 * (r["mean"]["high"] - r["mean"]["value"]) for r in lost]
    axis.errorbar(x, means, yerr=[low, high], marker="o", capsize=3)
    axis.set(xlabel="chunks lost, %", ylabel="mean of all shares, %", ylim=(0, 100))
    axis.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
    plt.close(figure)


# ---------------------------------------------------------------- its voice


def said(run: Run) -> tuple[str, np.ndarray]:
    """What a run says by its own text, and the sound of it with its long pauses cut short."""
    texts = [e.payload["text"] for e in run.of(Kind.TEXT) if e.payload["channel"] == "say"]
    wave = run.waveform(Clock.INSTANT)
    gap = np.zeros(SAMPLE_RATE // 4, np.float32)
    pieces = [gap]
    for start, end in audible(wave):
        pieces += [wave[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)], gap]
    return " ".join(text.strip() for text in texts), np.concatenate(pieces)


def reference(text: str, params, config) -> np.ndarray:
    """The recordings learned from, of the same words, through the vocoder."""
    gap = np.zeros(SAMPLE_RATE // 4, np.float32)
    pieces = [gap]
    for word in text.split():
        mel = word_chunks()[word][0]
        silence = np.full((8, mel.shape[2]), config.mel.silence, np.float32)
        frames = jnp.asarray(np.concatenate([*mel, silence])[None])
        wave = np.asarray(vocode(params["vocoder"], frames, config.vocoder))[0]
        for start, end in audible(wave):
            pieces += [wave[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)], gap]
    return np.concatenate(pieces)


def recognised(clean: dict[str, Run], params, config) -> dict:
    """Whisper-base's word error on everything said in English, and on the recordings learned from.

    Sessions of translation are left out: they speak Spanish.
    """
    spoken = [said(run) for name, run in sorted(clean.items()) if not name.startswith("translate/")]
    spoken = [
        (text, wave) for text, wave in spoken if text and not set(text.split()) & set(SPOKEN_AS)
    ]
    found = {}
    for name, waves in (
        ("its speech", [wave for _, wave in spoken]),
        ("the recordings learned from", [reference(text, params, config) for text, _ in spoken]),
    ):
        heard = [" ".join(clip.words) for clip in whisper.hear(waves)]
        errors = [word_errors(text, h) for (text, _), h in zip(spoken, heard, strict=True)]
        pairs = np.array([(e.errors, e.reference) for e in errors], float)
        random = np.random.default_rng(SEED)
        drawn = pairs[random.integers(0, len(pairs), (2_000, len(pairs)))].sum(axis=1)
        low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
        total = pairs.sum(axis=0)
        found[name] = {
            "word error rate": round(float(total[0] / total[1]), 4),
            "low": round(float(low), 4), "high": round(float(high), 4), "words": int(total[1]),
            "wrong": [
                [text, h] for (text, _), h, e in zip(spoken, heard, errors, strict=True) if e.errors
            ][:40],
        }  # fmt: skip
    return found


def main() -> None:
    """Evaluates a checkpoint, writes the figures and a picture, prints them."""
    parser = argparse.ArgumentParser(description="Motions, losses, voice of mini.")
    parser.add_argument("--checkpoint", default="checkpoints/mini")
    parser.add_argument("--out", help="folder; default: the checkpoint's")
    parser.add_argument("--videos", type=int, default=60, help="of each motion")
    parser.add_argument("--sessions", type=int, default=8, help="of each behaviour")
    args = parser.parse_args()
    began = time.monotonic()
    out = pathlib.Path(args.out or args.checkpoint)
    params, config = load_model(args.checkpoint)
    counted = motions(
        functools.partial(respond, params, config, lanes=12, seed=SEED), each=args.videos
    )
    samples = held_out(args.sessions)
    rows, clean = degradation(Model(lambda: LanesBoard(params, config)), samples)
    draw(rows, out / "degradation.png")
    report = {
        "seed": SEED,
        "motions (training shows kicks and made-up movements, never punches or jumps)": counted,
        "sessions of each behaviour": args.sessions,
        "degradation": rows,
        "whisper-base": recognised(clean, params, config),
        "seconds": round(time.monotonic() - began),
    }
    (out / "abilities.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, figures in counted.items():
        near = figures["off by one at most"]
        print(f"{name}: exact {figures['exact']['value']:.3f}, off by one {near}")
    for row in rows:
        print(row["impairment"], row["mean"])
    for name, figures in report["whisper-base"].items():
        print(name, {k: v for k, v in figures.items() if k != "wrong"})


if __name__ == "__main__":
    main()
