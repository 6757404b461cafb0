"""The real programs, from shapes alone, laid over a mesh of devices that need not be there.

In: a model or a training run, and a mesh. Out: `Program`: the function of `session.step` or of
`train.loop`, and `ShapeDtypeStruct`s with their places for every argument; no array is made. The
live step is the one that `compile_step` makes, with the kernels of the platform inside; the
training step is the one that `make_train_step` makes.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from interaction import sharding
from interaction.kernels.implementation import Implementation
from interaction.models.config import CacheType, InteractionConfig
from interaction.models.parameters import abstract_params, param_axes
from interaction.session.lanes import Bucket
from interaction.session.state import init_state, state_specs
from interaction.session.step import microturn_step
from interaction.sharding import MeshConfig, Purpose
from interaction.streams.weave import weave_inputs
from interaction.train import loop, optimizer
from interaction.train.loop import TrainConfig, TrainState
from interaction.types import Batch, Payloads, Slots, Targets

KERNELS = {"tpu": Implementation.PALLAS_TPU, "cuda": Implementation.PALLAS_GPU}


@dataclasses.dataclass(frozen=True)
class Program:
    """Something that can be compiled.

    Attributes:
        name: "serve" or "train".
        function: jitted, its state donated.
        arguments: shapes with shardings.
        mesh: its devices.
        state: bytes of the donated argument on one device.
        weights: bytes of the other arguments that stay: parameters of the live step.
        unknown_trips: greatest number of runs of a loop that ends on data.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    mesh: Mesh
    state: int
    weights: int
    unknown_trips: int = 1


def with_kernels(config: InteractionConfig, platform: str) -> InteractionConfig:
    """The configuration with the kernels of `platform` ("tpu", "cuda") in its live calls."""
    stack = dataclasses.replace(config.transformer, implementation=KERNELS[platform], unroll=1)
    return dataclasses.replace(config, transformer=stack)


def placed(tree: Any, specs: Any, mesh: Mesh) -> Any:
    """Shapes of `tree` with the places that `specs` says."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        sharding.shardings(mesh, specs),
    )


def device_bytes(tree: Any, specs: Any, layout: MeshConfig) -> int:
    """Bytes of arrays or shapes on one device, laid out by `specs`."""
    sizes = sharding.sizes(layout)

    def one(leaf, spec) -> int:
        named = [(e,) if isinstance(e, str) else e or () for e in spec]
        parts = [math.prod(sizes[name] for name in names) for names in named]
        parts += [1] * (len(leaf.shape) - len(parts))
        numbers = math.prod(-(-n // cut) for n, cut in zip(leaf.shape, parts, strict=True))
        return numbers * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, specs)))


def served(config: InteractionConfig, lanes: int, layout: MeshConfig) -> tuple[tuple, tuple]:
    """Shapes and partition specs of the parameters and of the state of `lanes` sessions.

    bfloat16, but for the vocoder, which stays float32 as its state is.
    """
    params = abstract_params(config, dtype=jnp.bfloat16)
    params = dict(params, vocoder=abstract_params(config)["vocoder"])
    specs = sharding.parameter_specs(params, param_axes(config), layout, Purpose.SERVING)
    config = dataclasses.replace(config, cache_type=CacheType.BFLOAT16)
    state = jax.eval_shape(functools.partial(init_state, config, lanes))
    return (params, specs), (state, state_specs(config, lanes, layout))


def serving(
    config: InteractionConfig, lanes: int, bucket: Bucket, layout: MeshConfig, mesh: Mesh
) -> Program:
    """One micro-turn of `lanes` sessions, parameters and cache in bfloat16.

    Args:
        config: the model, its kernels chosen (`with_kernels`).
        lanes: B; a multiple of the devices that share lanes.
        bucket: input slots and patches.
        layout: sizes of the mesh.
        mesh: its devices.
    """
    (params, params_at), (state, state_at) = served(config, lanes, layout)
    inputs = jax.eval_shape(
        lambda: jax.tree.map(
            jnp.asarray,
            weave_inputs([None] * lanes, config.weave, slots=bucket.slots, patches=bucket.patches),
        )
    )
    return Program(
        name="serve",
        function=jax.jit(functools.partial(microturn_step, config=config), donate_argnums=1),
        arguments=(
            placed(params, params_at, mesh),
            placed(state, state_at, mesh),
            _by_batch(inputs, mesh),
        ),
        mesh=mesh,
        state=device_bytes(state, state_at, layout),
        weights=device_bytes(params, params_at, layout),
        unknown_trips=config.max_text_out,
    )


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Static sizes of a conversation in a training batch.

    Attributes:
        micro_turns: M.
        slots: T.
        patches: video slots.
    """

    micro_turns: int = 512
    slots: int = 4096
    patches: int = 512

    @classmethod
    def of_slots(cls, slots: int) -> "Conversation":
        """One of `slots`: 8 a micro-turn (4 of sound, BEGIN, 1 of video, 2 of output)."""
        return cls(micro_turns=max(slots // 8, 1), slots=slots, patches=max(slots // 8, 1))


def batch_shapes(config: InteractionConfig, rows: int, size: Conversation) -> Batch:
    """Shapes of a training batch; every micro-turn may be spoken in."""
    B, T, M = rows, size.slots, size.micro_turns
    whole = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    real = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    tubelet = config.weave.tubelet_shape
    return Batch(
        slots=Slots(
            stream=whole(B, T), token=whole(B, T), payload=whole(B, T), lateness=whole(B, T),
            position=whole(B, T), micro_turn=whole(B, T),
            first=jax.ShapeDtypeStruct((B, T), jnp.bool_),
        ),
        payloads=Payloads(
            audio=jax.ShapeDtypeStruct(
                (B, M * config.grid.audio_frames, config.audio.bands), jnp.uint8
            ),
            patches=jax.ShapeDtypeStruct((B, size.patches, *tubelet), jnp.uint8),
            speech=real(B, M * config.speech_slots, config.speech_features),
        ),
        targets=Targets(
            token=whole(B, T), token_weight=real(B, T), chunk_slot=whole(B, M),
            chunk=real(B, M, config.grid.mel_frames, config.mel.bands), chunk_weight=real(B, M),
        ),
    )  # fmt: skip


def training(config: TrainConfig, size: Conversation, mesh: Mesh) -> Program:
    """One step of a training run: forward, backward, optimiser; parameters in float32.

    Args:
        config: the run; `batch` and `mesh` are read from it.
        size: of every conversation.
        mesh: devices of ``config.mesh``.
    """
    state, specs, rule = trained(config)
    batch = _by_batch(batch_shapes(config.model, config.batch, size), mesh)
    return Program(
        name="train",
        function=loop.make_train_step(config, rule, mesh),
        arguments=(placed(state, specs, mesh), batch),
        mesh=mesh,
        state=device_bytes(state, specs, config.mesh),
        weights=0,
    )


def trained(config: TrainConfig) -> tuple[TrainState, TrainState, Any]:
    """Shapes and partition specs of a training state, and the optimiser."""
    params = {k: v for k, v in abstract_params(config.model).items() if k != "vocoder"}
    rule = optimizer.make(config.optimizer, config.steps)
    state = TrainState(
        params=params,
        mean=params,
        moments=jax.eval_shape(rule.init, params),
        step=jax.ShapeDtypeStruct((), jnp.int32),
    )
    return state, loop.state_specs(state, config), rule


def _by_batch(tree: Any, mesh: Mesh) -> Any:
    place: NamedSharding = sharding.by_batch(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )
