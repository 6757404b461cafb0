"""The report: every figure beside what is published, the worst samples first, no network.

In: outcomes made up by hand. Out: rows, order, a page whose every byte is its own, and, with a
browser, a page that draws itself without an error.
"""

import base64
import dataclasses
import io
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

import interaction.eval.report_samples as report_samples
from interaction.eval.evaluate import Evaluation, Outcome, Part, Spent
from interaction.eval.intervals import Measured
from interaction.eval.published import PUBLISHED, beside
from interaction.eval.records import SAMPLE_RATE, Clock, Kind, OutputEvent, Run, Sample
from interaction.eval.report import failures_first, report, rows, write_report
from interaction.eval.report_plots import latency_plots
from interaction.eval.report_samples import envelope, lay_out
from interaction.eval.runner import Spec
from interaction.eval.suite import Better, Figure, Mode
from interaction.streams.events import TextEvent
from interaction.types import Control
from tests.toy_suite import PLACE, Toy


def sample(name):
    tone = 0.3 * np.sin(np.arange(2 * SAMPLE_RATE) / 10).astype(np.float32)
    text = (TextEvent(0.1, Control.USER, "</script><b>hi</b>"),)
    return Sample("fdb_v1", "turn_taking", name, 2.0, audio=tone, text=text, truth={"end": 1.0})


