"""The ears of the evaluation, lent to who prepares data.

In: sound. Out: words with their times, as `interaction.data.build.words.Listener` asks for them:
by `TwoPass` where nobody wrote them down, by PocketSphinx alone where the text is known. Extra
`eval`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from interaction.data.build.words import Talk, Word
from interaction.eval import word_alignment
from interaction.eval.ears import TwoPass, spread
from interaction.eval.records import SAMPLE_RATE

_MARGIN = 0.3  # seconds of sound around an utterance that its words may reach into


@dataclasses.dataclass(frozen=True)
class Ears:
    """Finds words in sound; what was heard once is kept on disk.

    Attributes:
        threads: of the recogniser.
    """

    threads: int = 1

    def listen(self, wave: np.ndarray) -> Talk:
        """What is said in float32 ``[W]`` at 16 kHz, and where speech is.

        Raises:
            ImportError: the `eval` extra is missing.
        """
        speech, heard = _two_pass(self.threads).listen(wave)
        words = (Word(h.word.text, h.word.start, h.word.end) for h in heard)
        return Talk(tuple(words), tuple(speech))

    def align(self, wave: np.ndarray, utterances: Sequence[Word]) -> tuple[Word, ...]:
        """The words of utterances; in proportion to their letters where they cannot be aligned.

        Raises:
            ImportError: the `eval` extra is missing.
        """
        return tuple(word for said in utterances for word in _aligned(wave, said))


@functools.cache
def _two_pass(threads: int) -> TwoPass:
    return TwoPass(threads=threads)


def _aligned(wave: np.ndarray, said: Word) -> list[Word]:
    begin = max(0.0, said.start - _MARGIN)
    clip = wave[round(begin * SAMPLE_RATE) : round((said.end + _MARGIN) * SAMPLE_RATE)]
    texts = said.text.split()
    found = word_alignment.align(clip, texts)
    if found:
        return [Word(t, begin + s, begin + e) for t, (s, e) in zip(texts, found, strict=True)]
    return [Word(w.text, w.start, w.end) for w in spread(texts, [(said.start, said.end)])]
