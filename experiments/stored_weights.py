"""What weights and caches in fewer bytes, and computing in C++, cost in accuracy.

Question: how many answers of `interaction-nano` change, and how many more are wrong, when its
experts are int8 with a scale per expert and output channel; when keys and values are kept in
bfloat16; when C++ computes; when C++ computes with matrices, keys and values in bfloat16?
Command: python -m experiments.stored_weights --checkpoint checkpoints/nano
    (INTERACTION_SPOKEN_DIGITS names the folder of recordings; NATIVE needs a C++ compiler)
Cost: about twenty minutes of one core; ``--clips 20 --videos 10`` takes two.
Expectation: differences within the intervals: written digits and counts each lose at most one
point, at least 97 % of the sessions put out the same text.
Finding: in `stored_weights.json` beside this file.
"""

import argparse
import dataclasses
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
from interaction.kernels.implementation import Implementation
from interaction.models.checkpoint import computed_by, load_model
from interaction.models.config import CacheType
from interaction.models.quantise import halve_matrices, quantise_experts

FLOAT32 = "float32"


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


def counts_right(stimuli, replies) -> list[bool]:
    """Whether each count is exact."""
    return [counting.score_count(s, reply).exact for s, reply in zip(stimuli, replies, strict=True)]


def compared(name: str, right: dict, replies: dict) -> dict:
    """A variant and float32 by XLA on the same stimuli: right shares, and where they part."""
    before, after = np.array(right[FLOAT32]), np.array(right[name])
    count = len(before)
    pairs = zip(replies[FLOAT32], replies[name], strict=True)
    return {
        FLOAT32: share(int(before.sum()), count).as_dict(),
        "the variant": share(int(after.sum()), count).as_dict(),
        "right in float32 alone": int((before & ~after).sum()),
        "right in the variant alone": int((~before & after).sum()),
        "same text at the same time": share(
            sum(texts(a) == texts(b) for a, b in pairs), count
        ).as_dict(),
    }


def variants(params: dict, config) -> dict[str, tuple[dict, object]]:
    """Trees and configurations by name, what they are compared with first."""
    by_cpp = computed_by(config, Implementation.NATIVE)
    half = functools.partial(dataclasses.replace, cache_type=CacheType.BFLOAT16)
    return {
        FLOAT32: (params, config),
        "int8 experts": (quantise_experts(params), config),
        "bfloat16 cache": (params, half(config)),
        "C++": (params, by_cpp),
        "C++, bfloat16 matrices": (halve_matrices(params), by_cpp),
        "C++, bfloat16 matrices and cache": (halve_matrices(params), half(by_cpp)),
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
    ways = variants(params, config)
    play = {
        name: functools.partial(respond, tree, config, lanes=args.lanes, seed=SEED)
        for name, (tree, config) in ways.items()
    }
    groups = {
        f"digit written, {name}": (stimuli, written_right)
        for name, stimuli in held_out(load_bank(DataConfig()), clips=args.clips).items()
    }
    for kind in ("flashes", "kicks"):
        groups[f"count exact, {kind}"] = (
            counting.video_stimuli(kind, args.videos, seed=SEED), counts_right,
        )  # fmt: skip
    figures: dict[str, dict] = {}
    for group, (stimuli, judge) in groups.items():
        replies = {name: play[name](stimuli) for name in ways}
        right = {name: judge(stimuli, replies[name]) for name in ways}
        for name in list(ways)[1:]:
            figures[f"{name}: {group}"] = compared(name, right, replies)
    facts = {
        "checkpoint": pathlib.Path(args.checkpoint).name,
        "seed": SEED,
        "bytes": {name: expert_bytes(tree) for name, (tree, _) in ways.items()},
        "intervals": "95 %, Wilson",
        "jax": jax.__version__,
        "seconds": round(time.monotonic() - began),
    }
    pathlib.Path(args.out).write_text(
        json.dumps({"facts": facts, "figures": figures}, indent=1) + "\n"
    )
    print(table(figures, title=f"{args.checkpoint}, beside float32 by XLA"))
    print(json.dumps(facts["bytes"]), file=sys.stderr)


if __name__ == "__main__":
    main()
