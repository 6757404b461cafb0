"""The training loop of the interaction model.

In: a `TrainConfig` and a working folder. Out: Orbax checkpoints with the state of the data inside,
``metrics.jsonl``, and at the end the averaged parameters as a native checkpoint. A run that was
stopped resumes from its last checkpoint, with the very batch that would have come next; a loss
that is not a number stops the run and names the step. The same loop runs in one process or in
each of many (`train.processes`); on SIGTERM and SIGUSR2 it saves at a border between steps and
ends with a status that asks to be run again (`train.border`).
"""

import dataclasses
import enum
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import flags, logging

from interaction import configuration, sharding
from interaction.data.config import DataConfig
from interaction.data.curriculum.sessions import CurriculumConfig
from interaction.data.pipeline import batches as make_batches
from interaction.data.recall import RecallConfig
from interaction.data.shards.read import ShardsConfig
from interaction.models.checkpoint import save_model
from interaction.models.config import InteractionConfig
from interaction.models.parameters import param_axes
from interaction.sharding import MeshConfig
from interaction.train import checkpointing, losses, optimizer, processes, start
from interaction.train import gradient as gradients
from interaction.train.border import Border, Interruption, Stopped
from interaction.train.losses import LossConfig
from interaction.train.optimizer import OptimizerConfig
from interaction.train.recorder import Recorder
from interaction.train.watch import Watch
from interaction.types import Batch, pytree


