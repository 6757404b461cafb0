"""Does a training step of mini's size wait for its data?

Question: which share of training is spent waiting for a batch, from shards and from the curriculum
made on the fly, how short may a step be, and what does a batch cost to prepare?
Command: python -m experiments.bench.data_wait
Cost: a minute on one core, more where it is shared; needs the clips of `configs/nano.py`.
``--real`` adds mini's own training step, which takes minutes to compile.
Expectation: from shards at most 2 % at mini's step, read by a thread of the training process.
Finding: in `data_wait.json`.

Batches are mini's: 6 rows of 608 slots. A stand-in step multiplies matrices until its thread has
had so many processor seconds; like the real one it leaves Python's lock free meanwhile, and on a
machine that others use it is slowed as the loader is. Every step is waited for before the next
batch is asked for, so that none of the waiting hides behind a step in flight.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

# One thread for the step. Set before numpy and jax start.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
    "curriculum, one process": (True, False, 1),
}
# Processor seconds of a stand-in step -> how many are measured. A step of mini takes longer than
# the longest of them.
STAND_INS = {0.4: 5, 0.1: 10, 0.02: 20}


def prepare(config, shards, size: int, count: int) -> dict[str, float]:
    """Processor seconds to prepare a batch, and the share of its slots that are filled."""
    read = batches(config, size=size, workers=0, shards=shards)._slices  # in the foreground
    read[0]  # opens files, loads clips and recordings
    begin, made = time.process_time(), [read[1 + i] for i in range(count)]
    seconds = (time.process_time() - begin) / count
    filled = float(np.mean([np.mean(batch.slots.valid) for batch in made]))
    return {"processor_seconds_per_batch": round(seconds, 4), "slots_filled": round(filled, 4)}


def stand_in(seconds: float):
    """A step that takes so many processor seconds of its thread."""
    left = np.random.default_rng(0).normal(size=(192, 192)).astype(np.float32)

    def step(batch) -> None:
        jax.block_until_ready(jax.device_put(batch))
        begin = time.thread_time()
        while time.thread_time() - begin < seconds:
            left @ left

    return step


def real(config):
    """Mini's own step."""
    params, _ = load_model("checkpoints/mini")
    params.pop("vocoder")
    rule = optimizer.make(config.optimizer, config.steps)
    mesh = sharding.make_mesh(config.mesh)
    state = loop.TrainState(params, jax.tree.map(jnp.copy, params), rule.init(params), jnp.int32(0))
    kept = [jax.device_put(state, sharding.replicated(mesh))]
    function = loop.make_train_step(config, rule, mesh)

    def step(batch) -> None:
        with jax.set_mesh(mesh):
            kept[0], metrics = function(kept[0], jax.device_put(batch, sharding.by_batch(mesh)))
        jax.block_until_ready(metrics)

    return step


def waiting(step, stream, count: int) -> dict[str, float]:
    """Shares and seconds of so many steps, after two that are not counted."""
    for _ in range(2):
        step(next(stream))
    waited, begin = 0.0, time.perf_counter()
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - asked
        step(batch)
    elapsed = time.perf_counter() - begin
    return {
        "share_waiting": round(waited / elapsed, 5),
        "seconds_per_step": round(elapsed / count, 3),
        "steps": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="mini's own step too")
    parser.add_argument("--steps", type=int, default=8, help="of the real step")
    parser.add_argument("--sessions", type=int, default=12, help="in the set of shards")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "data_wait.json")
    options = parser.parse_args()
    values = mini.get_config().to_dict()
    values.pop("trainer")
    config = configuration.build(loop.TrainConfig, values)
    result: dict = {"machine": machine.facts(), "batch": config.batch, "limit": LIMIT, "rows": {}}
    steps = {f"stand-in of {s} s": (stand_in(s), n) for s, n in STAND_INS.items()}
    if options.real:
        steps["mini's own"] = (real(config), options.steps)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        manifest = write(GeneratedPlan(config.curriculum, Split.TRAIN, options.sessions), folder)
        seconds = time.process_time() - begin
        assert manifest is not None
        size = sum(f.stat().st_size for f in pathlib.Path(folder).glob("*.array_record"))
        result["built"] = {
            "sessions": manifest.sessions,
            "processor_seconds_per_session": round(seconds / manifest.sessions, 4),
            "bytes_per_session": round(size / manifest.sessions),
            "slots_filled": round(manifest.filled, 4),
        }
        for name, (made, read, workers) in ROWS.items():
            given = config.curriculum if made else None
            shards = ShardsConfig((folder,)) if read else None
            row = result["rows"][name] = prepare(given, shards, config.batch, 3)
            stream = batches(given, size=config.batch, workers=workers, shards=shards)
            for length, (step, count) in steps.items():
                row[length] = waiting(step, stream, count)
                print(name, length, row[length], flush=True)
                options.output.write_text(json.dumps(result, indent=1) + "\n")
    shares = [row["share_waiting"] for row in result["rows"]["shards, a thread"].values()
              if isinstance(row, dict)]  # fmt: skip
    result["met_at_every_step"] = max(shares) <= LIMIT
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
