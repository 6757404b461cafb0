"""The stitched baseline: what is usual today, from parts that anybody can install.

In: sound and typed text; video is not seen and tools are not called. Out: spoken answers. Silero
VAD finds speech, smart-turn decides when the turn is over, Whisper-base writes it down,
SmolLM2-135M-Instruct answers, piper speaks; speech of the user stops the voice (barge-in). The
thresholds are pipecat's defaults. One step computes at most one of: recognition with the first
sentence, or a further sentence, so that sound plays while the next sentence is made.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from interaction.eval.impairment import CHUNK
from interaction.eval.records import (
    SAMPLE_RATE,
    STOP_PLAYBACK,
    Kind,
    MicroTurnInput,
    OutputEvent,
    Sample,
)
from interaction.microturn import MICRO_TURN_SECONDS, output_seconds
from interaction.types import Control

SYSTEM = "You are a voice assistant. Answer in one or two short sentences."
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When the baseline takes and gives the floor (defaults of pipecat 1.14).

    Attributes:
        speech: probability from which 32 ms are speech.
        start_seconds: of speech until the user is taken to speak.
        stop_seconds: of silence until smart-turn is asked.
        turn_end: its probability above which the turn is over.
        give_up_seconds: of silence after which it is over whatever smart-turn says.
        before_seconds: of sound before the speech that belong to the turn.
    """

    speech: float = 0.7
    start_seconds: float = 0.2
    stop_seconds: float = 0.2
    turn_end: float = 0.5
    give_up_seconds: float = 3.0
    before_seconds: float = 0.5


class Chatting(Protocol):
    """A conversation with a language model (`language_model.Chat` is one)."""

    def tell(self, text: str) -> None:
        """Give it a further instruction."""
        ...

    def reply(self, text: str) -> Iterator[str]:
        """Answer in pieces."""
        ...


class Activity(Protocol):
    """Finds speech, a piece at a time (`stitched_parts.VoiceActivity` is one)."""

    size: int

    def reset(self) -> None:
        """A new session."""
        ...

    def push(self, samples: np.ndarray) -> list[float]:
        """Probability of speech in every piece of `size` samples that is whole."""
        ...


@dataclasses.dataclass
class Parts:
    """What is stitched together.

    Attributes:
        activity: finds speech.
        turn_end: the sound of a turn so far -> probability that it is over.
        recognise: the sound of a turn -> its text.
        voice: text -> float32 samples at 16 kHz.
        chat: begins a conversation with a language model.
    """

    activity: Activity
    turn_end: Callable[[np.ndarray], float]
    recognise: Callable[[np.ndarray], str]
    voice: Callable[[str], np.ndarray]
    chat: Callable[[], Chatting]


def real_parts() -> Parts:
    """The parts from their packages.

    Raises:
        ImportError: one is missing; names its extra.
    """
    from interaction.eval.language_model import Chat, smollm2
    from interaction.eval.systems import stitched_parts as made

    model = smollm2()
    return Parts(
        activity=made.VoiceActivity(),
        turn_end=made.TurnEnd(),
        recognise=made.Recogniser(),
        voice=made.Voice(),
        chat=lambda: Chat(model, SYSTEM),
    )


class Stitched:
    """The baseline.

    Args:
        parts: what is stitched together; None: the real ones.
        thresholds: when it takes and gives the floor.
    """

    name = "stitched"

    def __init__(self, parts: Parts | None = None, thresholds: Thresholds | None = None):
        self._parts, self._thresholds = parts or real_parts(), thresholds or Thresholds()

    def converse(self, sample: Sample) -> "StitchedConversation":
        """A fresh session; a sample without sound is answered in writing."""
        spoken = sample.audio is not None
        return StitchedConversation(self._parts, self._thresholds, spoken=spoken)


