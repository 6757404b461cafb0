"""Keys and values kept in bfloat16: sessions on disk and artefacts, as with float32.

In: a tiny random model whose lanes keep them so. Out: a session goes on bit for bit from disk and
is refused by lanes of float32; an artefact steps as the live step does. How far results move is in
`test_kernels_live.py`, what each kernel makes of such keys in `test_kernels_attention.py`,
neighbours in `test_lane_programs.py`.
"""

import dataclasses

import numpy as np
import pytest

from interaction.models.config import CacheType
from interaction.serving.manifest import Platform
from interaction.serving.runtime import Runtime
from interaction.session.lanes import Lanes
from interaction.session.snapshot import Snapshot
from interaction.session.state import init_state
from interaction.session.step import compile_step
from tests.artefact_for_tests import CONFIG, LANES, assert_same, exported, woven
from tests.models_for_tests import random_params
from tests.test_lanes import assert_same as assert_same_outputs
from tests.test_lanes import run as heard_by

HALF = dataclasses.replace(CONFIG, cache_type=CacheType.BFLOAT16)
SEED = 11


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def test_a_session_with_keys_in_bfloat16_goes_on_bit_for_bit_from_disk(params, tmp_path):
    lanes = Lanes(params, HALF, lanes=LANES)
    heard_by(lanes, 0, range(3))
    lanes.snapshot(0).save(tmp_path / "session.safetensors")
    wanted = heard_by(lanes, 0, range(3, 6))
    snapshot = Snapshot.load(tmp_path / "session.safetensors")
    lanes.restore(1, snapshot)
    assert_same_outputs(heard_by(lanes, 1, range(3, 6)), wanted)
    with pytest.raises(ValueError, match=r"is bfloat16\[.*\], the lanes have float32\["):
        Lanes(params, CONFIG, lanes=LANES).restore(0, snapshot)


def test_an_artefact_can_keep_keys_and_values_in_bfloat16(params, tmp_path):
    folder = exported(
        params, tmp_path / "half", slice(0, 1), config=HALF, platform=Platform.CPU, lanes=LANES
    )
    runtime = Runtime(folder, seed=SEED)
    runtime.warm_up()
    state, wanted = compile_step(HALF)(params, init_state(HALF, LANES, seed=SEED), woven(0))
    found = runtime.step(vars(woven(0)))
    np.testing.assert_allclose(found["logits"], wanted.logits, atol=1e-4)
    after = runtime.state
    assert after["cache/global/key"].dtype == state.cache["global"]["key"].dtype == "bfloat16"
    again = runtime.step(vars(woven(3)))
    runtime.state = after
    assert_same(runtime.step(vars(woven(3))), again)
