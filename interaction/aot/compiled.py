"""A program compiled for a slice that is not there, and what the compiler says about it.

In: a `Program`. Out: `Compiled`: memory of one device as the compiler laid it out, its collectives,
kernels and relayout copies, and the memory that is there. Compilers for TPU refuse a program that
does not fit; for GPUs the sum is compared here.
"""

import dataclasses
import re
import time

import jax

from interaction import sharding
from interaction.aot.collectives import Collective, collectives
from interaction.aot.hardware import GIB, DoesNotFit, Slice, memory_errors
from interaction.aot.programs import Program

KERNELS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's memory.

    Attributes:
        arguments: weights, state, inputs.
        aliased: of them, what the outputs are written into.
        outputs: all of them, aliased ones included.
        temporary: everything in between, at its greatest.
        code: the program.
        there: what the device has.
    """

    arguments: int
    aliased: int
    outputs: int
    temporary: int
    code: int
    there: int

    @property
    def used(self) -> int:
        """All together."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.code


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says.

    Attributes:
        fits: whether the program fits into a device's memory.
        why_not: the compiler's words, or ours.
        memory: None where the compiler gave up.
        collectives: see there; a ragged one counts its blocks as full.
        kernels: calls of Pallas kernels in the program's text.
        seconds: that compiling took on this machine, tracing included.
    """

    fits: bool
    why_not: str
    memory: Memory | None
    collectives: tuple[Collective, ...]
    kernels: int
    seconds: float


def compile_program(program: Program, where: Slice, dump: str | None = None) -> Compiled:
    """Compile `program` for `where`.

    Args:
        program: over devices of `where`.
        where: the slice.
        dump: file that the optimised program's text is written to.
    """
    platform, began = where.known.platform, time.monotonic()
    try:
        with jax.set_mesh(program.mesh), memory_errors():
            lowered = program.function.trace(*program.arguments).lower(
                lowering_platforms=(platform,)
            )
            compiled = lowered.compile()
    except DoesNotFit as error:
        return Compiled(False, str(error), None, (), 0, time.monotonic() - began)
    taken = time.monotonic() - began
    text = compiled.as_text()
    if dump:
        with open(dump, "w") as file:
            file.write(text)
    stats = compiled.memory_analysis()
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=max(stats.generated_code_size_in_bytes, 0),
        there=where.known.memory,
    )
    fits = memory.used <= memory.there
    short = f"needs {memory.used / GIB:.2f} GiB of {memory.there / GIB:.2f} GiB"
    layout: dict[str, int] = dict(zip(sharding.AXES, program.mesh.devices.shape, strict=True))
    return Compiled(
        fits=fits,
        why_not="" if fits else short,
        memory=memory,
        collectives=collectives(text, layout, program.unknown_trips),
        kernels=len(re.findall(rf'custom_call_target="{re.escape(KERNELS[platform])}"', text)),
        seconds=taken,
    )
