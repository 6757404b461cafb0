"""Exporting a tiny random model, and inputs for what was exported.

In: parameters and a folder. Out: an artefact with a few buckets; woven inputs of several lanes.
"""

import contextlib
import pathlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from interaction.serving import export
from interaction.serving.export import export_model
from interaction.session.lanes import buckets
from interaction.streams.weave import LaneInput, weave_inputs
from interaction.types import Control, TextIn
from tests.models_for_tests import LIVE as CONFIG
from tests.models_for_tests import LIVE_LANES as LANES

# A program is kept for a machine of so many devices: another process must have as many to find it.
SAME_DEVICES = {"JAX_NUM_CPU_DEVICES": str(jax.config.jax_num_cpu_devices)}


def exported(
    params, folder: pathlib.Path, sizes: slice, *, config=CONFIG, **options
) -> pathlib.Path:
    """An artefact with some of the buckets only: each takes seconds to lower and to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "buckets", lambda config: buckets(config)[sizes])
        export_model(params, config, folder, checkpoint="tiny", **options)
    return folder


@contextlib.contextmanager
def jax_cache_settings_kept():
    """Where compiled programs are kept may be changed inside, and is as it was behind."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir",
             "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()  # jax opens one folder in a process's life, unless told
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def woven(now: int):
    """Sound, video and text in turn, so that both buckets are needed; lanes differ, one idles."""
    rng = np.random.default_rng(now)
    size = buckets(CONFIG)[0 if now % 3 == 0 else 2]
    sound = 0.1 * rng.normal(size=(LANES, CONFIG.grid.samples)).astype(np.float32)
    row: list[LaneInput | None] = [
        LaneInput(now, audio=((now, sound[0]),)),
        LaneInput(now, audio=((now, sound[1]),)),
        None,
    ]
    if now % 3 == 1:
        pixels = rng.integers(0, 256, (2, 2, 4, 4, 3)).astype(np.uint8)
        row[0] = LaneInput(now, video=pixels, audio=((now, sound[0]),))
    if now % 3 == 2:
        row[1] = LaneInput(now, text_in=(TextIn(Control.USER, (65, 66, 67)),))
    return weave_inputs(row, CONFIG.weave, slots=size.slots, patches=size.patches)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def host(arrays):
    return {name: np.array(value) for name, value in arrays.items()}
