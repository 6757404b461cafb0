"""How many chips does a service need, and what does an hour of conversation take of them?

Question: with step times as measured by `experiments/bench/sessions_per_core.py`, how do sessions
per chip, p99 lateness and chip-hours per hour of conversation depend on the size of the fleet, on
the lanes of the compiled program, and on failures?
Command: python -m experiments.fleet [--price PER_CHIP_HOUR]
    python -m experiments.fleet --slices TABLE --slice v6e:4x8 --out FILE   # computed step times
Cost: about half a minute of one CPU core; `--quick` some seconds, writes nothing.
Expectation: a fleet turns away less than 1 % from 8 to 10 % more lanes than sessions on (Erlang's
formula); small services pay more for each conversation; more lanes save chips until the tail of the
step meets the 200 ms clock; snapshots turn nearly every lost session into a gap of seconds.
Finding: `fleet.json` and `fleet.png` beside this file. A run that was stopped goes on where it was;
with other step times or assumptions it begins again.

The service has 8 sessions at once for each lane of the largest program that ends within 200 ms at
p99. Arrivals, lengths, the share of video, and failures are assumptions, named in the JSON. Step
times are measured for one core (a "chip" here), or computed for a slice of accelerators from the
table of `experiments/slices.py`: these have no tail, no video, and are labelled computed in
everything written. Without a price, costs are in chip-hours.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from interaction import configuration
from interaction.serving.fleet import Outcome, Report, erlang_b, simulate
from interaction.serving.fleet_config import (
    Admission,
    AfterFailure,
    Failures,
    Fleet,
    StepTimes,
    Traffic,
    WhenFull,
    from_bench,
    from_slices,
)

HERE = pathlib.Path(__file__).parent
BENCH = HERE / "bench" / "sessions_per_core.json"
MINUTES = 6.0
ASSUMED = {"mean_minutes": MINUTES, "spread": 1.0, "video_share": 0.15}
ADMISSION = Admission(WhenFull.QUEUE, patience_seconds=10.0)
TARGET = 0.01  # share turned away
SIZES = (0.85, 1.0, 1.06, 1.12, 1.2, 1.4)  # lanes of the fleet for each session offered
SERVICE, SERVICES = 8.0, (0.25, 1.0, 3.0, 8.0)  # sessions at once for each lane of a program
SEEDS = 3
HOURS, FAILING_HOURS = 3.0, 9.0  # the first of each is not counted


def traffic(sessions: float, steps: StepTimes) -> Traffic:
    """So many sessions at once; video where it was measured."""
    rest = dict(ASSUMED)
    if not any(row.video_lanes for row in steps.rows):
        rest["video_share"] = 0.0
    return Traffic(sessions * 60 / MINUTES, **rest)


def figures(config: Fleet, steps: StepTimes) -> dict:
    """Means over seeds, with the half width of a 95 % interval where it is asked for."""
    reports = [simulate(config, steps, seed) for seed in range(SEEDS)]

    def mean(value) -> float:
        return float(np.mean([value(r) for r in reports]))

    def half(value) -> float:  # Student's t, SEEDS - 1 = 2 degrees of freedom
        return 4.303 * float(np.std([value(r) for r in reports], ddof=1)) / math.sqrt(SEEDS)

    def away(report: Report) -> float:
        return report.turned_away_share

    chips = config.replicas * steps.chips
    return {
        "replicas": config.replicas,
        "chips": chips,
        "lanes_in_all": config.replicas * max(config.programs),
        "turned_away_share": round(mean(away), 5),
        "turned_away_interval": round(half(away), 5),
        "live_sessions": round(mean(lambda r: r.live), 2),
        "sessions_per_chip": round(mean(lambda r: r.live) / chips, 3),
        "lateness_p99_ms": round(1000 * mean(lambda r: r.lateness_p99), 2),
        "lateness_p99.9_ms": round(1000 * mean(lambda r: r.lateness_p999), 2),
        "late_share": round(mean(lambda r: r.late_share), 6),
        "wait_p99_seconds": round(mean(lambda r: r.wait_p99), 2),
        "chip_hours_per_session_hour": round(mean(lambda r: r.chip_hours_per_session_hour), 5),
    }


def by_size(steps: StepTimes, programs: tuple[int, ...], offered: float, sizes) -> list[dict]:
    """The service on fleets of several sizes."""
    lanes = max(programs)
    rows = []
    for replicas in sorted({max(1, math.ceil(size * offered / lanes)) for size in sizes}):
        config = Fleet(replicas, programs, traffic(offered, steps), ADMISSION, hours=HOURS)
        row = figures(config, steps)
        row["erlang_b_without_a_line"] = round(erlang_b(row["lanes_in_all"], offered), 5)
        rows.append(row)
        print(programs, row, flush=True)
    return rows


def smallest(steps: StepTimes, programs: tuple[int, ...], sessions: float) -> dict:
    """The smallest fleet that turns away at most `TARGET` of a service of this size."""
    lanes = max(programs)
    replicas = max(1, math.ceil(sessions / lanes))
    while True:
        config = Fleet(replicas, programs, traffic(sessions, steps), ADMISSION, hours=HOURS)
        row = figures(config, steps)
        if row["turned_away_share"] <= TARGET:
            print("service", sessions, row, flush=True)
            return {"offered_sessions": sessions, **row}
        replicas += 1


def failing(
    steps: StepTimes,
    programs: tuple[int, ...],
    offered: float,
    replicas: int,
    after: AfterFailure,
) -> dict:
    """The fleet with replicas that die every 6 hours each."""
    plan = Failures(6.0, 10.0, after, snapshot_seconds=10.0, restore_seconds=2.0)
    service = traffic(offered, steps)
    config = Fleet(replicas, programs, service, ADMISSION, plan, hours=FAILING_HOURS)
    reports = [simulate(config, steps, seed) for seed in range(SEEDS)]
    hours = sum(r.session_hours for r in reports)
    failures = sum(r.failures for r in reports)
    lost = sum(r.outcomes[Outcome.LOST] for r in reports)
    moved = sum(r.interruptions for r in reports)
    talk = float(sum(r.talk_lost for r in reports))
    away = float(np.mean([r.turned_away_share for r in reports]))
    row = {
        "after": after.value,
        "replicas": replicas,
        "failures": failures,
        "failures_due": round(SEEDS * replicas * (FAILING_HOURS - 1) / (6 + 1 / 6), 1),
        "lost_per_failure": round(lost / max(failures, 1), 2),
        "lost_per_1000_session_hours": round(1000 * lost / hours, 3),
        "moved_per_1000_session_hours": round(1000 * moved / hours, 3),
        "talk_lost_seconds_per_move": round(talk / max(moved, 1), 2),
        "gap_p99_seconds": round(max(r.gap_p99 for r in reports), 2),
        "turned_away_share": round(away, 5),
    }
    print(row, flush=True)
    return row


class Parts:
    """Results of a run that may be stopped, in a hidden file beside the final one."""

    def __init__(self, out: pathlib.Path, header: dict):
        self.file = out.with_name(f".{out.name}.parts")
        self.header = json.loads(json.dumps(header))
        self.done: dict = {}
        if self.file.exists():
            found = json.loads(self.file.read_text())
            if found["header"] == self.header:
                self.done = found["done"]

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What was found before, or is made now."""
        if name not in self.done:
            self.done[name] = make()
            content = {"header": self.header, "done": self.done}
            self.file.write_text(json.dumps(content))
        return self.done[name]


