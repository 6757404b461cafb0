"""How tests run kernels on a machine without TPU or GPU.

In: an implementation, or the name of a TPU. Out: a context in which its Pallas calls are
interpreted; a function compiled for a TPU that is not there.
"""

import contextlib
import os
from unittest import mock

import jax
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AbstractDevice, AbstractMesh, SingleDeviceSharding

from interaction.kernels import native
from interaction.kernels.implementation import Implementation

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}


@contextlib.contextmanager
def interpreted(implementation: Implementation, **params):
    """NATIVE is compiled, where there is a compiler, or the test skips; Pallas calls inside run by
    interpretation: TPU's own, with memories and transfers emulated
    (`params` of `InterpretParams`), or the generic one for Triton kernels."""
    if implementation is Implementation.PALLAS_GPU:
        plain = pl.pallas_call
        call = lambda *arguments, **named: plain(*arguments, **{**named, "interpret": True})
        with mock.patch.object(pl, "pallas_call", call):
            yield
    elif implementation is Implementation.NATIVE:
        needs_compiler()
        yield
    elif implementation in (Implementation.PALLAS_TPU, Implementation.GROUPED):
        with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(**params)):
            yield
    else:
        yield


def abstract_mesh(kind: str, platform: str, cores: int = 1) -> AbstractMesh:
    """A mesh of no axes that tells kernels which device to lower for."""
    return AbstractMesh((), (), abstract_device=AbstractDevice(kind, cores, platform))


def compile_for_tpu(function, shapes, chip: str, *, donate: tuple[int, ...] = ()):
    """Compile `function` of `shapes` (arrays' ``ShapeDtypeStruct``, nested as its arguments) for
    one core of `chip`, giving the arguments `donate` away; the compiled program. Skips where
    libtpu is not installed."""
    pytest.importorskip("libtpu", reason="needs the tpu-compile extra")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[chip])
    device = topology.devices[0]
    place = SingleDeviceSharding(device)
    put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    with jax.sharding.use_abstract_mesh(abstract_mesh(device.device_kind, "tpu")):
        lowered = jax.jit(function, donate_argnums=donate).trace(*jax.tree.map(put, shapes))
        return lowered.lower(lowering_platforms=("tpu",)).compile()


def flow_params(number, *, chunk: int, state: int, features: int, width: int, blocks: int) -> dict:
    """The flow head's parameters, each as ``number(*shape)`` makes it; `chunk` numbers of mel."""
    return {
        "input": number(chunk, width),
        "condition": number(state, width),
        "time_in": number(features, width),
        "time_out": number(width, width),
        "blocks": {
            "modulation": number(blocks, width, 3 * width),
            "modulation_bias": number(blocks, 3 * width),
            "up": number(blocks, width, 2 * width),
            "down": number(blocks, 2 * width, width),
        },
        "final_modulation": number(width, 2 * width),
        "output": number(width, chunk),
    }


def needs_compiler() -> None:
    """Skips the test where no C++ compiler is."""
    if native.compiler() is None:
        pytest.skip(f"no C++ compiler: CXX={native.asked_compiler()} is not on PATH")


def needs_gpu() -> None:
    """Skips the test where jax runs on no GPU."""
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU: run with JAX_PLATFORMS=cuda on a machine that has one")


def races_found() -> bool:
    """Whether the last interpretation with ``detect_races=True`` found any."""
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter

    assert interpreter.races is not None, "nothing was interpreted with detect_races=True"
    return interpreter.races.races_found
