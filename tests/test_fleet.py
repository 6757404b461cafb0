"""The simulated fleet, against what can be known without it.

In: small fleets. Out: cases followed by hand; blocking and waiting as Erlang's formulas give them,
inside the interval over seeds, with a broken variant outside; no session vanishes; failures cost
what their rate says; lateness is Lindley's recursion.
"""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from interaction import configuration
from interaction.serving import fleet
from interaction.serving.fleet import Outcome, Report, erlang_b, erlang_c, simulate
from interaction.serving.fleet_config import (
    Admission,
    AfterFailure,
    Failures,
    Fleet,
    Lengths,
    Source,
    StepRow,
    StepTimes,
    Traffic,
    WhenFull,
    computed,
    from_bench,
    from_slices,
)

BENCH = pathlib.Path(__file__).parents[1] / "experiments" / "bench" / "sessions_per_core.json"
QUEUE = Admission(WhenFull.QUEUE)


def steps(*lanes: int, video: bool = False) -> StepTimes:
    return computed(dict.fromkeys(lanes, 0.05), "a test", chips=1, video=video)


# ---------------------------------------------------------------------------- by hand


@pytest.fixture
def by_hand(monkeypatch):
    """Run a fleet with given arrivals, lengths and failures (replica -> time), seconds."""

    def run(come, stay, *, video=None, failures=None, replicas=1, lanes=2, **rest) -> Report:
        monkeypatch.setattr(fleet, "arrivals", lambda *_: np.array(come, float))
        monkeypatch.setattr(fleet, "lengths", lambda *_: np.array(stay, float))
        times = dict(failures or {})

        def plan(self, _time, replica):
            if replica in times:
                self.at(times.pop(replica), self.fail, replica)

        monkeypatch.setattr(fleet._Run, "plan_failure", plan)
        made = fleet._Run.__init__

        def seen(self, *arguments):
            made(self, *arguments)
            self.video = np.array(video if video else [False] * len(come))

        monkeypatch.setattr(fleet._Run, "__init__", seen)
        fails = rest.pop("plan", Failures(hours_between=1.0 if failures else math.inf))
        config = Fleet(
            replicas=replicas,
            programs=(lanes,),
            traffic=Traffic(1.0, 1.0),
            hours=0.1,  # 360 s
            warm_up_hours=0.0,
            failures=fails,
            **rest,
        )
        table = StepTimes(Source.MEASURED, "a test", 1, (StepRow(lanes, 1, (0.0,), (0.05,)),))
        return simulate(config, table, seed=0)

    return run


def counts(report: Report) -> dict[str, int]:
    return {kind.name: n for kind, n in report.outcomes.items() if n}


def test_who_finds_no_lane_is_turned_away(by_hand):
    report = by_hand([0, 10, 20, 30, 121], [100, 5, 100, 1, 400])
    assert counts(report) == {"COMPLETED": 3, "REJECTED": 1, "RUNNING": 1}
    assert report.session_hours * 3600 == pytest.approx(100 + 5 + 100 + (360 - 121))
    assert report.turned_away_share == 1 / 5


def test_a_line_is_served_in_order_until_patience_ends(by_hand):
    admission = Admission(WhenFull.QUEUE, patience_seconds=60.0)
    # 0 and 1 fill both lanes; 2 gets 0's at 50, 3 gets 2's at 70, 4 leaves at 100.
    report = by_hand([0, 0, 20, 30, 40], [50, 300, 20, 200, 5], admission=admission)
    assert counts(report) == {"COMPLETED": 4, "GAVE_UP": 1}
    assert report.wait_mean == pytest.approx((0 + 0 + 30 + 40) / 4)
    assert report.waited_share == 2 / 4


def test_video_takes_the_lanes_it_was_measured_in(by_hand):
    come, stay, video = [0, 1, 2, 30], [20, 100, 100, 9], [True, True, False, True]
    assert counts(by_hand(come, stay, video=video)) == {"COMPLETED": 3, "REJECTED": 1}
    waits = by_hand(come, stay, video=video, admission=QUEUE)
    # The second with video waits for the first to end, the third for the second; the one
    # without overtakes both.
    assert counts(waits) == {"COMPLETED": 4}
    assert waits.wait_mean == pytest.approx((0 + 19 + 0 + (120 - 30)) / 4)


