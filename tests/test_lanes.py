"""Sessions in lanes: they join and leave, are copied, stored, forked and taken back.

In: tiny random models whose global store overflows, made-up sound. Out: what a session puts out
does not depend on its lane or its neighbours, and goes on bit for bit after every copy, in another
process too.
"""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from interaction.session import lanes as lanes_module
from interaction.session.lanes import LaneOutput, Lanes, buckets, system_pieces
from interaction.session.rewind import Rewinder
from interaction.session.snapshot import Snapshot, fingerprint
from interaction.session.state import init_state
from interaction.session.step import compile_step
from interaction.streams.text import ByteTokenizer, ChannelReader
from interaction.streams.weave import LaneInput
from interaction.types import Control, TextIn
from tests.artefact_for_tests import SAME_DEVICES
from tests.models_for_tests import LIVE as CONFIG
from tests.models_for_tests import LIVE_LANES as LANES
from tests.models_for_tests import random_params


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def fresh(params, **keywords) -> Lanes:
    return Lanes(params, CONFIG, lanes=LANES, **keywords)


def heard(now: int, voice: int = 0) -> LaneInput:
    rng = np.random.default_rng([now, voice])
    return LaneInput(now, audio=((now, 0.1 * rng.normal(size=3200).astype(np.float32)),))


def run(lanes: Lanes, lane: int, times, *, neighbours: bool = False) -> list[LaneOutput]:
    """Micro-turns of one lane; neighbours are at times of their own."""
    outputs = []
    for now in times:
        row: list[LaneInput | None] = [None] * LANES
        row[lane] = heard(now)
        if neighbours:
            for other in {0, 1, 2} - {lane}:
                row[other] = heard(int(lanes.state.micro_turn[other]), 1 + other)
        found = lanes.step(row)[lane]
        assert found is not None
        outputs.append(found)
    return outputs


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.tokens == b.tokens and a.written == b.written and a.said == b.said
        np.testing.assert_array_equal(a.mel, b.mel)
        np.testing.assert_array_equal(a.waveform, b.waveform)


@pytest.fixture(scope="module")
def alone(params) -> list[LaneOutput]:
    """A session of 14 micro-turns in lane 0, alone: 80 slots and more, the store holds 61."""
    lanes = fresh(params)
    lanes.close(0)
    assert lanes.open(seed=8) == 0
    outputs = run(lanes, 0, range(14))
    assert int(lanes.state.cache["count"][0]) > CONFIG.global_slots
    return outputs


@pytest.mark.parametrize("lane", [1, 2])
def test_a_session_is_the_same_in_every_lane_beside_anyone(params, alone, lane):
    lanes = fresh(params)
    lanes.close(lane)
    assert lanes.open(seed=8) == lane
    assert_same(run(lanes, lane, range(14), neighbours=True), alone)


@pytest.fixture
def two_buckets(monkeypatch):
    """The smallest bucket and the largest alone: each takes seconds to compile."""
    monkeypatch.setattr(lanes_module, "buckets", lambda config: buckets(config)[::2])


@pytest.mark.usefixtures("two_buckets")
def test_sessions_come_and_go_without_compiling(params, alone):
    lanes = fresh(params)
    lanes.warm_up()
    traces = compile_step(lanes.config)._cache_size()
    run(lanes, 1, range(3), neighbours=True)
    lanes.close(1)
    with pytest.raises(ValueError, match="lane=1 holds no session"):
        lanes.step([None, heard(3), None])
    lane = lanes.open(seed=8)  # its old neighbours are three micro-turns old
    assert lane == 1
    assert_same(run(lanes, lane, range(14), neighbours=True), alone)
    assert compile_step(lanes.config)._cache_size() == traces
    with pytest.raises(ValueError, match="all of lanes=3 lanes hold a session"):
        lanes.open()


def test_a_snapshot_goes_on_bit_for_bit_from_disk_in_another_lane(params, alone, tmp_path):
    lanes = fresh(params)
    lanes.close(0)
    lanes.open(seed=8)
    run(lanes, 0, range(9))
    lanes.snapshot(0).save(tmp_path / "session.safetensors")
    assert_same(run(lanes, 0, range(9, 14)), alone[9:])  # taking it has changed nothing
    other = fresh(params, seed=77)
    other.restore(2, Snapshot.load(tmp_path / "session.safetensors"))
    assert_same(run(other, 2, range(9, 14), neighbours=True), alone[9:])


