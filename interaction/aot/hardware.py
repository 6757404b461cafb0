"""Accelerators that need not be there: their published figures, and devices to compile for.

In: the name of a slice, as ``v6e:8x8`` (8 by 8 chips), or of GPUs, as ``h200:8`` (one host) and
``h200:4x8`` (four hosts of eight). Out: `Slice`, with devices that programs are compiled for. TPUs
need libtpu, GPUs jax's CUDA plugin; neither needs the device. Peaks that kernels are planned with
are `kernels.implementation.CHIPS`; here are the others.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from interaction.kernels.implementation import CHIPS, Chip

GIB = 1 << 30
# Hand-made: see the file's first lines.
TARGET_CONFIGS = {"h200": pathlib.Path(__file__).parent / "h200_target.textproto"}


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of device as JAX sees it (tpu7x: one of the two cores of a chip).

    Attributes:
        platform: jax's name of it.
        memory: bytes of main memory (HBM).
        link: bytes per second that a device can send to the others of its slice, all its links
            together, one direction.
        per_chip: devices of a chip.
        most: chips of the largest slice that is looked at.
        source: who published memory and link.
    """

    platform: str
    memory: int
    link: float
    per_chip: int
    most: int
    source: str


# Link: half of the published bidirectional figure.
FAMILIES = {
    "v5e": Family("tpu", 16 * GIB, 200e9, 1, 256, "cloud.google.com/tpu/docs/v5e: 16 GB, "
                  "ICI 1600 Gbps"),
    "v5p": Family("tpu", 95 * GIB, 600e9, 1, 512, "cloud.google.com/tpu/docs/v5p: 95 GiB, "
                  "ICI 1200 GBps bidirectional"),
    "v6e": Family("tpu", 32 * GIB, 400e9, 1, 256, "cloud.google.com/tpu/docs/v6e: 32 GB, "
                  "ICI 800 GBps bidirectional"),
    "tpu7x": Family("tpu", 96 * GIB, 300e9, 2, 512, "cloud.google.com/tpu/docs/tpu7x: 192 GiB and "
                    "ICI 1200 GBps bidirectional per chip of two devices"),
    "h200": Family("cuda", 141 * 10**9, 450e9, 1, 64, "nvidia.com, H200 data sheet: 141 GB, "
                   "NVLink 900 GB/s (inside one host)"),
}  # fmt: skip


class DoesNotFit(Exception):
    """The compiler found that a program needs more memory than a device has."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """Devices that are connected.

    Attributes:
        name: as asked for.
        family: key of `FAMILIES` and `CHIPS`.
        shape: chips along each axis of the torus; of GPUs (hosts, GPUs of a host).
    """

    name: str
    family: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> "Slice":
        """The slice of that name.

        Raises:
            ValueError: no such family, or a shape that it does not have.
        """
        match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
        if not match or match[1] not in FAMILIES:
            raise ValueError(
                f"topology={name!r} is not FAMILY:SIZExSIZE with a family of {', '.join(FAMILIES)}"
            )
        shape = tuple(int(size) for size in match[2].split("x"))
        axes = {"v5e": 2, "v6e": 2, "v5p": 3, "tpu7x": 3}.get(match[1])
        if axes is None:
            shape = (1, *shape) if len(shape) == 1 else shape
            axes = 2
        if len(shape) != axes or min(shape) < 1:
            raise ValueError(f"topology={name!r} has {len(shape)} axes, {match[1]} has {axes}")
        return cls(name, match[1], shape)

    @property
    def chips(self) -> int:
        """Chips (GPUs), which is what is paid for."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Devices as JAX counts them."""
        return self.chips * self.known.per_chip

    @property
    def known(self) -> Family:
        """Published figures."""
        return FAMILIES[self.family]

    @property
    def chip(self) -> Chip:
        """Published peaks of a device."""
        return CHIPS[self.family]

    def devices(self) -> Sequence[Any]:
        """Descriptions of the devices, to compile for.

        Raises:
            ValueError: the compiler is not installed, or knows no such slice.
        """
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        from jax.experimental import topologies

        more = {}
        if self.known.platform == "cuda":
            shape = "x".join(str(size) for size in (1, *self.shape))
            config = TARGET_CONFIGS[self.family].read_text()
            more = {"target_config": config, "topology": shape}
        name = self.family if more else self.name
        try:
            found = topologies.get_topology_desc(
                platform=self.known.platform, topology_name=name, **more
            ).devices
        except RuntimeError as error:  # whatever a plugin raises is one
            needs = {"tpu": "libtpu (extra tpu-compile)", "cuda": "jax's CUDA plugin (extra cuda)"}
            raise ValueError(
                f"topology={self.name} cannot be described here; it needs "
                f"{needs[self.known.platform]}: {str(error).splitlines()[0]}"
            ) from error
        if len(found) != self.size:
            raise ValueError(f"topology={self.name} has {len(found)} devices, not {self.size}")
        return found


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Inside, a compiler's complaint about memory is raised as `DoesNotFit`, in one line."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text:
            raise
        said = re.search(r"(Ran out of memory[^\n]*|[^\n]*exceeds[^\n]*)", text)
        raise DoesNotFit((said[0] if said else text.splitlines()[0]).strip()) from error
