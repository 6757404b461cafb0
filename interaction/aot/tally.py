"""Operations, bytes of main memory and bytes sent by one device, counted from the configuration.

In: the model, a mesh, and how many slots go where. Out: `Phase`s of a micro-turn or of a training
step, each a `Tally` and how often it runs, and the least time that they can take on a chip
(`seconds`). Everything here is computed, nothing measured: the least that has to be multiplied,
read and sent, at the published peaks, as if each phase overlapped its three kinds of work
perfectly. Left out, which keeps it a lower bound: activations in main memory, the vocoder's
products, elementwise work, latency of collectives.
"""

import dataclasses
import functools
import math

import numpy as np

from interaction.aot.hardware import Slice
from interaction.models.config import AttentionKind, InteractionConfig, MlpKind
from interaction.sharding import MeshConfig

DRAWS, SEED = 32, 0  # of evenly random choices of experts, which `busiest` averages


@dataclasses.dataclass(frozen=True)
class Tally:
    """What one device does.

    Attributes:
        flops: multiplications and additions of matrix products.
        bytes: read from and written to main memory.
        sent: bytes that leave the device.
    """

    flops: float = 0.0
    bytes: float = 0.0
    sent: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.flops + other.flops, self.bytes + other.bytes, self.sent + other.sent)

    def __mul__(self, times: float) -> "Tally":
        return Tally(self.flops * times, self.bytes * times, self.sent * times)

    def seconds(self, where: Slice) -> float:
        """The least time: the longest of products, memory and links."""
        chip = where.chip
        link = self.sent / where.known.link
        return max(self.flops / chip.flops_per_second, self.bytes / chip.bytes_per_second, link)


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a step that cannot begin before the one above it has ended."""

    name: str
    tally: Tally
    times: int = 1


def total(phases: tuple[Phase, ...]) -> Tally:
    """All phases together."""
    return sum((phase.tally * phase.times for phase in phases), Tally())


def seconds(phases: tuple[Phase, ...], where: Slice) -> float:
    """The least time of a step (computed): phases one after the other."""
    return sum(phase.tally.seconds(where) * phase.times for phase in phases)


def cut(size: int, mesh: MeshConfig) -> float:
    """What a device has of an axis that is split over ``tensor`` where that divides it."""
    return size / mesh.tensor if size % mesh.tensor == 0 else size


@functools.cache
def busiest(slots: int, experts: int, per_slot: int, devices: int) -> float:
    """Mean, over evenly random choices, of the most experts that one of `devices` has to read.

    Each of `slots` chooses `per_slot` of `experts`; every device holds as many of them as the
    others, and the slowest one is waited for.
    """
    held = experts // devices
    if slots * per_slot > 12 * experts:  # one expert is left out once in 160 000 times
        return float(held)
    touched = _touched(slots, experts, per_slot).reshape(DRAWS, devices, held)
    return float(touched.sum(axis=2).max(axis=1).mean())


@functools.cache
def _touched(slots: int, experts: int, per_slot: int) -> np.ndarray:
    """Which experts some slot chose, in `DRAWS` draws: bool ``[DRAWS, experts]``."""
    draw = np.random.default_rng(SEED)
    touched = np.zeros((DRAWS, experts), bool)
    for mine in touched:
        numbers = draw.random((slots, experts), np.float32)
        mine[np.argpartition(numbers, per_slot - 1, axis=1)[:, :per_slot].ravel()] = True
    return touched


def spread_over(experts: int, per_slot: int, devices: int) -> float:
    """Mean number of other devices that one slot's experts lie on, choices evenly random."""
    held = experts // devices
    none = math.comb(experts - held, per_slot) / math.comb(experts, per_slot)
    return (devices - 1) * (1.0 - none)


def attention_weights(config: InteractionConfig, kind: AttentionKind, mesh: MeshConfig) -> float:
    """Numbers in one layer's projections on a device."""
    stack = config.transformer
    heads = stack.attention(kind)
    by_head = cut(heads.heads, mesh) * (2 * heads.head_width + stack.bias_width)
    return stack.width * (by_head + 2 * cut(heads.kv_heads, mesh) * heads.head_width)


def mlp_weights(config: InteractionConfig, kind: MlpKind, mesh: MeshConfig) -> float:
    """Numbers in one layer's dense MLP, or router and shared experts, on a device."""
    stack = config.transformer
    if kind is MlpKind.DENSE:
        return 3 * stack.width * cut(stack.dense_width, mesh)
    router = stack.width * (stack.experts + stack.shared_experts)
    return router + 3 * stack.shared_experts * stack.width * cut(stack.expert_width, mesh)


