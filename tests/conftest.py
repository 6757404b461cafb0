"""Settings of every test: one thread per worker, promotion of ranks raises, no window, no network.

In: `INTERACTION_MEDIA` and `INTERACTION_SPOKEN_DIGITS`, folders with recordings that are not in
the repository. Out: fixtures for them that skip, with the reason, where they are not set.
"""

import atexit
import os
import shutil
import tempfile

# Two workers share two cores: each computes on one thread. Tests compile much and compute little,
# so programs are not optimised, and fusions are written by the older of XLA's two emitters, which
# has no pipeline of MLIR passes for each: a live step compiles in 4.2 s of a core instead of 11.9.
# Set before jax is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# One run's workers, and the processes that tests start, compile each large program once between
# them: they inherit the folder, which goes with the run. What is the same to the letter is taken.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="compiled_by_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
# Middling programs too: tests make the same one again and again, each with a `jax.jit` of its own.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Devices for tests of meshes; every other test computes on the first. Not by the environment:
# processes that tests start choose for themselves.
jax.config.update("jax_num_cpu_devices", 8)


# Files that compile long. They come first, because the worker that begins one last is waited for,
# and those with the same programs apart, so that the second finds them compiled.
FIRST = (
    "test_stream_equals_forward",
    "test_kernels_attention",
    "test_train",
    "test_memory",
    "test_accumulate",
    "test_export",
    "test_expert_parallel",
    "test_server",
    "test_kernels_live",
    "test_lanes",
    "test_export_platforms",
    "test_serve_command",
    "test_vocoder",
    "test_kernels_experts",
    "test_mesh",
    "test_live_reading",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of `FIRST` first, in that order."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def _folder(variable: str, what: str) -> pathlib.Path:
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip(f"{variable} is not set: no folder with {what}")
    folder = pathlib.Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable}={value} is no folder")
    return folder


@pytest.fixture(scope="session")
def media_dir() -> pathlib.Path:
    """Folder of recordings, videos and pictures (`INTERACTION_MEDIA`)."""
    return _folder("INTERACTION_MEDIA", "recordings and videos")


@pytest.fixture(scope="session")
def digits_dir() -> pathlib.Path:
    """Folder of spoken digits by several people (`INTERACTION_SPOKEN_DIGITS`)."""
    return _folder("INTERACTION_SPOKEN_DIGITS", "spoken digits")
