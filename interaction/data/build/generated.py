"""Shards of sessions that would else be made on the fly: rendered once, read many times.

In: the configuration of a curriculum (or of plain conversations), a split, how many. Out: a `Plan`
whose session i is, bit for bit, the one that training would make at place i.
"""

import dataclasses
from typing import Any

from interaction import configuration
from interaction.data.bank import bank_path
from interaction.data.clips import Split
from interaction.data.config import DataConfig
from interaction.data.curriculum.sessions import CurriculumConfig
from interaction.data.pipeline import conversations, curriculum, fitting
from interaction.data.shards.rows import RowSizes
from interaction.data.shards.write import Made


@dataclasses.dataclass(frozen=True)
class GeneratedPlan:
    """Sessions by number.

    Attributes:
        config: what they are.
        split: train, or the held-out one.
        inputs: how many.
        inputs_per_shard: of them in one shard.
    """

    config: CurriculumConfig | DataConfig
    split: Split
    inputs: int
    inputs_per_shard: int = 512

    def __post_init__(self):
        for name in ("inputs", "inputs_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def sizes(self) -> RowSizes:
        """Those of the configuration."""
        return RowSizes.of(self.config)

    def identity(self) -> dict[str, Any]:
        """The configuration and the clips that are there."""
        plain = self.config.plain if isinstance(self.config, CurriculumConfig) else self.config
        return {
            "of": type(self.config).__name__,
            "config": configuration.to_dict(self.config),
            "clips": bank_path(plain).name,
            "split": self.split.value,
            "sessions": self.inputs,
            "sessions_per_shard": self.inputs_per_shard,
        }

    def name(self, index: int) -> str:
        """An input, for people to read."""
        return f"session {index}"

    def sessions(self, index: int) -> list[Made]:
        """The one session of a number."""
        made = curriculum if isinstance(self.config, CurriculumConfig) else conversations
        turns = made(self.config, self.split).micro_turns(index)
        turns, _ = fitting(turns, self.config)
        return [Made(turns, f"{self.split.value} session {index}, seed {self.config.seed}")]
