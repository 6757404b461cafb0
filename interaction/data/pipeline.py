"""Batches for training: numbers to sessions to woven sequences to padded batches, with Grain.

In: the configuration of the data, a batch size. Out: an iterator of `interaction.types.Batch` of
static sizes. The batch of a step depends on the configuration and the step alone: not on how many
worker processes prepare it, nor on how many processes train and make their rows of it each
(`interaction.data.order`).
"""

import dataclasses
import functools
from typing import Any

from absl import flags

from interaction.data.bank import bank_path, load_bank
from interaction.data.clips import Split
from interaction.data.config import DataConfig
from interaction.data.conversations import Conversations
from interaction.data.curriculum.sessions import Curriculum, CurriculumConfig
from interaction.data.order import GlobalBatches, Slices
from interaction.data.recall import RecallConfig, RecallSource, prepare
from interaction.data.recall import stack as stack_recall
from interaction.data.shards.read import ShardsConfig, shuffled
from interaction.data.shards.rows import RowSizes
from interaction.streams.layout import WeaveConfig
from interaction.streams.weave import Woven, batch, weave
from interaction.types import Batch, MicroTurn

ENDLESS = 1 << 40


type Sized = DataConfig | CurriculumConfig | RowSizes


def weave_config(config: Sized) -> WeaveConfig:
    """Sizes of the weave that these conversations need."""
    return WeaveConfig(speech_slots=config.speech_slots)


@dataclasses.dataclass(frozen=True)
class ConversationSource:
    """Random access from an index (the seed) to a woven conversation; cheap to pickle."""

    config: DataConfig
    split: Split = Split.TRAIN
    length: int = ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Woven:
        turns = conversations(self.config, self.split).micro_turns(int(index))
        return fitted(turns, self.config)


@dataclasses.dataclass(frozen=True)
class CurriculumSource:
    """Random access from an index (the seed) to a woven session of the curriculum."""

    config: CurriculumConfig
    split: Split = Split.TRAIN
    length: int = ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Woven:
        turns = curriculum(self.config, self.split).micro_turns(int(index))
        return fitted(turns, self.config)


@functools.lru_cache(maxsize=4)
def curriculum(config: CurriculumConfig, split: Split) -> Curriculum:
    """The sessions of a config, its clips loaded once per process."""
    return Curriculum(config, load_bank(config.plain), split)


@functools.lru_cache(maxsize=4)
def conversations(config: DataConfig, split: Split) -> Conversations:
    """The conversations of a config, its clips loaded once per process."""
    return Conversations(config, load_bank(config), split)


def fitting(turns: list[MicroTurn], config: Sized) -> tuple[list[MicroTurn], Woven]:
    """As many of the micro-turns, from the first on, as fit a row of the batch, and their weave."""
    sizes = weave_config(config)
    woven = weave(turns, sizes)
    while (
        len(woven.slots.stream) > config.slots
        or len(woven.payloads.audio) > config.audio
        or len(woven.payloads.patches) > config.patches
        or len(woven.payloads.speech) > config.speech
        or len(woven.targets.chunk) > config.chunks
    ):
        turns = turns[:-1]
        woven = weave(turns, sizes)
    return turns, woven


def fitted(turns: list[MicroTurn], config: Sized) -> Woven:
    """Weaves as many of the micro-turns, from the first on, as fit a row of the batch."""
    return fitting(turns, config)[1]


def stack(config: Sized, wovens) -> Batch:
    """Pads and stacks woven conversations to the config's static sizes."""
    return batch(
        wovens, slots=config.slots, audio=config.audio, patches=config.patches,
        speech=config.speech, chunks=config.chunks,
    )  # fmt: skip


# ---------------------------------------------------------------- what a run reads


@dataclasses.dataclass(frozen=True)
class Beside:
    """Sessions of shards among those of another source, spread evenly over the places.

    Attributes:
        source: made on the fly.
        shards: random access to the sessions of shards.
        share: of the places that shards fill.
    """

    source: Any
    shards: Any
    share: float

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, place: int) -> Woven:
        before = int(place * self.share)
        if int((place + 1) * self.share) > before:
            return self.shards[before]
        return self.source[place - before]


def batches(
    config: DataConfig | CurriculumConfig | RecallConfig | None,
    *,
    size: int,
    split: Split = Split.TRAIN,
    workers: int = 1,
    start: int = 0,
    shards: ShardsConfig | None = None,
    rows: slice = slice(None),
) -> GlobalBatches:
    """An endless iterator of batches.

    Args:
        config: sessions that are made on the fly; None: there are only `shards`.
        size: sessions in a batch of all processes together, B.
        split: train, or the held-out one (not of the memory experiment, nor of shards).
        workers: processes that prepare batches ahead; 0: a thread of this process.
        start: first step; step s holds the sessions at places ``[s size, (s + 1) size)``.
        shards: sessions that were made beforehand, a share of all.
        rows: those of each batch that this process makes.

    Raises:
        ValueError: nothing to read, or sessions that do not go into one batch.
    """
    sessions, together = _sessions(config, split, shards)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags; a program without absl.app has none
    return GlobalBatches(Slices(sessions, together, size, rows, start * size), workers=workers)


def _sessions(config, split: Split, shards: ShardsConfig | None) -> tuple[Any, Any]:
    """Random access to the sessions of a run, and what stacks them."""
    if config is None:
        if shards is None:
            raise ValueError("config and shards are both None: there is nothing to read")
        return shuffled(shards), functools.partial(stack, shards.sizes)
    if isinstance(config, RecallConfig):
        if config.voice_share:
            prepare()
        return RecallSource(config, ENDLESS), functools.partial(stack_recall, config)
    source = source_of(config, split)
    if shards is None:
        return source, functools.partial(stack, config)
    sizes = RowSizes.of(config).together(shards.sizes)
    return Beside(source, shuffled(shards), shards.share), functools.partial(stack, sizes)


def source_of(
    config: DataConfig | CurriculumConfig, split: Split
) -> ConversationSource | CurriculumSource:
    """Random access to sessions that are made on the fly; the clips they need are there then."""
    curriculum = isinstance(config, CurriculumConfig)
    plain = config.plain if curriculum else config
    if not bank_path(plain).exists():
        load_bank(plain)
    return CurriculumSource(config, split) if curriculum else ConversationSource(config, split)
