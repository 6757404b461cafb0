"""Recordings that others made, from the command line: rates, lengths, transcripts, judgements.

In: trees in the layouts of Full-Duplex-Bench with sounds at 24 kHz, transcripts and a judge's
files. Out: the figures of `launch.py eval` in both modes, which differ where the authors' code has
a trap.
"""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

import launch
from interaction.eval.records import Clock, Run
from interaction.eval.suite import Hearing, Mode
from interaction.eval.suites.fdb import layout
from interaction.eval.suites.fdb.v1 import FullDuplexBenchV1, heard
from interaction.eval.suites.fdb.v2_rules import EVENTS, TASK
from interaction.eval.suites.fdb.v15_prosody import Prosody
from interaction.eval.systems.recorded import Recorded
from interaction.eval.transcribed import Transcripts
from tests.fdb_for_tests import TextEars

SECONDS = 12.0


def tone(seconds, rate):
    """A sound as loud as speech."""
    return (0.3 * np.sin(np.arange(round(seconds * rate)) * 0.11)).astype(np.float32)


def backchannel_tree(root, *, rate, length=SECONDS, at=4.0, lasts=0.8):
    """One sample of ICC: the agent makes one sound of `lasts` s at `at` s."""
    place = root / "icc_backchannel" / "7"
    layout.write_sound(place / "input.wav", np.zeros(round(SECONDS * 16_000), np.float32))
    layout.write_json(root / "icc_gt_distribution.json", {"7": [1 / 60] * 60})
    wave = np.zeros(round(length * rate), np.float32)
    sound = tone(lasts, rate)
    wave[round(at * rate) :][: len(sound)] = sound
    soundfile.write(place / "output.wav", wave, rate)
    chunks = [{"text": "yeah", "timestamp": [at, at + lasts]}]
    layout.write_json(place / "output.json", {"text": "yeah", "chunks": chunks})
    return root


def evaluated(tmp_path, suite, tree, *options):
    """Values by (mode, scene, figure), compute time 0, of `launch.py eval`."""
    out = tmp_path / "out"
    command = ["eval", "--suite", suite, "--system", f"recorded:{tree}", "--data", str(tree)]
    command += ["--processes", "1", "--out", str(out), *options]
    assert launch.main(command) == 0
    rows = json.loads((out / "report.json").read_text())["rows"]
    return {
        (r["mode"], r["scene"], r["name"]): r["systems"][tree.name]
        for r in rows
        if r["clock"] == Clock.INSTANT.value
    }


@pytest.mark.parametrize(
    ("rate", "lasts", "compat_takes_turn"),
    [
        (16_000, 0.8, 0.0),
        (24_000, 0.6, 0.0),  # 0.9 s where 24 kHz are taken for 16: still a backchannel
        (24_000, 0.8, 1.0),  # 1.2 s: a turn
    ],
)
def test_24_khz_stretches_time_in_compat_alone(tmp_path, rate, lasts, compat_takes_turn):
    tree = backchannel_tree(tmp_path / "theirs", rate=rate, lasts=lasts)
    found = evaluated(tmp_path, "fdb_v1", tree, "--ears", "text", "--mode", "both")
    row = lambda mode, name: found[mode, "icc_backchannel", name]["value"]
    assert row("strict", "takeover rate") == 0.0
    assert row("compat", "takeover rate") == compat_takes_turn
    per_second = "backchannels per second"  # of the file's true length, under either rule
    assert row("compat", per_second) == row("strict", per_second) == pytest.approx(1 / SECONDS)
    far = "Jensen-Shannon distance to people"
    if rate == 24_000:
        assert row("compat", far) != pytest.approx(row("strict", far), abs=1e-3)


def test_the_rates_trap_is_where_the_authors_have_it_and_nowhere_else(tmp_path):
    """The stretch lies at 6.0 to 7.2 s instead of 4.0 to 4.8, the words stay."""
    tree = backchannel_tree(tmp_path / "theirs", rate=24_000)
    (sample,) = FullDuplexBenchV1().load(tree)
    run = Recorded(str(tree)).recall(sample)
    how = Hearing(Transcripts(TextEars()), Clock.INSTANT)
    (plain,) = layout.official_speech(run, how)
    (stretched,) = layout.official_speech(run, how, layout.RateRule.AS_IF_16K)
    assert plain == pytest.approx((4.0, 4.8), abs=0.02)
    assert stretched == pytest.approx((6.0, 7.2), abs=0.02)
    assert [w.start for w in heard(sample, run, how, Mode.COMPAT)] == [4.0]
    assert len(run.waveform()) == SECONDS * 16_000


@pytest.mark.parametrize(("length", "compat"), [(SECONDS, 1 / 12), (6.0, 1 / 6), (24.0, 1 / 24)])
def test_compat_divides_by_the_files_own_length(tmp_path, length, compat):
    tree = backchannel_tree(tmp_path / "theirs", rate=16_000, length=length)
    found = evaluated(tmp_path, "fdb_v1", tree, "--ears", "text")
    value = lambda mode: found[mode, "icc_backchannel", "backchannels per second"]["value"]
    assert value("compat") == pytest.approx(compat)
    assert value("strict") == pytest.approx(1 / SECONDS)


