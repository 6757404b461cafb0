"""The table of the impaired evaluation: systems and networks apart, and where it goes.

In: a made-up report, and the finding that is committed. Out: a finding, a Markdown table.
"""

import json
import pathlib

import pytest

from experiments.evaluation_impaired import (
    FIGURES,
    HERE,
    MARKS,
    MEAN,
    SUITE,
    finding,
    parted,
    session_means,
    table,
)
from experiments.evaluation_small import CLOCK, MODE

LOSS = "mini [loss=0.2]"


def measured(value, count=2):
    return {"value": value, "low": None, "high": None, "count": count, "chance": None}


def row(name, better="higher", mode=MODE):
    systems = {"mini": measured(0.5), LOSS: measured(0.25)}
    facts = {"suite": SUITE, "mode": mode, "clock": CLOCK, "name": name, "better": better}
    return facts | {"systems": systems}


def report():
    values = {f"{MODE}, {CLOCK}": {"TimeSpeak": 1.0, "pause: takeover in it": 0.0, "a, s": 9.0}}
    worse = {f"{MODE}, {CLOCK}": {"TimeSpeak": 0.0, "pause: takeover in it": 0.5, "a, s": 9.0}}
    return {
        "evaluation": {"impairments": ["none", "loss=0.2"], "size": 2, "seed": 0},
        "rows": [
            *(row(name) for name in FIGURES),
            row("pause: takeover in it", "lower"),
            row("a, s", "lower"),
        ],
        "samples": [
            {"system": "mini", "values": values},
            {"system": LOSS, "values": worse},
            {"system": LOSS, "values": {}},
        ],
    }


def test_a_network_is_told_from_its_system():
    assert parted("mini") == ("mini", "none")
    assert parted("mini [late=0.3,delay=1]") == ("mini", "late=0.3,delay=1")


def test_a_sessions_mean_turns_what_should_be_low():
    assert session_means(report()) == {"mini": [1.0], LOSS: [0.25]}


def test_rows_are_figures_and_systems_and_columns_networks():
    found = finding(report())
    assert list(found["figures"]) == [MEAN, *FIGURES]
    text = table(found)
    assert "| figure | system | none | loss=0.2 |" in text
    assert f"| {MEAN} | mini | 1.00 [0.21, 1.00] (1) | 0.25 [0.01, 0.88] (1) |" in text
    assert "| TimeSpeak | mini | 0.50 (2) | 0.25 (2) |" in text
    made = report()
    del made["rows"][0]
    with pytest.raises(ValueError, match=f"no small_world row {FIGURES[0]}"):
        finding(made)


def test_the_documents_table_is_what_was_measured():
    page = (pathlib.Path(HERE).parent / "docs/evaluation.md").read_text("utf-8")
    kept = json.loads((HERE / "evaluation_impaired.json").read_text("utf-8"))
    begin, end = MARKS
    assert f"{begin}\n{table(kept)}\n{end}" in page
