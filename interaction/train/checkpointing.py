"""Checkpoints of a training: the state, wherever it lies, and the place in the data.

In: a folder, a state, the batches. Out: Orbax checkpoints, written while training goes on, that
restore on any mesh and any number of processes: arrays are stored whole, and the place in the data
is the number of the next record of the one global order (`interaction.data.order`).
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

KEPT = 2


def manager(folder: pathlib.Path) -> ocp.CheckpointManager:
    """The checkpoints below `folder`; every process of the job must open it.

    Saving copies the arrays to the host and returns; files are written by a thread. A failure
    there is raised by the next save or by closing. A checkpoint appears under its name only when
    all processes have written their part.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(folder, options=options)


def restore(checkpoints: ocp.CheckpointManager, state: Any, batches: Any, size: int) -> Any:
    """The last checkpoint's state, with the data moved to where it was; or `state` as it is.

    Args:
        checkpoints: from `manager`.
        state: pytree whose arrays lie where the restored ones shall lie; any mesh.
        batches: their `set_state` is called.
        size: rows of a global batch. Checkpoints of the time before the place in the data was one
            number are continued at their step times this.
    """
    latest = checkpoints.latest_step()
    if latest is None:
        return state

    def abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    restored = checkpoints.restore(
        latest,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(abstract, state)),
            data=ocp.args.JsonRestore(),
        ),
    )
    place = restored["data"]
    if "workers_state" in place or "next_index" in place:  # Grain's own, of one iterator
        place = {"record": latest * size}
    batches.set_state(place)
    logging.info("resumed at step %d, data at %s", latest, place)
    return restored["state"]


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any, batches: Any) -> None:
    """Begins to save `state` under `step`, unless that is there; every process must call it."""
    if checkpoints.latest_step() == step:
        return
    checkpoints.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(batches.get_state()),
        ),
    )
