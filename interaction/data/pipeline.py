"""Batches for training: seeds to conversations to woven sequences to padded batches, with Grain.

In: `DataConfig`, a batch size. Out: an iterator of `interaction.types.Batch` of static sizes. The
batch of a step depends on the config's seed and the step alone; the iterator's state can be saved
and set (`get_state`, `set_state`), and its work runs in another process. In a job of several
processes each makes its rows of every batch.
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
from interaction.streams.layout import WeaveConfig
from interaction.streams.weave import Woven, batch, weave
from interaction.types import Batch

ENDLESS = 1 << 40


def weave_config(config: DataConfig | CurriculumConfig) -> WeaveConfig:
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


def fitted(turns, config: DataConfig | CurriculumConfig) -> Woven:
    """Weaves as many of the micro-turns, from the first on, as fit a row of the batch."""
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
    return woven


def stack(config: DataConfig | CurriculumConfig, wovens) -> Batch:
    """Pads and stacks woven conversations to the config's static sizes."""
    return batch(
        wovens, slots=config.slots, audio=config.audio, patches=config.patches,
        speech=config.speech, chunks=config.chunks,
    )  # fmt: skip


def batches(
    config: DataConfig | CurriculumConfig | RecallConfig,
    *,
    size: int,
    split: Split = Split.TRAIN,
    workers: int = 1,
    start: int = 0,
    rows: slice = slice(None),
) -> GlobalBatches:
    """An endless iterator of batches.

    Args:
        config: the data.
        size: conversations in a batch, B.
        split: train, or the held-out one (not of the memory experiment).
        workers: processes that prepare batches ahead; 0: a thread of this process.
        start: first step; step s holds the seeds ``[s size, (s + 1) size)``.
        rows: those of each batch that this process makes.

    Returns:
        An iterator with `get_state` and `set_state`.
    """
    source: Any
    if isinstance(config, RecallConfig):
        if config.voice_share:
            prepare()
        source, together = RecallSource(config, ENDLESS), functools.partial(stack_recall, config)
    else:
        if isinstance(config, CurriculumConfig):
            plain, source = config.plain, CurriculumSource(config, split)
        else:
            plain, source = config, ConversationSource(config, split)
        if not bank_path(plain).exists():
            load_bank(plain)
        together = functools.partial(stack, config)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags; a program without absl.app has none
    slices = Slices(source, together, size, rows, start * size)
    return GlobalBatches(slices, workers=workers)
