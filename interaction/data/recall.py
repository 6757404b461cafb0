"""Sessions that state facts, go on, and ask for them much later: what does a lane remember?

In: `RecallConfig`, a seed. Out: for training, woven sessions with an eviction schedule; for
scoring, what arrives in each micro-turn of sessions of any length (`Session`).

A fact gives a key (a letter) a value (a digit). By text: the key and the digit are typed. By
voice: the key is typed and the digit spoken, and the model writes both down when it has heard it.
A question is the key and a question mark; the answer, in the same micro-turn, is the digit in
writing. Between them there is silence, noise, moving pictures and typed chatter, and in training
the clock jumps. Facts, fillers and questions use letters of their own.
"""

import dataclasses

import numpy as np

from interaction.data import sounds
from interaction.data.bank import bank_path, load_bank
from interaction.data.clips import Clip, Sound, Split
from interaction.data.config import DataConfig
from interaction.microturn import first_border_after
from interaction.models.memory import MemoryConfig, Policy, last_seen
from interaction.streams.audio import CHUNK, DMelStream
from interaction.streams.layout import WeaveConfig
from interaction.streams.text import ByteTokenizer
from interaction.streams.weave import Woven, batch, weave
from interaction.types import AudioChunk, Batch, Control, MicroTurn, TextIn

KEYS = "abcdefgh"
CHATTER = "nopqrstuvwxyz"
_TOKENS = ByteTokenizer()
_PASS = (_TOKENS.control(Control.PASS),)
_ANSWER_DELAY = 0.09


@dataclasses.dataclass(frozen=True)
class RecallConfig:
    """The data of the memory experiment.

    Attributes:
        seed: of everything random.
        facts: fewest and most facts of a session.
        filler: fewest and most micro-turns between the facts and the first question.
        voice_share: share of facts that are spoken; 0: no recordings are needed.
        sound_share, video_share, chatter_share: share of filling micro-turns with noise to hear,
            with pictures, with typed chatter.
        places: sizes of the global store that training draws from.
        unevicted_share: share of training sessions in which nothing is evicted.
        longest_jump: micro-turns by which the clock jumps at most, twice a session.
        recent: of the typed policy.
        patch: pixels of a video patch; as in the model's config.
        max_text_in, max_text_out, max_audio_chunks, max_patches: as in the model's config.
        slots, audio, patches: static sizes of a batch.
    """

    seed: int = 0
    facts: tuple[int, int] = (1, 4)
    filler: tuple[int, int] = (8, 40)
    voice_share: float = 0.4
    sound_share: float = 0.5
    video_share: float = 0.1
    chatter_share: float = 0.08
    places: tuple[int, ...] = (48, 80, 128)
    unevicted_share: float = 0.2
    longest_jump: int = 18_000
    recent: int = 5
    patch: int = 8
    max_text_in: int = 8
    max_text_out: int = 6
    max_audio_chunks: int = 1
    max_patches: int = 2
    slots: int = 400
    audio: int = 240
    patches: int = 24

    def __post_init__(self):
        if min(self.places) < self.weave.max_slots:
            raise ValueError(
                f"places={self.places} must each hold the {self.weave.max_slots} slots that one "
                "micro-turn may take"
            )

    @property
    def weave(self) -> WeaveConfig:
        """The sizes of the weave."""
        return WeaveConfig(
            patch=self.patch,
            max_text_in=self.max_text_in,
            max_text_out=self.max_text_out,
            max_audio_chunks=self.max_audio_chunks,
            max_patches=self.max_patches,
        )


@dataclasses.dataclass
class Arrival:
    """One micro-turn: what comes and what is due.

    Attributes:
        text: what is typed; "" for nothing.
        samples: float32 ``[3200]`` or None for no sound.
        video: uint8 ``[P, 2, p, p, 3]`` or None.
        due: what the model should write.
        asks: the key that is asked for, "" for none.
    """

    text: str = ""
    samples: np.ndarray | None = None
    video: np.ndarray | None = None
    due: str = ""
    asks: str = ""

    @property
    def text_in(self) -> tuple[TextIn, ...]:
        """The typed text as the weave takes it."""
        return (TextIn(Control.USER, tuple(self.text.encode())),) if self.text else ()

    @property
    def text_out(self) -> tuple[int, ...]:
        """The ids that are due."""
        if not self.due:
            return _PASS
        write, end = _TOKENS.control(Control.WRITE), _TOKENS.control(Control.END)
        return (write, *self.due.encode(), end)


def text_fact(key: str, digit: int) -> list[Arrival]:
    """A typed fact."""
    return [Arrival(text=f"{key}{digit}")]


