"""What does a lane remember after an hour?

Question: a fact said in the first minute and asked for at minute 2, 10, 30 and 60 of simulated
time: how often is the answer right, with no eviction, a plain window, sinks and a window, and
typed memory, when all but the first have the same number of places?
Command: python -m experiments.recall --policies typed --sessions 16 --lanes 16
         python -m experiments.recall --policies "no eviction" --sessions 8 --lanes 1 --minutes 10
    (a run adds sessions to what the file holds, and writes it after every batch of lanes: one that
    was broken off goes on with the same command)
Cost: one core: about a minute per session and hour. No eviction holds and reads every slot: six to
ten minutes a session and hour (Intel Xeon, beside other work).
Expectation: typed memory keeps typed facts and the model's own notes of spoken ones, so it stays
where it was at minute 2; window and sinks fall to chance as soon as the store has wrapped.
Finding: `experiments/recall.json`, and the table in `checkpoints/recall/README.md`.

Live steps throughout: every micro-turn of every lane is stepped. Voices, noise, chatter and keys
are of seeds and voices that training never had.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import numpy as np

from interaction.data import recall
from interaction.data.clips import Split
from interaction.eval.intervals import share
from interaction.models.checkpoint import load_model
from interaction.models.memory import MemoryConfig, Policy
from interaction.session.lanes import Lanes
from interaction.streams.weave import LaneInput

MINUTES = (2, 10, 30, 60)
PER_MINUTE = 300
CHATTER = 1 / 150
SEED = 30_000
POLICIES = {
    "typed": None,  # the checkpoint's own
    "window": MemoryConfig(policy=Policy.WINDOW),
    "sinks and window": MemoryConfig(policy=Policy.SINKS, sinks=4),
    "no eviction": MemoryConfig(policy=Policy.WINDOW),  # with places for every slot
}


def session(seed: int, config: recall.RecallConfig, minutes, clips):
    """Micro-turn -> Arrival of one session: facts in the first minute, a question per fact.

    Half of the facts are typed, half are spoken; one of each is asked for at each of `minutes`.
    """
    random = np.random.default_rng([SEED, seed])
    keys = random.permutation(list(recall.KEYS))[: 2 * len(minutes)]
    apart = (PER_MINUTE - 20) // len(keys)
    planned, questions = {}, []
    for index, key in enumerate(keys):
        fact = (str(key), int(random.integers(10)), bool(index % 2))
        start = index * apart + int(random.integers(0, apart - 15))
        turns = recall.stated(random, fact, clips)
        planned |= {start + offset: turn for offset, turn in enumerate(turns)}
        note = next((start + o for o, turn in enumerate(turns) if turn.due), None)
        asked = minutes[index // 2] * PER_MINUTE - 20 + 10 * (index % 2)
        planned[asked] = recall.question(fact[0], fact[1])[0]
        questions.append((asked, fact, note, minutes[index // 2]))
    return random, planned, questions


def play(params, config, data, *, lanes: int, first: int, minutes, clips) -> list[dict]:
    """All questions of `lanes` sessions with what was written."""
    live = Lanes(params, config, lanes=lanes, seed=first)
    sessions = [session(first + lane, data, MINUTES, clips) for lane in range(lanes)]
    written: list[dict[int, str]] = [{} for _ in range(lanes)]
    began = time.monotonic()
    for now in range(minutes * PER_MINUTE):
        row = []
        for random, planned, _ in sessions:
            turn = planned.get(now)
            turn = turn or recall.filler(random, data, chatter=random.random() < CHATTER)
            audio = () if turn.samples is None else ((now, turn.samples),)
            row.append(LaneInput(now, turn.video, turn.text_in, audio))
        for lane, output in enumerate(live.step(row)):
            if output.written:
                written[lane][now] = output.written
        if now % 1500 == 0:
            print(f"{now} micro-turns, {time.monotonic() - began:.0f} s", file=sys.stderr)
    slots = np.asarray(live.state.cache["count"])
    answers = []
    for lane, (_, _, questions) in enumerate(sessions):
        for asked, (key, digit, spoken), note, minute in questions:
            if minute > minutes:
                continue
            answers.append(
                {
                    "seed": first + lane,
                    "minute": minute,
                    "spoken": spoken,
                    "right": written[lane].get(asked) == str(digit),
                    "noted": not spoken or written[lane].get(note) == f"{key}{digit}",
                    "slots": int(slots[lane]),
                }
            )
    return answers


def summarise(answers: list[dict], before: dict | None = None) -> dict:
    """Shares with intervals by minute and kind of fact.

    Args:
        answers: of `play`.
        before: what this gave for other sessions; they are counted in.
    """
    before = before or {}
    found: dict = {key: value for key, value in before.items() if key.startswith("minute ")}
    for minute in sorted({a["minute"] for a in answers}):
        here = [a for a in answers if a["minute"] == minute]
        groups = {
            "typed facts": [a for a in here if not a["spoken"]],
            "spoken facts": [a for a in here if a["spoken"]],
            "spoken facts that were noted rightly": [a for a in here if a["spoken"] and a["noted"]],
        }
        row = dict(before.get(f"minute {minute}", {}))
        for name, group in groups.items():
            known = row.get(name, {"value": 0.0, "count": 0})
            right = round(known["value"] * known["count"]) + sum(a["right"] for a in group)
            if count := known["count"] + len(group):
                row[name] = share(right, count, chance=0.1).as_dict()
        found[f"minute {minute}"] = row
    return found


def sessions_at(entry: dict, minute: int) -> int:
    """Sessions that were asked at a minute: seeds 0, 1, ... in order."""
    return entry.get(f"minute {minute}", {}).get("typed facts", {"count": 0})["count"]


def added(entry: dict, answers: list[dict], *, seconds: float, places: int) -> dict:
    """A policy's row with the answers of more sessions; those it has already are not counted again.

    Args:
        entry: the row, empty at first.
        answers: of sessions in order of their seeds.
        seconds: what they took.
        places: of the global store.
    """
    new = [a for a in answers if a["seed"] >= sessions_at(entry, a["minute"])]
    slots = [a["slots"] for a in answers]
    known = entry.get("sessions", 0)
    total = known + len({a["seed"] for a in answers})
    mean = entry.get("slots_of_a_session_mean", 0.0) * known + float(np.mean(slots)) * (
        total - known
    )
    return {
        "places": max(places, entry.get("places", 0)),
        "sessions": total,
        "slots_of_a_session_mean": mean / total,
        "seconds": entry.get("seconds", 0) + round(seconds),
        **summarise(new, entry),
    }


def main() -> None:
    """Plays every policy and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="checkpoints/recall")
    parser.add_argument("--out", default="experiments/recall.json")
    parser.add_argument("--sessions", type=int, default=32, help="asked at the last minute, in all")
    parser.add_argument("--lanes", type=int, default=8, help="stepped at once")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--places", type=int, default=768)
    parser.add_argument("--minutes", type=int, default=MINUTES[-1], help="stop after so many")
    args = parser.parse_args()
    params, config = load_model(args.checkpoint)
    data = recall.RecallConfig(slots=336, audio=176, patches=16)
    clips = recall.voices(Split.TEST)
    out = pathlib.Path(args.out)
    report = json.loads(out.read_text()) if out.exists() else {"policies": {}}
    report["facts"] = {
        "seed": SEED,
        "voices": "espeak voices never heard in training",
        "chance": "0.1: one of ten digits",
        "intervals": "95 %, Wilson",
        "jax": jax.__version__,
    }
    for name in args.policies:
        memory, places = POLICIES[name] or config.memory, args.places
        if name == "no eviction":
            places = 6 * PER_MINUTE * args.minutes
        here = dataclasses.replace(config, global_slots=places, memory=memory)
        last = max(minute for minute in MINUTES if minute <= args.minutes)
        entry = report["policies"].get(name, {})
        while (first := sessions_at(entry, last)) < args.sessions:
            began, lanes = time.monotonic(), min(args.lanes, args.sessions - first)
            answers = play(
                params, here, data, lanes=lanes, first=first, minutes=args.minutes, clips=clips
            )
            entry = added(entry, answers, seconds=time.monotonic() - began, places=places)
            report["policies"][name] = entry
            out.write_text(json.dumps(report, indent=1) + "\n")
            print(json.dumps(entry), file=sys.stderr)


if __name__ == "__main__":
    main()
