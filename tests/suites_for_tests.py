"""Stand-ins that the tests of text and speech suites share.

In: a suite, its samples, what a system puts out on each. Out: `figures` by scene and name.
"""

from interaction.eval.records import Clock, Kind, Run
from interaction.eval.suite import Mode, Scoring, Verdict, Word


class TextEars:
    """Stand-in: the words of the say channel, 0.2 s each."""

    name = "text"

    def words(self, run, clock):
        """Words with the times of their events."""
        return [
            Word(word, event.at(clock) + 0.2 * i, event.at(clock) + 0.2 * (i + 1))
            for event in run.of(Kind.TEXT)
            if event.payload["channel"] == "say"
            for i, word in enumerate(event.payload["text"].split())
        ]

    def speech(self, run, clock):
        """Span of every word."""
        return [(word.start, word.end) for word in self.words(run, clock)]


class NoJudge:
    """Is never asked."""

    name = "none"

    def verdict(self, question):
        """Fails the test."""
        raise AssertionError(f"asked {question}")


class PhraseJudge:
    """Says the first choice where the answer holds the reference, else the last."""

    name = "phrase"

    def verdict(self, question):
        """By the reference's presence."""
        right = question.reference.lower() in question.answer.lower()
        return Verdict(question.choices[0 if right and question.answer.strip() else -1])


def figures(suite, samples, events, mode=Mode.STRICT, judge=None):
    """Figures by name (or scene and name, where there are several scenes)."""
    runs = {s.id: Run(s.suite, s.scene, s.id, "test", s.seconds, tuple(events(s))) for s in samples}
    how = Scoring(TextEars(), Clock.INSTANT, judge or NoJudge(), mode)
    found = suite.score(samples, runs, how)
    table = {f"{f.scene}: {f.name}": f for f in found}
    assert len(table) == len(found), "two figures of one scene and name"
    return table
