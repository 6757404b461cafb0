"""How many live sessions one CPU core holds, and the tails of the step.

Question: at 1, 4, 16 lanes of interaction-nano, how long is a micro-turn (p50, p99, p99.9), and
how many sessions fit in real time?
Command: taskset -c 1 python -m experiments.bench.sessions_per_core
Cost: about 15 minutes; `--quick` two minutes, writes nothing.
Expectation: 16 lanes stay under 200 ms at p99.
Finding: in `sessions_per_core.json`; with `--implementation NATIVE` (C++) in
    `sessions_per_core_native.json`.

Every lane hears spoken digits over faint noise (each lane from another place) again and again, so
that the model soon answers few (`share_of_chunks_spoken`); every fourth sees video too. The lanes
are those of `session.loop`, with weave, step, copy back and text, so the time is that of a whole
micro-turn on the host. The number of sessions is the largest tried whose p99 is at most 200 ms.
"""

import argparse
import os
import pathlib
import time

# One thread. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from experiments.bench import machine, measure
from experiments.bench.hour import talk
from interaction.kernels.implementation import Implementation
from interaction.microturn import MICRO_TURN_SECONDS
from interaction.models.checkpoint import load_model
from interaction.session.loop import Lanes
from interaction.streams.weave import LaneInput
from interaction.types import Control

HERE = pathlib.Path(__file__).parent
NAMED = (1, 4, 16)
TRIED = (24, 32, 48, 64, 96, 128)
SEES_EVERY = 4


class Conversation:
    """What each lane takes in, micro-turn by micro-turn."""

    def __init__(self, config, lanes: int):
        self._chunks, self._lanes = talk(), lanes
        vision = config.vision
        shape = (vision.max_patches, vision.frames, vision.patch, vision.patch, 3)
        self._video = np.random.default_rng(1).integers(0, 256, (16, *shape)).astype(np.uint8)

    def inputs(self, now: int) -> list[LaneInput]:
        """Every lane's input of micro-turn `now`."""
        row = []
        for lane in range(self._lanes):
            chunk = self._chunks[(now + 7 * lane) % len(self._chunks)]
            sees = lane % SEES_EVERY == SEES_EVERY - 1
            video = self._video[(now + lane) % len(self._video)] if sees else None
            row.append(LaneInput(now, video, (), ((now, chunk),)))
        return row


def run(params: dict, config, lanes: int, micro_turns: int) -> dict:
    """Times of micro-turns with `lanes` lanes, all busy."""
    live = Lanes(params, config, lanes=lanes)
    conversation = Conversation(config, lanes)
    times, cpu, speaking = [], [], 0
    warm_up = 3
    for now in range(micro_turns + warm_up):
        inputs = conversation.inputs(now)
        started, used = time.perf_counter(), time.process_time()
        outputs = live.step(inputs)
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        speaking += sum(o is not None and o.closer is Control.SPEAK for o in outputs)
    times, cpu = times[warm_up:], cpu[warm_up:]
    found = {
        "lanes": lanes,
        "lanes_with_video": lanes // SEES_EVERY,
        "micro_turns": micro_turns,
        "share_of_chunks_spoken": round(speaking / (lanes * (micro_turns + warm_up)), 3),
        "step_ms": measure.milliseconds(times),
        "processor_ms_per_lane": round(1000 * float(np.median(cpu)) / lanes, 3),
        "in_real_time": bool(np.percentile(times, 99) <= MICRO_TURN_SECONDS),
        "course": measure.course(times, bins=5),
    }
    print(lanes, found["step_ms"], found["in_real_time"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", default="checkpoints/nano")
    parser.add_argument("--micro-turns", type=int, default=2000, help="for 1, 4 and 16 lanes")
    parser.add_argument("--implementation", choices=("NATIVE", "REFERENCE"), default="REFERENCE")
    parser.add_argument("--quick", action="store_true", help="20 micro-turns, nothing written")
    args = parser.parse_args()
    facts = machine.facts()
    who = Implementation[args.implementation]
    params, config = load_model(args.checkpoint, implementation=who)
    named = [run(params, config, lanes, 20 if args.quick else args.micro_turns) for lanes in NAMED]
    tried = []
    for lanes in () if args.quick else TRIED:
        if not (named + tried)[-1]["in_real_time"]:
            break
        tried.append(run(params, config, lanes, 200))
    held = [row["lanes"] for row in named + tried if row["in_real_time"]]
    content = {
        "question": "sessions of interaction-nano on one core",
        "checkpoint": args.checkpoint,
        "implementation": who.name,
        "facts": facts,
        "sessions_per_core_at_real_time": max(held, default=0),
        "first_that_is_too_slow": next(
            (row["lanes"] for row in named + tried if not row["in_real_time"]), None
        ),
        "steps": named,
        "steps_of_the_search": tried,
    }
    print("sessions per core:", content["sessions_per_core_at_real_time"])
    if not args.quick:
        by = "_native" if who is Implementation.NATIVE else ""
        measure.write(HERE / f"sessions_per_core{by}.json", content)


if __name__ == "__main__":
    main()
