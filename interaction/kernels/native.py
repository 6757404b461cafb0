"""Live calls on CPU in C++: products, experts and attention that read stacks where they lie.

In: what `streamed.project`, `experts.mix` and `attention_blocks.attend_in_cache` take. Out: the
same to rounding, on one core. XLA on CPU copies a slice of a stack before it multiplies it, so
weights are read, written and read again; the loops in `native_*.cc` read them once. They are
compiled for this machine when they are first asked for (`Implementation.NATIVE`), by the C++
compiler that `CXX` names or ``g++``, and kept in the user's cache folder; XLA calls them through
its foreign function interface (https://docs.jax.dev/en/latest/ffi.html). Exported programs do not
use them.
"""

import ctypes
import functools
import hashlib
import importlib
import math
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading

import jax
import jax.numpy as jnp
import numpy as np

from interaction.shapes import Array, Float, Int

HERE = pathlib.Path(__file__).parent
SOURCES = sorted(HERE.glob("native_*.cc"))
HEADERS = sorted(HERE.glob("native_*.h"))
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-w")
TARGETS = (
    "interaction_project", "interaction_experts", "interaction_attention",
    "interaction_train_product", "interaction_train_experts", "interaction_train_experts_gradient",
    "interaction_train_attention", "interaction_train_attention_gradient",
    "interaction_train_convolution", "interaction_train_convolution_gradient",
)  # fmt: skip


_ONCE = threading.Lock()
MATRIX_TYPES = (jnp.float32, jnp.bfloat16, jnp.int8)


class NativeError(ValueError):
    """The library cannot be built here."""


def cache_folder() -> pathlib.Path:
    """Where built libraries are kept: ``interaction`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    kept = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(kept) if kept else pathlib.Path.home() / ".cache") / "interaction"


def asked_compiler() -> str:
    """The compiler as it is called: ``CXX`` of the environment, else ``g++``."""
    return os.environ.get("CXX", "g++")


def compiler() -> list[str] | None:
    """Its path and first arguments; None: it is not on PATH."""
    name, *arguments = shlex.split(asked_compiler())
    found = shutil.which(name)
    return None if found is None else [found, *arguments]


def build(folder: pathlib.Path | None = None) -> pathlib.Path:
    """Compiles the sources for this processor unless that has been done.

    Args:
        folder: where the library goes; None: `cache_folder`.

    Returns:
        Its path; the name holds a digest of sources, compiler, jax and processor.

    Raises:
        NativeError: there is no compiler, or it failed.
    """
    found = compiler()
    if found is None:
        raise NativeError(
            f"implementation=NATIVE needs a C++ compiler; CXX={asked_compiler()} was not found on "
            "PATH (Debian: apt install g++). REFERENCE runs without one."
        )
    version = subprocess.run([*found, "--version"], capture_output=True, check=True).stdout
    facts = repr((version, jax.__version__, _processor(), FLAGS)).encode()
    code = [path.read_bytes() for path in (*SOURCES, *HEADERS)]
    digest = hashlib.sha256(b"\0".join([facts, *code]))
    folder = cache_folder() if folder is None else folder
    library = folder / f"native-{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = pathlib.Path(scratch) / "native.so"
        sources = [str(path) for path in SOURCES]
        command = [*found, *FLAGS, f"-I{jax.ffi.include_dir()}", *sources, "-o", str(made)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise NativeError(f"{' '.join(command)} failed:\n{ran.stderr[-2000:]}")
        made.replace(library)  # at once, so that another process never sees half of it
    return library


def _processor() -> str:
    """What ``-march=native`` depends on."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()} {flags}"


@functools.cache
def _registered() -> None:
    """Builds, loads and makes the functions known to XLA."""
    library = ctypes.CDLL(str(build()))
    library.interaction_use_sgemm(ctypes.c_void_p(_sgemm()))
    for name in TARGETS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")


def _sgemm() -> int:
    """Address of scipy's float32 matrix product."""
    address, name = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_GetName
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    capsule = importlib.import_module("scipy.linalg.cython_blas").__pyx_capi__["sgemm"]
    return address(capsule, name(capsule))


