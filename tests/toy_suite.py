"""A suite as small as can be: say the number after the one that is typed, within a second.

In: nothing. Out: `Toy`, a `Suite` of generated samples, of which the worker processes of a test
make their own.
"""

import json
import pathlib

import numpy as np

from interaction.eval.intervals import share
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Sample
from interaction.eval.suite import Better, Figure, Source
from interaction.streams.events import TextEvent
from interaction.types import Control

NAMES = "zero one two three four five six".split()
PLACE = "tests.toy_suite:Toy"


class Toy:
    """Says the next number."""

    name = "toy"
    source = Source("Toy", "-", "Apache-2.0", "a few", "made here", "numbers")

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        items = [{"id": f"n/{i}", "number": (i + seed) % 5, "at": 0.7} for i in range(size)]
        (folder / "items.json").write_text(json.dumps(items))

    def load(self, folder: pathlib.Path) -> list[Sample]:
        items = json.loads((folder / "items.json").read_text())
        return [self._sample(item) for item in items]

    def _sample(self, item: dict) -> Sample:
        random = np.random.default_rng(item["number"])
        return Sample(
            suite="toy",
            scene="next",
            id=item["id"],
            seconds=3.0,
            audio=random.normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32),
            text=(TextEvent(item["at"], Control.USER, NAMES[item["number"]]),),
            truth={"word": NAMES[item["number"] + 1], "at": item["at"]},
        )

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        say = {"channel": "say", "text": sample.truth["word"]}
        return [OutputEvent(sample.truth["at"] + 0.65, Kind.TEXT, say)]

    def score(self, samples, runs, how) -> list[Figure]:
        right = {}
        for sample in samples:
            words = how.words(runs[sample.id])
            late = [word.start - sample.truth["at"] for word in words]
            said = [word.text for word in words] == [sample.truth["word"]]
            right[sample.id] = float(said and late[0] <= 1.0)
        figure = Figure(
            scene="next",
            name="said in time",
            measured=share(int(sum(right.values())), len(right)),
            mode=how.mode,
            clock=how.clock,
            better=Better.HIGHER,
            oracle=1.0,
            silent=0.0,
            samples=right,
        )
        return [figure]
