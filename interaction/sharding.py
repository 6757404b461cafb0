"""The mesh, and where arrays lie on it.

In: numbers of devices. Out: a `jax.sharding.Mesh` with named axes and the shardings of a training
run. So far there is one axis, ``data``: parameters are the same on every device, each takes its
share of the batch.
"""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"


def data_mesh(devices: int) -> Mesh:
    """A mesh of `devices` along ``data``.

    Raises:
        ValueError: there are fewer devices.
    """
    found = jax.devices()
    if len(found) < devices:
        raise ValueError(f"devices={devices} asked for, this process sees {len(found)}")
    return jax.make_mesh((devices,), (DATA,), devices=found[:devices])


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over ``data``."""
    return NamedSharding(mesh, PartitionSpec(DATA))