def pause_tree(root, *, answer):
    """A pause at 2..3 s, the user's end at 5, a file 4 s longer than the input."""
    place = root / "candor_pause_handling" / "3"
    layout.write_sound(place / "input.wav", np.zeros(16_000 * 5, np.float32))
    layout.write_json(place / "pause.json", [{"text": "[PAUSE]", "timestamp": [2.0, 3.0]}])
    layout.write_sound(place / "output.wav", np.zeros(16_000 * 9, np.float32))
    chunks = [{"text": w, "timestamp": [t, t + 0.4]} for w, t in answer]
    layout.write_json(place / "output.json", {"text": "", "chunks": chunks})
    return root


def test_transcripts_beside_the_sound_are_believed(tmp_path):
    """An answer at 8.4 s, beyond the session of 8 s: the authors' code sees it."""
    pytest.importorskip("faster_whisper")  # its Silero finds the speech: extra eval
    late = [("it", 8.2), ("is", 8.4), ("four", 8.8), ("o'clock", 9.0)]
    tree = pause_tree(tmp_path / "theirs", answer=late)
    found = evaluated(tmp_path, "fdb_v1", tree, "--ears", "transcripts")
    row = lambda mode, name: found[mode, "candor_pause_handling", name]["value"]
    assert row("compat", "takeover rate") == 1.0
    assert row("strict", "takeover rate") == 0.0
    assert row("strict", "answered after the user's end (rate)") == 1.0


def test_transcripts_need_recordings_and_files(tmp_path, capsys):
    pytest.importorskip("faster_whisper")
    tree = pause_tree(tmp_path / "theirs", answer=[])
    command = ["eval", "--suite", "fdb_v1", "--data", str(tree), "--ears", "transcripts"]
    command += ["--processes", "1", "--out", str(tmp_path / "out"), "--system"]
    assert launch.main([*command, "silent"]) == 1
    assert "system silent is none" in capsys.readouterr().err
    (tree / "candor_pause_handling" / "3" / "output.json").unlink()
    assert launch.main([*command, f"recorded:{tree}"]) == 1
    assert "output.json is missing" in capsys.readouterr().err
    unheard = Run("fdb_v1", "s", "s/1", "x", 1.0, ())
    with pytest.raises(ValueError, match="x on s/1 is no recording"):
        Transcripts(TextEars()).words(unheard, Clock.INSTANT)


def judged_folder(root, fluency=2):
    """Two conversations that the authors' judge has judged, one of them only in its own words."""
    place = root / "eval_results"
    first = {EVENTS: [[[1.0, 4.0], 5, 4], [[6.0, 9.0], fluency, 4]], TASK: 3}
    layout.write_json(place / "Daily" / "Daily.001_processed.json", first)
    raw = place / "Safety" / "Safety.privacy.001.json"
    raw.parent.mkdir(parents=True)
    raw.write_text(f'```json\n{{"{EVENTS}": [[[1, 2], 9, 3]], "{TASK}": 4}}\n```')
    return root


def test_a_judges_results_are_summed_from_the_command_line(tmp_path):
    tree = judged_folder(tmp_path / "theirs")
    found = evaluated(tmp_path, "fdb_v2", tree, "--ears", "text")
    fluency, task = "turn-taking fluency (1-5)", "task-specific score (1-5)"
    assert found["compat", "Daily", fluency]["value"] == 3.5
    assert found["compat", "Safety", fluency]["value"] == 9.0  # whatever the judge wrote
    assert found["strict", "Safety", "instruction following (1-5)"]["value"] == 3.0
    assert found["strict", "Safety", fluency]["value"] is None  # 9 is no score
    assert found["strict", "all", task]["value"] == 3.5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {r["judge"] for r in report["rows"]} == {"the judge of eval_results"}
    assert all(r["oracle"] is None and r["silent"] is None for r in report["rows"])


def test_a_judgement_is_of_the_system_that_was_judged(tmp_path, capsys):
    tree = judged_folder(tmp_path / "theirs")
    command = ["eval", "--suite", "fdb_v2", "--data", str(tree), "--ears", "text"]
    command += ["--processes", "1", "--out", str(tmp_path / "out"), "--system"]
    assert launch.main([*command, "silent"]) == 1
    assert "neither a judgement nor a script" in capsys.readouterr().err
    other = judged_folder(tmp_path / "other", fluency=4)
    assert launch.main([*command, f"recorded:{tree},recorded:{other}"]) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    (row,) = [
        r["systems"]
        for r in rows
        if (r["scene"], r["name"], r["mode"], r["clock"])
        == ("Daily", "turn-taking fluency (1-5)", "compat", "compute time 0")
    ]
    assert {name: m["value"] for name, m in row.items()} == {"theirs": 3.5, "other": 4.5}


def test_the_door_reads_what_is_shown_and_measured(tmp_path):
    words = ["eval", "--suite", "fdb_v15", "--system", "silent", "--ears", "text"]
    plain = launch._evaluation(launch._parser().parse_args(words), tmp_path)
    assert (plain.shown, plain.prosody) == (12, Prosody.RATE)
    words += ["--show", "5", "--prosody", "praat"]
    asked = launch._evaluation(launch._parser().parse_args(words), tmp_path)
    assert (asked.shown, asked.prosody) == (5, Prosody.PRAAT)
    with pytest.raises(ValueError, match="shown=-1"):
        dataclasses.replace(asked, shown=-1)
