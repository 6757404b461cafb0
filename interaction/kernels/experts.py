"""Experts on few rows: read the weights of every touched expert once, and nothing else.

In: rows, each row's chosen experts and their weights, and the stacked expert matrices. Out: each
row's weighted sum of SiLU-gated experts. Shared experts are two more dense matrices and need no
kernel. A live step has 16 to some hundred rows, so reading weights is all its time: the announced
system speaks of gather and GEMV instead of grouped GEMM. `choose` says from static numbers alone
when sorting rows by expert pays.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from interaction.kernels import experts_xla, native
from interaction.kernels.experts_plan import NOBODY
from interaction.kernels.implementation import CHIPS, Count, Implementation, unknown
from interaction.shapes import Array, Float, Int

KNOWN = tuple(each for each in Implementation if each is not Implementation.HOISTED)
READ_INT8 = (Implementation.TOUCHED, Implementation.NATIVE)


@dataclasses.dataclass(frozen=True)
class ExpertBlocks:
    """Block sizes.

    Attributes:
        inner: TPU, GPU: columns of F per block.
        outer: GPU, GROUPED: columns of D per block.
        rows: GPU, BLOCKS, GROUPED: rows of a tile, which share an expert.
        warps, stages: GPU: of each program.
    """

    inner: int = 256
    outer: int = 128
    rows: int = 16
    warps: int = 4
    stages: int = 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)} must be at least 1")


# TPU: three blocks of 256 columns at D = 4096 in bfloat16 are 6 MiB, twice that with the next ones
# on their way. GPU: 16 rows are the least that a tensor core takes. CPU: `experts_xla`.
BLOCKS = {
    Implementation.REFERENCE: ExpertBlocks(),
    Implementation.TOUCHED: ExpertBlocks(),
    Implementation.NATIVE: ExpertBlocks(),
    Implementation.PALLAS_TPU: ExpertBlocks(inner=256),
    Implementation.PALLAS_GPU: ExpertBlocks(inner=64, outer=64, rows=16, warps=4, stages=4),
    Implementation.BLOCKS: ExpertBlocks(rows=4),
    Implementation.GROUPED: ExpertBlocks(inner=512, outer=1024, rows=128),
}

# Rows up to which all rows go through every touched expert (PALLAS_TPU) rather than each expert's
# own rows only (GROUPED). Computed, not measured: below `Chip.balance()` = flops_per_second *
# bytes_per_number / (2 bytes_per_second) rows, multiplying all of them takes no longer than
# reading the weights, and sorting saves nothing; a matrix unit takes 128 rows in any case.
GROUPED_ABOVE = {name: int(CHIPS[name].balance()) for name in ("v5e", "v5p", "v6e", "tpu7x")}


def choose(asked: Implementation, rows: int, experts: int, per_row: int) -> Implementation:
    """The implementation of a live call, from static sizes.

    Args:
        asked: the configuration's: REFERENCE (plain XLA), NATIVE, PALLAS_TPU or PALLAS_GPU,
            whose tiles are each expert's own rows at any count.
        rows: M.
        experts: E.
        per_row: A.
    """
    if asked is Implementation.REFERENCE:
        return experts_xla.choose(rows, experts, per_row)
    if asked is Implementation.PALLAS_TPU and rows > min(GROUPED_ABOVE.values()):
        return Implementation.GROUPED
    return asked


def _runs(implementation: Implementation) -> Callable[..., Array]:
    """Who computes; the kernels of accelerators are imported when they are first asked for."""
    if implementation in (Implementation.PALLAS_TPU, Implementation.GROUPED):
        from interaction.kernels import experts_tpu

        tpu = implementation is Implementation.PALLAS_TPU
        return experts_tpu.experts if tpu else experts_tpu.grouped
    if implementation is Implementation.PALLAS_GPU:
        from interaction.kernels import experts_gpu

        return experts_gpu.experts
    plain = {
        Implementation.REFERENCE: experts_xla.reference,
        Implementation.TOUCHED: experts_xla.touched,
        Implementation.BLOCKS: experts_xla.blocks,
        Implementation.NATIVE: native.experts,
    }
    if implementation not in plain:
        raise unknown("mix", implementation, KNOWN)
    return plain[implementation]


def mix(
    x_MD: Float[Array, "M D"],
    chosen_MA: Int[Array, "M A"],
    weights_MA: Float[Array, "M A"],
    gate: Float[Array, "*L E D F"],
    up: Float[Array, "*L E D F"],
    down: Float[Array, "*L E F D"],
    *,
    implementation: Implementation,
    layer: Int[Array, ""] | int | None = None,
    blocks: ExpertBlocks | None = None,
    scales: tuple[Array, Array, Array] | None = None,
) -> Float[Array, "M D"]:
    """``sum_a weights[m, a] down_e (silu(gate_e x_m) * up_e x_m)`` with ``e = chosen[m, a]``.

    Args:
        x_MD: rows (lanes and slots together).
        chosen_MA: distinct experts of each row; -1: none, as for rows that are not there.
        weights_MA: their weights; meaningless where the choice is none.
        gate, up, down: expert matrices of one layer, or of all layers with `layer`: then they are
            read where they lie, no copy of a layer or of an expert is made.
        implementation: who computes.
        layer: which layer of stacked matrices.
        blocks: block sizes; None: `BLOCKS` of the implementation.
        scales: of int8 matrices, float32 ``[L, E, 1, outputs]`` each (TOUCHED and NATIVE);
            None: the matrices are the weights themselves.

    Returns:
        Mixed rows in the dtype of `x_MD`; zeros where no expert is chosen.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if gate.ndim != (3 if layer is None else 4):
        raise ValueError(f"gate has {gate.ndim} axes with layer={layer}: 3 without a layer, 4 with")
    if gate.shape != up.shape or down.shape != (*gate.shape[:-2], gate.shape[-1], gate.shape[-2]):
        raise ValueError(f"gate {gate.shape}, up {up.shape} and down {down.shape} do not fit")
    if x_MD.shape[1] != gate.shape[-2] or chosen_MA.shape != weights_MA.shape:
        raise ValueError(
            f"rows {x_MD.shape}, chosen {chosen_MA.shape} and weights {weights_MA.shape} do not "
            f"fit gate {gate.shape}"
        )
    weights_MA = jnp.where(chosen_MA == NOBODY, 0.0, weights_MA.astype(jnp.float32))
    if layer is None:
        gate, up, down, layer = gate[None], up[None], down[None], 0
    sizes = BLOCKS[implementation] if blocks is None else blocks
    run = _runs(implementation)
    cost = count(
        rows=x_MD.shape[0], width=gate.shape[2], inner=gate.shape[3],
        reached=min(gate.shape[1], chosen_MA.size), computed=x_MD.shape[0],
        item=gate.dtype.itemsize,
    )  # fmt: skip
    layer = jnp.asarray(layer, jnp.int32)
    of_int8 = {} if scales is None else {"scales": scales}
    if of_int8 and implementation not in READ_INT8:
        names = " and ".join(each.name for each in READ_INT8)
        raise ValueError(f"implementation={implementation.name} reads no int8; {names} do")
    return run(
        x_MD, chosen_MA, weights_MA, gate, up, down, layer=layer, blocks=sizes, cost=cost, **of_int8
    )


def count(
    *, rows: int, width: int, inner: int, reached: int, computed: int, item: int
) -> Count:  # fmt: skip
    """Bytes and operations of one layer's call.

    Three matrices of every reached expert once, ``3 reached D F item``, rows in and out, ``2 M D
    item``; six operations per number of the matrices and computed row, one exponential per inner
    number.

    Args:
        rows, width, inner: M, D, F.
        reached: touched experts; shapes tell only ``min(E, M A)``.
        computed: rows that each reached expert computes: M, or the mean ``M A / reached``.
        item: bytes of a number.
    """
    return Count(
        bytes=3 * reached * width * inner * item + 2 * rows * width * item,
        flops=6 * reached * width * inner * computed,
        transcendentals=reached * inner * computed,
    )


def expected_touched(rows: int, experts: int, per_row: int) -> float:
    """Mean number of touched experts where each row draws its A evenly: ``E (1 - (1 - A/E)^M)``."""
    return experts * (1.0 - (1.0 - per_row / experts) ** rows)


__all__ = [
    "BLOCKS", "GROUPED_ABOVE", "KNOWN", "ExpertBlocks", "choose", "count", "expected_touched",
    "mix",
]  # fmt: skip
