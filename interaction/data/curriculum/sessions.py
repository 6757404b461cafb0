"""Whole sessions of the curriculum: episodes of its behaviours one after another, to micro-turns.

In: `CurriculumConfig`, a split, a seed. Out: `Session` (what comes in, what is due, what happened)
and its list of `MicroTurn`s. The same seed gives the same session. A share of all sessions are the
plain conversations of `interaction.data.conversations` (digits, negatives, counting).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from interaction.data import sounds
from interaction.data import video as videos
from interaction.data.clips import ClipBank, Split
from interaction.data.config import DataConfig
from interaction.data.conversations import Conversations, heard_chunks, mel_bands
from interaction.data.curriculum import delegating, listening, talking, timing, watching
from interaction.data.curriculum.script import Due, Full, Moment, Script, Typed
from interaction.data.curriculum.voice import word_chunks
from interaction.data.speaking import Output
from interaction.streams.audio import BANDS
from interaction.streams.text import ByteTokenizer
from interaction.types import Control, MicroTurn, TextIn

HEARD: dict[str, Callable[[Script], None]] = {
    "digits": talking.digits,
    "ask": talking.ask,
    "pause": talking.pause,
    "for_others": talking.for_others,
    "count_aloud": talking.count_aloud,
    "story": talking.story,
    "requests": talking.requests,
    "chatter": talking.chatter,
    "in_seconds": timing.in_seconds,
    "every_seconds": timing.every_seconds,
    "how_long": timing.how_long,
    "cue": timing.cue,
    "check_counting": timing.check_counting,
    "translate": listening.translate,
    "delegate": delegating.delegate,
}
SEEN: dict[str, Callable[[Script], np.ndarray]] = {
    "start_and_stop": watching.start_and_stop,
    "colours_appear": watching.colours_appear,
}
_TOKENS = ByteTokenizer()
_SPLIT_KEY = {Split.TRAIN: 1, Split.TEST: 2}


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """The data of the curriculum.

    Attributes:
        seed: of everything random.
        micro_turns: length of a session that is only heard.
        seen_micro_turns: length of one with video.
        plain_share: share of sessions that are plain conversations (see `plain`).
        seen_share: share of sessions with an episode of `SEEN`.
        text_share: share of instructions that are typed.
        missed_share: share of answers that the history holds as missed, with no loss on them.
        late_share: share of answers of training that come one or two micro-turns late.
        behaviours: names of `HEARD` -> how often each is drawn; () for all alike.
        plain: the plain conversations, the noise and the impairment of chunks.
        slots, audio, patches, speech, chunks: static sizes of a batch.
    """

    seed: int = 0
    micro_turns: int = 80
    seen_micro_turns: int = 42
    plain_share: float = 0.25
    seen_share: float = 0.12
    text_share: float = 0.3
    missed_share: float = 0.03
    late_share: float = 0.0
    behaviours: tuple[tuple[str, float], ...] = ()
    plain: DataConfig = DataConfig()
    slots: int = 608
    audio: int = 320
    patches: int = 168
    speech: int = 80
    chunks: int = 40

    def __post_init__(self):
        for name in ("plain_share", "seen_share", "text_share", "missed_share", "late_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1")
        for name, weight in self.behaviours:
            if name not in HEARD or weight < 0:
                raise ValueError(f"behaviours has {name!r}={weight}; it needs one of {list(HEARD)}")

    @property
    def speech_slots(self) -> int:
        """Slots of one spoken chunk."""
        return self.plain.speech_slots


@dataclasses.dataclass(frozen=True)
class Session:
    """One session before it is cut into micro-turns.

    Attributes:
        behaviours: the episodes in order.
        micro_turns: its length.
        sound: float32 ``[micro_turns * 3200]`` or None.
        tubelets: uint8 ``[micro_turns, P, 2, 40, 40, 3]`` or None.
        typed: text that comes in.
        due: what is to be put out.
        moments: what happened, for scoring.
        arrivals: for each heard chunk the micro-turn in which it comes, -1 if it is lost.
        first_micro_turn: session time at which it begins.
        bands: int ``[80]``, which mel band each heard band is taken from, -1 for none.
    """

    behaviours: tuple[str, ...]
    micro_turns: int
    sound: np.ndarray | None
    tubelets: np.ndarray | None
    typed: tuple[Typed, ...]
    due: tuple[Due, ...]
    moments: tuple[Moment, ...]
    arrivals: tuple[int, ...]
    first_micro_turn: int = 0
    bands: tuple[int, ...] = tuple(range(BANDS))


class Curriculum:
    """Random access to an endless supply of sessions of one split.

    Without a bank of clips there are no recorded digits, no noises, no impairments and no plain
    conversations: what the evaluation sets are made of.
    """

    def __init__(self, config: CurriculumConfig, bank: ClipBank | None, split: Split):
        self.config, self.bank, self.split = config, bank, split
        self.plain = None if bank is None else Conversations(config.plain, bank, split)
        weights = dict(config.behaviours) or dict.fromkeys(HEARD, 1.0)
        if bank is None:
            weights.pop("digits", None)
        self._names = list(weights)
        self._shares = np.array(list(weights.values())) / sum(weights.values())

    def micro_turns(self, seed: int) -> list[MicroTurn]:
        """The session of a seed as micro-turns, ready to weave."""
        random = np.random.default_rng([self.config.seed, 7, _SPLIT_KEY[self.split], seed])
        if self.plain is not None and random.random() < self.config.plain_share:
            return self.plain.micro_turns(seed)
        return to_micro_turns(self._session(random), random, missed=self.config.missed_share)

    def session(self, seed: int, behaviour: str | None = None, *, varied: bool = True) -> Session:
        """The session of a seed.

        Args:
            seed: which one.
            behaviour: the one episode it holds; None: whatever was drawn.
            varied: with impairments and other microphones, as in training.
        """
        key = [self.config.seed, 8, _SPLIT_KEY[self.split], seed]
        return self._session(np.random.default_rng(key), behaviour, varied=varied)

    def _session(self, random, behaviour: str | None = None, *, varied: bool = True) -> Session:
        seen = random.random() < self.config.seen_share if behaviour is None else behaviour in SEEN
        for _ in range(50):
            session = self._seen(random, behaviour) if seen else self._heard(random, behaviour)
            if session is not None:
                break
        else:
            raise RuntimeError(f"no session of {behaviour or 'any behaviour'} fits")
        if self.plain is None or not varied:
            return session
        offset = int(random.integers(0, self.config.plain.time_offset + 1))
        return dataclasses.replace(
            session,
            first_micro_turn=offset if random.random() < 0.5 else 0,
            arrivals=self.plain.arrivals(random, session.micro_turns),
            bands=mel_bands(random, self.config.plain),
        )

    def _script(self, random, micro_turns: int) -> Script:
        return Script(
            random,
            self.split,
            micro_turns,
            self.bank,
            text_share=self.config.text_share,
            late_share=self.config.late_share,
        )

    def _heard(self, random, behaviour: str | None) -> Session | None:
        count = self.config.micro_turns
        script = self._script(random, count)
        names = []
        while len(names) < 12:
            name = behaviour or str(random.choice(self._names, p=self._shares))
            mark = script.mark()
            try:
                HEARD[name](script)
            except Full:
                script.undo(mark)
                break
            names.append(name)
            if behaviour is not None:
                break
        if not names:
            return None
        return self._done(script, names, None)

    def _seen(self, random, behaviour: str | None) -> Session | None:
        name = behaviour or str(random.choice(list(SEEN)))
        script = self._script(random, self.config.seen_micro_turns)
        try:
            frames = SEEN[name](script)
        except Full:
            return None
        return self._done(script, [name], videos.tubelets(frames))

    def _done(self, script: Script, names, tubelets) -> Session:
        if self.plain is not None:
            if script.random.random() < 0.5:
                script.sound[:] = sounds.coloured_response(script.random, script.sound)
            self.plain.add_noise(script.random, script.sound)
        return Session(
            tuple(names), script.micro_turns, script.sound, tubelets, tuple(script.typed),
            tuple(script.due), tuple(script.moments), tuple(range(script.micro_turns)),
        )  # fmt: skip


# ---------------------------------------------------------------- to micro-turns


def outputs(due, count: int, random, *, missed: float = 0.0) -> list[Output]:
    """Outputs of `count` micro-turns; some answers are left out, with no loss on that."""
    passing = Output((_TOKENS.control(Control.PASS),))
    result = [passing] * count
    for item in due:
        if random.random() < missed:
            result[item.micro_turn] = dataclasses.replace(passing, weight=0.0)
            continue
        chunks = np.zeros((0, 0, 0), np.float32)
        if item.say:
            group = word_chunks()[item.say]
            chunks = group[random.integers(len(group))]
        tokens = [
            token
            for control, text in (
                (Control.WRITE, item.write), (Control.DELEGATE, item.delegate),
                (Control.SAY, item.say),
            )
            if text
            for token in _opened(control, text)
        ]  # fmt: skip
        closer = _TOKENS.control(Control.SPEAK if len(chunks) else Control.END)
        last = len(chunks)
        if item.until is not None:
            last = min(last, max(1, item.until - item.micro_turn))
        for index in range(last + 1 if last else 1):
            here = item.micro_turn + index
            if here >= count:
                break
            if index == 0:
                mel = chunks[0] if len(chunks) else None
                result[here] = Output((*tokens, closer), mel)
            elif index < last:
                result[here] = Output((closer,), chunks[index])
            else:
                result[here] = Output((_TOKENS.control(Control.YIELD),))
    return result


def _opened(control: Control, text: str) -> list[int]:
    ids = [_TOKENS.control(control), *_TOKENS.encode(text)]
    return [*ids, _TOKENS.control(Control.DONE)] if control is Control.DELEGATE else ids


def to_micro_turns(session: Session, random, *, missed: float = 0.0) -> list[MicroTurn]:
    """A session as micro-turns: heard, seen and read, and what is to be put out."""
    chunks = {} if session.sound is None else heard_chunks(session.sound, session.arrivals)
    bands = np.asarray(session.bands)
    put_out = outputs(session.due, session.micro_turns, random, missed=missed)
    text: dict[int, tuple[TextIn, ...]] = {
        typed.micro_turn: (TextIn(typed.source, tuple(_TOKENS.encode(typed.text))),)
        for typed in session.typed
    }
    return [
        MicroTurn(
            micro_turn=session.first_micro_turn + index,
            video=None if session.tubelets is None else session.tubelets[index],
            text_in=text.get(index, ()),
            audio=tuple(
                dataclasses.replace(chunk, bins=np.where(bands < 0, 0, chunk.bins[:, bands]))
                for chunk in chunks.get(index, ())
            ),
            text_out=put_out[index].tokens,
            speech=put_out[index].mel,
            text_weight=put_out[index].weight,
        )
        for index in range(session.micro_turns)
    ]
