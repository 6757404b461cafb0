"""Sets of recordings with texts as conversations: what is heard is written down, or read aloud.

In: a `TfdsFolder`, what to make of it. Out: a `Plan`. Some examples follow each other with pauses
between them, as one long conversation that is cut to rows: so rows are full. HEARD: the user says
the recording and the model writes its text from the first micro-turn whose border lies after its
end. READ: the user types the text and the model says it, in the recording's voice.
"""

import dataclasses
from typing import Any

import numpy as np

from interaction import configuration
from interaction.data.build.conversation import Conversation, micro_turns
from interaction.data.build.known import Use
from interaction.data.build.words import Listener, Span, Talk, Word
from interaction.data.shards.rows import RowSizes, cut
from interaction.data.shards.write import Made
from interaction.data.speech_span import loud_span
from interaction.data.tfds_folder import Example, TfdsFolder
from interaction.data.voices import SAMPLE_RATE
from interaction.microturn import first_border_after, micro_turn_of, output_seconds
from interaction.streams.audio import CHUNK
from interaction.streams.events import TextEvent
from interaction.streams.media import resample
from interaction.streams.text import ByteTokenizer
from interaction.types import Control

_TOKENS = ByteTokenizer()


@dataclasses.dataclass(frozen=True)
class TfdsPlan:
    """Conversations from the examples of a data set, in their order.

    Attributes:
        examples: the data set.
        use: what becomes of a recording.
        listener: finds the times of words that are read.
        sizes: of a row.
        seed: of the pauses.
        answer_delay: seconds after a recording's end from which it may be written down.
        together: examples in one conversation.
        inputs_per_shard: conversations in one shard.
    """

    examples: TfdsFolder
    use: Use
    listener: Listener
    sizes: RowSizes = RowSizes()
    seed: int = 0
    answer_delay: float = 0.09
    together: int = 32
    inputs_per_shard: int = 16

    @property
    def inputs(self) -> int:
        """How many conversations there are."""
        return -(-len(self.examples) // self.together)

    def identity(self) -> dict[str, Any]:
        """Where the examples lie, and what is made of them."""
        names = ("use", "sizes", "seed", "answer_delay", "together", "inputs_per_shard")
        told = {name: configuration.to_dict(getattr(self, name)) for name in names}
        examples = configuration.to_dict(self.examples)
        return {"of": "tfds", "examples": examples, "count": len(self.examples), **told}

    def _numbers(self, index: int) -> range:
        first = index * self.together
        return range(first, min(first + self.together, len(self.examples)))

    def name(self, index: int) -> str:
        """The examples of a conversation."""
        numbers = self._numbers(index)
        return f"{self.examples.split} examples {numbers[0]} to {numbers[-1]}"

    def sessions(self, index: int) -> list[Made]:
        """The conversation of some examples, cut into pieces that fit a row."""
        random = np.random.default_rng([self.seed, index])
        examples = [self.examples[number] for number in self._numbers(index)]
        made = self._heard if self.use is Use.HEARD else self._read
        pieces = cut(micro_turns(made(examples, random), self.sizes), self.sizes)
        return [
            Made(piece, f"{self.name(index)} from {piece[0].micro_turn * 0.2:.1f} s")
            for piece in pieces
        ]

    def _heard(self, examples: list[Example], random) -> Conversation:
        room, now, clips, written = self.sizes.max_text_out - 2, 0.0, [], []
        for example in examples:
            wave = resample(example.samples, example.rate, SAMPLE_RATE)
            now += float(random.uniform(0.3, 1.0))
            clips.append((now, wave))
            end = now + min(loud_span(wave).end, len(wave) / SAMPLE_RATE)
            here = first_border_after(end + self.answer_delay)
            for piece in pieces(example.text, room):
                written.append((here, piece))
                here += 1
            now = max(now + len(wave) / SAMPLE_RATE, output_seconds(here - 1))
        wave = mixed(clips, now + 0.4)
        return Conversation(wave, np.zeros_like(wave), Talk(), written=tuple(written))

    def _read(self, examples: list[Example], random) -> Conversation:
        room, now, clips, typed, said = self.sizes.weave.max_text_in - 1, 0.0, [], [], []
        for example in examples:
            wave = resample(example.samples, example.rate, SAMPLE_RATE)
            now += float(random.uniform(0.3, 1.0))
            typed.append(TextEvent(now, Control.USER, example.text))
            last = micro_turn_of(now) - 1 + -(-len(_TOKENS.encode(example.text)) // room)
            now = output_seconds(last) + 0.1  # so that what belongs before a word fits too
            span = loud_span(wave)
            clips.append((now, wave))
            said.append(Word(example.text, now + span.start, now + span.end))
            now += len(wave) / SAMPLE_RATE
        wave = mixed(clips, now + 0.4)
        speech: list[Span] = [(word.start, word.end) for word in said]
        words = self.listener.align(wave, said)
        return Conversation(
            np.zeros_like(wave), wave, Talk(words, tuple(speech)), typed=tuple(typed)
        )


def mixed(clips: list[tuple[float, np.ndarray]], seconds: float) -> np.ndarray:
    """Clips at their times in silence; whole micro-turns."""
    wave = np.zeros(-(-round(seconds * SAMPLE_RATE) // CHUNK) * CHUNK, np.float32)
    for start, clip in clips:
        first = round(start * SAMPLE_RATE)
        part = clip[: len(wave) - first]
        wave[first : first + len(part)] += part
    return wave


def pieces(text: str, room: int) -> list[str]:
    """A text in pieces of at most `room` tokens, cut between words where it can be."""
    result, piece = [], ""
    for letter in text:
        if len(_TOKENS.encode(piece + letter)) > room:
            head, space, tail = piece.rpartition(" ")
            whole = bool(space) and len(tail) < room // 2
            result.append(head + space if whole else piece)
            piece = tail if whole else ""
        piece += letter
    return [*result, piece] if piece else result
