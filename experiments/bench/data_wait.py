"""Does a training step of mini's size wait for its data?

Question: which share of training is spent waiting for a batch, from shards and from the curriculum
made on the fly, and what does a batch cost to prepare?
Command: python -m experiments.bench.data_wait
Cost: some minutes on one core, more where it is shared; needs the clips of `configs/nano.py`.
Expectation: from shards at most 2 %, read by a thread of the training process itself.
Finding: in `data_wait.json`.

Every step is waited for before the next batch is asked for, so that none of the waiting hides
behind a step in flight. Processor seconds are those of this process (and its threads), which do
not grow when others use the machine; a batch is prepared for them in the foreground. Layers are
scanned (`unroll` 1), which compiles sooner and steps a little slower than mini's own run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import time

# One thread for the step. Set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from configs import mini
from experiments.bench import machine
from interaction import configuration, sharding
from interaction.data.build.generated import GeneratedPlan
from interaction.data.clips import Split
from interaction.data.pipeline import batches
from interaction.data.shards.read import ShardsConfig
from interaction.data.shards.write import write
from interaction.models.checkpoint import load_model
from interaction.train import loop, optimizer

HERE = pathlib.Path(__file__).parent
LIMIT = 0.02
# name -> (made on the fly, from shards, worker processes)
ROWS = {
    "shards, a thread": (False, True, 0),
    "shards, one process": (False, True, 1),
    "curriculum, one process": (True, False, 1),
}


def prepare_seconds(config, shards, size: int, count: int) -> dict[str, float]:
    """Processor seconds to prepare a batch, and the share of its slots that are filled."""
    read = batches(config, size=size, workers=0, shards=shards)._slices  # in the foreground
    read[0]  # opens files, loads clips and recordings
    begin, made = time.process_time(), [read[1 + i] for i in range(count)]
    seconds = (time.process_time() - begin) / count
    filled = float(np.mean([np.mean(batch.slots.valid) for batch in made]))
    return {"processor_seconds_per_batch": round(seconds, 4), "slots_filled": round(filled, 4)}


def waiting(step, state, stream, mesh, count: int) -> tuple[dict[str, float], object]:
    """Shares and seconds of so many steps, and the state after them."""
    for _ in range(2):
        state, metrics = step(state, jax.device_put(next(stream), sharding.by_batch(mesh)))
    jax.block_until_ready(metrics)
    waited, begin, busy = 0.0, time.perf_counter(), time.process_time()
    for _ in range(count):
        asked = time.perf_counter()
        batch = jax.device_put(next(stream), sharding.by_batch(mesh))
        waited += time.perf_counter() - asked
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
    elapsed, busy = time.perf_counter() - begin, time.process_time() - busy
    figures = {
        "share_waiting": round(waited / elapsed, 5),
        "seconds_per_step": round(elapsed / count, 3),
        "processor_seconds_per_step": round(busy / count, 3),
    }
    return figures, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "data_wait.json")
    options = parser.parse_args()
    values = mini.get_config().to_dict()
    values.pop("trainer")
    config = configuration.build(loop.TrainConfig, values)
    stack = dataclasses.replace(config.model.transformer, unroll=1)
    model = dataclasses.replace(config.model, transformer=stack)
    config = dataclasses.replace(config, model=model)
    result: dict = {"machine": machine.facts(), "batch": config.batch, "limit": LIMIT}
    params, _ = load_model("checkpoints/mini")
    params.pop("vocoder")
    rule = optimizer.make(config.optimizer, config.steps)
    state = loop.TrainState(params, jax.tree.map(jnp.copy, params), rule.init(params), jnp.int32(0))
    mesh = sharding.make_mesh(config.mesh)
    state = jax.device_put(state, sharding.replicated(mesh))
    step = loop.make_train_step(config, rule, mesh)
    with tempfile.TemporaryDirectory() as folder:
        plan = GeneratedPlan(config.curriculum, Split.TRAIN, options.sessions)
        begin = time.process_time()
        manifest = write(plan, folder)
        seconds = time.process_time() - begin
        assert manifest is not None
        result["built"] = {
            "sessions": manifest.sessions,
            "processor_seconds_per_session": round(seconds / manifest.sessions, 4),
            "bytes_per_session": round(
                sum(f.stat().st_size for f in pathlib.Path(folder).glob("*.array_record"))
                / manifest.sessions
            ),
            "slots_filled": round(manifest.filled, 4),
        }
        result["rows"] = {}
        for name, (made, read, workers) in ROWS.items():
            given = config.curriculum if made else None
            shards = ShardsConfig((folder,)) if read else None
            row = prepare_seconds(given, shards, config.batch, 4)
            stream = batches(given, size=config.batch, workers=workers, shards=shards)
            with jax.set_mesh(mesh):
                figures, state = waiting(step, state, stream, mesh, options.steps)
            result["rows"][name] = row | figures
            print(name, result["rows"][name], flush=True)
    result["met"] = result["rows"]["shards, a thread"]["share_waiting"] <= LIMIT
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