_ELSEWHERE = """
import sys
import numpy as np
from interaction.session.snapshot import Snapshot, fingerprint
from tests import test_lanes as t
lanes = t.fresh(t.random_params(t.CONFIG), seed=5)
lanes.restore(1, Snapshot.load(sys.argv[1]))
outputs = t.run(lanes, 1, range(9, 12))
np.savez(sys.argv[2], mel=[o.mel for o in outputs], waveform=[o.waveform for o in outputs])
"""


def test_a_snapshot_goes_on_in_another_process(params, alone, tmp_path):
    lanes = fresh(params)
    lanes.close(0)
    lanes.open(seed=8)
    run(lanes, 0, range(9))
    lanes.snapshot(0).save(tmp_path / "session.safetensors")
    paths = [str(tmp_path / "session.safetensors"), str(tmp_path / "found.npz")]
    command = [sys.executable, "-c", _ELSEWHERE, *paths]
    subprocess.run(command, check=True, timeout=400, env=os.environ | SAME_DEVICES)
    with np.load(paths[1]) as found:
        np.testing.assert_array_equal(found["mel"], [o.mel for o in alone[9:12]])
        np.testing.assert_array_equal(found["waveform"], [o.waveform for o in alone[9:12]])


_COMPILED = """
import jax
from tests import test_lanes as t
events = []
jax.monitoring.register_event_duration_secs_listener(lambda name, seconds, **_: events.append(name))
lanes = t.fresh(t.random_params(t.CONFIG))
lanes.warm_up()
before = events.count("/jax/core/compile/backend_compile_duration")
assert before > 5, events
for lane in (0, 2):
    lanes.close(lane)
assert lanes.open(seed=8) == 0
t.run(lanes, 0, range(3))
assert lanes.fork(0) == 2
lanes.restore(1, lanes.snapshot(0))
t.run(lanes, 1, range(3, 5))
print("compiled", events.count("/jax/core/compile/backend_compile_duration") - before)
"""


def test_nothing_is_compiled_after_warming_up():
    """In a process of its own: what other tests compiled is not there."""
    ran = subprocess.run(
        [sys.executable, "-c", _COMPILED], timeout=400, env=os.environ | SAME_DEVICES,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout == "compiled 0\n", ran.stdout + ran.stderr


def test_a_fork_goes_its_own_way(params, alone):
    lanes = fresh(params)
    lanes.close(0)
    lanes.open(seed=8)
    lanes.close(2)
    run(lanes, 0, range(6))
    assert lanes.fork(0) == 2
    other = [lanes.step([None, None, heard(now, voice=4)])[2] for now in range(6, 9)]
    assert_same(run(lanes, 0, range(6, 14)), alone[6:])
    assert any((a.mel != b.mel).any() for a, b in zip(other, alone[6:9], strict=True))


def test_a_session_goes_back(params, alone):
    lanes = fresh(params)
    lanes.close(0)
    lanes.open(seed=8)
    back = Rewinder(lanes, 0, every=4, snapshots=3)
    for now in range(11):
        back.step([heard(now), None, heard(now, 3) if now < 2 else None])
    assert back.earliest == 0
    for target in (10, 6):
        back.rewind(target)
        found = [back.step([heard(now), None, None])[0] for now in range(target, target + 3)]
        assert_same(found, alone[target : target + 3])
        back.rewind(target + 1)
    with pytest.raises(ValueError, match=r"micro_turn=3 is not in the \[4\]"):
        back.rewind(3)


def test_a_snapshot_of_another_model_is_refused(params, tmp_path):
    snapshot = fresh(params).snapshot(0)
    other = Lanes(jax.tree.map(lambda leaf: leaf * 2, params), CONFIG, lanes=LANES)
    with pytest.raises(ValueError, match=f"fingerprint={snapshot.fingerprint}"):
        other.restore(0, snapshot)
    (tmp_path / "nonsense").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="nonsense is not a snapshot"):
        Snapshot.load(tmp_path / "nonsense")
    with pytest.raises(FileNotFoundError, match="no snapshot at"):
        Snapshot.load(tmp_path / "absent")
    arrays = {k: v for k, v in snapshot.arrays.items() if k != ".heard"}
    with pytest.raises(ValueError, match=r"differs in \['.heard'\]"):
        dataclasses.replace(snapshot, arrays=arrays).state(init_state(CONFIG, 1))


