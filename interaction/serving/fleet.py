"""A serving fleet, simulated: arrivals, lanes, failures, and the lateness of micro-turns.

In: a `Fleet`, step times and a seed. Out: a `Report`. Sessions are placed by events (arrival,
departure, failure, repair, patience at its end); after that every replica's micro-turns are drawn
at once from the step times of the program it ran, against the 200 ms clock. Same seed, same
report. `erlang_b` and `erlang_c` are what theory has for the plain cases.
"""

import collections
import dataclasses
import enum
import heapq
import math

import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS
from interaction.serving.fleet_config import (
    AfterFailure,
    Fleet,
    Lengths,
    Source,
    StepTimes,
    Traffic,
    WhenFull,
)

HOUR = 3600.0


class Outcome(enum.IntEnum):
    """How a session stands at the end of the simulated time."""

    WAITING = 0
    RUNNING = 1
    COMPLETED = 2
    REJECTED = 3
    GAVE_UP = 4
    LOST = 5


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened after the warm-up. Seconds unless said.

    Attributes:
        source: of the step times.
        arrived: sessions that came.
        outcomes: number of sessions by `Outcome`.
        turned_away_share: rejected or out of patience, of those that came.
        lost_share: cut off by a failure, of those that had begun.
        failures: replicas that died.
        interruptions: times that a failure met a session which then went on elsewhere.
        talk_lost: said since the last snapshot of those, in all.
        gap_p99: from failure to going on, 99th percentile.
        wait_mean, wait_p99: in line, over the sessions that began.
        waited_share: of the sessions that began, those that did not begin at once.
        live: sessions live in the mean.
        session_hours, chip_hours: in all; a replica that is down costs too.
        late_share: micro-turns of sessions whose output missed its deadline.
        lateness_p99, lateness_p999: of the same, from the deadline; 0 is on time.
    """

    source: Source
    arrived: int
    outcomes: dict[Outcome, int]
    turned_away_share: float
    lost_share: float
    failures: int
    interruptions: int
    talk_lost: float
    gap_p99: float
    wait_mean: float
    wait_p99: float
    waited_share: float
    live: float
    session_hours: float
    chip_hours: float
    late_share: float
    lateness_p99: float
    lateness_p999: float

    @property
    def chip_hours_per_session_hour(self) -> float:
        """What an hour of conversation takes; times a price it is its cost."""
        return self.chip_hours / self.session_hours if self.session_hours else math.inf


def simulate(fleet: Fleet, steps: StepTimes, seed: int) -> Report:
    """Run the fleet.

    Raises:
        ValueError: a program's lanes have no step time.
    """
    streams = np.random.default_rng(seed).spawn(3)
    rows = [steps.row(lanes) for lanes in fleet.programs]
    run = _Run(fleet, rows[-1].lanes, rows[-1].video_lanes, streams[0], streams[1])
    run.play()
    late, weight, total = [], [], 0.0
    begin = fleet.warm_up_hours * HOUR
    for changes in run.changes:
        lateness, sessions = _lateness(changes, rows, begin, fleet.hours * HOUR, streams[2])
        total += sessions.sum()
        some = lateness > 0
        late.append(lateness[some])
        weight.append(sessions[some])
    late, weight = np.concatenate(late), np.concatenate(weight)
    return _report(fleet, steps, run, late, weight, total)


# ---------------------------------------------------------------------------- sessions


def arrivals(traffic: Traffic, seconds: float, random: np.random.Generator) -> np.ndarray:
    """Times of arrival in ``[0, seconds)``, rising (Poisson, thinned to the hour of the day)."""
    peak = traffic.sessions_per_hour * (1 + traffic.day_swing) / HOUR
    times = np.sort(random.uniform(0, seconds, random.poisson(peak * seconds)))
    swing = 1 + traffic.day_swing * np.sin(2 * np.pi * times / (24 * HOUR))
    keep = random.random(len(times)) * (1 + traffic.day_swing) < swing
    return times[keep]


def lengths(traffic: Traffic, count: int, random: np.random.Generator) -> np.ndarray:
    """Lengths of sessions in seconds."""
    mean = traffic.mean_minutes * 60
    if traffic.lengths is Lengths.EXPONENTIAL:
        return random.exponential(mean, count)
    return random.lognormal(math.log(mean) - traffic.spread**2 / 2, traffic.spread, count)


class _Run:
    """The state of the simulated fleet between two events.

    Attributes:
        outcome, waited: by session.
        changes: of each replica, (time, sessions, of them with video, up or down).
    """

    def __init__(self, fleet: Fleet, lanes: int, video_lanes: int, sessions, failures):
        self.fleet, self.lanes, self.video_lanes = fleet, lanes, video_lanes
        self.end, self.counted = fleet.hours * HOUR, fleet.warm_up_hours * HOUR
        self.random = failures
        self.arrival = arrivals(fleet.traffic, self.end, sessions)
        count = len(self.arrival)
        self.remaining = lengths(fleet.traffic, count, sessions)
        self.video = sessions.random(count) < fleet.traffic.video_share
        self.outcome = np.full(count, Outcome.WAITING)
        self.waited = np.full(count, np.nan)
        self.served = np.zeros(count)  # seconds in a lane
        self.begun: dict[int, float] = {}  # since when a session has the lane it is in
        self.place: dict[int, int] = {}
        self.residents: list[dict[int, None]] = [{} for _ in range(fleet.replicas)]
        self.load = [0] * fleet.replicas
        self.video_load = [0] * fleet.replicas
        self.down: set[int] = set()
        self.line: collections.deque[int] = collections.deque()
        self.cut: dict[int, float] = {}  # sessions of dead replicas -> when it died
        self.gaps: list[float] = []
        self.talk_lost = 0.0
        self.failures = 0
        self.changes = [[(0.0, 0, 0)] for _ in range(fleet.replicas)]
        self.events: list[tuple] = []
        self.order = 0

    def play(self) -> None:
        """All events until the end."""
        for session, time in enumerate(self.arrival):
            self.at(time, self.arrive, session)
        if math.isfinite(self.fleet.failures.hours_between):
            for replica in range(self.fleet.replicas):
                self.plan_failure(0.0, replica)
        while self.events:
            time, _, happen, subject, ticket = heapq.heappop(self.events)
            if time >= self.end:
                break
            happen(time, subject, ticket)
        for session in list(self.place):
            self.leave(self.end, session)
            self.outcome[session] = Outcome.RUNNING

    def at(self, time: float, happen, subject: int, ticket: float = 0.0) -> None:
        """Plan an event; one at the same time happens in the order of planning."""
        heapq.heappush(self.events, (time, self.order, happen, subject, ticket))
        self.order += 1

    # -------------------------------------------------------------- lanes

    def free(self, session: int) -> int | None:
        """The emptiest replica that can take it."""
        least, found = self.lanes, None
        for replica, load in enumerate(self.load):
            sees = not self.video[session] or self.video_load[replica] < self.video_lanes
            if load < least and sees and replica not in self.down:
                least, found = load, replica
        return found

    def enter(self, time: float, session: int, replica: int) -> None:
        """Take a lane."""
        self.begun[session], self.place[session] = time, replica
        self.residents[replica][session] = None
        self._count(time, replica, 1, session)
        self.at(time + self.remaining[session], self.depart, session, time)

    def leave(self, time: float, session: int) -> None:
        """Give the lane back."""
        replica = self.place.pop(session)
        spent = time - self.begun.pop(session)
        self.served[session] += spent
        self.remaining[session] -= spent
        del self.residents[replica][session]
        self._count(time, replica, -1, session)

    def _count(self, time: float, replica: int, one: int, session: int) -> None:
        self.load[replica] += one
        self.video_load[replica] += one * bool(self.video[session])
        self.changes[replica].append((time, self.load[replica], self.video_load[replica]))

    def serve(self, time: float) -> None:
        """Let in whoever in line fits, first come first."""
        for session in list(self.line):
            replica = self.free(session)
            if replica is not None:
                self.line.remove(session)
                self.begin(time, session, replica)
            elif not self.video[session]:
                return  # what does not take a session without video takes none

    def begin(self, time: float, session: int, replica: int) -> None:
        """Start, or go on after a failure."""
        if session in self.cut:
            gap = time - self.cut.pop(session)
            if time >= self.counted:
                self.gaps.append(gap)
        else:
            self.waited[session] = time - self.arrival[session]
        self.enter(time, session, replica)

    # -------------------------------------------------------------- events

    def arrive(self, time: float, session: int, _) -> None:
        """A session comes, or one from a dead replica is ready to go on (first in line)."""
        ahead = session in self.cut
        replica = self.free(session)  # None for whoever would overtake one in line that fits
        if replica is not None:
            self.begin(time, session, replica)
        elif self.fleet.admission.when_full is WhenFull.REJECT:
            self.refuse(session, Outcome.REJECTED)
        else:
            (self.line.appendleft if ahead else self.line.append)(session)
            patience = self.fleet.admission.patience_seconds
            if math.isfinite(patience):
                self.at(time + patience, self.give_up, session, time)

    def refuse(self, session: int, outcome: Outcome) -> None:
        """No lane for it; one that had begun is lost."""
        self.outcome[session] = Outcome.LOST if self.cut.pop(session, None) is not None else outcome

    def give_up(self, _time: float, session: int, _) -> None:
        """Patience ends."""
        if session in self.line:
            self.line.remove(session)
            self.refuse(session, Outcome.GAVE_UP)

    def depart(self, time: float, session: int, begun: float) -> None:
        """A session ends, unless a failure has moved it since."""
        if self.begun.get(session) == begun:
            self.leave(time, session)
            self.outcome[session] = Outcome.COMPLETED
            self.serve(time)

    def plan_failure(self, time: float, replica: int) -> None:
        """The next failure of a replica that works."""
        wait = self.random.exponential(self.fleet.failures.hours_between * HOUR)
        self.at(time + wait, self.fail, replica)

    def fail(self, time: float, replica: int, _) -> None:
        """A replica dies with its sessions."""
        plan = self.fleet.failures
        self.down.add(replica)
        self.failures += time >= self.counted
        for session in list(self.residents[replica]):
            age = time - self.begun[session]
            self.leave(time, session)
            if plan.after is AfterFailure.LOST:
                self.outcome[session] = Outcome.LOST
            else:
                if time >= self.counted:
                    self.talk_lost += age % plan.snapshot_seconds
                self.cut[session] = time
                self.at(time + plan.restore_seconds, self.arrive, session)
        self.at(time + plan.repair_minutes * 60, self.repair, replica)

    def repair(self, time: float, replica: int, _) -> None:
        """A replica is back, empty."""
        self.down.remove(replica)
        self.plan_failure(time, replica)
        self.serve(time)


# ---------------------------------------------------------------------------- the clock


def backlog(seconds_M: np.ndarray, clock: float = MICRO_TURN_SECONDS) -> np.ndarray:
    """By how much each output misses its deadline when a late step delays the next.

    Lindley's recursion ``late[m] = max(0, late[m - 1] + seconds[m] - clock)``, in closed form.

    Args:
        seconds_M: length of each step; 0 where nothing runs.
        clock: a step is started every so many seconds.
    """
    course = np.cumsum(seconds_M - clock)
    return course - np.minimum(np.minimum.accumulate(course), 0.0)


def _lateness(changes, rows, begin: float, end: float, random) -> tuple[np.ndarray, np.ndarray]:
    """Lateness of each micro-turn of a replica, and the sessions it met."""
    times, sessions, video = (np.array(column) for column in zip(*changes, strict=True))
    starts = np.arange(0.0, end, MICRO_TURN_SECONDS)
    now = np.searchsorted(times, starts, side="right") - 1
    sessions, video = sessions[now], video[now]
    drawn = random.random(len(starts))
    seconds = np.zeros(len(starts))
    left = sessions > 0
    for row in rows:
        runs = left & (sessions <= row.lanes) & (video <= row.video_lanes)
        seconds[runs] = row.draw(drawn[runs])
        left &= ~runs
    late = backlog(seconds)
    counted = (starts >= begin) & (sessions > 0)
    return late[counted], sessions[counted]


# ---------------------------------------------------------------------------- the report


def _quantile(values: np.ndarray, weights: np.ndarray, total: float, share: float) -> float:
    """Of a quantity that is 0 but for these values, with weights that sum to `total` with them."""
    order = np.argsort(values)
    reached = total - weights.sum() + np.cumsum(weights[order])
    above = np.searchsorted(reached, share * total)
    if total == 0 or weights.sum() <= (1 - share) * total:
        return 0.0
    return float(values[order][min(above, len(values) - 1)])


def _report(fleet: Fleet, steps: StepTimes, run: _Run, late, weight, total: float) -> Report:
    begin = fleet.warm_up_hours * HOUR
    counted = run.arrival >= begin
    outcome = run.outcome[counted]
    outcomes = {kind: int((outcome == kind).sum()) for kind in Outcome}
    waited = run.waited[counted]
    waited = waited[~np.isnan(waited)]
    started = max(len(waited), 1)
    away = outcomes[Outcome.REJECTED] + outcomes[Outcome.GAVE_UP]
    hours = fleet.hours - fleet.warm_up_hours
    session_hours = live_seconds(run.changes, begin, run.end) / HOUR
    return Report(
        source=steps.source,
        arrived=int(counted.sum()),
        outcomes=outcomes,
        turned_away_share=away / max(int(counted.sum()), 1),
        lost_share=outcomes[Outcome.LOST] / started,
        failures=run.failures,
        interruptions=len(run.gaps),
        talk_lost=run.talk_lost,
        gap_p99=float(np.percentile(run.gaps, 99)) if run.gaps else 0.0,
        wait_mean=float(waited.sum() / started),
        wait_p99=float(np.percentile(waited, 99)) if len(waited) else 0.0,
        waited_share=float((waited > 0).sum() / started),
        live=session_hours / hours,
        session_hours=session_hours,
        chip_hours=fleet.replicas * steps.chips * hours,
        late_share=float(weight.sum() / total) if total else 0.0,
        lateness_p99=_quantile(late, weight, total, 0.99),
        lateness_p999=_quantile(late, weight, total, 0.999),
    )


def live_seconds(changes, begin: float, end: float) -> float:
    """Seconds of session that replicas held between two times."""
    held = 0.0
    for replica in changes:
        times, sessions, _ = (np.array(column) for column in zip(*replica, strict=True))
        edges = np.clip(np.append(times, end), begin, end)
        held += float((np.diff(edges) * sessions).sum())
    return held


# ---------------------------------------------------------------------------- theory


def erlang_b(lanes: int, offered: float) -> float:
    """Share of Poisson arrivals that find all lanes busy and leave (Erlang 1917), for any
    distribution of lengths."""
    blocked = 1.0
    for n in range(1, lanes + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def erlang_c(lanes: int, offered: float) -> float:
    """Share that has to wait when all wait (Erlang 1917), for exponential lengths.

    Raises:
        ValueError: the line would grow for ever.
    """
    if offered >= lanes:
        raise ValueError(f"offered={offered} must be below lanes={lanes}")
    blocked = erlang_b(lanes, offered)
    return blocked / (1 - offered / lanes * (1 - blocked))