def run(name, system):
    sound = np.full(SAMPLE_RATE // 2, 0.2, np.float32)
    events = (
        OutputEvent(0.2, Kind.TEXT, {"channel": "say", "text": "<i>hello</i>"}, 0.05),
        OutputEvent(0.4, Kind.AUDIO, sound, 0.1),
        OutputEvent(0.6, Kind.UI, {"seconds": {"vad": 0.01, "whisper": 0.5}}),
        OutputEvent(0.8, Kind.TOOL, {"function": "f", "args": {"a": 1}}),
    )
    return Run("fdb_v1", "turn_taking", name, system, 2.0, events, (0.001, 0.25))


def figure(name, values, better=Better.LOWER, **changes):
    known = {
        "scene": "generated_turn_taking",
        "name": name,
        "measured": Measured(float(np.mean(list(values.values()))), 0.0, 1.0, len(values)),
        "mode": Mode.STRICT,
        "clock": Clock.INSTANT,
        "better": better,
        "samples": values,
    }
    return Figure(**known | changes)


NAMES = ("a", "b", "c", "d")


def outcome(system, figures, suite="fdb_v1"):
    samples = [sample(name) for name in NAMES]
    part = Part(suite, Toy(), samples, pathlib.Path(), generated=True)
    return Outcome(
        system, part, {name: run(name, system) for name in NAMES}, figures, Spent(1.0, 0.25, 0.25)
    )


def latencies(*values, clock=Clock.INSTANT, **changes):
    return figure(
        "latency, clipped at 0 (s)", dict(zip(NAMES, values, strict=True)), clock=clock, **changes
    )


def test_one_row_holds_every_system_and_what_is_published():
    found = rows(
        [outcome("x", [latencies(1.0, 2.0, 3.0, 4.0)]), outcome("y", [latencies(1, 1, 1, 1)])]
    )
    (row,) = found
    assert {name: m["value"] for name, m in row["systems"].items()} == {"x": 2.5, "y": 1.0}
    told = {p["system"]: p["value"] for p in row["published"]}
    assert told["TML-Interaction-Small"] == 0.40
    assert told["Moshi"] == 0.265
    assert all(p["source"] and p["data"] for p in row["published"])


def test_modes_and_clocks_are_rows_of_their_own():
    figures = [
        latencies(1, 1, 1, 1),
        latencies(2, 2, 2, 2, clock=Clock.MEASURED),
        latencies(3, 3, 3, 3, mode=Mode.COMPAT),
    ]
    assert [r["systems"]["x"]["value"] for r in rows([outcome("x", figures)])] == [1, 2, 3]


@pytest.mark.parametrize(
    ("suite", "scene", "name", "system", "value"),
    [
        ("fdb_v15", "all", "right behaviour, mean of scenes (%)", "TML-Interaction-Small", 77.8),
        ("fdb_v3", "all", "Pass@1, exact", "TML-Interaction-Small", 0.68),
        ("repcount", "spoken", "off-by-one accuracy (%)", "GPT-realtime-2.0 minimal", 1.3),
        ("ifeval", "text", "mean of the four accuracies (%)", "Gemini 3.1 high", 90.0),
        (
            "fdb_v15",
            "generated_talking_to_other",
            "C_RESPOND (share)",
            "GPT-4o-realtime 2024-12-17",
            0.91,
        ),
    ],
)
def test_published_figures_stand_beside_their_rows(suite, scene, name, system, value):
    assert value in [p.value for p in beside(suite, scene, name) if p.system == system]


def test_a_scene_whose_name_ends_alike_is_another_scene():
    """Candor's recordings are not the synthetic ones, though both folders end in their task."""
    told = lambda scene: {p.value for p in beside("fdb_v1", scene, "takeover rate")}
    assert told("candor_pause_handling") == {0.662, 0.935, 0.980, 0.481, 0.310, 0.120}
    assert told("generated_pause_handling") == {0.584, 0.934, 0.985, 0.642, 0.255, 0.010}
    assert told("my_pause_handling") == set()


@pytest.mark.parametrize(
    ("suite", "scene", "name", "system", "value", "mode"),
    [
        ("fdb_v1", "turn_taking", "latency, clipped at 0 (s)", "Moshi", 0.265, "compat"),
        ("fdb_v3", "taken back", "Pass@1, judged", "Gemini 3.1", 0.353, "compat"),
        ("fdb_v3", "all", "everything said after the user's end (s)", "cascade", 10.12, "compat"),
        ("repcount", "spoken", "off-by-one accuracy (%)", "TML-Interaction-Small", 35.4, "strict"),
    ],
)
def test_published_figures_name_the_rule_and_the_data(suite, scene, name, system, value, mode):
    (item,) = [p for p in beside(suite, scene, name) if p.system == system]
    assert (item.value, item.as_dict()["mode"]) == (value, mode)
    assert item.data and json.dumps(item.as_dict())


def test_no_published_figure_stands_beside_another_suite():
    assert not beside("repcount", "spoken", "off-by-one accuracy of kicks (%)")
    assert not beside("bigbench_audio", "navigate", "accuracy (%)")
    assert not beside("proactive_video_qa", "spoken", "PAUC at omega 0.5 of EGO")
    assert not beside("fdb_v1", "turn_taking", "latency, unclipped (s)")
    assert len({(p.suite, p.scenes, p.figure, p.system, p.data) for p in PUBLISHED}) == len(
        PUBLISHED
    )


def order(*figures):
    return [(s.id, round(w, 3)) for s, w in failures_first(outcome("x", list(figures)))]


def test_failures_come_first():
    right = dict(zip(NAMES, (1.0, 0.0, 1.0, 0.0), strict=True))
    share = figure("right", right, Better.HIGHER, oracle=1.0, silent=0.0)
    late = latencies(0.2, 0.2, 0.6, 1.0, oracle=0.2)
    assert order(share, late) == [("d", 1.0), ("b", 0.5), ("c", 0.25), ("a", 0.0)]
    # A figure of neither way, another clock and a nan say nothing; compat counts if alone.
    neither = figure("n", right, Better.NEITHER)
    other = figure("right", {"a": 0.0}, Better.HIGHER, clock=Clock.MEASURED)
    nan = figure("x", {"a": float("nan"), "b": 1.0}, Better.LOWER)
    assert order(share, late, neither, other, nan)[0] == ("d", 1.0)
    compat = dataclasses.replace(share, mode=Mode.COMPAT)
    assert dict(order(compat, late))["b"] == 0.0
    assert [key for key, _ in order(compat)][:2] == ["b", "d"]


def evaluation(tmp_path, shown=3):
    specs = [Spec("x", "m:f")]
    return Evaluation(suites={"fdb_v1": PLACE}, systems=specs, out=tmp_path, shown=shown)


def made(tmp_path, shown=3):
    figures = [latencies(0.2, 0.9, 0.4, 0.3), latencies(0.2, 1, 0.4, 0.3, clock=Clock.MEASURED)]
    outcomes = [outcome("x", figures), outcome("<y>", figures)]
    write_report(evaluation(tmp_path, shown), outcomes)
    return outcomes


def test_the_json_holds_everything(tmp_path):
    made(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert [s["name"] for s in content["systems"]] == ["x", "<y>"]
    (system, _) = content["systems"]
    assert system["steps_over_200_ms"] == 4
    assert system["parts"]["whisper"] == {"calls": 4, "median": 0.5, "longest": 0.5}
    assert len(content["samples"]) == 8
    assert content["samples"][0]["id"] == "b"
    assert content["samples"][0]["values"]["strict, compute time 0"] == {
        "latency, clipped at 0 (s)": 0.9
    }
    assert content["suites"][0]["generated"] is True
    assert content["suites"][0]["small_set"] == "numbers"
    assert len(content["published"]) == len(PUBLISHED)


def test_the_page_is_whole_and_asks_nobody(tmp_path):
    made(tmp_path)
    page = (tmp_path / "report.html").read_text()
    # Inside pictures stand addresses of namespaces, in base64; nothing else may name a place.
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:|\$)[a-z]+:", page)
    assert not re.search(r"https?:|//\w", re.sub(r"base64,[\w+/=]+|(?m:^// .*$)", "", page))
    assert page.count("</script>") == 2  # a text cannot close the element that holds it
    assert "$" not in re.sub(r"base64,[\w+/=]+", "", page.split("<script")[0])
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])
    assert [r["system"] for r in data["samples"]].count("<y>") == 4
    assert len(data["shown"]["runs"]) == 6  # three of each system
    assert not list(tmp_path.glob(".*"))


def laid_out(tmp_path, outcomes, most):
    content = report(evaluation(tmp_path), outcomes)
    ordered = [(one, failures_first(one)) for one in outcomes]
    return content["samples"], lay_out(content["samples"], ordered, most, tmp_path)