@pytest.mark.parametrize(
    ("after", "outcomes", "live"),
    [
        (AfterFailure.LOST, {"LOST": 1, "COMPLETED": 1}, 33 + 100),
        (AfterFailure.RESTORED, {"COMPLETED": 2}, 200),
    ],
)
def test_a_dead_replica(by_hand, after, outcomes, live):
    """Session 0 is met at 33 s by the failure of its replica; 1 sits in the other."""
    plan = Failures(1.0, after=after, snapshot_seconds=10.0, restore_seconds=2.0)
    report = by_hand([0, 1], [100, 100], failures={0: 33}, replicas=2, plan=plan, admission=QUEUE)
    assert counts(report) == outcomes
    assert report.session_hours * 3600 == pytest.approx(live)
    if after is AfterFailure.RESTORED:
        assert (report.interruptions, report.gap_p99) == (1, pytest.approx(2))
        assert report.talk_lost == pytest.approx(3)


def test_nowhere_to_go_on(by_hand):
    """The only replica dies: turned away, or in line until it is repaired."""
    plan = Failures(1.0, repair_minutes=1.0, restore_seconds=2.0)
    lost = by_hand([0], [100], failures={0: 40}, plan=plan)
    assert (counts(lost), lost.lost_share) == ({"LOST": 1}, 1.0)
    waits = by_hand([0], [100], failures={0: 40}, plan=plan, admission=QUEUE)
    assert (counts(waits), waits.gap_p99) == ({"COMPLETED": 1}, pytest.approx(60))


# ---------------------------------------------------------------------------- theory


def interval(config: Fleet, figure: str, seeds: int = 8) -> tuple[float, float]:
    """99.9 % interval of the mean over seeds (Student's t with 7 degrees of freedom)."""
    table = steps(*config.programs)
    found = [getattr(simulate(config, table, seed), figure) for seed in range(seeds)]
    assert seeds == 8
    half = 5.4079 * np.std(found, ddof=1) / math.sqrt(seeds)
    return float(np.mean(found) - half), float(np.mean(found) + half)


LOSS_CASES = [
    (1, 10, 9.0, Lengths.EXPONENTIAL),
    (1, 10, 9.0, Lengths.LOGNORMAL),  # blocking depends on the mean length alone
    (3, 4, 13.0, Lengths.EXPONENTIAL),  # no line: lanes of several replicas are one pool
    (2, 1, 1.5, Lengths.LOGNORMAL),
]


def plain(replicas, lanes, offered, kind, **rest) -> Fleet:
    minutes = 0.5
    traffic = Traffic(offered * 60 / minutes, minutes, kind)
    return Fleet(replicas, (lanes,), traffic, hours=3.5, warm_up_hours=0.2, **rest)


@pytest.mark.parametrize(("replicas", "lanes", "offered", "kind"), LOSS_CASES)
def test_blocking_is_erlangs(replicas, lanes, offered, kind):
    low, high = interval(plain(replicas, lanes, offered, kind), "turned_away_share")
    assert low <= erlang_b(replicas * lanes, offered) <= high
    assert high - low < 0.1


def test_a_fleet_that_hides_a_lane_would_be_noticed(monkeypatch):
    """The broken variant keeps one lane too few."""
    made = fleet._Run.__init__

    def fewer(self, config, lanes, *rest):
        made(self, config, lanes - 1, *rest)

    monkeypatch.setattr(fleet._Run, "__init__", fewer)
    low, _ = interval(plain(1, 10, 9.0, Lengths.EXPONENTIAL), "turned_away_share")
    assert low > erlang_b(10, 9.0) + 0.01


@pytest.mark.parametrize(("replicas", "lanes", "offered"), [(1, 8, 6.0), (2, 3, 4.5)])
def test_waiting_is_erlangs(replicas, lanes, offered):
    config = plain(replicas, lanes, offered, Lengths.EXPONENTIAL, admission=QUEUE)
    total = replicas * lanes
    low, high = interval(config, "waited_share")
    assert low <= erlang_c(total, offered) <= high
    low, high = interval(config, "wait_mean")
    assert low <= erlang_c(total, offered) * 30.0 / (total - offered) <= high


@pytest.mark.parametrize(
    ("lanes", "offered", "blocked"),
    [(1, 1.0, 0.5), (2, 1.0, 0.2), (2, 2.0, 0.4), (10, 9.0, 0.16796)],
)
def test_erlangs_formulas(lanes, offered, blocked):
    assert erlang_b(lanes, offered) == pytest.approx(blocked, abs=1e-5)
    assert erlang_c(1, 0.3) == pytest.approx(0.3)  # one lane: the share of time it is busy
    with pytest.raises(ValueError, match=r"offered=2\.0 must be below lanes=2"):
        erlang_c(2, 2.0)


# ---------------------------------------------------------------------------- conservation

BUSY = Fleet(
    replicas=4,
    programs=(2, 6),
    traffic=Traffic(900.0, 1.5, video_share=0.3, day_swing=0.5),
    admission=Admission(WhenFull.QUEUE, 30.0),
    failures=Failures(0.5, repair_minutes=2.0),
    hours=3.0,
    warm_up_hours=0.0,
)


