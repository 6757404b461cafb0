"""The script of one session: what the user says, types and shows, and what is due in answer.

In: calls of the behaviours (`talking`, `timing`, `listening`, `delegating`, `watching`), which
write one after another. Out: `Session`, sound and typed text with times and a list of `Due`.

Time is kept in seconds. Something due "after t" is put out in the first micro-turn whose output
border is at or after t; the border is when it can be heard or seen.
"""

import dataclasses
import enum

import numpy as np

from interaction.data import sounds
from interaction.data.clips import Clip, Sound, Split
from interaction.data.curriculum import voice
from interaction.data.digits import TEST_VOICES, TRAIN_VOICES
from interaction.data.voices import SAMPLE_RATE, EspeakVoice, Spoken, espeak_words, resized
from interaction.microturn import MICRO_TURN_SECONDS, first_border_after, output_seconds
from interaction.streams.audio import CHUNK
from interaction.types import Control

ANSWER_DELAY = 0.09  # seconds after the end of what is answered, as in `conversations`
CHARACTERS = 8  # of text that a micro-turn puts out at most, beside its control tokens
THROATS = (0.8, 1.25)  # smallest and largest factor on a training voice's pitch and formants
TYPING = 15  # characters that a micro-turn takes in at most


class Channel(enum.Enum):
    """How an instruction is given."""

    VOICE = "voice"
    TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Due:
    """Something to put out.

    Attributes:
        micro_turn: in which it begins.
        behaviour: what it shows.
        say: one word of the model's voice, "" for none.
        write: text to show.
        delegate: request to hand over.
        after: seconds at which what calls for it had ended.
        until: the micro-turn in which a word is broken off and the floor given up; None: never.
    """

    micro_turn: int
    behaviour: str
    say: str = ""
    write: str = ""
    delegate: str = ""
    after: float = 0.0
    until: int | None = None

    @property
    def border(self) -> float:
        """Seconds at which it can be heard or seen."""
        return output_seconds(self.micro_turn)

    @property
    def ends(self) -> int:
        """The micro-turn after its last one, the one that gives up the floor included."""
        length = voice.longest(self.say) + 1 if self.say else 1
        last = self.micro_turn + length
        return last if self.until is None else min(last, self.until + 1)


@dataclasses.dataclass(frozen=True)
class Typed:
    """Text that comes in at the start of a micro-turn."""

    micro_turn: int
    source: Control
    text: str


@dataclasses.dataclass(frozen=True)
class Moment:
    """Something that happened, for scoring: what, from when to when in seconds, and details."""

    name: str
    start: float
    end: float
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Said:
    """What the user said: start and end in seconds, and its words (text, start, end)."""

    start: float
    end: float
    words: tuple[tuple[str, float, float], ...]


class Full(Exception):
    """The session is too short for what was to come."""