def attention_flops(
    config: InteractionConfig, kind: AttentionKind, slots: float, seen: float, mesh: MeshConfig
) -> float:
    """Products of queries with `seen` keys and of weights with their values, and the bias."""
    stack = config.transformer
    heads = stack.attention(kind)
    bias = 2 * stack.bias_width * heads.bias_extent
    return slots * cut(heads.heads, mesh) * (4 * heads.head_width * seen + bias)


def expert_flops(config: InteractionConfig, pairs: float, mesh: MeshConfig) -> float:
    """`pairs` of a slot and an expert through gate, up and down."""
    stack = config.transformer
    return 6 * pairs * stack.width * cut(stack.expert_width, mesh)


def reduced(size: float, group: int) -> float:
    """Bytes sent in an all-reduce of `size`."""
    return 2 * (group - 1) / group * size if group > 1 else 0.0


# ------------------------------------------------------------------------------ a micro-turn


@dataclasses.dataclass(frozen=True)
class Serving:
    """What a micro-turn has to do at worst.

    Attributes:
        sessions: at once, spread evenly over the devices that share them; other lanes are empty.
        slots: of every session's input part, BEGIN included.
        patches: of every session.
        tokens: output ids of the session that puts out most.
        context: filled places of a global layer.
        item: bytes of a weight and of a number in the cache.
    """

    sessions: int
    slots: int
    patches: int
    tokens: int
    context: int
    item: int = 2

    def shared(self, devices: int) -> float:
        """Sessions of the busiest of `devices`."""
        return max(1.0, self.sessions / devices)


def microturn(config: InteractionConfig, work: Serving, mesh: MeshConfig) -> tuple[Phase, ...]:
    """Phases of one micro-turn on the busiest device.

    All sessions take their input, put out `tokens` ids one by one, and speak. Every call reads
    every dense weight, the touched experts of the busiest device, and the seen part of the cache.
    """
    lanes = work.shared(mesh.batch_shards)
    call = functools.partial(_live_call, config, work, mesh)
    stack, flow = config.transformer, config.flow
    unembed = stack.width * cut(stack.vocabulary, mesh)
    logits = Tally(2 * lanes * unembed, unembed * work.item)
    chunk = config.grid.mel_frames * config.mel.bands
    inner = flow.width
    once = stack.width * inner + flow.blocks * 3 * inner**2
    every = flow.blocks * 4 * inner**2 + 2 * chunk * inner
    head = Tally(
        2 * lanes * (stack.width * inner + flow.steps * (every + flow.blocks * 3 * inner**2)),
        work.item * (once + flow.steps * every),
    )
    return (
        Phase("input", call(work.slots) + _stems(config, work, lanes)),
        Phase("token", logits + call(1), work.tokens),
        Phase("flow", head),
        Phase("own speech", call(config.speech_slots)),
    )


def _stems(config: InteractionConfig, work: Serving, lanes: float) -> Tally:
    """Audio and video of one micro-turn; every device holds the stems whole."""
    width = config.transformer.width
    tally = Tally(
        2 * lanes * config.grid.audio_frames * config.audio.bands * config.audio.levels * width,
        work.item * config.audio.bands * config.audio.levels * width,
    )
    if work.patches:
        frames, side, numbers, products = config.vision.frames, config.vision.patch, 0, 0
        for time, space, inputs, outputs in config.vision.plan(width):
            frames, side = frames // time, side // space
            numbers += inputs * outputs
            products += 2 * frames * side**2 * inputs * outputs
        tally += Tally(lanes * work.patches * products, work.item * numbers)
    return tally


def _live_call(config: InteractionConfig, work: Serving, mesh: MeshConfig, slots: int) -> Tally:
    """`slots` of every session through the stack against the cache."""
    stack, item = config.transformer, work.item
    lanes = work.shared(mesh.batch_shards)
    rows, row = lanes * slots, stack.width * item
    tally = Tally()
    for attention, mlp in zip(stack.attention_kinds, stack.mlp_kinds, strict=True):
        heads = stack.attention(attention)
        seen = work.context
        if heads.window is not None:
            seen = min(seen, heads.window + slots)
        weights = attention_weights(config, attention, mesh) + mlp_weights(config, mlp, mesh)
        store = 2 * lanes * seen * cut(heads.kv_heads, mesh) * heads.head_width
        tally += Tally(
            2 * rows * weights + attention_flops(config, attention, rows, seen, mesh),
            item * (weights + store),
            2 * reduced(rows * row, mesh.tensor),
        )
        if mlp is MlpKind.MOE:
            tally += _live_experts(config, work, mesh, slots)
    return tally


