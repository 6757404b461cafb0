"""A recorded conversation of two sides as micro-turns: one side is heard, the other is the model.

In: a wave per side on one clock, what the model says and when, perhaps frames. Out: the micro-turns
that `streams.weave` takes, inputs and outputs.

What the model's side of the recording holds in [0.2 (m + 1), 0.2 (m + 2)) s is what micro-turn m
puts out, for its sound plays from 0.2 (m + 1) s on; so its first 0.2 s cannot be learnt. A
micro-turn whose sound holds speech speaks (SPEAK and its mel), the one after the last gives up the
floor (YIELD), all others pass. A word is written (SAY) in the micro-turn in which it begins to
sound; where more begins than a micro-turn has room for, what comes first moves to earlier ones:
words are never later than their sound.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from interaction.data.build.words import Span, Talk, Word
from interaction.data.shards.rows import RowSizes
from interaction.data.target_voice import LOUDNESS
from interaction.data.voices import SAMPLE_RATE
from interaction.microturn import micro_turn_of
from interaction.streams.audio import CHUNK
from interaction.streams.events import Events, HeardAudio, Output, TextEvent, VideoFrames, on_grid
from interaction.streams.mel import mel_spectrogram
from interaction.streams.text import ByteTokenizer
from interaction.types import MicroTurn

_TOKENS = ByteTokenizer()
_GAP = 0.35  # shorter silences between words are spoken through
_BEFORE, _AFTER = 0.04, 0.08  # seconds of sound around words that belong to them
_PEAK = 0.9


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Two sides on one clock.

    Attributes:
        user: float32 ``[W]`` at 16 kHz, what is heard; or None for no sound.
        model: float32 ``[W]`` at 16 kHz, what the model says.
        said: what it says and when.
        video: what is seen, or None.
        typed: text that comes in.
        written: text that is shown, by the micro-turn it is put out in.
    """

    user: np.ndarray | None
    model: np.ndarray
    said: Talk
    video: VideoFrames | None = None
    typed: tuple[TextEvent, ...] = ()
    written: tuple[tuple[int, str], ...] = ()


def micro_turns(conversation: Conversation, sizes: RowSizes) -> list[MicroTurn]:
    """The whole conversation on the 200 ms grid.

    Args:
        conversation: the two sides.
        sizes: how much text a micro-turn may put out.

    Raises:
        ValueError: what does not go onto the grid.
    """
    heard = conversation.user
    samples = max(len(conversation.model), 0 if heard is None else len(heard))
    count = -(-samples // CHUNK)
    model = np.zeros(count * CHUNK, np.float32)
    model[: len(conversation.model)] = levelled(conversation.model, conversation.said)
    events = Events(
        audio=() if heard is None else (HeardAudio(0.0, heard),),
        video=conversation.video,
        text=conversation.typed,
        outputs=_outputs(model, conversation, count, sizes),
    )
    return on_grid(events, _TOKENS, sizes.weave, micro_turns=count)


def levelled(wave: np.ndarray, said: Talk) -> np.ndarray:
    """The model's side with its speech at the loudness of the voice that checkpoints speak with."""
    pieces = [wave[round(s * SAMPLE_RATE) : round(e * SAMPLE_RATE)] for s, e in spans(said)]
    speech = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    power = float(np.sqrt(np.mean(np.square(speech)))) if len(speech) else 0.0
    if power <= 0:
        return wave
    peak = float(np.max(np.abs(wave)))
    return wave * np.float32(min(LOUDNESS / power, _PEAK / peak))


def spans(said: Talk) -> list[Span]:
    """When the model speaks: its words and stretches of speech, small gaps closed."""
    found = [(word.start, word.end) for word in said.words] + list(said.speech)
    result: list[Span] = []
    for start, end in sorted(found):
        if result and start - result[-1][1] <= _GAP:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return [(max(0.0, start - _BEFORE), end + _AFTER) for start, end in result]


def _outputs(model, conversation: Conversation, count: int, sizes: RowSizes) -> list[Output]:
    mel = mel_spectrogram(model).astype(np.float32)
    mel = mel.reshape(count, -1, mel.shape[1])
    speaks = np.zeros(count + 1, bool)
    for start, end in spans(conversation.said):
        first, last = micro_turn_of(start), micro_turn_of(min(end, count * 0.2 - 1e-3))
        speaks[first : last + 1] = True
    room = sizes.max_text_out - 2  # the channel's token before it, the closer after it
    say = placed([(micro_turn_of(w.start) - 1, w) for w in conversation.said.words], room)
    written = dict(conversation.written)
    result = []
    for now in range(count):
        speaking, spoke = now + 1 < count and speaks[now + 1], now > 0 and speaks[now]
        yields = bool(spoke and not speaking)
        if speaking or yields or now in say or now in written:
            result.append(
                Output(
                    now,
                    write=written.get(now, ""),
                    say=say.get(now, ""),
                    speech=mel[now + 1] if speaking else None,
                    yields=yields,
                )
            )
    return result


def placed(words: Sequence[tuple[int, Word]], room: int) -> dict[int, str]:
    """Which text each micro-turn puts out, so that no word is later than its own micro-turn.

    Args:
        words: each with the micro-turn that it should be put out in, in order.
        room: tokens of text that a micro-turn has room for.

    Returns:
        Micro-turn -> text. A word that finds no room after the session's start is left out.
    """
    pieces = [piece for now, word in words for piece in _pieces(now, word.text, room)]
    result: dict[int, str] = {}
    here, next_begins = pieces[-1][0] if pieces else 0, True
    for now, text, begins in reversed(pieces):
        here = min(here, now)
        there = result.get(here)
        joined = text if there is None else text + (" " if next_begins else "") + there
        if len(_TOKENS.encode(joined)) > room:
            here, joined = here - 1, text  # nothing lies there yet
        if here < 0:
            break
        result[here] = joined
        next_begins = begins
    return result


def _pieces(now: int, text: str, room: int) -> list[tuple[int, str, bool]]:
    """A word in pieces that fit, each with its micro-turn and whether it begins the word."""
    parts, part = [], ""
    for letter in text:
        if len(_TOKENS.encode(part + letter)) > room:
            parts.append(part)
            part = ""
        part += letter
    parts.append(part)
    last = len(parts) - 1
    return [(now - last + i, piece, i == 0) for i, piece in enumerate(parts)]