class StitchedConversation:
    """One session: a listener, and a speaker that it starts and stops."""

    def __init__(self, parts: Parts, thresholds: Thresholds, *, spoken: bool):
        self._spent: dict[str, float] = {}  # seconds per part in this step
        self._parts, self._spoken = parts, spoken
        parts.activity.reset()
        self._listener = _Listener(parts, thresholds, self._timed)
        self._chat = parts.chat()
        self._typing = ""  # pieces of a message that is not whole yet
        self._sentences: Iterator[str] | None = None
        self._playing = np.zeros(0, np.float32)
        self._behind = 0.0  # seconds by which computing is late
        self._sounds_until = -1.0

    def step(self, given: MicroTurnInput) -> list[OutputEvent]:
        """Listen to 200 ms, and go on with the answer."""
        began, border = time.perf_counter(), output_seconds(given.micro_turn)
        events: list[OutputEvent] = []
        self._spent = {}
        heard = self._listener.push([samples for _, samples in given.audio])
        busy = self._sentences is not None or len(self._playing) or border < self._sounds_until
        if heard.started and busy:
            self._sentences, self._playing = None, self._playing[:0]
            self._sounds_until = -1.0
            events.append(OutputEvent(border, Kind.UI, STOP_PLAYBACK))
        question = self._typed(given)
        if heard.turn is not None:
            question = self._timed("whisper", self._parts.recognise, heard.turn) or question
        if question:
            self._sentences, self._playing = sentences(self._chat.reply(question)), np.zeros(0)
        if self._sentences is not None and len(self._playing) <= CHUNK:
            events += self._next_sentence(border)
        if len(self._spent) > 1:  # more than the listening that every step does
            spent = {part: round(seconds, 4) for part, seconds in self._spent.items()}
            events.append(OutputEvent(border, Kind.UI, {"seconds": spent}))
        events += self._play(border)
        self._behind = max(0.0, self._behind + time.perf_counter() - began - MICRO_TURN_SECONDS)
        if len(events) > 0 and events[-1].kind is Kind.AUDIO:
            late = self._behind + time.perf_counter() - began
            self._sounds_until = max(border + late, self._sounds_until) + MICRO_TURN_SECONDS
        return events

    def _typed(self, given: MicroTurnInput) -> str:
        questions = []
        for event in given.text:
            self._typing += event.text
            if event.more:
                continue
            message, self._typing = self._typing, ""
            if event.source is Control.USER:
                questions.append(message)
            else:
                self._chat.tell(message)
        for result in given.tool_results:
            self._chat.tell(result)
        return " ".join(questions)

    def _next_sentence(self, border: float) -> list[OutputEvent]:
        assert self._sentences is not None
        sentence = self._timed("language model", next, self._sentences, None)
        if sentence is None:
            self._sentences = None
            return []
        if not self._spoken:
            return [OutputEvent(border, Kind.TEXT, {"channel": "write", "text": sentence})]
        wave = self._timed("voice", self._parts.voice, sentence)
        begins = border + len(self._playing) / SAMPLE_RATE
        self._playing = np.concatenate([self._playing, wave])
        return [OutputEvent(begins, Kind.TEXT, {"channel": "say", "text": sentence})]

    def _play(self, border: float) -> list[OutputEvent]:
        """200 ms at a time, as a player would take it: what is stopped was never put out."""
        chunk, self._playing = self._playing[:CHUNK], self._playing[CHUNK:]
        return [OutputEvent(border, Kind.AUDIO, chunk)] if len(chunk) else []

    def _timed(self, part: str, call, *values):
        began = time.perf_counter()
        result = call(*values)
        self._spent[part] = self._spent.get(part, 0.0) + time.perf_counter() - began
        return result

    def close(self) -> None:
        """An answer that is being made is not finished."""
        self._sentences = None


@dataclasses.dataclass(frozen=True)
class Heard:
    """What the listener makes of 200 ms.

    Attributes:
        started: the user has begun to speak.
        turn: the sound of a turn that has just ended, or None.
    """

    started: bool = False
    turn: np.ndarray | None = None


class _Listener:
    """When the user speaks and when a turn is over."""

    def __init__(self, parts: Parts, thresholds: Thresholds, timed):
        self._parts, self._at, self._timed = parts, thresholds, timed
        self._piece = parts.activity.size / SAMPLE_RATE
        self._wave = np.zeros(0, np.float32)
        self._speech = self._silence = 0  # pieces in a row
        self._speaking = self._in_turn = False

    def push(self, chunks: Sequence[np.ndarray]) -> Heard:
        """Take in what has arrived."""
        started, turn = False, None
        for chunk in chunks:
            self._wave = np.concatenate([self._wave, chunk])
            for probability in self._timed("vad", self._parts.activity.push, chunk):
                began, ended = self._follow(probability >= self._at.speech)
                started |= began
                if ended:
                    turn, self._wave, self._in_turn = self._wave, self._wave[:0], False
            if not self._in_turn:
                keep = self._at.before_seconds + self._at.start_seconds
                self._wave = self._wave[-round(keep * SAMPLE_RATE) :]
        return Heard(started, turn)

    def _follow(self, speech: bool) -> tuple[bool, bool]:
        """32 ms more: whether the user has just begun to speak, and whether the turn is over."""
        began = ended = False
        self._speech = self._speech + 1 if speech else 0
        self._silence = 0 if speech else self._silence + 1
        if not self._speaking and self._speech >= self._pieces(self._at.start_seconds):
            self._speaking = self._in_turn = began = True
        elif self._speaking and self._silence >= self._pieces(self._at.stop_seconds):
            self._speaking = False
            over = self._timed("smart-turn", self._parts.turn_end, self._wave)
            ended = over > self._at.turn_end
        elif self._in_turn and not self._speaking:
            ended = self._silence >= self._pieces(self._at.give_up_seconds)
        return began, ended

    def _pieces(self, seconds: float) -> int:
        return round(seconds / self._piece)


def sentences(pieces: Iterator[str]) -> Iterator[str]:
    """Whole sentences out of pieces of text."""
    text = ""
    for piece in pieces:
        text += piece
        while (end := _SENTENCE_END.search(text)) is not None:
            sentence, text = text[: end.start()].strip(), text[end.end() :]
            if sentence:
                yield sentence
    if text.strip():
        yield text.strip()