def voice_fact(random, key: str, clip: Clip) -> list[Arrival]:
    """A typed key, the spoken digit, and the note that the model should take."""
    heard = sounds.varied(random, clip, speeds=(0.9, 1.1), levels=(-30.0, -16.0))
    lead = int(random.uniform(0, 0.2) * sounds.SAMPLE_RATE)
    noted = first_border_after(lead / sounds.SAMPLE_RATE + heard.end + _ANSWER_DELAY)
    count = max(noted + 1, -(-(lead + len(heard.samples)) // CHUNK))
    wave = np.zeros(count * CHUNK, np.float32)
    wave[lead : lead + len(heard.samples)] = heard.samples
    turns = [Arrival(samples=wave[m * CHUNK : (m + 1) * CHUNK]) for m in range(count)]
    turns[0].text = key
    turns[noted].due = f"{key}{clip.label}"
    return turns


def question(key: str, digit: int) -> list[Arrival]:
    """The question for a key, with its answer."""
    return [Arrival(text=f"{key}?", due=str(digit), asks=key)]


def filler(random, config: RecallConfig, *, chatter: bool) -> Arrival:
    """A micro-turn in which nothing is said that matters."""
    turn = Arrival()
    if random.random() < config.sound_share:
        level = 10 ** random.uniform(-4, -1.5)
        turn.samples = random.normal(0, level, CHUNK).astype(np.float32)
    if random.random() < config.video_share:
        shape = (int(random.integers(1, config.max_patches + 1)), 2, config.patch, config.patch, 3)
        turn.video = random.integers(0, 256, shape).astype(np.uint8)
    if chatter:
        turn.text = "".join(random.choice(list(CHATTER), int(random.integers(2, 5))))
    return turn


def facts(random, config: RecallConfig, clips, count: int) -> list[tuple[str, int, bool]]:
    """`count` facts as (key, digit, whether spoken), each key once."""
    keys = random.choice(list(KEYS), count, replace=False)
    spoken = random.random(count) < config.voice_share if clips else np.zeros(count, bool)
    return [(str(k), int(random.integers(10)), bool(s)) for k, s in zip(keys, spoken, strict=True)]


def stated(random, fact: tuple[str, int, bool], clips) -> list[Arrival]:
    """The micro-turns that state a fact."""
    key, digit, spoken = fact
    if not spoken:
        return text_fact(key, digit)
    fitting = [clip for clip in clips if clip.label == digit]
    return voice_fact(random, key, fitting[random.integers(len(fitting))])


def training_session(random, config: RecallConfig, clips) -> tuple[list[Arrival], list[int]]:
    """Arrivals of one session and the micro-turn of each."""
    known = facts(random, config, clips, int(random.integers(config.facts[0], config.facts[1] + 1)))

    def fill(low: int, high: int) -> list[Arrival]:
        return [
            filler(random, config, chatter=random.random() < config.chatter_share)
            for _ in range(int(random.integers(low, high + 1)))
        ]

    parts = [fill(0, 2)]
    for fact in known:
        parts += [stated(random, fact, clips), fill(0, 3)]
    parts.append(fill(*config.filler))
    for index in random.permutation(len(known)):
        parts += [question(*known[index][:2]), fill(0, 4)]
    jumps = set(random.choice(len(parts), 2))
    turns, times, now = [], [], int(random.integers(0, config.longest_jump))
    for index, part in enumerate(parts):
        if index in jumps:
            now += int(random.integers(1, config.longest_jump))
        for turn in part:
            turns.append(turn)
            times.append(now)
            now += 1
    return turns, times


def micro_turns(turns, times) -> list[MicroTurn]:
    """Arrivals as micro-turns with their truth, ready to weave."""
    heard, result = DMelStream(), []
    for turn, now in zip(turns, times, strict=True):
        audio = () if turn.samples is None else (AudioChunk(heard.push(turn.samples, now)),)
        result.append(MicroTurn(now, turn.video, turn.text_in, audio, turn.text_out))
    return result


# ---------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Remembered:
    """A woven session with its eviction schedule."""

    woven: Woven
    until: np.ndarray


@dataclasses.dataclass(frozen=True)
class RecallSource:
    """Random access from an index (the seed) to a session of the training split."""

    config: RecallConfig
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Remembered:
        config = self.config
        random = np.random.default_rng([config.seed, 5, int(index)])
        clips = voices(Split.TRAIN) if config.voice_share else []
        turns, times = training_session(random, config, clips)
        fits, sizes = micro_turns(turns, times), config.weave
        woven = weave(fits, sizes)
        while not _fits(woven, config):
            fits = fits[:-1]
            woven = weave(fits, sizes)
        places = int(random.choice(config.places))
        if random.random() < config.unevicted_share:
            places = config.slots
        policy = MemoryConfig(policy=Policy.TYPED, recent=config.recent)
        return Remembered(woven, last_seen(woven.slots, sizes, places, policy))


def _fits(woven: Woven, config: RecallConfig) -> bool:
    return (
        len(woven.slots.stream) <= config.slots
        and len(woven.payloads.audio) <= config.audio
        and len(woven.payloads.patches) <= config.patches
    )


_VOICES: dict[Split, list[Clip]] = {}


def voices(split: Split) -> list[Clip]:
    """Digits of the synthetic voices of a split, loaded once per process."""
    if not _VOICES:
        bank = load_bank(DataConfig())
        for each in Split:
            _VOICES[each] = bank.select(each, Sound.DIGIT, "voice")
    return _VOICES[split]


def prepare() -> None:
    """Makes the clip bank if it is not there, before worker processes start."""
    if not bank_path(DataConfig()).exists():
        load_bank(DataConfig())


def stack(config: RecallConfig, sessions) -> Batch:
    """Pads and stacks sessions to the config's static sizes."""
    stacked = batch(
        [s.woven for s in sessions], slots=config.slots, audio=config.audio,
        patches=config.patches, speech=1, chunks=1,
    )  # fmt: skip
    until = np.full((len(sessions), config.slots), np.iinfo(np.int32).max, np.int32)
    for row, session in zip(until, sessions, strict=True):
        row[: len(session.until)] = session.until
    return dataclasses.replace(stacked, until=until)
