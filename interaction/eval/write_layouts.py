"""Runs in the layouts of the benchmarks' authors, so that their own code can score them.

In: an evaluation and what each system did in each suite. Out: ``SYSTEM/SUITE/``, a copy of the
suite's data with every run written into it where the authors look for it (`output.wav`,
`output.json`, `result_SYSTEM.json`, ...). Suites whose authors read no files of runs are left out.
"""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from interaction.eval.evaluate import Evaluation, Outcome
from interaction.eval.records import Clock, Run, Sample
from interaction.eval.suite import Hearing


@runtime_checkable
class Writes(Protocol):
    """A suite whose authors' code reads files of runs."""

    def write(
        self, root: pathlib.Path, samples: Sequence[Sample], runs: Mapping[str, Run], how: Hearing
    ) -> None:
        """Writes every run into the tree of the data."""
        ...


def write_layouts(
    evaluation: Evaluation, outcomes: Sequence[Outcome], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Write the runs as they sounded, computing time included.

    Args:
        evaluation: whose data and ears they are.
        outcomes: from `evaluate`.
        folder: gets a tree per system and suite.

    Returns:
        The trees.

    Raises:
        ValueError: a tree is there already, or no suite has a layout for runs.
    """
    chosen = [outcome for outcome in outcomes if isinstance(outcome.part.suite, Writes)]
    if not chosen:
        names = sorted({outcome.part.name for outcome in outcomes})
        raise ValueError(f"no layout for runs in {', '.join(names)}: their authors read none")
    how = Hearing(evaluation.ears.build(), Clock.MEASURED)
    trees = []
    for outcome in chosen:
        tree = folder / outcome.system / outcome.part.name
        if tree.exists():
            raise ValueError(f"{tree} is there already: --write-layout wants a new folder")
        shutil.copytree(outcome.part.folder, tree)
        suite = outcome.part.suite
        assert isinstance(suite, Writes)
        suite.write(tree, outcome.part.samples, outcome.runs, how)
        trees.append(tree)
    return trees
