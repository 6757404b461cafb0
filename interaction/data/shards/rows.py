"""The static sizes of a row of a batch, and how a long session is cut so that every piece fits one.

In: micro-turns of a session of any length, `RowSizes`. Out: pieces of it, in order, none left out;
the share of slots that they fill.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from interaction.streams.layout import WeaveConfig, speaks
from interaction.types import MicroTurn

_TABLES = ("slots", "audio", "patches", "speech", "chunks")
_LOOK_BACK = 0.25


@dataclasses.dataclass(frozen=True)
class RowSizes:
    """What one row of a batch has room for (see `streams.weave.batch`).

    Attributes:
        slots: T.
        audio: rows of the audio table, four per heard chunk.
        patches: rows of the patch table.
        speech: rows of the own-speech table.
        chunks: spoken chunks.
        speech_slots: slots of one spoken chunk; as in the model's config.
        max_text_out: output ids of a micro-turn at most; as in the model's config or fewer.
    """

    slots: int = 608
    audio: int = 320
    patches: int = 168
    speech: int = 80
    chunks: int = 40
    speech_slots: int = 2
    max_text_out: int = 12

    def __post_init__(self):
        WeaveConfig(speech_slots=self.speech_slots, max_text_out=self.max_text_out)
        most = self.weave.max_slots
        if self.slots < most:
            raise ValueError(
                f"slots={self.slots} must hold the {most} slots that one micro-turn may take"
            )
        least = {"audio": 8, "patches": 0, "speech": self.speech_slots, "chunks": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {value}")

    @property
    def weave(self) -> WeaveConfig:
        """Sizes of the weave; without room for patches there is no video."""
        return WeaveConfig(
            speech_slots=self.speech_slots,
            max_text_out=self.max_text_out,
            max_patches=min(WeaveConfig().max_patches, self.patches),
        )

    @classmethod
    def of(cls, config) -> "RowSizes":
        """Those of another configuration that names the same sizes."""
        names = (*_TABLES, "speech_slots")
        return cls(**{name: getattr(config, name) for name in names})

    def together(self, other: "RowSizes") -> "RowSizes":
        """Sizes that hold rows of both.

        Raises:
            ValueError: they cut a spoken chunk into different numbers of slots.
        """
        if self.speech_slots != other.speech_slots:
            raise ValueError(
                f"speech_slots={self.speech_slots} and speech_slots={other.speech_slots} do not "
                "go into one batch"
            )
        names = [field.name for field in dataclasses.fields(self)]
        return RowSizes(**{name: max(getattr(self, name), getattr(other, name)) for name in names})


def used(turns: Iterable[MicroTurn], sizes: RowSizes) -> np.ndarray:
    """Slots, and rows of audio, patches, speech and chunks, of each micro-turn; int ``[M, 5]``.

    The sums are the lengths that `streams.weave.weave` gives the sequence and its tables.
    """
    config, table = sizes.weave, []
    for turn in turns:
        audio = config.audio_frames * len(turn.audio)
        patches = 0 if turn.video is None else len(turn.video)
        spoken = int(speaks(turn, config))
        text = sum(1 + len(piece.tokens) for piece in turn.text_in)
        text += 0 if turn.text_out is None else 1 + len(turn.text_out)
        speech = spoken * config.speech_slots
        table.append((audio + patches + text + speech, audio, patches, speech, spoken))
    return np.array(table, np.int64).reshape(-1, len(_TABLES))


def cut(turns: Sequence[MicroTurn], sizes: RowSizes) -> list[list[MicroTurn]]:
    """Pieces of a session, each as long as fits a row.

    A piece ends where the model is silent if there is such a place in its last quarter. Where it
    does not, the next piece begins in the middle of speech: what is spoken on there is not learnt
    as a decision (`text_weight` 0), for its cause is not in the piece.

    Raises:
        ValueError: a single micro-turn does not fit.
    """
    room = np.array([getattr(sizes, name) for name in _TABLES])
    needed = used(turns, sizes)
    quiet = [not speaks(turn, sizes.weave) for turn in turns]
    pieces, start = [], 0
    while start < len(turns):
        total = np.cumsum(needed[start : start + room[0]], axis=0)
        count = int(np.count_nonzero((total <= room).all(axis=1)))
        if not count:
            have = dict(zip(_TABLES, needed[start].tolist(), strict=True))
            raise ValueError(
                f"micro-turn {turns[start].micro_turn} needs {have}, a row has room for "
                f"{dict(zip(_TABLES, room.tolist(), strict=True))}"
            )
        end = start + count
        if end < len(turns):
            places = range(end, end - 1 - int(count * _LOOK_BACK), -1)
            end = next((place for place in places if quiet[place - 1]), end)
        pieces.append(
            _begun(turns[start:end], after=turns[start - 1] if start else None, sizes=sizes)
        )
        start = end
    return pieces


def _begun(piece: Sequence[MicroTurn], *, after: MicroTurn | None, sizes) -> list[MicroTurn]:
    """The piece, without a loss on the closers of speech that began before it."""
    config, result = sizes.weave, list(piece)
    if after is None or not speaks(after, config):
        return result
    for index, turn in enumerate(result):
        result[index] = dataclasses.replace(turn, text_weight=0.0)
        if not speaks(turn, config):
            break
    return result
