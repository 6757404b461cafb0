"""Does it count the events of a video?

In: rendered videos of the held-out split. Out: figures with intervals. A count is exact if the
last number written equals the number of events.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from interaction.data import video as videos
from interaction.data.clips import Split
from interaction.eval.intervals import Measured, share
from interaction.eval.respond import Reply, Stimulus
from interaction.microturn import first_border_after

SECONDS = 8.4
_SEED = 7_000_000


def video_stimuli(
    kind: str, count: int, *, seed: int = 0, split: Split = Split.TEST
) -> list[Stimulus]:
    """`count` silent videos of ``flashes``, ``kicks`` or ``still``; truth: the event ends."""
    make = {"flashes": videos.flashes, "kicks": videos.kicks, "still": videos.still}[kind]
    stimuli = []
    for index in range(count):
        random = np.random.default_rng([_SEED + seed, index, len(kind)])
        shown = make(random, split, seconds=SECONDS)
        stimuli.append(
            Stimulus(tubelets=videos.tubelets(shown.frames), truth=tuple(shown.event_ends))
        )
    return stimuli


@dataclasses.dataclass(frozen=True)
class CountResult:
    """One video: how many events there were, and every number written."""

    truth: int
    written: tuple[str, ...]
    in_order: bool

    @property
    def exact(self) -> bool:
        """The last number written is right (nothing written is right where nothing happened)."""
        return (int(self.written[-1]) if self._numbers() else 0) == self.truth

    @property
    def within_one(self) -> bool:
        """The last number written is off by one at most; nothing written counts as none."""
        last = self.written[-1] if self.written else "0"
        return last.isdecimal() and abs(int(last) - self.truth) <= 1

    def _numbers(self) -> bool:
        return bool(self.written) and self.written[-1].isdecimal()


def score_count(stimulus: Stimulus, reply: Reply) -> CountResult:
    """Scores one video."""
    ends = stimulus.truth
    assert isinstance(ends, tuple)
    answers = [answer for answer in reply.answers() if answer.written]
    written = tuple(answer.written for answer in answers)
    due = [first_border_after(end + 0.1) for end in ends]
    in_order = written == tuple(str(i + 1) for i in range(len(ends))) and all(
        abs(answer.micro_turn - when) <= 2 for answer, when in zip(answers, due, strict=True)
    )
    return CountResult(len(ends), written, in_order)


def summarise(results: Sequence[CountResult]) -> dict[str, Measured]:
    """Figures over videos; chance is always writing the most frequent count."""
    frequent = collections.Counter(r.truth for r in results).most_common(1)
    chance = frequent[0][1] / len(results) if frequent else None
    exact = sum(r.exact for r in results)
    near = sum(r.exact or r.within_one for r in results)
    return {
        "exact": share(exact, len(results), chance=chance),
        "within_one": share(near, len(results)),
        "every_event_in_time": share(sum(r.in_order for r in results), len(results)),
    }
