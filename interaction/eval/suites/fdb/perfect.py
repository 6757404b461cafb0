"""What a perfect system says in Full-Duplex-Bench: the pieces of every version's oracle.

In: when the user begins and ends. Out: `say` events at the borders of micro-turns.
"""

from collections.abc import Mapping
from typing import Any

from interaction.eval.records import Kind, OutputEvent
from interaction.eval.suites.fdb.world import NUMBERS
from interaction.microturn import first_border_after, output_seconds

COUNT_EVERY = 0.6
YIELD_AFTER = 0.35
BREATH = 0.05
_ANSWER = "I can tell you that."


def next_border(seconds: float) -> float:
    """The first end of a micro-turn that comes `BREATH` or more after `seconds`."""
    return output_seconds(first_border_after(seconds + BREATH))


def said(seconds: float, text: str) -> OutputEvent:
    """Words of one's own speech."""
    return OutputEvent(round(seconds, 4), Kind.TEXT, {"channel": "say", "text": text})


def answered(truth: Mapping[str, Any], user_end: float) -> OutputEvent:
    """The answer that the truth names, or any, when the user has ended."""
    return said(next_border(user_end), truth.get("answer") or _ANSWER)


def counting(begin: float, until: float) -> list[OutputEvent]:
    """Counting from one to twenty, a number every 0.6 s, the last one before `until`."""
    times = [begin + COUNT_EVERY * place for place in range(20)]
    return [said(t, word) for t, word in zip(times, NUMBERS[1:], strict=True) if t < until]


def yielding(truth: Mapping[str, Any]) -> list[OutputEvent]:
    """Counts once the first request has ended, stops when interrupted, and then answers."""
    start, end = truth["overlap"]
    begin = next_border(truth["context_end"])
    return [*counting(begin, start + YIELD_AFTER), answered(truth, end)]
