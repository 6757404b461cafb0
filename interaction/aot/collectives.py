"""What devices send each other in a compiled program, read from its text.

In: the optimised HLO of one device's program, and the mesh. Out: `Collective`s: kind, the mesh axes
along which the group of devices extends, bytes, how often it runs. Loops are multiplied out: XLA
writes the trip count of a loop that it knows beside it; for others (until every lane has closed its
micro-turn) the caller says how often they run at most. Both branches of a condition are counted.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
ITEM = {"pred": 1, "s4": 1, "u4": 1, "bf16": 2, "f16": 2, "c64": 8}
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_STARTS = re.compile(rf"[\s)}}]({'|'.join(KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind along the same axes.

    Attributes:
        kind: one of `KINDS`.
        axes: mesh axes along which a group extends, joined by ``+``; "?" where that is no box of
            the mesh.
        number: how often one runs per call of the program, loops multiplied out.
        bytes: of what each device puts in, all of them together.
        sent: bytes that leave a device at least (`sent_bytes`).
        largest: bytes of the greatest one's input.
    """

    kind: str
    axes: str
    number: int
    bytes: int
    sent: int
    largest: int


def sent_bytes(kind: str, size: int, group: int) -> float:
    """Bytes that must leave each of `group` devices that put in `size` bytes each.

    An all-gather: its part to everyone else (at least once on a ring, ``(g - 1) size`` with what it
    passes on); all-reduce: ``2 (g - 1) / g size``, reduce-scatter and all-to-all: ``(g - 1) / g
    size``; a ragged one the same, all blocks full; a permutation: all of it.
    """
    if group <= 1:
        return 0.0
    return size * {
        "all-gather": float(group - 1),
        "all-reduce": 2 * (group - 1) / group,
        "collective-permute": 1.0,
        "collective-broadcast": 1.0,
    }.get(kind, (group - 1) / group)


def collectives(
    text: str, mesh: Mapping[str, int], unknown_trips: int = 1
) -> tuple[Collective, ...]:
    """Every collective of a program, kinds and axes together.

    Args:
        text: optimised HLO.
        mesh: devices along each axis, in order.
        unknown_trips: how often loops of unknown length run.
    """
    computations, entry = _computations(text)
    times = _times(computations, entry, unknown_trips)
    found: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0, 0, 0, 0])
    for name, lines in computations.items():
        if not times[name]:
            continue
        shapes = {}
        for line in lines:
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            result, _, rest = match[2].partition("(") if match[2][0] != "(" else _tuple(match[2])
            shapes[match[1]] = result
            kind = _kind(match[2])
            if kind is None:
                continue
            groups = _groups(line, mesh)
            size = _operand_bytes(rest, shapes) or _bytes(result)
            group = len(groups[0]) if groups else math.prod(mesh.values())
            entry_ = found[kind, _axes(groups, mesh)]
            entry_[0] += times[name]
            entry_[1] += times[name] * size
            entry_[2] += times[name] * sent_bytes(kind, size, group)
            entry_[3] = max(entry_[3], size)
    return tuple(
        Collective(kind, axes, *(int(value) for value in values))
        for (kind, axes), values in sorted(found.items())
    )


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations, entry, name = {}, "", None
    for line in text.splitlines():
        if name is None or not line.startswith((" ", "}")):
            head = _HEAD.match(line)
            if head and not line.startswith("HloModule"):
                name = head[1]
                computations[name] = []
                entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            name = None
        else:
            computations[name].append(line)
    return computations, entry


def _times(computations: dict[str, list[str]], entry: str, unknown_trips: int) -> dict[str, int]:
    """How often every computation runs."""
    calls: dict[str, list[tuple[str, int]]] = {}
    for name, lines in computations.items():
        calls[name] = []
        for line in lines:
            trips = 1
            if " while(" in line:
                known = re.search(r"known_trip_count[^\d]*(\d+)", line)
                trips = int(known[1]) if known else unknown_trips
            if " async-done(" in line or " async-update(" in line:
                continue  # they name what async-start began
            inside = _CALLED.findall(line)
            for listed in _BRANCHES.findall(line):
                inside += [one.strip().lstrip("%") for one in listed.split(",")]
            calls[name] += [(one, trips) for one in inside if one in computations]
    times = dict.fromkeys(computations, 0)

    def visit(name: str, factor: int):
        times[name] += factor
        for inside, trips in calls[name]:
            visit(inside, factor * trips)

    visit(entry, 1)
    return times


def _kind(right: str) -> str | None:
    """Which collective an instruction starts; None: none, or only its end."""
    found = _STARTS.search(right)
    return found[1] if found else None


def _tuple(right: str) -> tuple[str, str, str]:
    depth = 0
    for index, char in enumerate(right):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            rest = right[index + 1 :]
            return right[: index + 1], "(", rest.partition("(")[2]
    return right, "", ""


def _operand_bytes(rest: str, shapes: dict[str, str]) -> int:
    """Bytes of the operands, which stand with or without their shapes."""
    depth, end = 1, len(rest)
    for index, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            end = index
            break
    inside = rest[:end]
    if _SHAPE.search(inside):
        return _bytes(inside)
    names = re.findall(r"%([\w.\-]+)", inside)
    return sum(_bytes(shapes.get(name, "")) for name in names)


def _bytes(shape: str) -> int:
    total = 0
    for dtype, dims in _SHAPE.findall(shape):
        bits = re.search(r"\d+", dtype)
        item = ITEM.get(dtype) or (max(int(bits[0]) // 8, 1) if bits else 0)
        total += item * math.prod(int(size) for size in dims.split(",") if size)
    return total


def _groups(line: str, mesh: Mapping[str, int]) -> list[list[int]]:
    """Devices that talk to each other, by their place in the mesh; empty: all of them."""
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", line)
    if listed:
        return [
            [int(one) for one in group.split(",") if one]
            for group in re.findall(r"\{([\d,]*)\}", listed[1])
        ]
    tiled = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if tiled:
        shape, dims = ([int(n) for n in tiled[i].split(",")] for i in (1, 2))
        order = [int(n) for n in tiled[3].split(",")] if tiled[3] else range(len(dims))
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
        return ids.reshape(-1, shape[-1]).tolist()
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        return [[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)", pairs[0])]
    return []


def _axes(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> str:
    """Names of the axes along which devices of a group differ."""
    names, shape = list(mesh), tuple(mesh.values())
    if not groups:
        return "+".join(name for name, size in mesh.items() if size > 1)
    differ = set()
    for group in groups:
        places = np.array(np.unravel_index(group, shape))
        differ |= {names[axis] for axis in range(len(names)) if len(set(places[axis])) > 1}
    return "+".join(name for name in names if name in differ) or "none"
