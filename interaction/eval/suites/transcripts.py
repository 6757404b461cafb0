"""What a run answered, as text, and what a judge makes of it.

In: a run and how it is heard. Out: `reply` (its text), `choice_of` and `judged` (verdicts). A
system that puts out the text of its speech is judged by that text, as the authors of these
benchmarks judge transcripts; one that only speaks is judged by what the ears hear.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from interaction.eval.judges import CANNOT_TELL
from interaction.eval.records import SAMPLE_RATE, Kind, Run, Sample
from interaction.eval.suite import Hearing, Judge, Question


def channel_text(run: Run, channel: str) -> str:
    """The text of one channel in order of time.

    Pieces that carry their own white space are put together as they are; else each is a word or
    more and they are joined by spaces.
    """
    events = [e for e in run.of(Kind.TEXT) if e.payload["channel"] == channel]
    pieces = [event.payload["text"] for event in events if event.payload["text"]]
    glued = any(re.match(r"\s", p) or re.search(r"\s$", p) for p in pieces)
    return "".join(pieces) if glued else " ".join(pieces)


def reply(run: Run, how: Hearing) -> str:
    """What it answered: what it wrote, else the text of what it said, else what is heard."""
    for channel in ("write", "say"):
        text = channel_text(run, channel)
        if text.strip():
            return text
    return heard(run, how)


def heard(run: Run, how: Hearing) -> str:
    """What the ears hear it say."""
    return " ".join(word.text.strip() for word in how.words(run))


def choice_of(judge: Judge, question: Question) -> str | None:
    """What the judge says; None where it says that it cannot tell."""
    verdict = judge.verdict(question)
    return None if verdict.reason.startswith(CANNOT_TELL) else verdict.choice


def judged(
    samples: Sequence[Sample],
    answers: Mapping[str, str],
    judge: Judge,
    ask: Callable[[Sample, str], Question],
    verdict: str,
) -> dict[str, bool]:
    """Whether the judge's choice is `verdict`, by sample; what it cannot tell is left out.

    Silence never is, and nobody is asked about it; where no answer could be judged it is left out
    too.

    Args:
        samples: what was answered.
        answers: by sample.
        judge: who is asked.
        ask: from a sample and its answer to the question.
        verdict: one of the question's choices.
    """
    found = {}
    for sample in samples:
        answer = answers[sample.id]
        choice = choice_of(judge, ask(sample, answer)) if answer.strip() else None
        if choice is not None:
            found[sample.id] = choice == verdict
    silent = {s.id: False for s in samples if not answers[s.id].strip()}
    return found | silent if found else {}


def after(run: Run, seconds: float) -> Run:
    """The run without what was put out before a time; a sound that goes on then is cut there."""
    events = []
    for event in run.events:
        if event.kind is Kind.AUDIO and event.t < seconds:
            late = max(0, round((seconds - event.t) * SAMPLE_RATE))
            if late < len(event.payload):
                t = event.t + late / SAMPLE_RATE
                events.append(dataclasses.replace(event, t=t, payload=event.payload[late:]))
        elif event.t >= seconds:
            events.append(event)
    return dataclasses.replace(run, events=tuple(events))
