"""The training loop: it learns, stops, resumes and balances.

In: a tiny model and batches made up here. Out: a loss that goes down; a run that was killed and
resumed, equal bit for bit to one that was not, its data included; a loss that is not a number
named by its step and kept out of every checkpoint; the balancing bias moved the right way.
"""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interaction import sharding
from interaction.data.config import DataConfig
from interaction.launching.status import REQUEUE
from interaction.models import moe
from interaction.models.checkpoint import load_model
from interaction.models.config import InteractionConfig
from interaction.train import loop, losses, optimizer, start
from interaction.train.loop import TrainConfig
from interaction.train.losses import LossConfig
from interaction.train.optimizer import OptimizerConfig
from interaction.types import AudioChunk, Batch, Control, MicroTurn, Stream
from tests.models_for_tests import GLOBAL, MOE, padded, random_params, tiny

MODEL = tiny(attention_kinds=(GLOBAL,), mlp_kinds=(MOE,), local=None)
CONFIG = TrainConfig(
    model=MODEL,
    data=DataConfig(),
    optimizer=OptimizerConfig(learning_rate=2e-2, warmup=3, average=0.9, balance_rate=0.02),
    steps=6,
    batch=2,
    workers=0,
    log_every=1,
    checkpoint_minutes=1e-9,
)
RARELY = dataclasses.replace(CONFIG, checkpoint_minutes=60.0)  # one checkpoint, at the end


@functools.cache
def batch_of(step: int, model: InteractionConfig = MODEL) -> Batch:
    """Two short conversations; the same sizes for every step."""
    rng = np.random.default_rng(step)
    first = model.ordinary_tokens

    def turn(now: int) -> MicroTurn:
        speaks = now % 2 == 1
        closer = Control.SPEAK if speaks else Control.PASS
        mel = rng.normal(size=(model.grid.mel_frames, model.mel.bands)).astype(np.float32)
        bins = rng.integers(0, 16, (4, 80)).astype(np.uint8)
        said = (first + int(Control.WRITE), int(rng.integers(0, first))) if speaks else ()
        return MicroTurn(
            now,
            audio=(AudioChunk(bins),),
            text_out=(*said, first + int(closer)),
            speech=mel if speaks else None,
        )

    return jax.tree.map(np.asarray, padded([[turn(m) for m in range(4)] for _ in "ab"], model))


class Killed(Exception):
    """What ends a run from outside."""


class MadeUp:
    """Batches in order, with a place that can be saved; may kill the run or spoil a batch."""

    def __init__(self, kill_at: int | None = None, spoil_at: int | None = None):
        self.place, self.kill_at, self.spoil_at = 0, kill_at, spoil_at

    def __next__(self) -> Batch:
        if self.place == self.kill_at:
            raise Killed
        batch = batch_of(self.place)
        if self.place == self.spoil_at:
            chunk = np.full_like(batch.targets.chunk, np.nan)
            batch = dataclasses.replace(
                batch, targets=dataclasses.replace(batch.targets, chunk=chunk)
            )
        self.place += 1
        return batch

    def get_state(self) -> dict:
        return {"place": self.place}

    def set_state(self, state: dict) -> None:
        self.place = state["place"]


@functools.cache
def compiled_step():
    """One compiled step for every run here; its rate falls only after step 100."""
    rule = optimizer.make(CONFIG.optimizer, 150)
    return loop.make_train_step(CONFIG, rule, sharding.data_mesh(1))


def trained(folder: pathlib.Path, batches: MadeUp, config: TrainConfig) -> dict:
    """Run the loop on made-up batches; gives what is in the final checkpoint."""
    step = compiled_step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", lambda *_: step)
        patch.setattr(start, "init_params", lambda key, model: random_params(model, spread=0.05))
        patch.setattr(loop, "make_batches", lambda *_, **__: batches)
        return load_model(loop.train(config, folder))[0]


