"""Sessions of shards by number, in a global order drawn afresh for every epoch.

In: `ShardsConfig`, the folders that `launch.py data build` made. Out: a Grain `MapDataset` without
end of `Woven` sessions: any place of it is read alone, and what stands there depends on the
configuration and the place only.
"""

import dataclasses
import functools
import pathlib

import grain.python as grain
from array_record.python.array_record_data_source import ArrayRecordDataSource

from interaction.data.shards.record import decode
from interaction.data.shards.rows import RowSizes
from interaction.data.shards.write import Manifest, read_manifest
from interaction.streams.weave import Woven, weave


@dataclasses.dataclass(frozen=True)
class ShardsConfig:
    """Sessions that were made beforehand.

    Attributes:
        folders: sets of shards; their sessions are shuffled as one.
        seed: of the order.
        share: share of the sessions of a run that come from here, where the run has others too.
    """

    folders: tuple[str, ...]
    seed: int = 0
    share: float = 1.0

    def __post_init__(self):
        if not self.folders:
            raise ValueError("folders=() names no set of shards")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} must lie above 0 and at most at 1")

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Of every folder.

        Raises:
            FileNotFoundError: a folder without a finished set.
            ValueError: sets of different tokenizers.
        """
        found = tuple(read_manifest(folder) for folder in self.folders)
        tokens = {manifest.ordinary_tokens for manifest in found}
        if len(tokens) > 1:
            raise ValueError(f"folders={self.folders} were made with tokenizers of {tokens} tokens")
        return found

    @property
    def sizes(self) -> RowSizes:
        """Rows that hold every session."""
        return functools.reduce(RowSizes.together, (m.rows for m in self.manifests))


@dataclasses.dataclass(frozen=True)
class ShardSource:
    """Random access to every session of the sets, in the order of their files."""

    config: ShardsConfig

    def __len__(self) -> int:
        return len(_records(self.config.folders))

    def __getitem__(self, index: int) -> Woven:
        turns = decode(_records(self.config.folders)[int(index)])
        return weave(turns, _sizes(self.config).weave)


@functools.lru_cache(maxsize=4)
def _records(folders: tuple[str, ...]) -> ArrayRecordDataSource:
    """Open files; once per process."""
    return ArrayRecordDataSource(
        [
            str(pathlib.Path(folder) / name)
            for folder in folders
            for name in read_manifest(folder).files
        ]
    )


@functools.lru_cache(maxsize=4)
def _sizes(config: ShardsConfig) -> RowSizes:
    return config.sizes


def shuffled(config: ShardsConfig) -> grain.MapDataset:
    """Without end; every session once per epoch, each epoch in another order."""
    source = grain.MapDataset.source(ShardSource(config))
    return source.seed(config.seed).shuffle().repeat()
