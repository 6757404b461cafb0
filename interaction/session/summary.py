"""The numbers, words and sound of a finished session.

In: a `SessionRecord`. Out: `summarise` (step times against 200 ms, late input, speech), `words`
(what was read, written, said and forgotten, with the moment it existed) and `conversation` (both
sides on one time axis, at playback times). The terminal, the picture and the page all show these
same values.
"""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from interaction.microturn import MICRO_TURN_SECONDS, output_seconds, start_seconds
from interaction.session.record import MicroTurnRecord, SessionRecord

BUDGET_MILLISECONDS = 1000 * MICRO_TURN_SECONDS
FLOOR_DB = -60.0
AUDIBLE_DB = -45.0


class Channel(enum.Enum):
    """Where a piece of text stands; FORGOTTEN says how much of it memory let go."""

    TEXT_IN = "text in"
    WRITE = "write"
    SAY = "say"
    DELEGATE = "delegate"
    FORGOTTEN = "forgotten"


@dataclasses.dataclass(frozen=True)
class Word:
    """A piece of text of one micro-turn.

    Attributes:
        seconds: session time at which it existed: for text in, when its micro-turn began; for
            output, the end of the micro-turn plus the measured time of the step.
        micro_turn: the micro-turn that read or made it.
        channel: where it stands.
        text: the text, without white space at its ends.
    """

    seconds: float
    micro_turn: int
    channel: Channel
    text: str


@dataclasses.dataclass(frozen=True)
class TrueEvent:
    """Something known to be in the input, to be shown beside what the model made of it.

    Attributes:
        start_seconds: session time at which it begins.
        end_seconds: session time at which it ends; at least `start_seconds`.
        label: a word or two.
    """

    start_seconds: float
    end_seconds: float
    label: str

    def __post_init__(self):
        if self.end_seconds < self.start_seconds:
            raise ValueError(
                f"end_seconds={self.end_seconds} is before start_seconds={self.start_seconds}"
            )


@dataclasses.dataclass(frozen=True)
class Summary:
    """A session in numbers.

    Attributes:
        micro_turns: how many there were.
        seconds: session time until the last input or the last sound, whichever is later.
        median_milliseconds: of the step's measured time.
        p99_milliseconds: 99th percentile of it.
        worst_milliseconds: its largest value.
        over_budget: micro-turns whose step took longer than 200 ms.
        late_chunks: audio chunks woven in after their micro-turn.
        dropped_chunks: audio chunks that came too late to be woven in.
        spoken_seconds: seconds in micro-turns whose sound is above -45 dB.
        forgotten_text: text slots that memory let go.
    """

    micro_turns: int
    seconds: float
    median_milliseconds: float
    p99_milliseconds: float
    worst_milliseconds: float
    over_budget: int
    late_chunks: int
    dropped_chunks: int
    spoken_seconds: float
    forgotten_text: int


def level_db(samples_W: np.ndarray) -> float:
    """Root-mean-square level in dB of full scale, never below -60 (empty input: -60)."""
    if not samples_W.size:
        return FLOOR_DB
    power = float(np.mean(np.square(samples_W, dtype=np.float64)))
    return max(FLOOR_DB, 10 * float(np.log10(power + 1e-12)))


def levels(samples_W: np.ndarray, cells: int) -> list[float]:
    """Level of each of `cells` equal parts, 0 at -60 dB and below, 1 at full scale."""
    return [1 - level_db(part) / FLOOR_DB for part in np.array_split(samples_W, cells)]


def step_milliseconds(micro_turns: Sequence[MicroTurnRecord]) -> np.ndarray:
    """Float64 ``[M]``: measured time of every step."""
    return np.array([m.step_milliseconds for m in micro_turns], np.float64)


def summarise(record: SessionRecord) -> Summary:
    """The session in numbers (all zero for a session without micro-turns)."""
    times = step_milliseconds(record.micro_turns)
    audible = [level_db(m.spoken_audio) > AUDIBLE_DB for m in record.micro_turns]
    return Summary(
        micro_turns=len(times),
        seconds=len(conversation(record)) / record.sample_rate,
        median_milliseconds=float(np.median(times)) if times.size else 0.0,
        p99_milliseconds=float(np.percentile(times, 99)) if times.size else 0.0,
        worst_milliseconds=float(times.max(initial=0.0)),
        over_budget=int((times > BUDGET_MILLISECONDS).sum()),
        late_chunks=sum(late > 0 for m in record.micro_turns for late in m.lateness),
        dropped_chunks=sum(m.dropped for m in record.micro_turns),
        spoken_seconds=sum(audible) * MICRO_TURN_SECONDS,
        forgotten_text=sum(m.forgotten_text for m in record.micro_turns),
    )


def words(record: SessionRecord) -> tuple[Word, ...]:
    """Every piece of text of the session, by time."""
    found = []
    for m in record.micro_turns:
        begin = start_seconds(m.micro_turn)
        end = output_seconds(m.micro_turn) + m.step_milliseconds / 1000
        rows = [(begin, Channel.TEXT_IN, text) for text in m.text_in]
        rows += [
            (end, Channel.WRITE, m.written),
            (end, Channel.SAY, m.said),
            (end, Channel.DELEGATE, m.delegated),
            (end, Channel.FORGOTTEN, forgetting(m)),
        ]
        found += [Word(t, m.micro_turn, c, text.strip()) for t, c, text in rows if text.strip()]
    return tuple(sorted(found, key=lambda word: word.seconds))


def forgetting(turn: MicroTurnRecord) -> str:
    """What memory let go of the oldest text in a micro-turn, in words; nothing: ""."""
    slots = turn.forgotten_text
    return f"{slots} text slot{'s' if slots > 1 else ''}" if slots else ""


def conversation(record: SessionRecord) -> np.ndarray:
    """Both sides on one time axis.

    Returns:
        Float32 ``[W, 2]``: what was heard (column 0), and what the model said at the moment it
        plays (column 1). Sound that would begin before the last one ended waits for it.
    """
    rate = record.sample_rate
    pieces: list[tuple[int, int, np.ndarray]] = []
    played = 0
    for m in record.micro_turns:
        pieces.append((0, round(start_seconds(m.micro_turn) * rate), m.heard_audio))
        if np.any(m.spoken_audio):
            start = max(played, round(m.play_start_seconds * rate))
            pieces.append((1, start, m.spoken_audio))
            played = start + len(m.spoken_audio)
    sound = np.zeros((max((s + len(p) for _, s, p in pieces), default=0), 2), np.float32)
    for side, start, samples in pieces:
        sound[start : start + len(samples), side] = samples
    return sound
