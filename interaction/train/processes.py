"""The processes of one training: how they find each other, and what is whose.

In: the environment, a sharding. Out: a joined job, the rows of the batch that this process reads,
arrays laid over all processes. A run alone needs nothing of it and finds everything unchanged.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

# A process that was killed is noticed by the others after this long at the latest; most often at
# once, because its connections break.
HEARTBEAT_SECONDS = 30
SKYPILOT_PORT = 8476
# How long processes wait for each other where one may have compiled for longer than another: a
# collective is given up after half a minute (Gloo, on CPU).
MEETING_SECONDS = 1200
_OWN = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
# Variables that name all hosts of a TPU slice, and a cluster scheduler's number of processes.
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


def start(environment: Mapping[str, str] = os.environ) -> int:
    """Joins the other processes of this job; must come before anything is computed.

    * ``COORDINATOR_ADDRESS`` (host:port of process 0), ``NUM_PROCESSES`` and ``PROCESS_ID``, if
      one of them is set: just these.
    * SkyPilot's variables, on more than one node: one process per node.
    * SLURM with more than one task, a TPU slice of more than one host (GKE names them; on plain
      TPU machines set ``NUM_PROCESSES=auto``): JAX finds the rest itself.

    Returns:
        Processes in the job as far as the environment tells: 1 where there is no job, or on TPU.

    Raises:
        ValueError: the variables do not fit each other; names them.
    """
    found = arguments(environment)
    if found is None:
        return 1
    if not jax.distributed.is_initialized():
        # Signals are handled in `train.border`, SIGTERM and others alike.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **found)
    return int(found.get("num_processes", environment.get("SLURM_NTASKS", 1)))


def arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None: this process is alone."""
    given = {name: environment[name] for name in _OWN if environment.get(name)}
    if given == {"NUM_PROCESSES": "auto"}:
        return {}
    if given:
        return _explicit(given)
    if int(environment.get("SKYPILOT_NUM_NODES", 1)) > 1:
        first = environment["SKYPILOT_NODE_IPS"].split()[0]
        return _explicit(
            {
                "COORDINATOR_ADDRESS": f"{first}:{SKYPILOT_PORT}",
                "NUM_PROCESSES": environment["SKYPILOT_NUM_NODES"],
                "PROCESS_ID": environment["SKYPILOT_NODE_RANK"],
            }
        )
    in_step = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment
    if in_step and int(environment.get("SLURM_NTASKS", 1)) > 1:
        return {}
    if any("," in environment.get(name, "") for name in _TPU_HOSTS):
        return {}
    return None


def _explicit(given: Mapping[str, str]) -> dict[str, Any] | None:
    missing = [name for name in _OWN if name not in given]
    if missing:
        raise ValueError(f"{', '.join(given)} is set but {', '.join(missing)} is not")
    try:
        count, own = int(given["NUM_PROCESSES"]), int(given["PROCESS_ID"])
    except ValueError:
        raise ValueError(
            f"NUM_PROCESSES={given['NUM_PROCESSES']!r} and PROCESS_ID={given['PROCESS_ID']!r} "
            "must be whole numbers"
        ) from None
    if not 0 <= own < count:
        raise ValueError(f"PROCESS_ID={own} must lie in 0..{count - 1}, NUM_PROCESSES={count}")
    address = given["COORDINATOR_ADDRESS"]
    return {"coordinator_address": address, "num_processes": count, "process_id": own}


def is_first() -> bool:
    """Whether this process writes what is written once: metrics, exported parameters."""
    return jax.process_index() == 0


def check_mesh(mesh: Mesh) -> None:
    """Every process must have a part of the mesh, or it would wait for ever.

    Raises:
        ValueError: one has none; names the numbers.
    """
    has = {device.process_index for device in mesh.devices.flat}
    if len(has) != jax.process_count():
        raise ValueError(
            f"a mesh of {mesh.devices.size} devices reaches {len(has)} of "
            f"{jax.process_count()} processes; there are {jax.device_count()} devices in all"
        )


def rows(sharding: NamedSharding, size: int) -> slice:
    """The rows of a global batch that this process reads.

    Args:
        sharding: of a batch, whose leading axis is split.
        size: rows of the global batch, B.

    Raises:
        ValueError: they are not one stretch.
    """
    places = sharding.addressable_devices_indices_map((size,))
    stretches = sorted({place[0].indices(size)[:2] for place in places.values() if place})
    start, stop = stretches[0]
    for first, last in stretches[1:]:
        if first > stop:
            raise ValueError(f"rows {stretches} of {size} are not one stretch; change the mesh")
        stop = max(stop, last)
    return slice(start, stop)


def placed(batch: Any, sharding: NamedSharding, size: int) -> Any:
    """The global batch on the devices, of which each process gives its `rows`.

    Args:
        batch: pytree of host arrays, their leading axis this process's rows.
        sharding: of the global batch.
        size: rows of the global batch, B.
    """
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    def place(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, leaf, (size, *leaf.shape[1:]))

    return jax.tree.map(place, batch)


def laid(tree: Any, shardings: Any) -> Any:
    """`tree`, which every process has whole or has its part of, on the devices.

    Each process takes what its devices hold; nothing is sent, and nothing compared, as
    `jax.device_put` does by gathering every leaf.

    Args:
        tree: arrays, the same on all processes, or laid over all of them already.
        shardings: where each lies.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree, shardings)


def meet(where: str) -> None:
    """Waits until every process of the job is here; all of them must call it."""
    if jax.process_count() > 1:
        wait = ocp.multihost.get_barrier_sync_fn()
        wait(key=where, timeout_ms=1000 * MEETING_SECONDS)


def compile_together(function: Any, *arguments: Any) -> None:
    """Compiles a jitted function before anyone runs it, for it may wait for the others inside."""
    if jax.process_count() > 1:
        function.lower(*arguments).compile()
        meet("compiled")


def whole(tree: Any) -> Any:
    """`tree` with every array readable on this host; all processes must call it.

    Memory: the whole tree, on every process, if it is split.
    """
    if jax.process_count() == 1:
        return tree

    def gather(leaf: jax.Array) -> Any:
        if leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather, tree)


def of_first(value: float) -> float:
    """The first process's `value`; all processes must call it."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def log_job() -> None:
    """One line: which process this is, and what it sees."""
    if jax.process_count() > 1:
        logging.info(
            "process %d of %d, %d of %d devices",
            jax.process_index(), jax.process_count(),
            jax.local_device_count(), jax.device_count(),
        )  # fmt: skip