@pytest.fixture
def run(tmp_path):
    """`trained` in a folder of the test, with a checkpoint after every step."""
    return lambda name, batches, config=CONFIG: trained(tmp_path / name, batches, config)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run that nothing stopped."""

    folder: pathlib.Path
    params: dict


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    return Whole(folder, trained(folder, MadeUp(), RARELY))


def metrics(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------------------- the loop


def test_a_killed_run_resumes_bit_for_bit(run, whole, tmp_path):
    """With the very batch that would have come next; saving after every step changes nothing."""
    with pytest.raises(Killed):
        run("killed", MadeUp(kill_at=4))
    resumed = MadeUp()
    again = run("killed", resumed)
    assert resumed.place == CONFIG.steps
    assert_same(again, whole.params)
    a, b = metrics(whole.folder), metrics(tmp_path / "killed")
    assert [line["step"] for line in a] == list(range(1, 7))
    assert [line["loss"] for line in a] == [line["loss"] for line in b]
    # A run that is done gives its result again and does nothing else.
    done = MadeUp(kill_at=CONFIG.steps)
    assert_same(run("killed", done), whole.params)


class Signalled(MadeUp):
    """Batches in whose making the process is asked to stop."""

    def __next__(self) -> Batch:
        if self.place == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)  # it is heard by a thread
        return super().__next__()


def test_a_signal_saves_at_the_next_border_and_ends_with_its_status(run, whole, tmp_path):
    """And the run that is begun again is the one that would have been."""
    with pytest.raises(SystemExit) as end:
        run("stopped", Signalled(), RARELY)
    assert end.value.code == REQUEUE
    kept = [int(p.name) for p in (tmp_path / "stopped" / "checkpoints").iterdir()]
    assert kept == [3]
    resumed = MadeUp()
    assert_same(run("stopped", resumed, RARELY), whole.params)
    lines = metrics(tmp_path / "stopped")
    assert [line["step"] for line in lines] == list(range(1, 7))


def test_other_batches_give_another_result(run, whole):
    """So that equality above means something."""
    shifted = MadeUp()
    shifted.place = 1
    a, b = whole.params, run("two", shifted, RARELY)
    assert (a["flow"]["input"] != b["flow"]["input"]).any()
    assert_same(a["vocoder"], b["vocoder"])


def test_a_loss_that_is_no_number_stops_with_its_step(run, whole, tmp_path):
    """And no checkpoint holds what it left behind."""
    with pytest.raises(FloatingPointError, match="loss is nan at step 4"):
        run("spoilt", MadeUp(spoil_at=3))
    kept = sorted(int(p.name) for p in (tmp_path / "spoilt" / "checkpoints").iterdir())
    assert kept[-1] == 3
    latest, _ = load_model(tmp_path / "spoilt" / "latest")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(latest))
    # With the batch repaired the run goes on from there.
    repaired = MadeUp()
    assert_same(run("spoilt", repaired), whole.params)


def test_one_batch_is_learnt_by_heart():
    """By the very program of the loop: state and batch lie as they do there."""
    step, mesh = compiled_step(), sharding.data_mesh(1)
    params = random_params(MODEL, spread=0.05)
    params.pop("vocoder")
    params = jax.tree.map(jnp.asarray, params)
    rule = optimizer.make(CONFIG.optimizer, CONFIG.steps)
    state = loop.TrainState(
        params=params, mean=jax.tree.map(jnp.copy, params),
        moments=rule.init(params), step=jnp.int32(0),
    )  # fmt: skip
    state = jax.device_put(state, sharding.shardings(mesh, loop.state_specs(state, CONFIG)))
    seen = []
    batch = jax.device_put(batch_of(0), sharding.by_batch(mesh))
    for _ in range(80):
        with jax.set_mesh(mesh):
            state, values = step(state, batch)
        seen.append({name: float(value) for name, value in values.items() if name != "load"})
    print(seen[0], seen[-1])
    assert int(state.step) == 80
    assert seen[-1]["text"] < 0.3 * seen[0]["text"]
    assert seen[-1]["token_accuracy"] > 0.8


# ---------------------------------------------------------------------------- the losses


@pytest.mark.parametrize("slots", [0, 7])
def test_weights_and_padding_of_the_text_loss(slots):
    """Mean over weighted targets, at once or in parts; slots without a target do not count."""
    batch = batch_of(0)
    target = batch.targets.token
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*target.shape, MODEL.transformer.logits_size)).astype(np.float32)
    weight = rng.uniform(size=target.shape).astype(np.float32)
    batch = dataclasses.replace(
        batch, targets=dataclasses.replace(batch.targets, token_weight=weight)
    )
    loss, values = losses.text_loss(
        lambda hidden: hidden,
        jnp.asarray(logits),
        batch,
        losses.counts(batch, MODEL, LossConfig()),
        MODEL,
        slots=slots,
    )
    rows, columns = np.nonzero(target >= 0)
    picked = logits[rows, columns].astype(np.float64)
    nll = np.log(np.exp(picked).sum(-1)) - picked[np.arange(len(rows)), target[rows, columns]]
    w = weight[rows, columns]
    assert float(loss) == pytest.approx((nll * w).sum() / max(w.sum(), 1.0), rel=1e-5)
    right = picked.argmax(-1) == target[rows, columns]
    assert float(values["token_accuracy"]) == pytest.approx(right.mean())


def test_noise_on_fed_back_speech_leaves_the_targets():
    batch = jax.tree.map(jnp.asarray, batch_of(0))
    key = jax.random.key(1)
    noisy = losses.noisy_feedback(batch, key, 0.5)
    assert (noisy.payloads.speech != batch.payloads.speech).mean() > 0.9
    assert float(jnp.abs(noisy.payloads.speech - batch.payloads.speech).std()) < 0.5
    assert_same(noisy.targets, batch.targets)
    assert_same(losses.noisy_feedback(batch, key, 0.0).payloads, batch.payloads)


def test_what_is_heard_next_is_expected_from_the_frame_before_it():
    """By hand over heard slots in order; only there, and nothing of a frame in its own state."""
    batch = batch_of(0)
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(*batch.slots.token.shape, MODEL.transformer.width))
    table = rng.normal(size=(MODEL.audio.bands * MODEL.audio.levels, MODEL.transformer.width))
    whole = losses.counts(batch, MODEL, LossConfig())
    found = losses.heard_loss(jnp.asarray(table, jnp.float32), jnp.asarray(hidden), batch, whole)
    errors = []
    for lane, stream in enumerate(batch.slots.stream):
        slots = np.flatnonzero((stream == Stream.AUDIO) & batch.slots.valid[lane])
        assert len(slots) == 16
        frames = batch.payloads.audio[lane].astype(int)
        np.testing.assert_array_equal(batch.slots.payload[lane, slots], np.arange(16))
        for slot, following in zip(slots[:-1], frames[1 : len(slots)], strict=True):
            logits = (table @ hidden[lane, slot]).reshape(MODEL.audio.bands, -1)
            picked = logits[np.arange(len(logits)), following]
            errors.append((np.log(np.exp(logits).sum(1)) - picked).mean())
    assert float(found) == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_loss_on_what_is_heard_is_optional():
    params, batch = random_params(MODEL, spread=0.05), batch_of(0)
    for weight in (0.0, 0.5):
        total = functools.partial(losses.total, config=MODEL, weights=LossConfig(heard=weight))
        _, parts = jax.eval_shape(total, params, batch, jax.random.key(0))
        assert ("heard" in parts) == bool(weight)
    with pytest.raises(ValueError, match=r"heard=-1"):
        LossConfig(heard=-1.0)


# ---------------------------------------------------------------------------- the optimiser


def test_rate_rises_stays_and_falls():
    config = OptimizerConfig(learning_rate=0.01, warmup=10, decay_share=0.25, final_share=0.1)
    rate = optimizer.schedule(config, 100)
    found = [float(rate(step)) for step in (0, 5, 10, 74, 75, 100, 200)]
    np.testing.assert_allclose(found, [0, 0.005, 0.01, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)
    longer = optimizer.schedule(config, 400)
    assert [float(longer(s)) for s in (3, 50)] == [float(rate(s)) for s in (3, 50)]


def test_balance_moves_the_bias_against_the_load():
    load = jnp.asarray([[0.5, 0.2, 0.2, 0.05, 0.05]])
    before = {"transformer": {"moe": {"bias": jnp.zeros((1, 5)), "gate": jnp.ones(3)}}}
    after = optimizer.balance(before, load, 0.01)
    bias = np.asarray(after["transformer"]["moe"]["bias"])
    np.testing.assert_allclose(bias, [[-0.01, 0, 0, 0.01, 0.01]], atol=1e-6)
    assert after["transformer"]["moe"]["gate"] is before["transformer"]["moe"]["gate"]
    dense = {"transformer": {"dense": {}}}
    assert optimizer.balance(dense, jnp.zeros((0, 5)), 0.01) is dense


def test_balance_evens_out_a_lopsided_router():
    """Repeated on the same slots, the fullest expert comes down towards its share."""
    stack, rng = MODEL.transformer, np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf[0], random_params(MODEL)["transformer"]["moe"])
    x = rng.normal(size=(3, 40, stack.width)).astype(np.float32)
    x[..., 0] = 1.0
    params["router"] = params["router"].at[0, 0].add(3.0)
    valid = jnp.ones((3, 40), bool)

    @jax.jit
    def once(bias):
        load = moe.mixture({**params, "bias": bias}, jnp.asarray(x), valid, stack)[1].share
        tree = {"transformer": {"moe": {"bias": bias[None]}}}
        moved = optimizer.balance(tree, load[None], 0.01)
        return moved["transformer"]["moe"]["bias"][0], load

    bias, loads = jnp.zeros(stack.experts), []
    for _ in range(100):
        bias, load = once(bias)
        loads.append(np.asarray(load))
    even = 1 / stack.experts
    assert loads[0].max() > 2 * even
    assert loads[-1].max() < 1.3 * even
    assert loads[-1].min() > 0.7 * even


def test_running_mean_forgets_its_start():
    mean = {"a": jnp.zeros(2)}
    for step in range(200):
        mean = optimizer.average(mean, {"a": jnp.full(2, 3.0)}, 0.95, jnp.int32(step))
    np.testing.assert_allclose(mean["a"], 3.0, rtol=1e-3)
    slow = optimizer.average({"a": jnp.zeros(2)}, {"a": jnp.ones(2)}, 0.95, jnp.int32(0))
    np.testing.assert_allclose(slow["a"], 0.9, rtol=1e-5)
