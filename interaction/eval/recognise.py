"""A recogniser of number words, named beforehand: PocketSphinx with a grammar of the words.

In: float32 samples at 16 kHz. Out: the word it hears, or None. It comes with the `eval` extra.
"""

import functools

import numpy as np

from interaction.data.voices import SAMPLE_RATE, require

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
RECOGNISER = "PocketSphinx 5.1.1, en-us model, JSGF grammar of zero..ten"
_GRAMMAR = "#JSGF V1.0;\ngrammar numbers;\npublic <number> = {};\n"
_PADDING = SAMPLE_RATE // 4


@functools.cache
def _decoder(words: tuple[str, ...]):
    module = require("pocketsphinx", "eval")
    decoder = module.Decoder(lm=None, loglevel="FATAL", samprate=SAMPLE_RATE)
    decoder.add_jsgf_string("numbers", _GRAMMAR.format(" | ".join(words)))
    decoder.activate_search("numbers")
    return decoder


def recognise(samples: np.ndarray, *, words: tuple[str, ...] = NUMBER_WORDS) -> str | None:
    """The one of `words` that a clip is heard as, or None.

    Args:
        samples: float32 ``[samples]`` at 16 kHz; a quarter second of silence is put around them
            and their peak is set to 0.7.
        words: the grammar.

    Raises:
        ImportError: the `eval` extra is missing.
    """
    decoder = _decoder(tuple(words))
    peak = float(np.max(np.abs(samples))) if len(samples) else 0.0
    if peak < 1e-4:
        return None
    wave = np.pad(np.asarray(samples, np.float32) * (0.7 / peak), _PADDING)
    dither = np.random.default_rng(0).normal(0, 2e-4, len(wave))
    pcm = np.clip((wave + dither) * 32_767, -32_768, 32_767).astype(np.int16)
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr.strip() or None if heard else None
