"""Sound that is put out ahead of time and then stopped: what plays under either clock.

In: a system that puts out sound and a stop in steps that take as long as told. Out: when sound
begins and ends, compute time 0 and measured, and the same after a way to disk and back.
"""

import numpy as np
import pytest

from interaction.eval import runner
from interaction.eval.records import SAMPLE_RATE, Clock, Sample
from interaction.eval.run_files import load_run, save_run
from interaction.eval.runner import play
from tests.scripted_system import Scripted, sound, stop


def played(script, seconds):
    system = Scripted(script, seconds)
    return play(system, Sample("toy", "scene", "s", 6.0), timer=system.timer)


def stretches(run, clock):
    """Where it sounds, in seconds."""
    loud = np.flatnonzero(np.pad(run.waveform(clock), 1))
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > 1)
    starts, ends = [loud[0], *loud[cuts + 1]], [*loud[cuts], loud[-1]]
    return [
        (round((s - 1) / SAMPLE_RATE, 3), round(e / SAMPLE_RATE, 3))
        for s, e in zip(starts, ends, strict=True)
    ]


# Steps 4 and 9 end at 1.0 s and 2.0 s of session time.
CASES = {
    "a late stop lets more of it play": (
        {4: [sound(1.0, 3.0)], 9: [stop(2.0)]},
        {9: 0.3},
        [(1.0, 2.0)],
        [(1.03, 2.3)],
    ),
    "a late sound loses by the stop": (
        {4: [sound(1.0, 3.0)], 9: [stop(2.0)]},
        {4: 0.15, 9: 0.05},
        [(1.0, 2.0)],
        [(1.18, 2.05)],
    ),
    "what was to come later plays until the late stop": (
        {4: [sound(1.0, 0.5), sound(2.4, 1.0)], 9: [stop(2.0)]},
        {9: 0.7},
        [(1.0, 1.5)],
        [(1.03, 1.53), (2.4, 2.7)],
    ),
    "what was to come after the late stop never plays": (
        {4: [sound(1.0, 0.5), sound(2.8, 1.0)], 9: [stop(2.0)]},
        {9: 0.7},
        [(1.0, 1.5)],
        [(1.03, 1.53)],
    ),
    "what is put out after the stop plays": (
        {4: [sound(1.0, 3.0)], 9: [stop(2.0), sound(2.0, 0.4, 0.5)]},
        {9: 0.1},
        [(1.0, 2.4)],
        [(1.03, 2.5)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stop_ends_sound_under_each_clock_when_it_comes(case, tmp_path):
    script, seconds, instant, measured = CASES[case]
    run = played(script, seconds)
    assert stretches(run, Clock.INSTANT) == instant
    assert stretches(run, Clock.MEASURED) == [pytest.approx(span, abs=2e-3) for span in measured]
    save_run(run, tmp_path / "run")
    again = load_run(tmp_path / "run")
    for clock in Clock:
        assert np.array_equal(again.waveform(clock), run.waveform(clock))
    assert [event.t for event in run.events] == sorted(event.t for event in run.events)


def test_a_stop_that_cut_at_the_instant_time_alone_would_be_noticed(monkeypatch):
    """What was sent ahead would end too early when computing is counted."""
    stop_ = runner._Board._stop
    monkeypatch.setattr(runner._Board, "_stop", lambda self, time, late: stop_(self, time, time))
    script, seconds, _, measured = CASES["a late stop lets more of it play"]
    found = stretches(played(script, seconds), Clock.MEASURED)
    assert found[0][1] < measured[0][1] - 0.2
