"""A set of sessions as shards on disk: only whole ones, the same bytes however often killed.

In: a `Plan` (numbered inputs, and the sessions of each), a folder. Out: ArrayRecord files of
sessions (`record`) with a JSON file beside each that says what is in it, and ``manifest.json`` when
all are there. A shard takes a fixed range of the plan's inputs, so it needs no other one: shards
are made in any order, by any number of processes or machines, and one that is finished is never
made again. Files are written under another name and renamed, so that half a shard never counts.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from array_record.python.array_record_module import ArrayRecordWriter

from interaction import configuration
from interaction.data.shards.record import encode
from interaction.data.shards.rows import RowSizes, used
from interaction.types import MicroTurn

FORM = 1  # raise it whenever the meaning of a record changes
MANIFEST, PLAN = "manifest.json", "plan.json"
# One session per group, so that any one is read alone; weakly compressed, which costs no time.
WRITER_OPTIONS = "group_size:1,zstd:1"


@dataclasses.dataclass(frozen=True)
class Made:
    """One session: its micro-turns, which fit one row, and where it came from."""

    turns: Sequence[MicroTurn]
    origin: str


class Plan(Protocol):
    """What a set is made of. It goes to other processes, so it has to be picklable."""

    @property
    def sizes(self) -> RowSizes:
        """Of the rows that its sessions fit."""
        ...

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        ...

    @property
    def inputs_per_shard(self) -> int:
        """How many of them go into one shard."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON that differs wherever the bytes of a shard may differ."""
        ...

    def name(self, index: int) -> str:
        """An input, for people to read."""
        ...

    def sessions(self, index: int) -> Iterable[Made]:
        """The sessions of an input.

        Raises:
            ValueError, OSError: the input cannot be used; it is left out and told at the end.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Failure:
    """An input that could not be used, and why."""

    input: str
    error: str


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What is in a shard.

    Attributes:
        index: which shard.
        sessions, micro_turns, slots: how many it holds.
        spoken: micro-turns in which the model speaks.
        bytes: of its file.
        failures: inputs that were left out.
    """

    index: int
    sessions: int
    micro_turns: int
    slots: int
    spoken: int
    bytes: int
    failures: tuple[Failure, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a finished set is; `interaction.data.shards.read` reads nothing without it.

    Attributes:
        form: of its records.
        rows: sizes that every session fits.
        ordinary_tokens: of the tokenizer that its texts were written with.
        shards: how many files its name was divided into.
        files: those that hold sessions, in order.
        sessions, micro_turns, slots, spoken: sums over them.
        failures: inputs that were left out.
    """

    form: int
    rows: RowSizes
    ordinary_tokens: int
    shards: int
    files: tuple[str, ...]
    sessions: int
    micro_turns: int
    slots: int
    spoken: int
    failures: tuple[Failure, ...]

    @property
    def filled(self) -> float:
        """Share of the slots of full-sized rows that hold something: packing efficiency."""
        return self.slots / max(1, self.sessions * self.rows.slots)


@dataclasses.dataclass(frozen=True)
class Part:
    """Which share of the shards this call makes: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(f"part {self.index} of {self.count}: count from 0 to {self.count - 1}")

    def __contains__(self, shard: int) -> bool:
        return shard % self.count == self.index


def shard_name(index: int, count: int) -> str:
    """File name of a shard."""
    return f"sessions-{index:05d}-of-{count:05d}.array_record"


def write(
    plan: Plan,
    folder: str | os.PathLike,
    *,
    part: Part = Part(),
    processes: int = 1,
    advance: Callable[[int, int], None] = lambda inputs, sessions: None,
) -> Manifest | None:
    """Makes what is missing of a set.

    Args:
        plan: what it is made of; the plan that the folder was begun with.
        folder: where to; made if absent.
        part: the share of shards that is made here.
        processes: that make shards side by side.
        advance: told how many inputs and sessions have been done since it was last told.

    Returns:
        The manifest, or None while shards of other parts are missing.

    Raises:
        ValueError: the folder was begun with another plan, or nothing could be used.
    """
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _same_plan(plan, folder)
    count = -(-plan.inputs // plan.inputs_per_shard)
    todo = []
    for index in range(count):
        if index not in part:
            continue
        done = _read_info(folder, index, count)
        if done is None:
            todo.append(index)
        else:
            advance(len(_inputs(plan, index)), done.sessions)
    if processes == 1:
        for index in todo:
            write_shard(plan, folder, index, count, advance)
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
            jobs = {pool.submit(write_shard, plan, folder, i, count): i for i in todo}
            for job in concurrent.futures.as_completed(jobs):
                advance(len(_inputs(plan, jobs[job])), job.result().sessions)
    return _finish(plan, folder, count)


def write_shard(
    plan: Plan,
    folder: pathlib.Path,
    index: int,
    count: int,
    advance: Callable[[int, int], None] = lambda inputs, sessions: None,
) -> ShardInfo:
    """Makes one shard; it appears whole or not at all.

    Args:
        plan: what the set is made of.
        folder: where to.
        index: which shard.
        count: of how many.
        advance: as of `write`.
    """
    target = folder / shard_name(index, count)
    half = target.with_suffix(".partial")
    failures, sessions, micro_turns, slots, spoken = [], 0, 0, 0, 0
    writer = ArrayRecordWriter(str(half), WRITER_OPTIONS)
    for number in _inputs(plan, index):
        try:
            made = list(plan.sessions(number))
        except (ValueError, OSError) as error:
            failures.append(Failure(plan.name(number), str(error)))
            made = []
        for session in made:
            writer.write(encode(session.turns, session.origin))
            needed = used(session.turns, plan.sizes).sum(axis=0).tolist()
            micro_turns += len(session.turns)
            slots += needed[0]
            spoken += needed[-1]
        sessions += len(made)
        advance(1, len(made))
    writer.close()
    size = half.stat().st_size
    info = ShardInfo(index, sessions, micro_turns, slots, spoken, size, tuple(failures))
    if sessions:
        os.replace(half, target)
    else:
        half.unlink()
    _write_json(_info_path(folder, index, count), configuration.to_dict(info))
    return info


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """The manifest of a finished set.

    Raises:
        FileNotFoundError: there is none; says what is to be done.
        ValueError: it was made in another form.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.is_file():
        begun = (path.parent / PLAN).exists()
        why = "begun and not finished: run the same command again" if begun else "no shards"
        raise FileNotFoundError(f"{folder}: {why} (there is no {MANIFEST})")
    values = json.loads(path.read_text())
    if values.get("form") != FORM:
        raise ValueError(f"{path}: form={values.get('form')}, this release reads form={FORM}")
    return configuration.build(Manifest, values, where=str(path))


# ---------------------------------------------------------------- files


def _inputs(plan: Plan, shard: int) -> range:
    start = shard * plan.inputs_per_shard
    return range(start, min(start + plan.inputs_per_shard, plan.inputs))


def _same_plan(plan: Plan, folder: pathlib.Path) -> None:
    path = folder / PLAN
    identity = json.loads(json.dumps({"form": FORM, **plan.identity()}))
    if not path.exists():
        _write_json(path, identity)
        return
    begun = json.loads(path.read_text())
    differs = sorted(k for k in begun | identity if begun.get(k) != identity.get(k))
    if differs:
        name = differs[0]
        raise ValueError(
            f"{folder} was begun with other {', '.join(differs)} ({name} was "
            f"{begun.get(name)!r:.200}, is {identity.get(name)!r:.200}); name another folder, or "
            "remove this one"
        )


def _info_path(folder: pathlib.Path, index: int, count: int) -> pathlib.Path:
    return (folder / shard_name(index, count)).with_suffix(".json")


def _read_info(folder: pathlib.Path, index: int, count: int) -> ShardInfo | None:
    path = _info_path(folder, index, count)
    if not path.exists():
        return None
    info = configuration.build(ShardInfo, json.loads(path.read_text()), where=str(path))
    shard = folder / shard_name(index, count)
    whole = not info.sessions or (shard.exists() and shard.stat().st_size == info.bytes)
    return info if whole else None


def _finish(plan: Plan, folder: pathlib.Path, count: int) -> Manifest | None:
    infos = [info for index in range(count) if (info := _read_info(folder, index, count))]
    if len(infos) < count:
        return None
    failures = tuple(failure for info in infos for failure in info.failures)
    manifest = Manifest(
        form=FORM,
        rows=plan.sizes,
        ordinary_tokens=plan.sizes.weave.ordinary_tokens,
        shards=count,
        files=tuple(shard_name(info.index, count) for info in infos if info.sessions),
        sessions=sum(info.sessions for info in infos),
        micro_turns=sum(info.micro_turns for info in infos),
        slots=sum(info.slots for info in infos),
        spoken=sum(info.spoken for info in infos),
        failures=failures,
    )
    if not manifest.sessions:
        told = "; ".join(f"{failure.input}: {failure.error}" for failure in failures[:3])
        raise ValueError(f"{plan.inputs} inputs gave no session. {told}")
    _write_json(folder / MANIFEST, configuration.to_dict(manifest))
    return manifest


def _write_json(path: pathlib.Path, values: Any) -> None:
    half = path.with_suffix(f".{os.getpid()}.partial")
    half.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(half, path)
