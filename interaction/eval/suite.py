"""What every benchmark is to the runner and the report: the protocol that suites fulfil.

In: nothing. Out: `Suite`, and what crosses it: `Source` (where the data comes from), `Word` and
`Ears` (what was said and when), `Question`, `Verdict` and `Judge` (is it right), `Scoring` (all
that a figure depends on beside the runs), `Figure` (a row of the report).
"""

import dataclasses
import enum
import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from interaction.eval.intervals import Measured
from interaction.eval.records import Clock, OutputEvent, Run, Sample


class Mode(enum.Enum):
    """COMPAT computes what the authors' code computes, traps included; STRICT mends the traps."""

    COMPAT = "compat"
    STRICT = "strict"


class Better(enum.Enum):
    """Which way a figure is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a benchmark's data comes from.

    Attributes:
        title: its name in the literature.
        citation: paper and code.
        licence: of the data.
        size: of the whole set, in words ("452 conversations, 5.7 GB").
        obtain: how to get it into the official layout; nothing downloads by itself.
        generated: what the small shipped set holds instead.
    """

    title: str
    citation: str
    licence: str
    size: str
    obtain: str
    generated: str


@dataclasses.dataclass(frozen=True)
class Word:
    """A word that was put out, with its times in session seconds."""

    text: str
    start: float
    end: float


class Ears(Protocol):
    """Finds what a run said and when.

    Ears whose `speech` is that of Silero's network, unpadded, say so by a true `is_silero`; those
    whose `words` are somebody's transcript by a true `is_transcript`.
    """

    name: str

    def words(self, run: Run, clock: Clock) -> list[Word]:
        """Its words in order of time."""
        ...

    def speech(self, run: Run, clock: Clock) -> list[tuple[float, float]]:
        """Start and end of every stretch of speech in seconds."""
        ...


@dataclasses.dataclass(frozen=True)
class Hearing:
    """How runs are heard: by whose ears and under which clock."""

    ears: Ears
    clock: Clock

    def words(self, run: Run) -> list[Word]:
        """What a run said, in order of time."""
        return self.ears.words(run, self.clock)

    def speech(self, run: Run) -> list[tuple[float, float]]:
        """Start and end of every stretch of a run's speech in seconds."""
        return self.ears.speech(run, self.clock)

    @property
    def by_silero(self) -> bool:
        """Whether `speech` is what Silero's network finds, without padding."""
        return getattr(self.ears, "is_silero", False)

    @property
    def by_transcript(self) -> bool:
        """Whether `words` are read from a transcript that lies beside a recording."""
        return getattr(self.ears, "is_transcript", False)


@dataclasses.dataclass(frozen=True)
class Question:
    """What a judge is asked.

    Attributes:
        task: kind of question, e.g. "same meaning", "behaviour", "rating", "criterion", "refusal".
        prompt: the whole instruction for a language model, in the benchmark's own terms.
        answer: what the system put out.
        reference: the right answer, or "".
        choices: the verdicts that are allowed, best first.
    """

    task: str
    prompt: str
    answer: str
    reference: str = ""
    choices: tuple[str, ...] = ("yes", "no")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One of the question's choices, with the judge's reason."""

    choice: str
    reason: str = ""


class Judge(Protocol):
    """Answers questions that no formula answers."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    def verdict(self, question: Question) -> Verdict:
        """Its answer; `choice` is always one of the question's choices."""
        ...


@dataclasses.dataclass(frozen=True)
class Scoring(Hearing):
    """How runs are scored: heard so, by these rules, and judged where no rule tells."""

    judge: Judge
    mode: Mode


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of the report.

    Attributes:
        scene: part of the suite, or "all".
        name: what is measured, with its unit in words.
        measured: value with interval, n and chance.
        mode, clock: how it was computed.
        better: which way is better.
        oracle, silent: what those two systems score by definition; None where that is not fixed.
        judge: who judged, "" where a formula did.
        samples: per-sample value by id, for the failures page (missing: not applicable).
    """

    scene: str
    name: str
    measured: Measured
    mode: Mode
    clock: Clock
    better: Better
    oracle: float | None = None
    silent: float | None = None
    judge: str = ""
    samples: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Suite(Protocol):
    """One benchmark."""

    name: str
    source: Source

    def generate(self, folder: pathlib.Path, *, size: int, seed: int) -> None:
        """Write a small set in the official layout; `size` samples per scene."""
        ...

    def load(self, folder: pathlib.Path) -> list[Sample]:
        """Read a set in the official layout.

        Raises:
            ValueError: the folder is not in that layout; the sentence names what is missing.
        """
        ...

    def oracle(self, sample: Sample) -> list[OutputEvent]:
        """What a perfect system puts out, as text (`say`) events with exact times; the oracle
        system voices them."""
        ...

    def score(
        self, samples: Sequence[Sample], runs: Mapping[str, Run], how: Scoring
    ) -> list[Figure]:
        """Every figure of the suite; `runs` by sample id, every sample has one."""
        ...
