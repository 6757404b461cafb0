"""Is the step as fast after an hour as at the start?

Question: one hour of conversation is stepped; then micro-turns of the hour-old session and of a
fresh one are timed in turns, in one program: what is the ratio? What does a store that is full to
10 % and to 100 % cost? Does memory grow, is anything traced again?
Command: taskset -c 0 python -m experiments.bench.hour
Cost: about ten minutes on one core.
Expectation: ratio at most 1.05, resident memory flat, no trace after warm-up.
Finding: `experiments/bench/hour.json` and the curve `experiments/bench/hour.png`. Against a fresh
session the ratio is 1.03 (1.02 to 1.05), against one whose store of 1,024 slots is just full 0.99
(0.97 to 1.01); a full store against a tenth of one costs 1.03 (1.01 to 1.04). Only filled blocks of
the store are read, so a fresh session is a little cheaper; with a store of 4,096 slots that was
1.16 (1.14 to 1.17). Memory is flat, nothing is traced again. The session listens: it says and sees
nothing.
"""

import argparse
import os
import pathlib
import sys
import time

import numpy as np

from experiments.bench import machine, measure
from interaction.data.voices import SAMPLE_RATE
from interaction.models.checkpoint import load_model
from interaction.session.lanes import Lanes
from interaction.session.step import compile_step
from interaction.streams.audio import CHUNK
from interaction.streams.media import read_audio
from interaction.streams.weave import LaneInput

HERE = pathlib.Path(__file__).parent
RENEW_EVERY = 4  # pairs, which fill 24 slots more
SPOKEN = pathlib.Path("interaction/session/demo_media")


def talk(seconds: int = 20) -> np.ndarray:
    """Twenty seconds of spoken digits over faint noise, to be heard again and again."""
    random = np.random.default_rng(0)
    wave = random.normal(0, 1e-3, seconds * SAMPLE_RATE).astype(np.float32)
    place = SAMPLE_RATE
    for path in sorted(SPOKEN.glob("*.flac")):
        clip = read_audio(path)[: 2 * SAMPLE_RATE]
        if place + len(clip) < len(wave):
            wave[place : place + len(clip)] += clip
        place += 4 * SAMPLE_RATE
    return wave.reshape(-1, CHUNK)


def resident_mebibytes() -> float:
    """Resident memory of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(lanes: Lanes, chunk: np.ndarray) -> tuple[float, float]:
    """Elapsed and processor seconds of the next micro-turn of lane 0."""
    now = int(lanes.next[0])
    item = LaneInput(now, audio=((now, chunk),))
    began, used = time.perf_counter(), time.process_time()
    lanes.step([item])
    return time.perf_counter() - began, time.process_time() - used


def age(lanes: Lanes, heard, micro_turns: int, every: int):
    """Steps one session; elapsed and processor seconds of all steps, memory every so often."""
    seconds, memory = [], []
    for index in range(micro_turns):
        seconds.append(timed(lanes, heard[index % len(heard)]))
        if index % every == every - 1:
            memory.append({"micro_turn": index + 1, "resident_mib": round(resident_mebibytes(), 1)})
            print(f"{index + 1} micro-turns, {memory[-1]['resident_mib']} MiB", file=sys.stderr)
    return seconds, memory


def pairs(old: Lanes, young: Lanes, heard, count: int, renew) -> tuple[list, list]:
    """Micro-turns of two sessions in turns, both hearing the same; now one first, now the other."""
    times: tuple[list, list] = ([], [])
    for index in range(count):
        if index % RENEW_EVERY == 0:
            renew()
        order = ((old, times[0]), (young, times[1]))
        for lanes, seconds in order if index % 2 else order[::-1]:
            seconds.append(timed(lanes, heard[index % len(heard)]))
    return times


def compared(one: str, first: list, other: str, second: list) -> dict:
    """Two sessions' micro-turns and their ratios: elapsed, and of processor time."""
    found: dict = {}
    for kind, index in (("elapsed", 0), ("processor", 1)):
        a, b = ([times[index] for times in side] for side in (first, second))
        found[kind] = {
            f"{one}_ms": measure.milliseconds(a),
            f"{other}_ms": measure.milliseconds(b),
            "ratio": measure.ratio(a, b),
        }
        print(one, other, kind, found[kind]["ratio"], file=sys.stderr)
    return found


def draw(path: pathlib.Path, seconds) -> None:
    """The hour's curve: median and 99th percentile per minute."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = 1000 * np.asarray(seconds[: len(seconds) // 300 * 300]).reshape(-1, 300)
    figure, axes = pyplot.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(np.arange(len(whole)), np.median(whole, axis=1), label="median of the minute")
    axes.plot(np.arange(len(whole)), np.percentile(whole, 99, axis=1), label="99th percentile")
    label = "processor milliseconds per micro-turn"
    axes.set(xlabel="minute of the session", ylabel=label, ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Ages a session by an hour, times it against a fresh one, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="checkpoints/nano")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--out", default=str(HERE / "hour.json"))
    args = parser.parse_args()
    params, config = load_model(args.checkpoint)
    heard = talk()
    old, young = Lanes(params, config), Lanes(params, config)
    old.warm_up()
    fresh = young.snapshot(0)
    traces = compile_step(old.config)._cache_size()
    places = config.global_slots
    tenth = None
    age(old, heard, 20, 1000)
    while int(old.state.cache["count"][0]) < places // 10:
        timed(old, heard[0])
    tenth = old.snapshot(0)
    while int(old.state.cache["count"][0]) < places:
        timed(old, heard[int(old.next[0]) % len(heard)])
    filled = old.snapshot(0)
    seconds, memory = age(old, heard, args.minutes * 300 - int(old.next[0]), 1500)
    used = [processor for _, processor in seconds]
    hour, new = pairs(old, young, heard, args.pairs, lambda: young.restore(0, fresh))
    late, early = pairs(old, young, heard, args.pairs, lambda: young.restore(0, filled))
    full, little = pairs(old, young, heard, args.pairs // 2, lambda: young.restore(0, tenth))
    measure.write(
        pathlib.Path(args.out),
        {
            **machine.facts(),
            "model": f"{args.checkpoint}, one lane, {places} places in the global store",
            "hour": {
                "micro_turns": int(old.next[0]),
                "slots": int(old.state.cache["count"][0]),
                "elapsed_ms": measure.milliseconds([one for one, _ in seconds]),
                "processor_ms": measure.milliseconds(used),
                "course_of_processor_time": measure.course(used, bins=12),
                "resident_memory": memory,
                "traces_after_warm_up": compile_step(old.config)._cache_size() - traces,
            },
            "hour_old_against_fresh": compared("hour_old", hour, "fresh", new),
            "hour_old_against_store_just_full": {
                "just_full_at_minute": round(filled.micro_turn / 300, 1),
                **compared("hour_old", late, "just_full", early),
            },
            "store_filled_100_against_10_percent": compared(
                "filled_100", full, "filled_10", little
            ),
        },
    )
    draw(pathlib.Path(args.out).with_suffix(".png"), used)


if __name__ == "__main__":
    main()
