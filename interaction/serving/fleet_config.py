"""What a simulated fleet is made of.

In: the JSON of a bench, or numbers. Out: frozen dataclasses: step times by number of lanes,
traffic, admission, failures, and the fleet. Every number here is an input of whoever asks; step
times say whether they were measured or computed.
"""

import dataclasses
import enum
import itertools
import math
from collections.abc import Mapping

import numpy as np

# Quantiles that `experiments/bench/measure.py` writes.
_BENCH_SHARES = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Source(enum.Enum):
    """Where step times come from."""

    MEASURED = "measured"
    COMPUTED = "computed"


@dataclasses.dataclass(frozen=True)
class StepRow:
    """Length of the step of one compiled program.

    Attributes:
        lanes: sessions it holds.
        video_lanes: lanes that see video in it; no more are admitted.
        shares, seconds: quantiles, rising; between them the distribution is linear, beyond the
            last one it is flat (a tail that was not seen is not invented).
    """

    lanes: int
    video_lanes: int
    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self):
        if self.lanes < 1 or not 0 <= self.video_lanes <= self.lanes:
            raise ValueError(f"video_lanes={self.video_lanes} must lie in 0..lanes={self.lanes}")
        if len(self.shares) != len(self.seconds) or not self.shares:
            raise ValueError(f"shares={self.shares} and seconds={self.seconds} must pair up")
        for name in ("shares", "seconds"):
            values = getattr(self, name)
            if values[0] < 0 or any(b < a for a, b in itertools.pairwise(values)):
                raise ValueError(f"{name}={values} must rise from 0 or above")
        if self.shares[-1] > 1:
            raise ValueError(f"shares={self.shares} must not exceed 1")

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Step lengths in seconds for uniform random numbers of any shape."""
        return np.interp(uniform, self.shares, self.seconds)


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Step times of the programs of one model on one kind of machine.

    Attributes:
        source: measured or computed; goes into every report.
        origin: the file or formula they come from.
        chips: chips that one replica takes.
        rows: one per number of lanes, rising.
    """

    source: Source
    origin: str
    chips: int
    rows: tuple[StepRow, ...]

    def __post_init__(self):
        lanes = [row.lanes for row in self.rows]
        if not lanes or sorted(set(lanes)) != lanes:
            raise ValueError(f"rows have lanes={lanes}, want different ones, rising")
        if self.chips < 1:
            raise ValueError(f"chips={self.chips} must be at least 1")

    def row(self, lanes: int) -> StepRow:
        """The program of so many lanes.

        Raises:
            ValueError: there is none; nothing is interpolated.
        """
        for row in self.rows:
            if row.lanes == lanes:
                return row
        raise ValueError(f"lanes={lanes} is not among {[row.lanes for row in self.rows]}")


def from_bench(content: Mapping, origin: str) -> StepTimes:
    """Step times that `experiments/bench/sessions_per_core.py` measured: one core, one chip."""
    rows = []
    for entry in [*content["steps"], *content["steps_of_the_search"]]:
        known = {name: ms for name, ms in entry["step_ms"].items() if name in _BENCH_SHARES}
        names = sorted(known, key=_BENCH_SHARES.__getitem__)
        shares = tuple(_BENCH_SHARES[name] for name in names)
        seconds = tuple(known[name] / 1000 for name in names)
        rows.append(StepRow(entry["lanes"], entry["lanes_with_video"], shares, seconds))
    rows.sort(key=lambda row: row.lanes)
    return StepTimes(Source.MEASURED, origin, 1, tuple(rows))


def computed(seconds: Mapping[int, float], origin: str, *, chips: int, video: bool) -> StepTimes:
    """Step times that were calculated: no spread, and never to be read as measured.

    Args:
        seconds: lanes -> length of the step.
        origin: formula or file.
        chips: of one replica.
        video: whether every lane may see video.
    """
    rows = tuple(
        StepRow(lanes, lanes if video else 0, (0.0,), (float(seconds[lanes]),))
        for lanes in sorted(seconds)
    )
    return StepTimes(Source.COMPUTED, origin, chips, rows)


