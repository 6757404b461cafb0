"""Is the step as fast after an hour as at the start?

Question: one hour is stepped; then micro-turns of the hour-old session and of a fresh one are timed
in turns, in one program, on the same input: what is the ratio? What does a store that is full to
10 % and to 100 % cost? Does memory grow, is anything traced again?
Command: taskset -c 1 python -m experiments.bench.hour --of listening
         taskset -c 1 python -m experiments.bench.hour --of conversation
    (each puts its row into the file; `--quick`: two minutes instead of an hour, writes nothing)
Cost: ten minutes and eight on one core.
Expectation: ratio at most 1.05, resident memory flat, no trace after warm-up.
Finding: `experiments/bench/hour.json` and a curve of each row (`hour_listening.png`). Listening:
against a fresh session the ratio is 1.03 (1.02 to 1.05), against one whose store of 1,024 slots is
just full 0.99 (0.97 to 1.01); a full store against a tenth of one costs 1.03 (1.01 to 1.04). Only
filled blocks of the store are read, so a fresh session is a little cheaper; with a store of 4,096
slots that was 1.16 (1.14 to 1.17). Memory rises by up to 3.3 MiB, as much as the records of the
micro-turns that this script keeps; nothing is traced again. By C++ (`xeon/hour_native.json`) the
median of the pairs' ratios is 1.042 (1.040 to 1.046), in conversation 1.046 (1.041 to 1.049).

Listening: spoken digits again and again, to a session that says and sees nothing. Conversation: the
shipped demo's 25 seconds (people say digits and a sentence, a person is filmed, a figure kicks)
again and again, sound and video each from another offset every time, and a word typed every time;
the model writes and speaks. There a micro-turn's time depends on what is put out, which the two
sessions may do at different places: so the median of the pairs' ratios is told beside the ratio of
medians, and this of all pairs and of the pairs in which both put out as many ids and both spoke or
neither did.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time

import numpy as np

from experiments.bench import machine, measure
from interaction.data.voices import SAMPLE_RATE
from interaction.kernels.implementation import Implementation
from interaction.models.checkpoint import load_model
from interaction.models.memory import Holding
from interaction.session.demo import DEMO_SECONDS, shipped_recording
from interaction.session.lanes import Bucket, Lanes
from interaction.session.step import compile_step
from interaction.streams.audio import CHUNK
from interaction.streams.media import read_audio
from interaction.streams.weave import LaneInput
from interaction.types import Control, TextIn

HERE = pathlib.Path(__file__).parent
# Pairs after which the fresh session is made anew: listening fills 24 slots in them, conversation
# some 250, for a digit is heard whole before it is answered.
RENEW_EVERY = {"listening": 4, "conversation": 32}
LEAST_PAIRS = 50  # of a group whose ratio is told
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


class Listening:
    """Micro-turn -> what is heard: `talk`, again and again."""

    def __init__(self, config, tokenizer):
        self._heard = talk()

    def at(self, index: int) -> LaneInput:
        """The input of micro-turn `index`."""
        return LaneInput(index, audio=((index, self._heard[index % len(self._heard)]),))


class Conversation:
    """Micro-turn -> what is heard, seen and typed; the same of the same index."""

    def __init__(self, config, tokenizer):
        recording, _, _ = shipped_recording(DEMO_SECONDS)
        self._parts = [arrived.lane for arrived in recording.arrivals(config, tokenizer)]
        self._typed = TextIn(
            Control.USER, tuple(tokenizer.encode("go on"))[: config.max_text_in - 1]
        )

    def at(self, index: int) -> LaneInput:
        """The input of micro-turn `index`."""
        length = len(self._parts)
        cycle, place = divmod(index, length)
        sound, sight, typed = np.random.default_rng(cycle).integers(0, length, 3)
        ((_, chunk),) = self._parts[(place + sound) % length].audio
        return LaneInput(
            index,
            video=self._parts[(place + sight) % length].video,
            text_in=(self._typed,) if place == typed else (),
            audio=((index, chunk),),
        )


ROWS = {"listening": Listening, "conversation": Conversation}


@dataclasses.dataclass(frozen=True)
class Timed:
    """One micro-turn, without its arrays: an hour of them must not fill the memory.

    Attributes:
        elapsed, processor: seconds.
        bucket: the compiled size that was used.
        heard, seen, read: slots of sound, video and text that came in.
        ids: put out, the closer among them.
        speaks: whether sound was put out.
        writes: whether text was written or said.
        forgotten: text slots that gave way.
    """

    elapsed: float
    processor: float
    bucket: Bucket
    heard: int
    seen: int
    read: int
    ids: int
    speaks: bool
    writes: bool
    forgotten: int


def timed(lanes: Lanes, given: LaneInput) -> Timed:
    """The next micro-turn of lane 0, which takes `given` as of its own time."""
    now = int(lanes.next[0])
    audio = tuple((now, chunk) for _, chunk in given.audio)
    given = dataclasses.replace(given, micro_turn=now, audio=audio)
    began, used = time.perf_counter(), time.process_time()
    output = lanes.step([given])[0]
    elapsed, processor = time.perf_counter() - began, time.process_time() - used
    assert output is not None
    return Timed(
        elapsed=elapsed,
        processor=processor,
        bucket=lanes.bucket,
        heard=lanes.config.grid.audio_frames * len(audio),
        seen=0 if given.video is None else len(given.video),
        read=sum(1 + len(piece.tokens) for piece in given.text_in),
        ids=len(output.tokens),
        speaks=output.closer is Control.SPEAK,
        writes=bool(output.written or output.said),
        forgotten=output.forgotten_text,
    )


def age(lanes: Lanes, heard, until: int, every: int = 1500) -> tuple[list[Timed], list[dict]]:
    """Steps one session up to a micro-turn; every step, and memory every so often."""
    found, memory = [], []
    for index in range(int(lanes.next[0]), until):
        found.append(timed(lanes, heard.at(index)))
        if index % every == every - 1:
            memory.append({"micro_turn": index + 1, "resident_mib": round(resident_mebibytes(), 1)})
            print(f"{index + 1} micro-turns, {memory[-1]['resident_mib']} MiB", file=sys.stderr)
    return found, memory


def until_filled(lanes: Lanes, heard, slots: int) -> list[Timed]:
    """Steps one session until it has appended so many slots."""
    found = []
    while int(lanes.state.cache["count"][0]) < slots:
        found.append(timed(lanes, heard.at(int(lanes.next[0]))))
    return found


def pairs(old: Lanes, young: Lanes, heard, count: int, renew_every: int, renew):
    """Micro-turns of two sessions in turns on the same input; now one first, now the other."""
    found: tuple[list[Timed], list[Timed]] = ([], [])
    for index in range(count):
        if index % renew_every == 0:
            renew()
        given = heard.at(int(old.next[0]))
        order = ((old, found[0]), (young, found[1]))
        for lanes, times in order if index % 2 else order[::-1]:
            times.append(timed(lanes, given))
    return found


def compared(one: str, first: list[Timed], other: str, second: list[Timed]) -> dict:
    """Two sessions' micro-turns and their ratios, elapsed and of processor time: of all pairs, of
    those that put out alike, and of those by bucket."""
    found: dict = {}
    alike = [
        (a, b)
        for a, b in zip(first, second, strict=True)
        if a.ids == b.ids and a.speaks == b.speaks
    ]
    for kind in ("elapsed", "processor"):
        a, b = ([getattr(each, kind) for each in side] for side in (first, second))
        found[kind] = {
            f"{one}_ms": measure.milliseconds(a),
            f"{other}_ms": measure.milliseconds(b),
            "ratio": measure.ratio(a, b),
            "median_of_pair_ratios": measure.median_of_ratios(a, b),
        }
        groups = {"alike": alike}
        for bucket in sorted({each.bucket for each, _ in alike}, key=lambda each: each.slots):
            name = f"alike, bucket of {bucket.slots} slots and {bucket.patches} patches"
            groups[name] = [pair for pair in alike if pair[0].bucket == bucket]
        groups["alike, both speak"] = [pair for pair in alike if pair[0].speaks]
        sides = lambda group, kind=kind: (
            [getattr(each[i], kind) for each in group] for i in (0, 1)
        )
        found[kind]["of"] = {
            name: measure.ratio(*sides(group))
            if len(group) >= LEAST_PAIRS
            else {"pairs": len(group)}
            for name, group in groups.items()
        }
        print(one, other, kind, found[kind], file=sys.stderr)
    return found


def told(found: list[Timed], speech_slots: int) -> dict:
    """What a session took in and put out, by kinds of slots and of micro-turns."""
    total = lambda name: sum(int(getattr(each, name)) for each in found)
    return {
        "slots_appended": {
            "heard": total("heard"),
            "seen": total("seen"),
            "text in": total("read"),
            "begin": len(found),
            "ids put out": total("ids"),
            "own speech": speech_slots * total("speaks"),
        },
        "micro_turns_with_video": sum(each.seen > 0 for each in found),
        "micro_turns_that_speak": total("speaks"),
        "micro_turns_that_write_or_say": total("writes"),
        "text_slots_forgotten": total("forgotten"),
    }


def kept(lanes: Lanes) -> dict[str, int]:
    """What the global store of lane 0 holds."""
    holding = np.asarray(lanes.state.cache["global"]["holding"])[0]
    return {each.name.lower(): int((holding == int(each)).sum()) for each in Holding}


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


def run(
    of: str, checkpoint: str, minutes: float, count: int, who: Implementation
) -> tuple[dict, list[float]]:
    """One row: a session is aged and compared; and the processor seconds of its micro-turns."""
    about = machine.facts() | {"implementation": who.name}
    params, config = load_model(checkpoint, implementation=who)
    old, young = Lanes(params, config), Lanes(params, config)
    heard, every = ROWS[of](config, old.tokenizer), RENEW_EVERY[of]
    old.warm_up()
    fresh = young.snapshot(0)
    traces = compile_step(old.config)._cache_size()
    places = config.global_slots
    steps = until_filled(old, heard, places // 10)
    tenth = old.snapshot(0)
    steps += until_filled(old, heard, places)
    filled = old.snapshot(0)
    aged, memory = age(old, heard, round(minutes * 300))
    steps += aged
    holds = kept(old)
    used = [each.processor for each in steps]

    def beside(snapshot, number: int, renew_every: int):
        return pairs(old, young, heard, number, renew_every, lambda: young.restore(0, snapshot))

    hour, new = beside(fresh, count, every)
    late, early = beside(filled, count, every)
    full, little = beside(tenth, count // 2, every)
    steps += [*hour, *late, *full]
    put = told(steps, config.speech_slots)
    appended = sum(put["slots_appended"].values())
    if appended != int(old.state.cache["count"][0]):
        raise ValueError(f"{appended} slots are counted, the lane has {old.state.cache['count']}")
    row = {
        **about,
        "model": f"{checkpoint}, one lane, {places} places in the global store",
        "hour": {
            "micro_turns": int(old.next[0]),
            "slots": appended,
            **put,
            "store_holds": holds,
            "elapsed_ms": measure.milliseconds([each.elapsed for each in aged]),
            "processor_ms": measure.milliseconds([each.processor for each in aged]),
            "course_of_processor_time": measure.course(used, bins=12),
            "resident_memory": memory,
            "traces_after_warm_up": compile_step(old.config)._cache_size() - traces,
        },
        "pairs_until_the_fresh_session_is_made_anew": every,
        "hour_old_against_fresh": compared("hour_old", hour, "fresh", new),
        "hour_old_against_store_just_full": {
            "just_full_at_minute": round(filled.micro_turn / 300, 1),
            **compared("hour_old", late, "just_full", early),
        },
        "store_filled_100_against_10_percent": compared("filled_100", full, "filled_10", little),
    }
    return row, used


def main() -> None:
    """Ages a session by an hour, times it against a fresh one, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", choices=list(ROWS), default="listening")
    parser.add_argument("--checkpoint", default="checkpoints/nano")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--implementation", choices=("NATIVE", "REFERENCE"), default="REFERENCE")
    parser.add_argument("--out", default=str(HERE / "hour.json"))
    parser.add_argument("--quick", action="store_true", help="2 minutes, 60 pairs, nothing written")
    args = parser.parse_args()
    minutes, count = (2, 60) if args.quick else (args.minutes, args.pairs)
    who = Implementation[args.implementation]
    row, used = run(args.of, args.checkpoint, minutes, count, who)
    if args.quick:
        print(json.dumps(row["hour"], indent=1))
        return
    out = pathlib.Path(args.out)
    report = json.loads(out.read_text()) if out.exists() else {}
    measure.write(out, report | {args.of: row})
    draw(out.with_name(f"{out.stem}_{args.of}.png"), used)


if __name__ == "__main__":
    main()