@pytest.mark.parametrize("after", AfterFailure)
@pytest.mark.parametrize("when_full", WhenFull)
def test_no_session_vanishes(after, when_full):
    """Outcomes add up, lanes give the time that sessions took, nobody stays longer than they
    meant to, and no lane holds two."""
    config = dataclasses.replace(
        BUSY,
        admission=Admission(when_full, 30.0),
        failures=dataclasses.replace(BUSY.failures, after=after),
    )
    table = steps(*BUSY.programs, video=True)
    streams = np.random.default_rng(3).spawn(2)
    run = fleet._Run(config, 6, 6, *streams)
    meant = run.remaining.copy()
    run.play()
    report = simulate(config, table, 3)
    assert report.arrived == sum(report.outcomes.values()) == len(run.arrival) > 1500
    served = fleet.live_seconds(run.changes, 0.0, run.end)
    assert served == pytest.approx(run.served.sum())
    done = run.outcome == Outcome.COMPLETED
    np.testing.assert_allclose(run.served[done], meant[done], rtol=1e-6, atol=1e-6)
    assert np.all(run.served <= meant + 1e-6)
    for replica in run.changes:
        _, sessions, video = np.array(replica).T
        assert np.all((video >= 0) & (video <= sessions) & (sessions <= 6))
    assert report.outcomes[Outcome.LOST] > 0 or after is AfterFailure.RESTORED


def test_without_failures_nobody_is_lost():
    config = dataclasses.replace(BUSY, failures=Failures())
    report = simulate(config, steps(2, 6), 1)
    assert (report.outcomes[Outcome.LOST], report.interruptions, report.talk_lost) == (0, 0, 0)
    assert report.outcomes[Outcome.GAVE_UP] > 0


def test_failures_meet_sessions_at_their_rate():
    """720 failures are due, each meets the mean number of live sessions; repair takes no time."""
    failures = Failures(2.0, repair_minutes=0.0, after=AfterFailure.LOST)
    config = Fleet(12, (20,), Traffic(240.0, 5.0), QUEUE, failures, 20.0, 0.0)
    failed, met, hours = 0, 0, 0.0
    for seed in range(6):
        run = fleet._Run(config, 20, 20, *np.random.default_rng(seed).spawn(2))
        run.play()
        failed += run.failures
        met += int((run.outcome == Outcome.LOST).sum())
        hours += fleet.live_seconds(run.changes, 0.0, run.end) / 3600
    due = 6 * 12 * 20 / 2.0
    assert abs(failed - due) < 3 * math.sqrt(due)
    handful = hours / (6 * 12 * 20)  # live sessions of a replica
    assert met == pytest.approx(failed * handful, rel=0.1)


def test_half_an_interval_is_lost_from_a_snapshot():
    failures = Failures(2.0, repair_minutes=0.0, snapshot_seconds=8.0)
    config = Fleet(12, (20,), Traffic(720.0, 5.0), QUEUE, failures, 8.0, 0.0)
    report = simulate(config, steps(20), 0)
    assert report.outcomes[Outcome.LOST] == 0
    assert report.interruptions > 100
    assert report.talk_lost / report.interruptions == pytest.approx(4.0, rel=0.15)


def test_the_seed_decides():
    table = steps(2, 6)
    assert simulate(BUSY, table, 5) == simulate(BUSY, table, 5)
    assert simulate(BUSY, table, 5) != simulate(BUSY, table, 6)


# ---------------------------------------------------------------------------- lateness


def test_a_late_step_delays_the_next():
    seconds = np.array([0.25, 0.1, 0.3, 0.25, 0.2, 0.0, 0.21])
    want = [0.05, 0.0, 0.1, 0.15, 0.15, 0.0, 0.01]
    np.testing.assert_allclose(fleet.backlog(seconds), want, atol=1e-12)
    random = np.random.default_rng(0).exponential(0.18, 5000)
    late, course = 0.0, []
    for step in random:
        late = max(0.0, late + step - 0.2)
        course.append(late)
    np.testing.assert_allclose(fleet.backlog(random), course, atol=1e-9)
    assert np.abs(np.maximum(random - 0.2, 0) - course).max() > 0.1  # each by itself: broken


def test_quantiles_count_sessions():
    late, weight = np.array([0.3, 0.1, 0.2]), np.array([2, 3, 1])
    everyone = np.sort([0.0] * 14 + [0.1] * 3 + [0.2] + [0.3] * 2)
    for share in (0.5, 0.69, 0.72, 0.84, 0.88, 0.95, 0.999):
        want = everyone[math.ceil(share * 20) - 1]
        assert fleet._quantile(late, weight, 20.0, share) == want, share


