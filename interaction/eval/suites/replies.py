"""What a run put out, as words, utterances and numbers with times.

In: a run and ears. Out: words that were said, and words that were written (shown text counts too:
a system without a voice can be measured), in order of time; utterances, which are words without
a long pause between them; the numbers among them.
"""

import dataclasses
from collections.abc import Sequence

from interaction.eval.number_words import digits, numbers_in
from interaction.eval.records import Kind, Run
from interaction.eval.suite import Hearing, Word

PAUSE = 0.6  # seconds without a word that part two utterances
_NUMBER_PAUSE = 0.3  # "twenty ... one" with a longer pause is two numbers
_LONGEST_NUMBER = 8  # words
_LONGEST_WORD = 1.2  # seconds; ears that spread text over sound may stretch a word over a silence
_MARKS = '.,;:!?"()[]'


@dataclasses.dataclass(frozen=True)
class Utterance:
    """Words without a long pause between them."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """Its words, parted by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        """Onset of its first word in session seconds."""
        return self.words[0].start


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that was put out, and its onset in session seconds."""

    value: float
    time: float


def put_out(run: Run, how: Hearing) -> list[Word]:
    """Every word said (as the ears hear it) or written, in order of time."""
    result = list(how.words(run))
    for event in run.of(Kind.TEXT):
        if event.payload["channel"] == "write":
            now = event.at(how.clock)
            result += [Word(part, now, now) for part in event.payload["text"].split()]
    return sorted(result, key=lambda word: word.start)


def utterances(words: Sequence[Word], *, pause: float = PAUSE) -> list[Utterance]:
    """Words in order of time, parted where more than `pause` seconds pass without one."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start - max(map(_end, groups[-1])) <= pause + 1e-9:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [Utterance(tuple(group)) for group in groups]


def _end(word: Word) -> float:
    return min(word.end, word.start + _LONGEST_WORD)


def numbers(words: Sequence[Word]) -> list[Number]:
    """Every number in order of time: "twenty one" said in one go is 21, "one two" is 1 and 2."""
    result = []
    for group in utterances(words, pause=_NUMBER_PAUSE):
        parts = [word.text.strip(_MARKS) for word in group.words]
        at = 0
        while at < len(parts):
            stop = next(
                (
                    end
                    for end in range(min(len(parts), at + _LONGEST_NUMBER), at, -1)
                    if _is_one_number(parts[at:end])
                ),
                None,
            )
            if stop is not None:
                value = numbers_in(" ".join(parts[at:stop]))[0]
                result.append(Number(float(value), group.words[at].start))
            at = stop or at + 1
    return result


def _is_one_number(parts: Sequence[str]) -> bool:
    text = " ".join(parts)
    return len(digits(text).split()) == 1 and len(numbers_in(text)) == 1