def _live_experts(config: InteractionConfig, work: Serving, mesh: MeshConfig, slots: int) -> Tally:
    """Routed experts of one layer."""
    stack = config.transformer
    rows = work.shared(mesh.batch_shards) * slots
    of_group = math.ceil(work.shared(mesh.batch_shards // mesh.expert) * slots)
    touched = busiest(of_group, stack.experts, stack.experts_per_slot, mesh.expert)
    matrices = 3 * stack.width * cut(stack.expert_width, mesh)
    away = spread_over(stack.experts, stack.experts_per_slot, mesh.expert)
    return Tally(
        expert_flops(config, rows * stack.experts_per_slot, mesh),
        work.item * touched * matrices,
        2 * rows * away * stack.width * work.item,
    )


# ------------------------------------------------------------------------------ training


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training step has to do.

    Attributes:
        rows: B, conversations of the batch.
        slots: T.
        chunks: C, spoken chunks of a conversation.
        flow_draws: of each chunk.
        recomputed: layers are computed again in the backward pass.
        item: bytes of a weight, of a state and of their gradients as they are computed with.
        parts: of the batch that are computed one after the other.
    """

    rows: int
    slots: int
    chunks: int
    flow_draws: int
    recomputed: bool
    item: int = 4
    parts: int = 1


def forward_flops(
    config: InteractionConfig, work: Training, mesh: MeshConfig, computed: int | None = None
) -> tuple[float, float]:
    """Products of the stack, and of the heads (logits and flow), of one device's share.

    Args:
        config: the model.
        work: the batch.
        mesh: how it is shared.
        computed: experts that every slot goes through; None: those that it chooses.
    """
    stack, flow = config.transformer, config.flow
    per_slot = stack.experts_per_slot if computed is None else computed
    slots = work.rows * work.slots / mesh.batch_shards / mesh.sequence
    flops = 0.0
    for attention, mlp in zip(stack.attention_kinds, stack.mlp_kinds, strict=True):
        window = stack.attention(attention).window
        seen = work.slots
        if window is not None and 2 * window <= work.slots:
            seen = 2 * window  # `attention._attend_in_blocks`
        weights = attention_weights(config, attention, mesh) + mlp_weights(config, mlp, mesh)
        flops += 2 * slots * weights + attention_flops(config, attention, slots, seen, mesh)
        if mlp is MlpKind.MOE:
            flops += expert_flops(config, slots * per_slot, mesh)
    heads = 2 * slots * stack.width * cut(stack.vocabulary, mesh)
    draws = work.rows * work.chunks * work.flow_draws / mesh.batch_shards
    inner, chunk = flow.width, config.grid.mel_frames * config.mel.bands
    heads += 2 * draws * inner * (2 * chunk + stack.width + 7 * flow.blocks * inner)
    return flops, heads


def train_step(
    config: InteractionConfig, work: Training, mesh: MeshConfig, state_bytes: float
) -> tuple[Phase, ...]:
    """The one phase of a training step.

    Backward is twice forward, and with `recomputed` layers forward runs again. Each pass reads the
    weights that the device computes with; the optimiser reads and writes its part of the state.
    Weights split along the batch's axes are gathered for every pass, their gradients scattered. In
    `parts`, every part has passes of its own, and the sum of gradients (4 bytes a parameter) is
    read and written for each.

    Args:
        config: the model.
        work: the batch.
        mesh: how it is shared.
        state_bytes: of parameters, their mean and the optimiser's moments on one device.
    """
    stack = config.transformer
    layers, heads = forward_flops(config, work, mesh)
    passes = 4 if work.recomputed else 3
    slots = work.rows * work.slots / mesh.batch_shards / mesh.sequence
    moved = work.item * stack.width * slots
    read, sent, states = 0.0, 0.0, 0.0  # of weights in one part; sent states, of all slots
    gathered = mesh.fsdp * mesh.expert
    for attention, mlp in zip(stack.attention_kinds, stack.mlp_kinds, strict=True):
        weights = attention_weights(config, attention, mesh) + mlp_weights(config, mlp, mesh)
        dense = work.item * weights
        sent += passes * dense * (gathered - 1) / gathered
        states += 2 * (passes - 1) * reduced(moved, mesh.tensor)
        read += passes * dense
        if mlp is MlpKind.MOE:
            held = 3 * stack.experts / mesh.expert * stack.width * cut(stack.expert_width, mesh)
            read += passes * work.item * held
            away = (mesh.expert - 1) / mesh.expert
            states += 2 * (passes - 1) * moved * stack.experts_per_slot * away
            sent += passes * work.item * held * (mesh.fsdp - 1) / mesh.fsdp
            sent += reduced(work.item * held / mesh.fsdp, mesh.data)
    unembed = work.item * stack.width * cut(stack.vocabulary, mesh)
    read += 3 * unembed
    sent += 3 * unembed * (gathered - 1) / gathered
    # A quarter of the state is parameters: of that size is the sum of their gradients.
    summed = 2 * work.parts * state_bytes / 4 if work.parts > 1 else 0.0
    done = Tally(
        passes * layers + 3 * heads,
        work.parts * read + 2 * state_bytes + summed,
        work.parts * sent + states,
    )
    return (Phase("step", done),)
