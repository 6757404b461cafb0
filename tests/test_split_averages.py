"""Averaged parameters that lie in parts over devices and processes leave as one native checkpoint.

In: a state of training laid over a mesh as the loop lays it. Out: the checkpoint that the loop
writes, equal bit for bit to what was laid; one sentence where the state itself is given for it.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch
from interaction import sharding
from interaction.checkpoints.native import flatten
from interaction.models.checkpoint import load_model
from interaction.sharding import MeshConfig
from interaction.train import checkpointing, loop
from interaction.train.loop import TrainConfig, TrainState
from tests import mesh_for_tests as case
from tests.distributed_for_tests import run_processes

SPLIT = MeshConfig(fsdp=2, expert=2, tensor=2)


def averages() -> tuple[dict, dict]:
    """Parameters without the vocoder, and another tree of the same shapes for their mean."""
    params = {name: leaf for name, leaf in case.params().items() if name != "vocoder"}
    return params, jax.tree.map(lambda leaf: np.asarray(leaf) * 0.5 + 1.0, params)


def laid_state(config: TrainConfig) -> TrainState:
    """A state whose mean is not its parameters, on the mesh of `config`."""
    params, mean = averages()
    state = TrainState(params=params, mean=mean, moments=(), step=jnp.int32(3))
    mesh = sharding.make_mesh(config.mesh)
    return loop.processes.laid(state, sharding.shardings(mesh, loop.state_specs(state, config)))


def saved(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten(load_model(folder)[0]).items()}


def test_averages_split_over_devices_leave_whole(tmp_path):
    config = TrainConfig(model=case.model(), batch=8, mesh=SPLIT)
    state = laid_state(config)
    parts = [leaf.addressable_shards[0].data.size < leaf.size for leaf in jax.tree.leaves(state)]
    assert sum(parts) > 20
    vocoder = case.params()["vocoder"]
    found = saved(loop._export(config, state, vocoder, tmp_path / "final"))
    wanted = flatten(dict(averages()[1], vocoder=vocoder))
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_the_state_of_a_training_is_no_native_checkpoint(tmp_path, capsys):
    class Batches:
        def get_state(self):
            return {"record": 0}

    with checkpointing.manager(tmp_path / "checkpoints") as manager:
        for step in (4, 12):
            checkpointing.save(manager, step, {"mean": jnp.arange(5.0)}, Batches())
    words = ["export", "--platform", "cpu", "--out", str(tmp_path / "out")]
    assert launch.main([*words, "--checkpoint", str(tmp_path / "checkpoints")]) == 1
    said = capsys.readouterr().err
    assert "no config.json; it holds the state of a training at step 12, whose averaged" in said
    assert launch.main([*words, "--checkpoint", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("no config.json\n")


WORKER = """
import json, sys
import jax
port, number, folder = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 4, int(number))
from interaction.sharding import MeshConfig
from interaction.train import loop
from tests import mesh_for_tests as case
from tests import test_split_averages as test
config = loop.TrainConfig(model=case.model(), batch=8, mesh=MeshConfig(fsdp=2, expert=2))
state = test.laid_state(config)
gate = state.mean["transformer"]["moe"]["gate"]
assert not gate.is_fully_addressable and not gate.is_fully_replicated
loop._export(config, state, case.params()["vocoder"], test.pathlib.Path(folder))
loop.processes.meet("exported")
print(json.dumps({"parts": gate.addressable_shards[0].data.size / gate.size}))
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_averages_split_over_processes_leave_whole(tmp_path):
    """Each of four processes has a quarter of the experts; the first one writes them all."""
    reports = run_processes(WORKER, tmp_path / "final")
    assert [report["parts"] for report in reports] == [0.25] * 4
    found = saved(tmp_path / "final")
    for name, leaf in flatten(averages()[1]).items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
