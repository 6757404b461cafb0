"""Data sets whose form is known: their TFDS names, and what becomes of their examples.

In: nothing. Out: `KNOWN`. The names of features are those of TFDS 4.9.10, where a data set is one
of its own.
"""

import dataclasses
import enum


class Use(enum.Enum):
    """What becomes of a recording and its text."""

    HEARD = "heard"
    READ = "read"


@dataclasses.dataclass(frozen=True)
class Known:
    """How a data set is used: which feature is sound, which is text, and what becomes of them."""

    audio: str
    text: str
    use: Use = Use.HEARD


# By TFDS name. `voxpopuli` is not among TFDS's own; its features are those of the community set.
KNOWN = {
    "spoken_digit": Known("audio", "label"),
    "speech_commands": Known("audio", "label"),
    "librispeech": Known("speech", "text"),
    "ljspeech": Known("speech", "text_normalized", Use.READ),
    "voxpopuli": Known("audio", "normalized_text"),
}
