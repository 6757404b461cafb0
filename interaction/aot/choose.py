"""Which mesh a slice is used as, where nobody says.

In: a slice and what it has to do. Out: the `MeshConfig` with the least computed time among those
whose arguments leave room in memory. All of it is arithmetic: nothing is compiled.
"""

import dataclasses
import functools
from collections.abc import Iterator

from interaction.aot import programs, tally
from interaction.aot.hardware import Slice
from interaction.models.config import InteractionConfig
from interaction.sharding import MeshConfig
from interaction.train.loop import TrainConfig

# Share of a device's memory that weights and state may take; the rest is for what lies in between.
SERVING_SHARE, TRAINING_SHARE = 0.92, 0.75


@dataclasses.dataclass(frozen=True)
class Choice:
    """A mesh and what it costs.

    Attributes:
        mesh: its sizes.
        lanes: sessions, or conversations of a batch, filled up to what the mesh divides.
        held: bytes of weights and state on a device.
        phases: what a device does.
        seconds: the least time (computed).
    """

    mesh: MeshConfig
    lanes: int
    held: int
    phases: tuple[tally.Phase, ...]
    seconds: float


def _powers(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2


def serving_meshes(where: Slice, config: InteractionConfig) -> Iterator[MeshConfig]:
    """Every way to use all devices for data, experts and heads that the model divides by."""
    stack = config.transformer
    most = stack.attention(stack.attention_kinds[0]).kv_heads
    for tensor in _powers(min(most, where.size)):
        if most % tensor or where.size % tensor:
            continue
        rest = where.size // tensor
        for expert in _powers(rest):
            if rest % expert == 0 and (stack.experts or 1) % expert == 0:
                yield MeshConfig(data=rest // expert, expert=expert, tensor=tensor)


def for_serving(where: Slice, config: InteractionConfig, work: tally.Serving) -> list[Choice]:
    """Meshes that hold the sessions of `work`, the fastest first; empty: none does."""
    found = []
    for mesh in serving_meshes(where, config):
        choice = weigh_serving(where, config, mesh, work)
        if choice.held <= SERVING_SHARE * where.known.memory:
            found.append(choice)
    return sorted(found, key=lambda choice: choice.seconds)


def weigh_serving(
    where: Slice, config: InteractionConfig, mesh: MeshConfig, work: tally.Serving
) -> Choice:
    """What serving `work` over `mesh` costs; lanes are filled up to what it divides."""
    lanes = -(-work.sessions // mesh.batch_shards) * mesh.batch_shards
    # Lanes are split evenly and weights repeated along ``data``: two small meshes say it all.
    weights, _ = _served_bytes(config, dataclasses.replace(mesh, data=1))
    _, state = _served_bytes(config, MeshConfig(tensor=mesh.tensor, sequence=mesh.sequence))
    held = weights + state * lanes // mesh.batch_shards
    phases = tally.microturn(config, work, mesh)
    return Choice(mesh, lanes, held, phases, tally.seconds(phases, where))


@functools.cache
def _served_bytes(config: InteractionConfig, mesh: MeshConfig) -> tuple[int, int]:
    """Bytes on one device of the weights, and of the state of one session for each of its lanes."""
    params, state = programs.served(config, mesh.batch_shards, mesh)
    return programs.device_bytes(*params, layout=mesh), programs.device_bytes(*state, layout=mesh)


@functools.cache
def _trained_bytes(config: TrainConfig) -> int:
    """Bytes of the state of training on one device."""
    state, specs, _ = programs.trained(config)
    return programs.device_bytes(state, specs, config.mesh)


def training_meshes(where: Slice, config: InteractionConfig) -> Iterator[MeshConfig]:
    """Every way to use all devices for data, FSDP, experts and heads."""
    for mesh in serving_meshes(where, config):
        for fsdp in _powers(mesh.data):
            if mesh.data % fsdp == 0:
                yield dataclasses.replace(mesh, data=mesh.data // fsdp, fsdp=fsdp)


def for_training(where: Slice, config: TrainConfig, work: tally.Training) -> list[Choice]:
    """Meshes that hold the state of training, the fastest per conversation first.

    Every device that shares a batch has one conversation of each of its parts.
    """
    found = []
    for mesh in training_meshes(where, config.model):
        choice = weigh_training(where, with_mesh(config, mesh), work)
        if choice.held <= TRAINING_SHARE * where.known.memory:
            found.append(choice)
    return sorted(found, key=lambda choice: choice.seconds / choice.lanes)


def with_mesh(config: TrainConfig, mesh: MeshConfig, rows: int | None = None) -> TrainConfig:
    """The run over another mesh, with `rows` conversations a step; None: as few as there can be."""
    least = mesh.batch_shards * config.accumulate
    return dataclasses.replace(config, mesh=mesh, batch=rows or least)


def weigh_training(where: Slice, config: TrainConfig, work: tally.Training) -> Choice:
    """What a step of `config` costs."""
    alone = dataclasses.replace(config.mesh, data=1)  # the state is repeated along ``data``
    held = _trained_bytes(with_mesh(config, alone))
    work = dataclasses.replace(work, rows=config.batch)
    phases = tally.train_step(config.model, work, config.mesh, held)
    return Choice(config.mesh, config.batch, held, phases, tally.seconds(phases, where))
