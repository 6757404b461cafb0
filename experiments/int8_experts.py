"""What int8 expert weights cost in accuracy.

Question: how many answers of `interaction-nano` change, and how many more are wrong, when its
experts are stored as int8 with a scale per expert and output channel?
Command: python -m experiments.int8_experts --checkpoint checkpoints/nano
    (INTERACTION_SPOKEN_DIGITS names the folder of recordings; no extra is needed)
Cost: about five minutes on two cores; ``--clips 20 --videos 10`` takes one.
Expectation: a difference within the intervals: written digits and counts each lose at most one
point, at least 97 % of the sessions put out the same text.
Finding: in `int8_experts.json` beside this file.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time

# Several lanes on a CPU: see `interaction/eval/respond.py`. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import numpy as np

from experiments.nano_evaluation import SEED, digits_by_people
from interaction.data.bank import load_bank
from interaction.data.config import DataConfig
from interaction.eval import counting, digits
from interaction.eval.intervals import share
from interaction.eval.respond import Reply, respond
from interaction.eval.table import table
from interaction.models.checkpoint import load_model
from interaction.models.quantise import Experts, quantise_experts


def held_out(bank, *, clips: int | None) -> dict[str, list]:
    """Stimuli of `clips` of each of `digits_by_people`."""
    groups = digits_by_people(bank)
    steps = {n: max(1, len(g) // clips) if clips else 1 for n, g in groups.items()}
    return {
        name: digits.digit_stimuli(group[:: steps[name]], seed=SEED)
        for name, group in groups.items()
    }


def texts(reply: Reply) -> list[tuple]:
    """All that a session put out in words, with its time."""
    return [(a.micro_turn, a.written, a.said) for a in reply.answers()]


def written_right(stimuli, replies) -> list[bool]:
    """Whether each clip's digit was written; what it sounds like is not asked."""
    return [
        digits.score_digit(s, r, lambda sound: None).right
        for s, r in zip(stimuli, replies, strict=True)
    ]


def compared(right: dict, replies: dict) -> dict:
    """Both variants on the same stimuli: right shares, and where they part."""
    before, after = np.array(right[Experts.FLOAT32]), np.array(right[Experts.INT8])
    count = len(before)
    same = sum(
        texts(a) == texts(b)
        for a, b in zip(replies[Experts.FLOAT32], replies[Experts.INT8], strict=True)
    )
    return {
        "float32": share(int(before.sum()), count).as_dict(),
        "int8": share(int(after.sum()), count).as_dict(),
        "right in float32 alone": int((before & ~after).sum()),
        "right in int8 alone": int((~before & after).sum()),
        "same text at the same time": share(same, count).as_dict(),
    }


def expert_bytes(params: dict) -> dict[str, int]:
    """Bytes of the experts and of all parameters."""
    moe = params["transformer"]["moe"]
    names = [n for n in moe if n.rsplit("_", 1)[-1] in ("gate", "up", "down")]
    experts = sum(leaf.nbytes for n in names for leaf in jax.tree.leaves(moe[n]))
    return {"experts": experts, "all": sum(leaf.nbytes for leaf in jax.tree.leaves(params))}


def main() -> None:
    """Plays held-out clips and videos to both variants and writes what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="checkpoints/nano")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_suffix(".json")))
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--clips", type=int, help="of each group of digits; default: all")
    parser.add_argument("--videos", type=int, default=100, help="of each kind")
    args = parser.parse_args()
    began = time.monotonic()
    params, config = load_model(args.checkpoint)
    trees = {Experts.FLOAT32: params, Experts.INT8: quantise_experts(params)}
    play = {
        kind: functools.partial(respond, tree, config, lanes=args.lanes, seed=SEED)
        for kind, tree in trees.items()
    }
    figures = {}
    groups = {**held_out(load_bank(DataConfig()), clips=args.clips)}
    for name, stimuli in groups.items():
        replies = {kind: play[kind](stimuli) for kind in trees}
        right = {kind: written_right(stimuli, replies[kind]) for kind in trees}
        figures[f"digit written, {name}"] = compared(right, replies)
    for kind_of_video in ("flashes", "kicks"):
        stimuli = counting.video_stimuli(kind_of_video, args.videos, seed=SEED)
        replies = {kind: play[kind](stimuli) for kind in trees}
        right = {
            kind: [
                counting.score_count(s, r).exact
                for s, r in zip(stimuli, replies[kind], strict=True)
            ]
            for kind in trees
        }
        figures[f"count exact, {kind_of_video}"] = compared(right, replies)
    facts = {
        "checkpoint": pathlib.Path(args.checkpoint).name,
        "seed": SEED,
        "bytes": {kind.value: expert_bytes(tree) for kind, tree in trees.items()},
        "intervals": "95 %, Wilson",
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - began),
    }
    pathlib.Path(args.out).write_text(
        json.dumps({"facts": facts, "figures": figures}, indent=1) + "\n"
    )
    print(table(figures, title=f"{args.checkpoint}, experts float32 and int8"))
    print(json.dumps(facts["bytes"]), file=sys.stderr)


if __name__ == "__main__":
    main()
