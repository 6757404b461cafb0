"""Figures in the documentation are those that a committed script measured and wrote."""

import json
import pathlib

import pytest

from experiments import nano_table

REPOSITORY = pathlib.Path(__file__).parents[1]
NANO = REPOSITORY / "checkpoints/nano"


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", NANO / "README.md"])
def test_nanos_table_is_what_was_measured(page):
    figures = json.loads((NANO / "metrics.json").read_text())["figures"]
    assert "\n".join(nano_table.table(figures)) in page.read_text()