class Compute(enum.Enum):
    """Type of parameters in the forward and backward pass."""

    AS_STORED = "as_stored"
    BFLOAT16 = "bfloat16"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        model: the model.
        data: the conversations.
        curriculum: the sessions of the curriculum, in place of conversations.
        recall: the sessions of the memory experiment, in place of conversations.
        shards: sessions that were made beforehand; alone, or a share beside the curriculum.
        loss: weights of the losses.
        optimizer: the optimiser.
        steps: steps in all.
        batch: conversations per step, B.
        accumulate: parts of each batch that are computed one after the other, so that only one
            part's activations are there (`train.gradient`): the same step, but for rounding.
        workers: processes that prepare data.
        mesh: devices that share each batch and the parameters, those of all processes together;
            on CPU each is a thread of its process.
        capacity_factor: where experts are split over devices: room for so many times the mean
            number of pairs of a slot and an expert that one device sends another; what finds none
            is dropped and counted in the metrics. None: room for all.
        seed: of parameters and noise (the data have their own).
        vocoder: file of a trained vocoder, which is taken over as it is; empty: a fresh one.
        start: native checkpoint to start from, or several with commas between, whose mean it is;
            empty: fresh parameters.
        release: released Inkling checkpoint to start from (`models.release`), in place of `start`;
            what trains is float32, the rest as released.
        compute: type of parameters in the forward and backward pass.
        log_every: steps between lines of metrics.
        checkpoint_minutes: minutes between checkpoints.
        validate_every: steps between looks at what the model does (0: none): figures that choose
            ``best``, and a session to hear and see, of another behaviour each time.
    """

    model: InteractionConfig
    data: DataConfig = DataConfig()
    curriculum: CurriculumConfig | None = None
    recall: RecallConfig | None = None
    shards: ShardsConfig | None = None
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int = 1000
    batch: int = 16
    accumulate: int = 1
    workers: int = 1
    mesh: MeshConfig = MeshConfig()
    capacity_factor: float | None = None
    seed: int = 0
    vocoder: str = ""
    start: str = ""
    release: str = ""
    compute: Compute = Compute.AS_STORED
    log_every: int = 20
    checkpoint_minutes: float = 5.0
    validate_every: int = 0

    def __post_init__(self):
        if self.start and self.release:
            raise ValueError(f"start={self.start} and release={self.release} are both given")
        if self.release and self.validate_every:
            raise ValueError(
                f"validate_every={self.validate_every} needs the model in one process, and one "
                f"that starts from release={self.release} is gathered nowhere"
            )
        if self.curriculum is not None and self.recall is not None:
            raise ValueError("curriculum and recall are both given; a run has one kind of sessions")
        if self.recall is not None and self.validate_every:
            raise ValueError(
                f"validate_every={self.validate_every}: sessions of recall are scored by "
                "experiments/recall.py alone"
            )
        if self.batch % self.mesh.batch_shards:
            raise ValueError(
                f"mesh.batch_shards={self.mesh.batch_shards} does not divide batch={self.batch}"
            )
        if self.accumulate < 1 or self.batch // self.mesh.batch_shards % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide the batch={self.batch} over "
                f"mesh.batch_shards={self.mesh.batch_shards}"
            )
        stack = self.model.transformer
        if stack.experts % self.mesh.expert:
            raise ValueError(
                f"mesh.expert={self.mesh.expert} does not divide experts={stack.experts}"
            )
        if self.capacity_factor is not None and self.mesh.expert == 1:
            raise ValueError(
                f"capacity_factor={self.capacity_factor} needs experts that are split over "
                f"devices, mesh.expert={self.mesh.expert}"
            )


@pytree
class TrainState:
    """What training carries from step to step: all but the vocoder, which stays as it is.

    Attributes:
        params: parameters, frozen ones (`optimizer.frozen`) among them.
        mean: running mean of those that train.
        moments: optimiser state of those that train.
        step: int32 steps done.
    """

    params: Any
    mean: Any
    moments: Any
    step: Any


def train(config: TrainConfig, workdir: str | pathlib.Path) -> pathlib.Path:
    """Run or resume a training.

    Args:
        config: the run.
        workdir: folder for checkpoints and metrics; made if absent.

    Returns:
        The folder of the final native checkpoint (averaged parameters).

    Raises:
        FloatingPointError: a loss is not a number; names the step.
        Stopped: a signal asked for it; the state is saved.
    """
    with Interruption() as interruption:
        return _train(config, pathlib.Path(workdir).absolute(), interruption)


def _train(config: TrainConfig, workdir: pathlib.Path, interruption: Interruption) -> pathlib.Path:
    count = processes.start()

    if not flags.FLAGS.is_parsed():  # Grain's worker processes read absl flags
        flags.FLAGS.mark_as_parsed()
    logging.set_verbosity(logging.INFO)

    # ------------------------------------------------------------------ state and data
    if config.mesh.devices > 1:
        jax.config.update("jax_num_cpu_devices", max(config.mesh.devices // count, 1))
    processes.log_job()
    mesh = sharding.make_mesh(config.mesh)
    processes.check_mesh(mesh)
    if processes.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(configuration.to_dict(config), indent=1))
    params = start.from_release(config, mesh) if config.release else start.parameters(config)
    vocoder_params = params.pop("vocoder")
    rule = optimizer.make(config.optimizer, config.steps)
    moving, _ = optimizer.split(config.optimizer, params)
    state = TrainState(
        params=params,
        mean=jax.tree.map(jnp.copy, moving),
        moments=rule.init(moving),
        step=jnp.int32(0),
    )
    made = None if config.shards else config.data
    data = config.recall or config.curriculum or made
    rows = processes.rows(sharding.by_batch(mesh), config.batch)
    batches = make_batches(
        data, size=config.batch, workers=config.workers, shards=config.shards, rows=rows
    )
    state = processes.laid(state, sharding.shardings(mesh, state_specs(state, config)))
    processes.meet("state")
    with checkpointing.manager(workdir / "checkpoints") as manager:
        state = checkpointing.restore(manager, state, batches, config.batch)
        border = Border(interruption, 60 * config.checkpoint_minutes)
        state = _steps(config, workdir, state, batches, mesh, rule, vocoder_params, manager, border)
    return _export(config, state, vocoder_params, workdir / "final")


def _steps(
    config, workdir, state, batches, mesh, rule, vocoder_params, manager, border
) -> TrainState:
    """From the state's step to the last; the last state, saved."""
    step_function = make_train_step(config, rule, mesh)
    first = processes.is_first()
    with Recorder(workdir, steps=config.steps, every=config.log_every, writes=first) as recorder:
        watch = Watch(config.model, recorder, behaviours=config.curriculum is not None)
        begins = int(state.step)
        for step in range(begins, config.steps):
            waiting = time.monotonic()
            batch = processes.placed(next(batches), sharding.by_batch(mesh), config.batch)
            recorder.waited += time.monotonic() - waiting
            with jax.set_mesh(mesh):
                if step == begins:
                    processes.compile_together(step_function, state, batch)
                state, metrics = step_function(state, batch)
            recorder.add(step + 1, metrics)
            validates = config.validate_every and (step + 1) % config.validate_every == 0
            decision = border.cross()
            if validates or decision.save or decision.stop:
                recorder.flush()  # a state that is not finite is never kept
            if decision.stop:
                checkpointing.save(manager, step + 1, state, batches)
                raise Stopped(step + 1)
            if validates:
                mean = dict(averaged(config, state), vocoder=vocoder_params)
                if watch.look(step + 1, mean, (step + 1) // config.validate_every):
                    _export(config, state, vocoder_params, workdir / "best")
            if decision.save:
                checkpointing.save(manager, step + 1, state, batches)
                _export(config, state, vocoder_params, workdir / "latest")
        recorder.flush()
    checkpointing.save(manager, config.steps, state, batches)
    return state


def make_train_step(config: TrainConfig, rule, mesh) -> Callable:
    """The jitted ``(state, batch) -> (state, metrics)``; the state is donated.

    It is the step of one device, laid over the mesh; to be traced under ``jax.set_mesh(mesh)``.
    """

    def laid(tree):
        specs = state_specs(tree, config)
        return jax.lax.with_sharding_constraint(tree, sharding.shardings(mesh, specs))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        moving, still = optimizer.split(config.optimizer, state.params)
        whole = losses.counts(batch, config.model, config.loss)

        def loss(moving, drawn):
            params = optimizer.join(moving, still)
            if config.compute is Compute.BFLOAT16:
                params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
            return losses.part(
                params, drawn, whole, config.model, config.loss,
                capacity_factor=config.capacity_factor,
            )  # fmt: skip

        drawn = losses.draw(batch, key, config.loss)
        gradient, metrics = gradients.gradient(loss, moving, drawn, config.accumulate, laid)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        updates, moments = rule.update(gradient, state.moments, moving)
        moving: dict = optax.apply_updates(moving, updates)  # type: ignore[assignment]
        params = optimizer.join(moving, still)
        params = optimizer.balance(params, metrics["load"], config.optimizer.balance_rate)
        moving, _ = optimizer.split(config.optimizer, params)
        mean = optimizer.average(state.mean, moving, config.optimizer.average, state.step)
        next_state = TrainState(params=params, mean=mean, moments=moments, step=state.step + 1)
        return laid(next_state), metrics

    return jax.jit(train_step, donate_argnums=0)


def state_specs(state: Any, config: TrainConfig) -> Any:
    """Partition specs of a state of training, or of any part of it; arrays or shapes."""
    axes = param_axes(config.model)
    return sharding.parameter_specs(state, axes, config.mesh, sharding.Purpose.TRAINING)


def averaged(config: TrainConfig, state: TrainState) -> dict:
    """The running mean, and what never trains as it is; all processes must call it."""
    _, still = optimizer.split(config.optimizer, state.params)
    return processes.whole(optimizer.join(state.mean, still))


def _export(config: TrainConfig, state: TrainState, vocoder_params, folder) -> pathlib.Path:
    """The averaged parameters as a checkpoint, written by the first process.

    A model that started from a release is gathered nowhere: it stays in its Orbax checkpoints.
    """
    if config.release:
        return folder.parent / "checkpoints"
    mean = averaged(config, state)
    if processes.is_first():
        save_model(folder, dict(mean, vocoder=vocoder_params), config.model)
    return folder
