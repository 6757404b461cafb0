"""Words with their times, and who finds them where nobody wrote them down.

In: nothing. Out: `Word`, `Talk` (what one side of a conversation said and when) and `Listener`,
which `launch.py` fills with the recogniser and the aligner of the evaluation: `data` stands below
`eval` and does not import it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

type Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Word:
    """A word (or, before it is aligned, several) with its start and end in seconds."""

    text: str
    start: float
    end: float

    def __post_init__(self):
        if not (np.isfinite(self.start) and 0 <= self.start <= self.end):
            raise ValueError(
                f"word {self.text!r}: start={self.start} and end={self.end} are no span of time"
            )


@dataclasses.dataclass(frozen=True)
class Talk:
    """What one side says.

    Attributes:
        words: in order of time.
        speech: stretches of speech, which may hold more than the words; in order.
    """

    words: tuple[Word, ...] = ()
    speech: tuple[Span, ...] = ()


class Listener(Protocol):
    """Finds words in sound."""

    def listen(self, wave: np.ndarray) -> Talk:
        """What is said in float32 ``[W]`` at 16 kHz, and where speech is."""
        ...

    def align(self, wave: np.ndarray, utterances: Sequence[Word]) -> tuple[Word, ...]:
        """The single words of utterances whose text, start and end are known."""
        ...