def from_slices(content: Mapping, name: str, context: int, tokens: int, origin: str) -> StepTimes:
    """Computed least step times of a slice, from the table of `launch.py aot` (`serving` rows).

    Args:
        content: the table.
        name: of the slice ("v6e:4x8").
        context: slots of memory of a session.
        tokens: ids that a micro-turn puts out.
        origin: the file.

    Raises:
        ValueError: the table has no such row; names those of the slice.
    """
    rows = [row for row in content["serving"] if row["slice"] == name]
    found = [row for row in rows if (row["context"], row["tokens"]) == (context, tokens)]
    if not found:
        known = sorted({(row["context"], row["tokens"]) for row in rows})
        raise ValueError(f"{name} with context={context}, tokens={tokens}: there are {known}")
    seconds = {row["sessions"]: row["ms"] / 1000 for row in found}
    where = f"{origin}, {name}, {context} slots, {tokens} ids: least time by published peaks"
    return computed(seconds, where, chips=found[0]["chips"], video=False)


class Lengths(enum.Enum):
    """Distribution of session lengths."""

    EXPONENTIAL = "exponential"
    LOGNORMAL = "lognormal"


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Who comes, and for how long.

    Attributes:
        sessions_per_hour: of a Poisson process, in the mean of a day.
        mean_minutes: of a session.
        lengths: their distribution.
        spread: standard deviation of the logarithm of lengths (LOGNORMAL).
        video_share: share of sessions that send video.
        day_swing: the rate goes up and down by this share in 24 hours.
    """

    sessions_per_hour: float
    mean_minutes: float
    lengths: Lengths = Lengths.LOGNORMAL
    spread: float = 1.0
    video_share: float = 0.0
    day_swing: float = 0.0

    def __post_init__(self):
        for name in ("sessions_per_hour", "mean_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("video_share", "day_swing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1")
        if self.spread < 0:
            raise ValueError(f"spread={self.spread} must not be negative")

    @property
    def offered(self) -> float:
        """Sessions that would be live in the mean if none were turned away (erlang)."""
        return self.sessions_per_hour * self.mean_minutes / 60


class WhenFull(enum.Enum):
    """What a session meets when no lane is free."""

    REJECT = "reject"
    QUEUE = "queue"


@dataclasses.dataclass(frozen=True)
class Admission:
    """How sessions get a lane.

    Attributes:
        when_full: turned away at once, or in line.
        patience_seconds: whoever has stood in line so long leaves.
    """

    when_full: WhenFull = WhenFull.REJECT
    patience_seconds: float = math.inf

    def __post_init__(self):
        if not self.patience_seconds > 0:
            raise ValueError(f"patience_seconds={self.patience_seconds} must be positive")


class AfterFailure(enum.Enum):
    """What becomes of the sessions of a replica that dies."""

    LOST = "lost"
    RESTORED = "restored"


@dataclasses.dataclass(frozen=True)
class Failures:
    """How replicas die.

    Attributes:
        hours_between: mean time between failures of one replica (exponential).
        repair_minutes: until it takes sessions again.
        after: sessions end, or go on elsewhere from their last snapshot.
        snapshot_seconds: between two snapshots of a session; what was said since is lost.
        restore_seconds: from the failure to the earliest step elsewhere.
    """

    hours_between: float = math.inf
    repair_minutes: float = 10.0
    after: AfterFailure = AfterFailure.RESTORED
    snapshot_seconds: float = 10.0
    restore_seconds: float = 2.0

    def __post_init__(self):
        for name in ("hours_between", "snapshot_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("repair_minutes", "restore_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


@dataclasses.dataclass(frozen=True)
class Fleet:
    """A fleet and the time it is watched.

    Attributes:
        replicas: programs that run side by side, each with its own sessions.
        programs: lanes of the compiled programs of a replica, rising. It runs the smallest that
            holds its sessions and admits up to the largest; one number: always that program, which
            is what `session.lanes` does.
        hours: simulated time.
        warm_up_hours: of it, not counted: the fleet starts empty.
    """

    replicas: int
    programs: tuple[int, ...]
    traffic: Traffic
    admission: Admission = Admission()
    failures: Failures = Failures()
    hours: float = 8.0
    warm_up_hours: float = 1.0

    def __post_init__(self):
        if self.replicas < 1:
            raise ValueError(f"replicas={self.replicas} must be at least 1")
        if not self.programs or sorted(set(self.programs)) != list(self.programs):
            raise ValueError(f"programs={self.programs} must be different numbers of lanes, rising")
        if not 0 <= self.warm_up_hours < self.hours:
            raise ValueError(f"warm_up_hours={self.warm_up_hours} must be below hours={self.hours}")
