"""Sounds, a listener and a reader for tests of `interaction/data/build/`.

In: nothing. Out: tones at places in silence; a listener that knows its words by heart; what
micro-turns put out, read back as text.
"""

import numpy as np

from interaction.data.build.words import Talk, Word
from interaction.data.shards.rows import RowSizes
from interaction.streams.text import ByteTokenizer, ChannelReader

RATE, TOKENS = 16_000, ByteTokenizer()
SIZES = RowSizes(slots=300, audio=80, patches=80)


def tone(seconds: float, pitch: float = 220.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def at(start: float, wave: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    result = np.zeros(round(seconds * rate), np.float32)
    first = round(start * rate)
    result[first : first + len(wave)] = wave
    return result


class Told:
    """A listener that knows one word by heart, or says that it was not to be asked."""

    def __init__(self, *words: Word, unasked: bool = False):
        self.words, self.unasked = words, unasked

    def listen(self, wave):
        assert not self.unasked
        spoken = [w for w in self.words if np.any(wave[round((w.start + 0.05) * RATE) :][:100])]
        return Talk(tuple(spoken), tuple((w.start, w.end) for w in spoken))

    def align(self, wave, utterances):
        assert not self.unasked
        return tuple(
            Word(text, u.start + 0.2 * i, u.start + 0.2 * i + 0.1)
            for u in utterances
            for i, text in enumerate(u.text.split())
        )


def read_back(turns) -> dict[int, str]:
    reader, result = ChannelReader(TOKENS), {}
    for t in turns:
        for piece in reader.push(t.micro_turn, t.text_out).pieces:
            result[t.micro_turn] = result.get(t.micro_turn, "") + piece.text
    return result


# A TextGrid in the short format: the user says "say ""2""", the model "two".
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"user"
0
2.5
1
0.5
2.5
"say ""2"""
"IntervalTier"
"MODEL"
0
2.5
1
0.1
0.75
"two"
'''