def test_lateness_follows_the_program_that_runs():
    """A step of 240 ms with probability 0.05 in the large program, never in the small one; two
    in a row are late by 80 ms."""
    slow = StepRow(6, 6, (0.0, 0.95, 0.95, 1.0), (0.1, 0.1, 0.24, 0.24))
    table = StepTimes(Source.MEASURED, "a test", 2, (StepRow(2, 2, (0.0,), (0.05,)), slow))
    crowd = dataclasses.replace(BUSY, replicas=1, failures=Failures())
    alone = dataclasses.replace(crowd, traffic=Traffic(0.001, 1.0))
    full = simulate(crowd, table, 0)
    assert full.late_share == pytest.approx(0.05, abs=0.01)
    assert full.lateness_p99 == pytest.approx(0.04, abs=1e-6)
    assert full.lateness_p999 == pytest.approx(0.08, abs=1e-6)
    assert full.chip_hours == 2 * 3.0
    assert full.chip_hours_per_session_hour == pytest.approx(6.0 / full.session_hours)
    assert simulate(alone, table, 0).late_share == 0
    always = simulate(dataclasses.replace(crowd, programs=(2,)), table, 0)
    assert (always.late_share, always.lateness_p999) == (0, 0)


# ---------------------------------------------------------------------------- inputs


def test_the_committed_bench_is_read():
    content = json.loads(BENCH.read_text())
    table = from_bench(content, "bench")
    assert table.source is Source.MEASURED
    assert [row.lanes for row in table.rows][:3] == [1, 4, 16]
    row, measured = table.row(16), content["steps"][2]["step_ms"]
    drawn = row.draw(np.linspace(0, 1, 100_001)) * 1000
    assert np.percentile(drawn, 50) == pytest.approx(measured["p50"], rel=1e-3)
    assert np.percentile(drawn, 99) == pytest.approx(measured["p99"], rel=1e-3)
    assert drawn.max() == pytest.approx(measured["p99.9"])
    assert simulate(BUSY, steps(2, 6), 0).source is Source.COMPUTED
    with pytest.raises(ValueError, match=r"lanes=5 is not among \[1, 4, 16"):
        table.row(5)


def test_the_table_of_slices_is_read_as_computed():
    row = {"slice": "v6e:4x8", "chips": 32, "context": 8192, "tokens": 4}
    rows = [row | {"sessions": n, "ms": ms} for n, ms in ((64, 31.5), (1, 12.0))]
    rows += [row | {"sessions": 1, "ms": 99.0, "tokens": 16}, row | {"slice": "v5p:2x2x2"}]
    table = from_slices({"serving": rows}, "v6e:4x8", 8192, 4, "slices.json")
    assert (table.source, table.chips) == (Source.COMPUTED, 32)
    assert [(r.lanes, r.video_lanes, r.seconds) for r in table.rows] == [
        (1, 0, (0.012,)),
        (64, 0, (0.0315,)),
    ]
    with pytest.raises(
        ValueError, match=r"context=5, tokens=4: there are \[\(8192, 4\), \(8192, 16"
    ):
        from_slices({"serving": rows}, "v6e:4x8", 5, 4, "slices.json")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Traffic, {"sessions_per_hour": 0.0, "mean_minutes": 1.0}, "sessions_per_hour=0.0"),
        (Traffic, {"sessions_per_hour": 1.0, "mean_minutes": 1.0, "video_share": 1.5}, "=1.5"),
        (Admission, {"patience_seconds": 0.0}, "patience_seconds=0.0"),
        (Admission, {"when_full": "wait"}, "'reject', 'queue'"),
        (Failures, {"hours_between": -1.0}, "hours_between=-1.0"),
        (Failures, {"repair_minutes": -1.0}, "repair_minutes=-1.0"),
        (StepRow, {"lanes": 2, "video_lanes": 3, "shares": [0.0], "seconds": [1.0]}, "0..lanes=2"),
        (
            StepRow,
            {"lanes": 2, "video_lanes": 0, "shares": [0.5, 0.2], "seconds": [1.0, 2.0]},
            "ri",
        ),
    ],
)
def test_wrong_inputs_are_named(kind, values, message):
    with pytest.raises(ValueError, match=message):
        configuration.build(kind, values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 0}, "replicas=0"),
        ({"programs": (6, 2)}, r"programs=\(6, 2\)"),
        ({"warm_up_hours": 3.0}, "warm_up_hours=3.0 must be below hours=3.0"),
    ],
)
def test_wrong_fleets_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BUSY, **changes)
