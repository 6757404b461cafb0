"""One global order of records, from which every process reads its rows of every batch.

In: a source with random access, the size of a global batch, this process's rows of it. Out: an
iterator over this process's part of each batch, whose state is one number: the global record that
comes next. So the order does not depend on how many processes or workers read it, and a run
stopped on four processes goes on with one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import grain.python as grain


@dataclasses.dataclass(frozen=True)
class Slices:
    """Random access to this process's part of the batches from `record` on; cheap to pickle.

    Attributes:
        source: from a global record's number to the record.
        together: stacks a list of records.
        size: records in a global batch, B.
        rows: which of them are this process's.
        record: the global record at which batch 0 begins.
    """

    source: Any
    together: Callable[[list], Any]
    size: int
    rows: slice
    record: int

    def __len__(self) -> int:
        return (len(self.source) - self.record) // self.size

    def __getitem__(self, index: int) -> Any:
        first = self.record + int(index) * self.size
        mine = range(self.size)[self.rows]
        return self.together([self.source[first + row] for row in mine])


class GlobalBatches:
    """An iterator of batches in the global order.

    Grain prepares them ahead, in `workers` processes or in a thread.
    """

    def __init__(self, slices: Slices, *, workers: int):
        if not range(slices.size)[slices.rows]:
            raise ValueError(f"rows={slices.rows} of a batch of {slices.size} are none")
        self._slices, self._workers = slices, workers
        self._record = slices.record
        self._ahead: Any = None

    def __iter__(self) -> "GlobalBatches":
        return self

    def __next__(self) -> Any:
        if self._ahead is None:
            self._ahead = self._begin()
        batch = next(self._ahead)
        self._record += self._slices.size
        return batch

    def get_state(self) -> dict[str, int]:
        """The next record; the same in every process."""
        return {"record": self._record}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to where `get_state` was called, whoever read then, in batches of whatever size.

        Raises:
            ValueError: not a state of this iterator.
        """
        if set(state) != {"record"}:
            raise ValueError(f"state={state!r:.200} does not say the next record")
        self._record = int(state["record"])
        self._ahead = None

    def _begin(self) -> Any:
        slices = dataclasses.replace(self._slices, record=self._record)
        dataset = grain.MapDataset.source(slices).to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        )
        if self._workers:
            options = grain.MultiprocessingOptions(
                num_workers=self._workers, per_worker_buffer_size=3
            )
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)