class Script:
    """A session being written.

    Args:
        random: the session's generator.
        split: whose voices and words are used.
        micro_turns: its length.
        bank: clips of people, noises and the like. With it, voices are varied in the size of
            their throats too: there are few of them to learn from.
        text_share: how often an instruction is typed.
        late_share: how often an answer in training comes one micro-turn late, or two: who has not
            answered in time is to answer then, and not never.
    """

    def __init__(
        self,
        random,
        split: Split,
        micro_turns: int,
        bank,
        *,
        text_share: float = 0.3,
        late_share: float = 0.0,
    ):
        self.random, self.split, self.bank = random, split, bank
        self.micro_turns, self.text_share = micro_turns, text_share
        self.late_share = late_share if split is Split.TRAIN else 0.0
        self.sound = np.zeros(micro_turns * CHUNK, np.float32)
        self.now = float(random.uniform(0.1, 0.8))
        self.due: list[Due] = []
        self.typed: list[Typed] = []
        self.moments: list[Moment] = []
        self.level = float(random.uniform(-42.0, -14.0))
        self.user = self._voice()
        self.other = self._voice()
        self._throats = {voice: self._throat() for voice in (self.user, self.other)}

    def _voice(self) -> EspeakVoice:
        names = TRAIN_VOICES if self.split is Split.TRAIN else TEST_VOICES
        random = self.random
        return EspeakVoice(
            str(random.choice(names)), int(random.integers(130, 195)),
            int(random.integers(25, 75)), int(random.integers(30, 70)),
        )  # fmt: skip

    def _throat(self) -> float:
        if self.bank is None or self.random.random() < 0.3:
            return 1.0
        return float(self.random.uniform(*THROATS))

    # ------------------------------------------------------------ what comes in

    def hear(self, text: str, *, by: EspeakVoice | None = None, at: float | None = None) -> Said:
        """The user says a text at the cursor (or at `at`), which moves to its end."""
        by = by or self.user
        spoken = espeak_words(text, by)
        if self._throats[by] != 1.0:
            spoken = resized(spoken, self._throats[by])
        return self._put(spoken, self.now if at is None else at, moves=at is None)

    def hear_clip(self, clip: Clip) -> Said:
        """A recording is heard at the cursor; its end is the clip's own."""
        heard = sounds.varied(self.random, clip, levels=(self.level - 4, self.level + 4))
        start = self._add(heard.samples, self.now)
        end = start + heard.end
        self.now = end
        return Said(start, end, ((str(clip.label), start, end),))

    def _put(self, spoken: Spoken, start: float, *, moves: bool) -> Said:
        words = spoken.words
        end = words[-1].end if words else len(spoken.samples) / SAMPLE_RATE
        samples = spoken.samples[: int(end * SAMPLE_RATE) + SAMPLE_RATE // 20]
        level = self.level + float(self.random.uniform(-2, 2))
        start = self._add(sounds.set_level(samples, level), start)
        if moves:
            self.now = start + end
        times = tuple((w.text, start + w.start, start + w.end) for w in words)
        return Said(start, start + end, times)

    def _add(self, samples: np.ndarray, seconds: float) -> float:
        """Adds samples; gives the start on the sample grid.

        Raises:
            Full: they reach beyond the session's end.
        """
        start = round(seconds * SAMPLE_RATE)
        if start + len(samples) > len(self.sound):
            raise Full
        self.sound[start : start + len(samples)] += samples
        return start / SAMPLE_RATE

    def type(self, text: str, *, source: Control = Control.USER, at: float | None = None) -> float:
        """Text arrives in the cursor's micro-turn (or that of `at`); seconds at which it is in.

        Raises:
            Full: it does not fit.
        """
        first = first_border_after((self.now if at is None else at) + 0.01)
        taken = {typed.micro_turn for typed in self.typed}
        here = first
        for start in range(0, len(text), TYPING):
            while here in taken:
                here += 1
            if here >= self.micro_turns:
                raise Full
            self.typed.append(Typed(here, source, text[start : start + TYPING]))
            here += 1
        end = output_seconds(here - 1)
        if at is None:
            self.now = end
        return end

    def instruct(self, text: str) -> Said:
        """An instruction by voice, or by typing (without words); its end is when it is followed."""
        if self.random.random() < self.text_share:
            start = self.now
            return Said(start, self.type(text.lower()) - ANSWER_DELAY, ())
        return self.hear(text)

    def ask(self, text: str) -> float:
        """Seconds from which an instruction by voice or by typing can be followed."""
        return self.instruct(text).end

    def wait(self, low: float, high: float | None = None) -> None:
        """Nothing happens for a while."""
        self.now += float(self.random.uniform(low, low if high is None else high))

    def digit(self) -> tuple[int, Said]:
        """A recorded digit: its value and when it was spoken."""
        origin = "human" if self.random.random() < 0.7 else "voice"
        clips = self.bank.select(self.split, Sound.DIGIT, origin)
        clips = clips or self.bank.select(self.split, Sound.DIGIT)
        clip = clips[self.random.integers(len(clips))]
        return clip.label, self.hear_clip(clip)

    # ------------------------------------------------------------ what is due

    def answer(self, behaviour: str, after: float, *, delay: float = ANSWER_DELAY, **what) -> Due:
        """Something is due after `after` + `delay` seconds, or when the word before it is over.

        What has no delay is due at its moment, and is never late (`late_share`).

        Raises:
            Full: it does not fit into the session.
        """
        micro_turn = first_border_after(after + delay)
        if delay > 0 and self.late_share and self.random.random() < self.late_share:
            micro_turn += 1 if self.random.random() < 0.7 else 2
        if self.due:
            micro_turn = max(micro_turn, self.due[-1].ends)
        due = Due(micro_turn, behaviour, after=after, **what)
        if due.ends > self.micro_turns:
            raise Full
        self.due.append(due)
        return due

    def speech_ends(self) -> float:
        """Seconds at which the model's last word is over."""
        if not self.due:
            return 0.0
        last = self.due[-1]
        return (last.ends if last.say else last.micro_turn + 1) * MICRO_TURN_SECONDS

    def settle(self, low: float = 0.3, high: float = 1.2) -> None:
        """The cursor moves behind what the model says, and on a little."""
        self.now = max(self.now, self.speech_ends())
        self.wait(low, high)

    def interrupt(self, seconds: float) -> None:
        """Everything due after `seconds` is dropped, and a word that is being said breaks off."""
        border = first_border_after(seconds + ANSWER_DELAY)
        kept = [due for due in self.due if due.micro_turn < border]
        if kept and kept[-1].say and kept[-1].ends > border + 1:
            kept[-1] = dataclasses.replace(kept[-1], until=border)
        self.due = kept

    def note(self, name: str, start: float, end: float, detail: str = "") -> None:
        """Writes down what happened, for scoring."""
        self.moments.append(Moment(name, start, end, detail))

    def undo(self, mark: "Mark") -> None:
        """Goes back to a mark: what did not fit leaves no trace."""
        self.sound[:] = mark.sound
        self.now, self.due, self.typed, self.moments = (
            mark.now, list(mark.due), list(mark.typed), list(mark.moments)
        )  # fmt: skip

    def mark(self) -> "Mark":
        """Where the script stands."""
        return Mark(
            self.sound.copy(), self.now, tuple(self.due), tuple(self.typed), tuple(self.moments)
        )


@dataclasses.dataclass(frozen=True)
class Mark:
    """A place that `Script.undo` goes back to."""

    sound: np.ndarray
    now: float
    due: tuple[Due, ...]
    typed: tuple[Typed, ...]
    moments: tuple[Moment, ...]
