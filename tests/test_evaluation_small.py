"""The table of the small evaluation: which rows it takes, and where it goes.

In: a made-up report. Out: a finding, a Markdown table, a page between its marks.
"""

import json

import pytest

from experiments.evaluation_small import BEGIN, CLOCK, END, HERE, MAIN, MODE, fill, finding, table
from interaction.eval.suites import SUITES


def measured(value, count=1):
    return {"value": value, "low": value, "high": value, "count": count, "chance": None}


def report():
    rows = [
        {
            "suite": suite,
            "scene": scene,
            "name": name,
            "mode": MODE,
            "clock": CLOCK,
            "better": "higher",
            "oracle": 1.0,
            "silent": 0.0,
            "judge": "",
            "systems": {"silent": measured(None, 0), "oracle": measured(98.76, 3)},
        }
        for suite, chosen in MAIN.items()
        for scene, name in chosen
    ]
    took = {"playing": 1.0, "listening": 0.5, "scoring": 0.25}
    return {
        "evaluation": {"seed": 0, "processes": 2, "wall_seconds": 90.0, "ears": "text"},
        "systems": [
            {"name": n, "processor_seconds": 1.75, "parts": {}} for n in ("silent", "oracle")
        ],
        "processor_seconds": [{"system": n, "suite": "qivd"} | took for n in ("silent", "oracle")],
        "rows": [*rows, rows[0] | {"mode": "compat", "systems": {}}],
    }


def test_every_suite_has_a_main_row():
    assert set(MAIN) == set(SUITES)


def test_the_table_has_a_column_per_system():
    found = finding(report())
    assert found["processor_seconds"] == {"silent": {"qivd": 1.8}, "oracle": {"qivd": 1.8}}
    text = table(found)
    assert "| suite | scene: figure | silent | oracle |" in text
    assert "| fdb_v1 | turn_taking: takeover rate ↑ | – | 98.8 (3) |" in text
    assert "1.5 minutes in 2 processes; 4 s of processor time, so 0.0 minutes where" in text
    assert text.count("\n| ") == sum(map(len, MAIN.values())) + 1


def test_each_cell_has_its_own_n():
    made = report()
    made["rows"][0]["systems"] = {"silent": measured(0.0, 4), "oracle": measured(0.5, 2)}
    (line,) = [row for row in table(finding(made)).splitlines() if "pause_handling" in row]
    assert line.endswith("| 0 (4) | 0.5 (2) |")


def test_the_readmes_table_is_what_was_measured():
    page = (HERE.parent / "README.md").read_text("utf-8")
    kept = json.loads((HERE / "evaluation_small.json").read_text("utf-8"))
    assert f"{BEGIN}\n{table(kept)}\n{END}" in page


def test_a_row_that_is_gone_is_told():
    made = report()
    del made["rows"][0]
    with pytest.raises(ValueError, match="no row fdb_v1 / generated_pause_handling / takeover"):
        finding(made)


def test_a_page_gets_the_table_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    fill(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no <!-- evaluation"):
        fill(page, "new")