def call(name: str, shapes: tuple[tuple[int, ...], ...], *arrays: Array, **attributes) -> list:
    """One of `TARGETS` in a traced function: float32 results of `shapes`.

    Raises:
        NativeError: the library cannot be built, or jax does not run on CPU.
    """
    if jax.default_backend() != "cpu":
        raise NativeError(f"implementation=NATIVE is for CPU; jax runs on {jax.default_backend()}")
    with _ONCE:  # programs are traced by several threads
        _registered()
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return list(jax.ffi.ffi_call(name, results)(*arrays, **attributes))


def _or_nothing(x: Array | None) -> Array:
    """The array as float32; none is an empty one."""
    return jnp.zeros((0,), jnp.float32) if x is None else x.astype(jnp.float32)


def _check_types(what: str, *arrays: Array, allowed=MATRIX_TYPES) -> None:
    types = [str(each.dtype) for each in arrays]
    if len(set(types)) > 1:
        raise ValueError(f"{what} must be of one type, they are {', '.join(types)}")
    if arrays[0].dtype not in allowed:
        names = ", ".join(jnp.dtype(each).name for each in allowed)
        raise ValueError(f"{what} must be one of {names}, not {types[0]}")


def project(x: Array, stack: Array, index: Array, scale: Array | None, *, contract: int) -> Array:
    """`streamed.project` with row `index` of `stack`; `scale` of an int8 stack."""
    _check_types("stack", stack)
    lead = x.shape[: x.ndim - contract]
    inputs = math.prod(x.shape[x.ndim - contract :])
    outputs = stack.shape[1 + contract :]
    shape = (math.prod(lead), math.prod(outputs))
    rows = x.reshape(shape[0], inputs).astype(jnp.float32)
    flat = stack.reshape(stack.shape[0], inputs, shape[1])
    (y,) = call("interaction_project", (shape,), rows, flat, index, _or_nothing(scale))
    return y.reshape(*lead, *outputs).astype(x.dtype)


def experts(
    x_MD: Float[Array, "M D"],
    chosen_MA: Int[Array, "M A"],
    weights_MA: Float[Array, "M A"],
    gate: Float[Array, "L E D F"],
    up: Float[Array, "L E D F"],
    down: Float[Array, "L E F D"],
    *,
    layer: Array,
    blocks=None,
    cost=None,
    scales: tuple[Array, Array, Array] | None = None,
) -> Float[Array, "M D"]:
    """`experts.mix` of one layer: touched experts in turn, each on the rows that chose it."""
    del blocks, cost
    _check_types("gate, up and down", gate, up, down)
    scale_of = [_or_nothing(scale) for scale in scales or (None, None, None)]
    (mixed,) = call(
        "interaction_experts", (x_MD.shape,), x_MD.astype(jnp.float32), chosen_MA.astype(jnp.int32),
        weights_MA.astype(jnp.float32), gate, up, down, *scale_of, layer,
    )  # fmt: skip
    return mixed.astype(x_MD.dtype)


def attend(
    query_BTNH: Float[Array, "B T N H"],
    key_LBSKH: Float[Array, "L B S K H"],
    value_LBSKH: Float[Array, "L B S K H"],
    layer: Array,
    bias_BTNQ: Float[Array, "B T N Q"] | None,
    *,
    queries: tuple[Array, Array],
    keys: tuple[Array, Array],
    scale: float,
    window: int | None,
    length_scale_BT: Float[Array, "B T"] | None,
) -> Float[Array, "B T N H"]:
    """`attention_blocks.attend_in_cache`.

    Args:
        query_BTNH, key_LBSKH, value_LBSKH, layer, bias_BTNQ, scale, length_scale_BT: as there.
        queries: positions and orders int32 ``[B, T]``.
        keys: the same of the cache's slots ``[B, S]``.
        window: slots that a sliding layer sees; None: all.
    """
    _check_types("keys and values", key_LBSKH, value_LBSKH, allowed=(jnp.float32, jnp.bfloat16))
    if length_scale_BT is None:
        length_scale_BT = jnp.ones(query_BTNH.shape[:2], jnp.float32)
    (out,) = call(
        "interaction_attention", (query_BTNH.shape,), query_BTNH.astype(jnp.float32), key_LBSKH,
        value_LBSKH, _or_nothing(bias_BTNQ), *queries, *keys,
        length_scale_BT.astype(jnp.float32), layer,
        scale=np.float32(scale), window=window or 0,
    )  # fmt: skip
    return out.astype(query_BTNH.dtype)
