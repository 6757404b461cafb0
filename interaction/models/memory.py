"""Typed memory: which slots a lane keeps when the store of its global layers is full.

In: what every stored slot holds, and when it came. Out: the places that the next slots go to, best
first (`places`), and for whole sequences the slot from which each one is no longer seen
(`last_seen`). Both rank with the same function.

A sliding layer keeps its window and no policy touches it. A global layer has a fixed number of
places per lane, reserved when the session is admitted. Places are chosen once per micro-turn,
before its first slot, and are taken one by one as slots come; a slot is forgotten at the moment
another one takes its place. Nothing else of it is undone: what it has put into the values of later
slots, of every layer above the first, remains. Positions and times of kept slots never change.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np

from interaction import sharding
from interaction.shapes import Array
from interaction.streams.layout import WeaveConfig
from interaction.types import Control, Slots, Stream, pytree

_ORDERS = 1 << 26  # slots of a session that are told apart by age: 100 hours of micro-turns


class Holding(enum.IntEnum):
    """What a stored slot holds."""

    NOTHING = 0
    VIDEO = 1
    AUDIO = 2
    SPEECH = 3
    CONTROL = 4
    TEXT = 5
    PINNED = 6


class Evictable(enum.Enum):
    """What may go while there is anything else than text to let go."""

    VIDEO = "video"
    AUDIO = "audio"
    SPEECH = "speech"
    CONTROL = "control"


class Policy(enum.Enum):
    """Who goes when the store is full.

    WINDOW: the oldest. SINKS: the oldest but for the first few slots of the session (Xiao et al.
    2023, arXiv 2309.17453). TYPED: by what slots hold.
    """

    WINDOW = "window"
    SINKS = "sinks"
    TYPED = "typed"


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """The policy of global layers.

    Attributes:
        policy: see `Policy`.
        evicted: TYPED: what goes, and in which order: all old slots of the first, oldest first,
            then of the second, and so on; then the recent ones in the same order; then the oldest
            text. Text is what is typed or comes back from tools and the background, and the
            model's own words; CONTROL is the rest of its output ids. System text is pinned: it
            never goes.
        recent: TYPED: slots of so many last micro-turns are recent.
        sinks: SINKS: first slots of the session that never go.
    """

    policy: Policy = Policy.TYPED
    evicted: tuple[Evictable, ...] = tuple(Evictable)
    recent: int = 50
    sinks: int = 4

    def __post_init__(self):
        if sorted(e.value for e in self.evicted) != sorted(e.value for e in Evictable):
            raise ValueError(
                f"evicted={[e.value for e in self.evicted]} must hold each of "
                f"{[e.value for e in Evictable]} once"
            )
        for name in ("recent", "sinks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


@pytree
class Room:
    """Where the slots of one micro-turn go in the global store.

    Attributes:
        place: int32 ``[B, F]``, places in the order in which they are taken.
        since: int32 ``[B]``, the lane's count of slots when they were chosen.
    """

    place: Array
    since: Array


def holdings(stream_BT, token_BT, weave: WeaveConfig, xp=jnp):
    """`Holding` of each slot, int32 ``[B, T]``; text that comes in must be whole in it."""
    control = token_BT >= weave.ordinary_tokens
    text_in = stream_BT == int(Stream.TEXT_IN)
    index = xp.broadcast_to(xp.arange(token_BT.shape[-1])[None], token_BT.shape)
    opened = xp.where(text_in & control, index, -1)
    opened = jax.lax.cummax(opened, axis=1) if xp is jnp else np.maximum.accumulate(opened, axis=1)
    source = xp.take_along_axis(token_BT, xp.maximum(opened, 0), axis=1)
    pinned = (opened >= 0) & (source == weave.control(Control.SYSTEM))
    text_out = xp.where(control, int(Holding.CONTROL), int(Holding.TEXT))
    held = xp.where(pinned, int(Holding.PINNED), int(Holding.TEXT))
    for stream, holding in (
        (Stream.PAD, int(Holding.NOTHING)),
        (Stream.VIDEO, int(Holding.VIDEO)),
        (Stream.AUDIO, int(Holding.AUDIO)),
        (Stream.SPEECH, int(Holding.SPEECH)),
        (Stream.TEXT_OUT, text_out),
    ):
        held = xp.where(stream_BT == int(stream), holding, held)
    return held.astype(np.int32)


def rank(holding_BS, order_BS, time_BS, now_B, config: MemoryConfig, xp=jnp):
    """How soon each stored slot goes, int32 ``[B, S]``: the greatest first; empty places lead.

    Args:
        holding_BS: `Holding` of every place.
        order_BS: the lane's running count at the slot; -1: empty.
        time_BS: micro-turn of the slot.
        now_B: the micro-turn that begins.
        config: the policy.
        xp: numpy or jax.numpy.
    """
    if config.policy is Policy.TYPED:
        number = len(config.evicted)
        groups = xp.where(holding_BS == int(Holding.PINNED), 0, 1)
        recent = time_BS > now_B[:, None] - config.recent
        for index, evictable in enumerate(config.evicted):
            holding = Holding[evictable.name]
            group = 1 + number - index + xp.where(recent, 0, number)
            groups = xp.where(holding_BS == int(holding), group, groups)
        empty = 2 * number + 2
    else:
        sinks = config.sinks if config.policy is Policy.SINKS else 0
        groups = xp.where(order_BS < sinks, 0, 1)
        empty = 2
    age = _ORDERS - 1 - order_BS
    return xp.where(order_BS < 0, empty * _ORDERS, groups * _ORDERS + age)


def room(entry: dict, count_B: Array, now_B: Array, slots: int, config: MemoryConfig) -> Room:
    """Chooses the places of a micro-turn's slots.

    Args:
        entry: the global part of the cache.
        count_B: the lane's count of slots so far.
        now_B: the micro-turn that begins.
        slots: F, slots that one micro-turn takes at most.
        config: the policy.
    """
    ranks = rank(entry["holding"], entry["order"], entry["time"], now_B, config)
    first = lambda ranks: jax.lax.top_k(ranks, slots)[1]
    place = sharding.by_rows(first, ranks, "batch", None)
    return Room(place=place, since=count_B)


def calls(slots: Slots) -> list[tuple[int, int, int]]:
    """How the live path feeds one woven row: (first slot, behind the last one, micro-turn).

    Each micro-turn's input with its BEGIN slot is one call, each output id one, own speech one.
    """
    stream, time = np.asarray(slots.stream), np.asarray(slots.micro_turn)
    count = int(np.sum(stream != int(Stream.PAD)))
    result, start = [], 0
    for index in range(count):
        goes_on = index + 1 < count and time[index + 1] == time[index]
        if stream[index] == int(Stream.TEXT_OUT) or not goes_on:
            result.append((start, index + 1, int(time[index])))
            start = index + 1
    return result


def last_seen(slots: Slots, weave: WeaveConfig, places: int, config: MemoryConfig) -> np.ndarray:
    """The eviction schedule of a woven row, for `forward`.

    Args:
        slots: one row, numpy ``[T]``, from the session's first slot on.
        weave: sizes of the weave.
        places: slots that the global store holds.
        config: the policy.

    Returns:
        int32 ``[T]``: the count of slots from which a slot is no longer seen by global layers
        (the first slot of the call in which another takes its place); int32's greatest: never.
    """
    total = len(slots.stream)
    until = np.full(total, np.iinfo(np.int32).max, np.int32)
    holding = np.zeros((1, places), np.int32)
    order = np.full((1, places), -1, np.int32)
    time = np.zeros((1, places), np.int32)
    now, free, taken = None, np.zeros(0, int), 0
    held = holdings(np.asarray(slots.stream)[None], np.asarray(slots.token)[None], weave, np)[0]
    for start, stop, micro_turn in calls(slots):
        if micro_turn != now:
            now, taken = micro_turn, 0
            ranks = rank(holding, order, time, np.array([now]), config, np)[0]
            free = np.argsort(-ranks, kind="stable")[: weave.max_slots]
        place = free[taken : taken + stop - start]
        taken += stop - start
        before = order[0, place]
        until[before[before >= 0]] = start
        holding[0, place], time[0, place] = held[start:stop], micro_turn
        order[0, place] = np.arange(start, stop)
    return until
