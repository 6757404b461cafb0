"""Which code computes a kernel, and what it costs.

In: nothing. Out: `Implementation`, asked for by name and never replaced by another; `Count`, the
bytes and operations of one call, which is both the compiler's `cost_estimate` and what the bench
divides by; and `CHIPS`, the published peaks that a roofline needs.
"""

import dataclasses
import enum

from jax.experimental import pallas as pl


class Implementation(enum.Enum):
    """Who computes.

    Attributes:
        REFERENCE: plain jnp, the definition; any platform.
        PALLAS_TPU: Pallas through Mosaic, for TPU.
        PALLAS_GPU: Pallas through Triton, for NVIDIA GPUs. Triton and not Mosaic GPU, because
            these kernels wait for memory and not for tensor cores, read keys at a stride of all
            heads, look biases up one element at a time (plain masked pointer loads), and run on
            GPUs older than Hopper and in an interpreter without one. The price: jax 0.11.2, which
            this project is fixed to, warns that a later jax will drop Triton from Pallas, and
            exporting needs a disabled safety check (`tests/test_kernels_compile.py`).
        NATIVE: C++ through XLA's foreign function interface, for one CPU core (`native`). Needs a
            C++ compiler when it is first used; Mosaic and Triton have no CPU.
        TOUCHED: experts only: a loop over the experts that some row chose; any platform, for CPU.
        BLOCKS: experts only: rows sorted by expert, a loop over blocks of them; the same.
        GROUPED: experts only: grouped matrix products on sorted rows, for TPU.
        HOISTED: flow head only: what no step changes is made before the first; any platform.
    """

    REFERENCE = "reference"
    PALLAS_TPU = "pallas_tpu"
    PALLAS_GPU = "pallas_gpu"
    NATIVE = "native"
    TOUCHED = "touched"
    BLOCKS = "blocks"
    GROUPED = "grouped"
    HOISTED = "hoisted"


def unknown(kernel: str, asked: Implementation, known: tuple[Implementation, ...]) -> ValueError:
    """The error of a kernel asked for an implementation that it does not have."""
    names = ", ".join(each.name for each in known)
    return ValueError(f"implementation={asked.name} does not exist for {kernel}; it has {names}")


@dataclasses.dataclass(frozen=True)
class Count:
    """Bytes and operations of one call.

    Attributes:
        bytes: read from and written to main memory, each array once.
        flops: multiplications and additions, two per multiply-add.
        transcendentals: exponentials.
    """

    bytes: int
    flops: int
    transcendentals: int = 0

    def estimate(self) -> pl.CostEstimate:
        """The same for the compiler's scheduler."""
        return pl.CostEstimate(
            flops=self.flops,
            transcendentals=self.transcendentals,
            bytes_accessed=self.bytes,
        )

    def seconds(self, chip: "Chip") -> float:
        """The least time on `chip`: whichever of memory and arithmetic takes longer (computed)."""
        return max(self.bytes / chip.bytes_per_second, self.flops / chip.flops_per_second)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of one device as JAX sees it (one core of a two-core chip).

    Attributes:
        bytes_per_second: of main memory.
        flops_per_second: dense bfloat16.
        fast_memory: bytes of memory that a TPU kernel lays out itself (VMEM); 0 for GPUs.
    """

    bytes_per_second: float
    flops_per_second: float
    fast_memory: int

    def balance(self, bytes_per_number: int = 2) -> float:
        """Rows of a matrix product ``[rows, n] @ [n, m]`` at which arithmetic takes as long as
        reading the matrix: ``2 rows n m / flops_per_second = n m bytes_per_number /
        bytes_per_second``."""
        return self.flops_per_second * bytes_per_number / (2 * self.bytes_per_second)


MEBIBYTE = 1 << 20

# Makers' data sheets; the TPU rows are also those of `jax.experimental.pallas.tpu.get_tpu_info`.
CHIPS = {
    "v5e": Chip(8.20e11, 1.97e14, 128 * MEBIBYTE),
    "v5p": Chip(2.46e12, 4.59e14, 64 * MEBIBYTE),
    "v6e": Chip(1.64e12, 9.20e14, 128 * MEBIBYTE),
    "tpu7x": Chip(3.70e12, 1.155e15, 64 * MEBIBYTE),
    "h200": Chip(4.80e12, 9.89e14, 0),
}