def draw(result: dict, price: float | None, file: pathlib.Path) -> None:
    """Sessions per chip, p99 lateness and cost against the size of the fleet; cost by service."""
    import matplotlib.pyplot as plt

    unit = "chip-hours" if price is None else "money"
    factor = 1.0 if price is None else price
    panels = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)[1].ravel()
    for name, rows in result["by_size"].items():
        chips = [row["chips"] for row in rows]
        panels[0].plot(chips, [row["sessions_per_chip"] for row in rows], "o-", label=name)
        panels[1].plot(chips, [row["lateness_p99_ms"] for row in rows], "o-", label=name)
        cost = [factor * row["chip_hours_per_session_hour"] for row in rows]
        panels[2].plot(chips, cost, "o-", label=name)
    rows = result["smallest_fleets"]
    offered = [row["offered_sessions"] for row in rows]
    cost = [factor * row["chip_hours_per_session_hour"] for row in rows]
    panels[3].semilogx(offered, cost, "o-")
    labels = (
        ("chips", "live sessions per chip"),
        ("chips", "p99 lateness of micro-turns, ms"),
        ("chips", f"{unit} per hour of conversation"),
        ("sessions at once", f"{unit} per hour, {100 * TARGET:.0f} % turned away at most"),
    )
    for panel, (across, up) in zip(panels, labels, strict=True):
        panel.set(xlabel=across, ylabel=up)
        panel.grid(alpha=0.3)
    panels[0].legend(title="lanes of a chip's programs", fontsize=8)
    panels[0].figure.suptitle(
        f"Simulated fleet for {result['sessions_at_once']:.0f} sessions at once; step times "
        f"{result['step_times']['source']} ({result['step_times']['origin']}); a replica is "
        f"{result['step_times']['chips']} chip(s)",
        fontsize=10,
    )
    panels[0].figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--price", type=float, help="of a chip-hour, in any money")
    parser.add_argument("--slices", type=pathlib.Path, help="computed step times (JSON)")
    parser.add_argument("--slice", default="v6e:4x8", help="row of these")
    parser.add_argument("--context", type=int, default=32_768, help="row of these")
    parser.add_argument("--tokens", type=int, default=16, help="row of these")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "fleet.json")
    parser.add_argument("--quick", action="store_true", help="two sizes, nothing written")
    options = parser.parse_args()
    if options.slices is None:
        steps = from_bench(json.loads(BENCH.read_text()), str(BENCH.relative_to(HERE.parent)))
    else:
        table = json.loads(options.slices.read_text())
        row = options.slice, options.context, options.tokens
        steps = from_slices(table, *row, str(options.slices))
    in_time = [row.lanes for row in steps.rows if row.draw(np.array(0.99)) <= 0.2]
    if not in_time:
        parser.error(f"no program of {steps.origin} ends within 200 ms at p99")
    lanes = tuple(row.lanes for row in steps.rows)
    chosen = [(one,) for one in lanes if 2 * one > max(in_time)] + [lanes]
    sizes = SIZES[2:4] if options.quick else SIZES
    offered = SERVICE * max(in_time)
    result = {
        "question": "sessions per chip, lateness and cost against the size of the fleet",
        "step_times": configuration.to_dict(steps),
        "largest_program_within_200_ms_at_p99": max(in_time),
        "sessions_at_once": offered,
        "assumed": configuration.to_dict(traffic(offered, steps))
        | {"admission": configuration.to_dict(ADMISSION)},
        "hours": HOURS,
        "hours_with_failures": FAILING_HOURS,
        "seeds": SEEDS,
    }
    if options.quick:
        for programs in chosen:
            by_size(steps, programs, offered, sizes)
        return
    done = Parts(options.out, result)
    best = (max(in_time),)
    result["by_size"] = {}
    for programs in chosen:
        name = "+".join(map(str, programs))
        sized = partial(by_size, steps, programs, offered, sizes)
        result["by_size"][name] = done.part(f"size {name}", sized)
    result["smallest_fleets"] = [
        done.part(f"service {size}", partial(smallest, steps, best, size * best[0]))
        for size in SERVICES
    ]
    needed = result["smallest_fleets"][-1]["replicas"]
    result["failures_every_6_hours"] = [
        done.part(f"{after} {spare}", partial(failing, steps, best, offered, needed + spare, after))
        for after in AfterFailure
        for spare in (0, 1)
    ]
    if options.price is not None:
        result["price_of_a_chip_hour"] = options.price
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    done.file.unlink()
    draw(result, options.price, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
