"""Short English words that are no digits, out of the dictionary that PocketSphinx brings along.

In: the CMU pronouncing dictionary in its file (BSD-2; package `pocketsphinx`). Out: words. No word
is taken that holds the sounds of a digit in a row ("fort", "sunday"), or that sounds like a word
of the test list.
"""

import functools
from pathlib import Path

import numpy as np

from interaction.data.digits import DIGIT_WORDS
from interaction.data.phrases import TEST_WORDS, TRAIN_WORDS
from interaction.data.voices import require

_PHONES = range(2, 8)
_NUMBERS = (*DIGIT_WORDS, "ten")


@functools.cache
def _pronunciations() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Every word's ways to be spoken, as phones."""
    folder = Path(require("pocketsphinx", "eval").get_model_path())
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in (folder / "en-us/cmudict-en-us.dict").read_text().splitlines():
        spelled, *phones = line.split()
        found.setdefault(spelled.split("(")[0], []).append(tuple(phones))
    return {word: tuple(ways) for word, ways in found.items()}


def _holds(phones: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(
        phones[start : start + len(part)] == part for start in range(len(phones) - len(part) + 1)
    )


@functools.cache
def _short_words() -> tuple[str, ...]:
    """Every word that may be drawn, in order."""
    spoken = _pronunciations()
    digits = [way for word in _NUMBERS for way in spoken[word]]
    kept_for_test = {way for word in TEST_WORDS for way in spoken.get(word, ())}
    return tuple(
        word
        for word, ways in sorted(spoken.items())
        if word.isalpha()
        and len(word) > 2
        and word not in TRAIN_WORDS
        and all(len(way) in _PHONES and way not in kept_for_test for way in ways)
        and not any(_holds(way, digit) for way in ways for digit in digits)
    )


def short_words(count: int, *, seed: int) -> list[str]:
    """`count` words of two to seven phones, drawn from `seed`.

    Raises:
        ImportError: `pocketsphinx` is not installed; names the extra.
    """
    words = _short_words()
    chosen = np.random.default_rng([seed, 29]).choice(len(words), count, replace=False)
    return [words[index] for index in sorted(chosen)]
