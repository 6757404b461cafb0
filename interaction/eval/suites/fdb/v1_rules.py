"""How Full-Duplex-Bench v1 is scored, one sample at a time.

In: words and stretches of speech with times. Out: takeovers, latencies, backchannel figures. Pure
functions of plain data, in two modes. COMPAT is what the authors' `eval_*.py` (2026-04) compute;
STRICT mends the traps that each function names.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from interaction.eval.suite import Mode, Word
from interaction.eval.suites.fdb.timing import (
    Stretch,
    after_yielding,
    speaking_at,
    takes_turn,
    words_after,
)

LONG_SECONDS = 3.0
SHORT_SECONDS = 1.0
SHORT_WORDS = 2
MOST_WORDS = 3
BIN_SECONDS = 0.2
EPSILON = 1e-10
NO_BACKCHANNEL_COMPAT = 1.0
NO_BACKCHANNEL_STRICT = math.sqrt(math.log(2))
"""The greatest distance there is; the authors' code puts 1 instead, off the scale."""


@dataclasses.dataclass(frozen=True)
class Pause:
    """One sample of pause handling: a takeover while the user may go on; an answer afterwards."""

    takeover: bool
    answered: bool | None = None


def pause(words: Sequence[Word], user_end: float, mode: Mode) -> Pause:
    """Pause handling.

    COMPAT judges every word of the file, so that an answer after the user's end counts as a
    takeover too. STRICT judges the words that start before that end, and tells apart whether the
    agent answered after it.
    """
    if mode is Mode.COMPAT:
        return Pause(takes_turn(words))
    before = [word for word in words if word.start < user_end]
    return Pause(takes_turn(before), takes_turn(words_after(words, user_end)))


@dataclasses.dataclass(frozen=True)
class Turn:
    """One sample of turn-taking or interruption.

    Attributes:
        takeover: the agent took the turn.
        unclipped: first word minus the user's end in seconds; None where no turn was taken,
            neither after that end nor (STRICT, turn-taking: then below 0) before it.
        premature: STRICT: it took the turn before the user's end (interruption: it never
            stopped); None in COMPAT.
        applicable: STRICT, interruption: it was speaking when the user began to interrupt.
    """

    takeover: bool
    unclipped: float | None
    premature: bool | None = None
    applicable: bool = True

    @property
    def clipped(self) -> float | None:
        """The latency the authors average: what lies below 0 is 0."""
        return None if self.unclipped is None else max(0.0, self.unclipped)


def _turn(words: Sequence[Word], user_end: float) -> Turn:
    taken = takes_turn(words)
    return Turn(taken, words[0].start - user_end if taken else None)


def turn_taking(words: Sequence[Word], user_end: float, mode: Mode) -> Turn:
    """Smooth turn-taking.

    COMPAT takes the first word anywhere in the file: talking over the user gives latency 0 and a
    takeover. STRICT calls a turn taken before the user's end premature (its latency is negative);
    otherwise words before that end (a backchannel) are left out and the rest judged.
    """
    if mode is Mode.COMPAT:
        return _turn(words, user_end)
    before = [word for word in words if word.start < user_end]
    if takes_turn(before):
        return Turn(False, before[0].start - user_end, premature=True)
    return dataclasses.replace(_turn(words_after(words, user_end), user_end), premature=False)


def interruption(
    words: Sequence[Word],
    speech: Sequence[Stretch],
    overlap: Stretch,
    mode: Mode,
) -> Turn:
    """User interruption.

    Args:
        words: COMPAT: those of the sound after the interruption's end, their times moved back
            (the authors cut the file there before they transcribe it); STRICT: all words.
        speech: stretches of the agent's speech, merged. STRICT only.
        overlap: start and end of the interruption.
        mode: COMPAT gives an agent that never stopped a takeover and a latency of about 0.
            STRICT judges only words that begin after a silence, says when the agent had not
            stopped, and when it was not speaking at all as the user came in.
    """
    start, end = overlap
    if mode is Mode.COMPAT:
        return _turn(words, end)
    ran_on = any(begin < start and stop > end for begin, stop in speech)
    judged = _turn(after_yielding(words, end), end)
    applicable = speaking_at(speech, start) is not None
    return dataclasses.replace(judged, premature=ran_on, applicable=applicable)


# ---------------------------------------------------------------- backchannel


@dataclasses.dataclass(frozen=True)
class Backchannels:
    """One sample of backchannelling: takeover, backchannels per second, distance to people's."""

    takeover: bool
    frequency: float
    distance: float


def _words_in(words: Sequence[Word], start: float, end: float) -> int:
    """Words that the authors count into a stretch; a word without an end (nan) before the
    stretch's end is left out, a later one ends where it starts."""
    count = 0
    for word in words:
        stop = word.end
        if math.isnan(stop):
            if word.start < end:
                continue
            stop = word.start
        inside = word.start >= start and stop <= end
        over_end = word.start <= end < stop
        over_start = word.start <= start < stop
        count += bool(inside or over_end or over_start)
    return count


def _is_turn(duration: float, words: int) -> bool:
    """A stretch of at most 3 s that is a turn and not a backchannel."""
    return words > MOST_WORDS or duration >= SHORT_SECONDS or words > SHORT_WORDS


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon distance (root of the divergence, natural logarithm) of two histograms."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def relative(a: np.ndarray) -> float:
        some = a > 0
        return float(np.sum(a[some] * np.log(a[some] / middle[some])))

    return math.sqrt(max(0.0, (relative(p) + relative(q)) / 2))


def distance_to_people(found: Sequence[Stretch], seconds: float, people: Sequence[float]) -> float:
    """Distance between where backchannels are and where people's are, both in bins of 0.2 s.

    `people`'s histogram is stretched linearly to as many bins as the sound has.
    """
    histogram = np.zeros(int(seconds / BIN_SECONDS) + 1)
    for start, end in found:
        histogram[int(start / BIN_SECONDS) : int(end / BIN_SECONDS) + 1] += 1
    histogram += EPSILON
    places = np.linspace(0, 1, len(histogram))
    theirs = np.interp(places, np.linspace(0, 1, len(people)), people)
    return jensen_shannon(histogram, theirs)


def backchannels(
    speech: Sequence[Stretch],
    words: Sequence[Word],
    seconds: float,
    people: Sequence[float],
    mode: Mode,
) -> Backchannels:
    """Backchannelling.

    COMPAT: times of stretches in steps of 0.1 s; a stretch of more than 3 s is a takeover and ends
    the reading; of the shorter ones the last decides about the takeover, and every one counts as
    a backchannel; none at all puts the distance at 1. STRICT: exact times; any stretch that is a
    turn is a takeover; only the others count as backchannels; none puts the distance at its
    greatest value, sqrt(ln 2).

    Args:
        speech: stretches of the agent's speech as the detector gives them.
        words: its words.
        seconds: length of its sound.
        people: how often people made a sound there, per 0.2 s.
        mode: see above.
    """
    compat = mode is Mode.COMPAT
    takeover, found = False, []
    for start, end in speech:
        if compat:
            start, end = round(float(start), 1), round(float(end), 1)
        duration = end - start
        if duration > LONG_SECONDS:
            takeover = True
            if compat:
                break
            continue
        turn = _is_turn(duration, _words_in(words, start, end))
        takeover = turn if compat else takeover or turn
        if compat or not turn:
            found.append((start, end))
    none = NO_BACKCHANNEL_COMPAT if compat else NO_BACKCHANNEL_STRICT
    distance = distance_to_people(found, seconds, people) if found else none
    return Backchannels(takeover, len(found) / seconds, distance)
