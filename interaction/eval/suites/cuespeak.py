"""CueSpeak, rebuilt: does it speak at the right moment while the user is still speaking?

In: a folder of instructions (see `timed_speech`). Out: samples and figures. Not the announced
private set: same task and rule, our own instructions. Three kinds: `word` ("say banana when I say
camel", then a story), `switch` (a Spanish word in an English sentence is to be said in English),
`count` (a number left out while counting in tens is to be said). The target is the end of the cue;
the window never begins before the cue does.
"""

import numpy as np

from interaction.eval.number_words import spell
from interaction.eval.suite import Source
from interaction.eval.suites import instructions
from interaction.eval.suites.timed_speech import Example, TimedSpeech

KINDS = ("word", "switch", "count")
_LEAD = 0.3
_PAUSE = 1.2  # between the instruction and what follows it
_TAIL = 2.6
# Answers of two syllables or more: a recogniser mishears shorter words that stand alone.
_SPANISH = {
    "agua": "water", "ventana": "window", "manzana": "apple", "naranja": "orange",
    "cocina": "kitchen", "hermana": "sister", "dinero": "money",
}  # fmt: skip
_BEFORE = (
    "Last week we went out to buy a",
    "In my dream there was a very large",
    "My sister told us about the",
)
_AFTER = (
    "and then we walked home along the river before it began to rain again",
    "but nobody in the whole house wanted to hear anything more about it",
    "while all of the others were still waiting for the train to arrive",
)


class CueSpeak(TimedSpeech):
    """The suite."""

    name = "cuespeak"
    source = Source(
        title="CueSpeak (rebuilt, not the announced private set)",
        citation="task and rule as announced with TML-Interaction-Small; instructions our own",
        licence="generated: Apache-2.0 as this repository; the announced set is not published",
        size="as many as asked for, about 12 s each",
        obtain="generate it with a seed; any folder with examples.jsonl and its sounds loads",
        generated="espeak-ng voices; kinds word, switch, count",
    )

    def make(self, index: int, seed: int) -> tuple[Example, np.ndarray]:
        """Kinds in turn."""
        return _example(index, seed)


class _Talk:
    """Sound and words of what the user says, one piece after the other."""

    def __init__(self, seed: int):
        self.seed, self.now = seed, _LEAD
        self.pieces: list[tuple[float, np.ndarray]] = []
        self.typed: list[tuple[float, str]] = []

    def whole(self, text: str) -> None:
        """An instruction, typed in one piece at its end."""
        sound = instructions.say(text, seed=self.seed)
        self.pieces.append((self.now, sound.samples))
        self.now += sound.seconds
        self.typed.append((self.now, text))

    def words(self, text: str, *, voice: str | None = None) -> list[tuple[float, float]]:
        """Text of which each word is typed at its end; gives the span of every word.

        espeak-ng speaks some words as one ("of the"): the second one is then typed with the first.
        """
        sound = instructions.say(text, seed=self.seed, voice=voice)
        spans, at, end = [], 0, self.now
        for token in text.split():
            heard = sound.words[at] if at < len(sound.words) else None
            if heard is not None and heard.text == token.strip(",."):
                spans.append((self.now + heard.start, self.now + heard.end))
                at += 1
            else:
                spans.append((end, end))
            end = spans[-1][1]
            self.typed.append((end, token.strip(",.")))
        self.pieces.append((self.now, sound.samples))
        self.now += sound.seconds
        return spans


def _example(index: int, seed: int) -> tuple[Example, np.ndarray]:
    random = np.random.default_rng([seed, index, 67])
    kind = KINDS[index % len(KINDS)]
    talk = _Talk(seed * 1_000 + index)
    before, after = str(random.choice(_BEFORE)), str(random.choice(_AFTER))
    if kind == "word":
        cue, expected = map(str, random.choice(instructions.WORDS, 2, replace=False))
        talk.whole(f"Say {expected} as soon as you hear the word {cue}. Do not wait for me.")
        talk.now += _PAUSE
        spans = talk.words(f"{before} {cue} {after}.")
        span = spans[len(before.split())]
    elif kind == "switch":
        cue, expected = list(_SPANISH.items())[int(random.integers(len(_SPANISH)))]
        talk.whole("Whenever I use a Spanish word, tell me the English word while I talk on.")
        talk.now += _PAUSE
        talk.words(before)
        (span,) = talk.words(cue, voice="es")
        talk.words(after)
    else:
        left_out = int(random.integers(3, 8))
        expected = spell(10 * left_out)
        talk.whole("I will count in tens. If I leave one out, tell me which one at once.")
        talk.now += _PAUSE
        counted = [10 * n for n in range(1, 10) if n != left_out]
        spans = talk.words(", ".join(map(spell, counted)) + ".")
        span = spans[left_out - 1]
    total = round(max(talk.now + 0.5, span[1] + _TAIL), 2)
    example = Example(
        id=f"{kind}-{index:03d}",
        kind=kind,
        audio=f"audio/{kind}-{index:03d}.wav",
        typed=tuple((round(t, 4), text) for t, text in talk.typed),
        seconds=total,
        expected=expected,
        target=round(span[1], 4),
        earliest=round(span[0], 4),
    )
    return example, instructions.session_sound(talk.pieces, total)
