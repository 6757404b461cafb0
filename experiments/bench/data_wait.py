"""Does a training step of mini's size wait for its data?

Question: which share of training is spent waiting for a batch, from shards and from the curriculum
made on the fly, how short may a step be, and what does a batch cost to prepare?
Command: python -m experiments.bench.data_wait          # stand-in steps
         python -m experiments.bench.data_wait --real   # mini's own step
Cost: a minute on one core, more where it is shared; ``--real`` takes minutes to compile the step
first. Both need the clips of `configs/nano.py`, and workers a second core.
Expectation: at most 2 % at mini's step, from shards read by a thread of the training process and
from the curriculum made by one worker process of Grain.
Finding: in `data_wait.json`: ``rows`` of the one command, ``real`` of the other, each with the
machine that it ran on. The load there says how busy that was with other things.

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
REAL_ROWS = {**ROWS, "shards, one process": (False, True, 1)}
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


def rows(config, folder: str, which: dict, steps: dict, note) -> None:
    """One row of `which` after the other, given to `note` by name after each measurement."""
    for name, (made, read, workers) in which.items():
        given = config.curriculum if made else None
        shards = ShardsConfig((folder,)) if read else None
        row = prepare(given, shards, config.batch, 3)
        stream = batches(given, size=config.batch, workers=workers, shards=shards)
        for length, (step, count) in steps.items():
            row[length] = waiting(step, stream, count)
            print(name, length, row[length], flush=True)
            note(name, row)


def built(config, folder: str, sessions: int) -> dict:
    """A set of shards in `folder`, and what it took."""
    begin = time.process_time()
    manifest = write(GeneratedPlan(config.curriculum, Split.TRAIN, sessions), folder)
    seconds = time.process_time() - begin
    assert manifest is not None
    size = sum(f.stat().st_size for f in pathlib.Path(folder).glob("*.array_record"))
    return {
        "sessions": manifest.sessions,
        "processor_seconds_per_session": round(seconds / manifest.sessions, 4),
        "bytes_per_session": round(size / manifest.sessions),
        "slots_filled": round(manifest.filled, 4),
    }


def worst(found: dict, lengths) -> float:
    """The greatest share of waiting in rows, of steps of these lengths."""
    return max(row[length]["share_waiting"] for row in found.values() for length in lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="mini's own step, not stand-ins")
    parser.add_argument("--steps", type=int, default=20, help="of the real step, in each row")
    parser.add_argument("--sessions", type=int, default=12, help="in the set of shards")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "data_wait.json")
    options = parser.parse_args()
    values = mini.get_config().to_dict()
    values.pop("trainer")
    config = configuration.build(loop.TrainConfig, values)
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    result |= {"batch": config.batch, "limit": LIMIT}
    made: dict = {"machine": machine.facts(), "rows": {}}
    if options.real:
        result["real"] = made
    else:
        result |= made

    def note(name: str, row: dict) -> None:
        made["rows"][name] = row
        options.output.write_text(json.dumps(result, indent=1) + "\n")

    steps = {f"stand-in of {s} s": (stand_in(s), n) for s, n in STAND_INS.items()}
    if options.real:
        steps = {"mini's own": (real(config), options.steps)}
    with tempfile.TemporaryDirectory() as folder:
        found = built(config, folder, options.sessions)
        (made if options.real else result)["built"] = found
        rows(config, folder, REAL_ROWS if options.real else ROWS, steps, note)
    if options.real:
        made["worst_share"] = worst(made["rows"], steps)
        made["met"] = made["worst_share"] <= LIMIT
    else:
        shards = {name: row for name, row in made["rows"].items() if name == "shards, a thread"}
        result["met_at_every_step"] = worst(shards, steps) <= LIMIT
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