@pytest.mark.parametrize(("most", "held"), [(0, ""), (1, "b"), (2, "bc"), (3, "bcd"), (9, "bcd")])
def test_the_page_holds_so_many_failures_and_the_others_lie_beside_it(tmp_path, most, held):
    """Four samples of which a is right: it is on the page only where there is room for it."""
    samples, data = laid_out(tmp_path, made(tmp_path), most)
    told = [(samples[r["sample"]]["system"], samples[r["sample"]]["id"]) for r in data["runs"]]
    assert sorted(told) == sorted((s, i) for s in ("x", "<y>") for i in held)
    assert [i for _, i in told] == sorted(i for _, i in told)  # worst first, systems in turn
    rest = {(samples[i]["system"], samples[i]["id"]) for i in data["rest"]}
    assert rest == {(s, i) for s in ("x", "<y>") for i in set(NAMES) - set(held)}
    files = {path.name for path in (tmp_path / "report_samples").iterdir()}
    assert files == {f"{i}.js" for i in data["rest"]}
    assert not list(tmp_path.glob(".*"))


def test_three_right_samples_are_shown_where_nothing_failed(tmp_path):
    right = outcome("x", [latencies(0.2, 0.2, 0.2, 0.2, oracle=0.2)])
    _, data = laid_out(tmp_path, [right], 12)
    assert (len(data["runs"]), len(data["rest"])) == (3, 1)


def test_what_would_make_the_page_too_large_lies_beside_it(tmp_path, monkeypatch):
    outcomes = made(tmp_path)
    _, whole = laid_out(tmp_path, outcomes, 9)
    one = len(json.dumps(whole["runs"][0])) + len(json.dumps(whole["inputs"]["fdb_v1/b"]))
    monkeypatch.setattr(report_samples, "PAGE_BYTES", round(1.5 * one))
    samples, data = laid_out(tmp_path, outcomes, 9)
    assert {samples[r["sample"]]["id"] for r in data["runs"]} == {"b"}  # of both: the worst first
    script = (tmp_path / "report_samples" / f"{data['rest'][0]}.js").read_text()
    assert script.startswith(f"sampleLoaded({data['rest'][0]}, {{") and "</" not in script


def test_sounds_of_the_page_are_those_of_the_run(tmp_path):
    _, data = laid_out(tmp_path, made(tmp_path), 3)
    assert list(data["inputs"]) == ["fdb_v1/b", "fdb_v1/c", "fdb_v1/d"]
    sound = data["runs"][0]["sound"].removeprefix("data:audio/ogg;base64,")
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert abs(len(wave) / rate - 2.0) < 0.05
    loud = np.flatnonzero(np.abs(wave) > 0.1) / rate
    assert loud[0] == pytest.approx(0.5, abs=0.03)  # compute time measured
    assert loud[-1] == pytest.approx(1.0, abs=0.05)
    assert data["runs"][0]["events"][0] == {
        "t": 0.2,
        "late": 0.05,
        "kind": "text",
        "payload": {"channel": "say", "text": "<i>hello</i>"},
    }


def test_an_envelope_shows_peaks():
    wave = np.zeros(SAMPLE_RATE, np.float32)
    wave[SAMPLE_RATE // 2] = -0.25
    found = envelope(wave)
    assert len(found) == 50
    assert [i for i, v in enumerate(found) if v] == [25]
    assert found[25] == round(99 * 0.5)
    assert envelope(np.zeros(0)) == []


def test_latencies_are_drawn_with_what_is_published(tmp_path):
    (plot,) = latency_plots(made(tmp_path))
    title, svg = plot
    assert title.startswith("fdb_v1, generated_turn_taking: latency, clipped at 0 (s), strict")
    assert svg.startswith(b"<?xml") and b"Moshi" not in svg
    # Where the mode of what is published is there too, that one is drawn.
    clock = Clock.MEASURED
    both = [latencies(0.2, 1, 0.4, 0.3, clock=clock, mode=mode) for mode in Mode]
    ((title, svg),) = latency_plots([outcome("x", both)])
    assert "(s), compat" in title and b"Moshi" in svg


@pytest.mark.browser
def test_the_page_draws_itself(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on PATH")
    made(tmp_path)
    page = (tmp_path / "report.html").read_text()
    spy = "<script>onerror = m => document.title = 'failed: ' + m</script>"
    act = "<script>const every = () => document.querySelectorAll('details')"
    act += ".forEach(d => d.open = true); every(); setTimeout(every, 300)</script>"
    (tmp_path / "spied.html").write_text(
        page.replace("<script id", spy + "<script id", 1).replace("</body>", act + "</body>")
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000"]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/spied.html"], capture_output=True, text=True, timeout=120
    )
    dom = done.stdout
    assert "<title>Evaluation: x, &lt;y&gt;</title>" in dom
    assert dom.count("<canvas") == 8  # six of the page's own and two that it loads
    assert dom.count("<audio") == 16
    assert "2 more, 0 of them not right" in dom
    assert "published by another rule (compat)" in dom
    assert "TML-Interaction-Small" in dom
    assert "not measured by us" in dom
