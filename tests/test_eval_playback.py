"""Playing: when things were there, under both clocks, and runs that come back from disk.

In: systems made up for one rule each, clocks that tick as told. Out: times of events, waveforms,
runs that come back as they went in.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import soundfile

from interaction.eval.impairment import Impairment
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.run_files import fingerprint, load_run, read_met, run_folder, save_run
from interaction.eval.runner import play, tool_results
from tests.scripted_system import Scripted, sound, stop, text

CHUNK = 3200


def sample(seconds=3.0, **changes):
    return Sample("toy", "scene", "s", seconds, **changes)


def played(script, seconds=(), length=3.0):
    system = Scripted(script, seconds)
    return play(system, sample(length), timer=system.timer)


def times(run, kind, clock=Clock.MEASURED):
    return [round(event.at(clock), 6) for event in run.of(kind)]


# ---------------------------------------------------------------- times


def test_text_is_there_when_its_step_has_ended():
    run = played({0: [text(0.2)], 1: [text(0.4)]}, {0: 0.05, 1: 0.0})
    assert times(run, Kind.TEXT, Clock.INSTANT) == [0.2, 0.4]
    assert times(run, Kind.TEXT) == [0.25, 0.4]
    assert run.step_seconds == pytest.approx([0.05] + [0.0] * 14)


def test_a_step_waits_for_the_one_before_it():
    """Step 0 ends at 0.75, so steps 1 and 2 begin only then; step 4 begins at its own border."""
    run = played(
        {0: [text(0.2)], 1: [text(0.4)], 2: [text(0.6)], 4: [text(1.0)]},
        {0: 0.55, 1: 0.01, 2: 0.01},
    )
    assert times(run, Kind.TEXT) == [0.75, 0.76, 0.77, 1.0]


def test_what_is_put_out_ahead_of_time_is_not_late():
    run = played({0: [text(0.9)]}, {0: 0.3})
    assert times(run, Kind.TEXT) == [0.9]


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        ({0: 0.01, 1: 0.02}, [0.24, 0.44]),  # held 30 ms, so the slower second step tears nothing
        ({0: 0.01, 1: 0.05}, [0.24, 0.45]),  # it comes later than the first one ends: a gap
        ({0: 0.3, 1: 0.0}, [0.63, 0.83]),  # more than a micro-turn late: from the next border
    ],
)
def test_sound_that_goes_on_joins_the_sound_before_it(seconds, starts):
    run = played({0: [sound(0.2)], 1: [sound(0.4)]}, seconds)
    assert times(run, Kind.AUDIO, Clock.INSTANT) == [0.2, 0.4]
    assert times(run, Kind.AUDIO) == pytest.approx(starts)
    wave = run.waveform(Clock.MEASURED)
    loud = np.flatnonzero(wave)
    gap = round((starts[1] - starts[0] - 0.2) * SAMPLE_RATE)
    assert loud[0] == round(starts[0] * SAMPLE_RATE)
    assert loud[-1] - loud[0] + 1 - len(loud) == gap
    assert len(loud) == 2 * CHUNK


def test_a_chunk_that_is_due_while_another_plays_waits():
    run = played({0: [sound(0.2, 0.5), sound(0.3, 0.1)]})
    assert times(run, Kind.AUDIO, Clock.INSTANT) == [0.2, 0.7]


def test_a_stop_drops_what_has_not_played_under_either_clock():
    # The second sound is computed for 0.5 s: it plays late, and is cut at the same stop.
    run = played({0: [sound(0.2, 1.0)], 3: [stop(0.8)]}, {0: 0.15})
    assert np.flatnonzero(run.waveform())[-1] + 1 == round(0.8 * SAMPLE_RATE)
    late = run.waveform(Clock.MEASURED)
    assert np.flatnonzero(late)[0] == round(0.38 * SAMPLE_RATE)
    assert np.flatnonzero(late)[-1] + 1 == round(0.8 * SAMPLE_RATE)
    again = played({0: [sound(0.2, 1.0)], 3: [stop(0.8)], 5: [sound(1.2)]})
    assert times(again, Kind.AUDIO, Clock.INSTANT) == [0.2, 1.2]
    assert not again.waveform()[round(0.8 * SAMPLE_RATE) : round(1.2 * SAMPLE_RATE)].any()


def test_sound_beyond_the_session_is_left_out():
    run = played({13: [sound(2.8, 1.0)], 14: [text(3.0)]})
    assert len(run.of(Kind.AUDIO)[0].payload) == CHUNK
    assert len(run.waveform()) == 3 * SAMPLE_RATE


def test_nothing_comes_before_it_exists_and_a_session_is_always_closed():
    system = Scripted({2: [text(0.5)]})
    with pytest.raises(ValueError, match=r"scripted put out text at 0\.500 s in the step of 0\.6"):
        play(system, sample())
    assert system.closed == 1


def test_calls_are_answered_in_the_next_micro_turn():
    tools = {"add": {"type": "object", "result": {"sum": 4}}}
    call = OutputEvent(0.4, Kind.TOOL, {"function": "add", "args": {"a": 2}})
    other = OutputEvent(0.4, Kind.TOOL, {"function": "sub", "args": {}})
    words = OutputEvent(0.4, Kind.TOOL, {"request": "please add"})
    system = Scripted({1: [call, other, words]})
    play(system, sample(1.0, tools=tools))
    results = [given.tool_results for given in system.given]
    assert [len(r) for r in results] == [0, 0, 2, 0, 0]
    assert json.loads(results[2][0]) == {"function": "add", "result": {"sum": 4}}
    assert "no function sub" in results[2][1]
    assert tool_results([words], tools) == ()


# ---------------------------------------------------------------- files


def a_run():
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.4, 5000).astype(np.float32)  # some of it beyond 16 bits
    script = {
        0: [text(0.2, "héllo"), OutputEvent(0.2, Kind.AUDIO, noise), sound(0.2, 0.3)],
        2: [OutputEvent(0.7, Kind.TOOL, {"request": "x"}), stop(0.65)],
        5: [OutputEvent(1.2, Kind.AUDIO, 2 * noise)],
    }
    return played(script, {0: 0.1, 2: 0.3})


def assert_same_run(found: Run, wanted: Run):
    plain = dataclasses.replace(found, events=()), dataclasses.replace(wanted, events=())
    assert plain[0] == plain[1]
    assert len(found.events) == len(wanted.events)
    for a, b in zip(found.events, wanted.events, strict=True):
        assert (a.t, a.kind, a.delay) == (b.t, b.kind, b.delay)
        if a.kind is Kind.AUDIO:
            np.testing.assert_array_equal(a.payload, b.payload)
        else:
            assert a.payload == b.payload


def test_a_run_comes_back_from_disk_as_it_was(tmp_path):
    run = a_run()
    save_run(run, tmp_path / "one", met="abc")
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == ["late.wav", "output.wav", "run.json"]  # its stop came late
    assert read_met(tmp_path / "one") == "abc"
    found = load_run(tmp_path / "one")
    assert_same_run(found, dataclasses.replace(run, step_seconds=found.step_seconds))
    np.testing.assert_allclose(found.step_seconds, run.step_seconds, atol=1e-6)
    for clock in Clock:
        np.testing.assert_array_equal(found.waveform(clock), run.waveform(clock))
    info = soundfile.info(tmp_path / "one" / "output.wav")
    assert (info.samplerate, info.channels, info.frames) == (SAMPLE_RATE, 1, 3 * SAMPLE_RATE)


def test_a_run_that_was_being_written_is_not_there(tmp_path, monkeypatch):
    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(pathlib.Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            save_run(a_run(), tmp_path / "one", met="abc")
    assert read_met(tmp_path / "one") is None
    save_run(a_run(), tmp_path / "one", met="abc")
    assert read_met(tmp_path / "one") == "abc"


@pytest.mark.parametrize("name", ["a/b", "..", ".", "ü:?*", "x\x00y", "C:\\x"])
def test_any_id_gets_a_folder_of_its_own(tmp_path, name):
    folder = run_folder(tmp_path, name)
    assert folder.parent == tmp_path
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()


def test_what_a_system_met_is_told_apart():
    base = sample(audio=np.zeros(100, np.float32), truth={"a": 1})
    marks = {
        fingerprint(base),
        fingerprint(base, Impairment(loss=0.1)),
        fingerprint(dataclasses.replace(base, audio=np.ones(100, np.float32))),
        fingerprint(dataclasses.replace(base, truth={"a": 2})),
        fingerprint(dataclasses.replace(base, seconds=4.0)),
    }
    assert len(marks) == 5
    assert fingerprint(base) == fingerprint(dataclasses.replace(base), Impairment())
