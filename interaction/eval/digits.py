"""Does it write the digit it hears, say the next one, and how soon?

In: held-out clips of spoken digits. Out: figures with intervals. A clip counts as right only if
exactly one number is written in its whole session, it is the right one, and it comes no later
than `WINDOW` seconds after the digit's end. Sound counts from the first audible sample, in
playback time, the vocoder's delay included.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from interaction.data.clips import Clip, to_float
from interaction.data.target_voice import WORDS
from interaction.data.voices import SAMPLE_RATE
from interaction.eval.intervals import Measured, bootstrap, share
from interaction.eval.respond import Answer, Reply, Stimulus

WINDOW = 1.0
GOAL_SECONDS = 0.4
_TAIL = 1.8


@dataclasses.dataclass(frozen=True)
class Digit:
    """Truth of one clip: the digit, when it ends in the session, and whose voice it is."""

    label: int
    end: float
    name: str


def digit_stimuli(clips: Sequence[Clip], *, seed: int) -> list[Stimulus]:
    """Each clip after 0.4 to 1.2 s of silence (drawn from `seed`), with time for an answer."""
    random = np.random.default_rng(seed)
    stimuli = []
    for clip in clips:
        lead = int(random.uniform(0.4, 1.2) * SAMPLE_RATE)
        samples = to_float(clip.samples)
        end = lead / SAMPLE_RATE + clip.end
        length = max(lead + len(samples), int((end + _TAIL) * SAMPLE_RATE))
        sound = np.zeros(length, np.float32)
        sound[lead : lead + len(samples)] = samples
        stimuli.append(Stimulus(sound, truth=Digit(clip.label, end, clip.name)))
    return stimuli


@dataclasses.dataclass(frozen=True)
class DigitResult:
    """One clip's outcome.

    Attributes:
        truth: the clip.
        written: every number written, in order.
        right: exactly one was written, the right one, in time.
        spoken: the answer that says it, None if there is none.
        heard: what the recogniser heard in it.
        latency: seconds from the digit's end to audible sound, compute time 0; None: no sound.
    """

    truth: Digit
    written: tuple[str, ...]
    right: bool
    spoken: Answer | None
    heard: str | None
    latency: float | None


def score_digit(
    stimulus: Stimulus, reply: Reply, recognise: Callable[[np.ndarray], str | None]
) -> DigitResult:
    """Scores one clip."""
    truth = stimulus.truth
    assert isinstance(truth, Digit)
    answers = reply.answers()
    written = tuple(answer.written for answer in answers if answer.written)
    timely = [a for a in answers if a.written and a.border <= truth.end + WINDOW]
    right = written == (str(truth.label),) and len(timely) == 1
    spoken = next((a for a in answers if a.onset is not None), None)
    heard = latency = None
    if spoken is not None and spoken.onset is not None:
        heard = recognise(spoken.sound)
        latency = spoken.border + spoken.onset - truth.end
    return DigitResult(truth, written, right, spoken, heard, latency)


def summarise(results: Sequence[DigitResult]) -> dict[str, Measured]:
    """Figures over clips."""
    count = len(results)
    right = [r for r in results if r.right]
    said = [r for r in results if r.heard == WORDS[r.truth.label + 1]]
    texts = [r for r in results if r.spoken and r.spoken.said == WORDS[r.truth.label + 1]]
    both = [r for r in said if r.right]
    latencies = [r.latency for r in results if r.latency is not None]
    soon = sum(latency <= GOAL_SECONDS for latency in latencies)
    return {
        "written_right": share(len(right), count, chance=0.1),
        "spoken_recognised": share(len(said), count, chance=0.1),
        "spoken_recognised_where_written_right": share(len(both), len(right), chance=0.1),
        "text_said_right": share(len(texts), count, chance=0.1),
        "nothing_written": share(sum(not r.written for r in results), count),
        "more_than_one_written": share(sum(len(r.written) > 1 for r in results), count),
        "latency_median_seconds": bootstrap(latencies),
        "latency_p90_seconds": bootstrap(latencies, ninetieth),
        "sound_within_0.4_seconds": share(soon, count),
    }


def ninetieth(values, axis):
    """The 90th percentile, for `intervals.bootstrap`."""
    return np.percentile(values, 90, axis=axis)


def by_digit(results: Sequence[DigitResult]) -> dict[str, str]:
    """For each digit what was written for it: ``{"3": "3x48 8x2"}``."""
    written: dict[str, dict[str, int]] = {}
    for r in results:
        row = written.setdefault(str(r.truth.label), {})
        text = "+".join(r.written) or "nothing"
        row[text] = row.get(text, 0) + 1
    return {
        digit: " ".join(f"{text}x{n}" for text, n in sorted(row.items(), key=lambda x: -x[1]))
        for digit, row in sorted(written.items())
    }