def test_pinned_text_is_fed_kept_and_bounded(params):
    lanes = fresh(params)
    lanes.close(1)
    limit = CONFIG.global_slots - CONFIG.weave.max_slots
    fits = "x" * (limit - -(-limit // CONFIG.max_text_in))
    lane = lanes.open(system=fits)
    used = sum(1 + len(piece.tokens) for piece in system_pieces(fits, lanes.tokenizer, CONFIG))
    assert used == limit
    for now in range(16):
        lanes.step([None, heard(now), None])
    kept = np.asarray(lanes.state.cache["global"]["holding"][lane])
    assert (kept == 6).sum() == limit
    snapshot = lanes.snapshot(lane)
    assert snapshot.pinned == limit and snapshot.waiting == ()
    more = LaneInput(16, text_in=(TextIn(Control.SYSTEM, (1,)),))
    with pytest.raises(ValueError, match=f"takes {limit + 2} slots.*can pin {limit}"):
        lanes.step([None, more, None])
    lanes.step([None, heard(16), None])  # nothing was lost by it
    lanes.close(1)
    with pytest.raises(ValueError, match=f"can pin {limit}"):
        lanes.open(system=fits + "xx")


@pytest.mark.usefixtures("two_buckets")
def test_text_that_gives_way_is_told(params):
    lanes = fresh(params)
    told = 0
    for now in range(14):
        typed = LaneInput(now, text_in=(TextIn(Control.USER, (65, 66, 67, 68, 69)),))
        told += lanes.step([typed, heard(now), None])[0].forgotten_text
    assert told == int(lanes.state.cache["lost_text"][0]) > 0
    assert int(lanes.state.cache["lost_text"][2]) == 0


def test_a_reader_goes_on_in_the_middle_of_a_character():
    tokenizer = ByteTokenizer()
    first, second = "€".encode()[:1], "€".encode()[1:]
    write, end = tokenizer.control(Control.DELEGATE), tokenizer.control(Control.END)
    reader, again = ChannelReader(tokenizer), ChannelReader(tokenizer)
    reader.push(0, [write, *first, end])
    again.resume(reader.state())
    texts = [r.push(1, [*second, end]).pieces for r in (reader, again)]
    assert texts[0] == texts[1] and texts[0][0].text == "€"


def test_waiting_system_text_counts_as_pinned(params):
    lanes = fresh(params)
    lanes.close(1)
    limit = lanes.pinned_limit
    lane = lanes.open(system="x" * (limit - -(-limit // CONFIG.max_text_in)))
    more = LaneInput(0, text_in=(TextIn(Control.SYSTEM, ()),))
    with pytest.raises(ValueError, match=f"can pin {limit}"):
        lanes.step([None, more, None])
    assert lanes.step([None, heard(0), None])[lane] is not None


def test_a_change_in_the_last_layer_is_another_model(params):
    changed = jax.tree.map(lambda leaf: leaf, params)
    down = changed["transformer"]["moe"]["down"]
    changed["transformer"]["moe"]["down"] = down.at[-1, -1, -1, -1].add(1e-3)
    assert fingerprint(changed, CONFIG) != fingerprint(params, CONFIG)


def test_going_back_never_reaches_another_session(params):
    lanes = fresh(params)
    back = Rewinder(lanes, 0, every=2)
    for now in range(3):
        back.step([heard(now), None, None])
    lanes.close(0)
    back.step([None, heard(0), None])  # a free lane is nobody's
    lanes.open(seed=2)
    back.step([heard(0, 1), None, None])
    assert back.earliest == 0
    with pytest.raises(ValueError, match=r"micro_turn=3 is not in the \[0\]\.\.1"):
        back.rewind(3)
