"""What a training says of itself: lines, TensorBoard's files, samples.

In: made-up metrics and a session. Out: ``metrics.jsonl``, event files that hold the same numbers,
a page, sound and picture of the session; numbers that are not finite are refused.
"""

import json

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from interaction.train.recorder import Recorder
from tests.session_records import session


def events(folder):
    """Every event of TensorBoard's record files: length, checksum, message, checksum."""
    for file in sorted((folder / "events").iterdir()):
        data = file.read_bytes()
        place = 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length


def test_lines_and_curves_hold_the_same_numbers(tmp_path):
    with Recorder(tmp_path, steps=4, every=2) as recorder:
        for step in (1, 2, 3, 4):
            load = np.array([[0.25, 0.75], [0.5, 0.5]]) + 0.01 * step
            recorder.add(step, {"loss": 1 / step, "gradient_norm": 2.0, "load": load})
        recorder.flush()
        recorder.write(4, {"held_out_score": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4]
    assert lines[1]["loss"] == 0.25
    assert lines[1]["expert_load_max"] == pytest.approx(0.79)
    assert lines[2] == {"step": 4, "held_out_score": 0.5}
    points = {
        (value.tag, event.step): value.simple_value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert points["loss", 4] == 0.25
    assert points["held_out_score", 4] == 0.5
    assert points["expert_load/layer_0/1", 2] == pytest.approx(0.77)
    assert ("loss", 3) not in points


def test_a_number_that_is_not_finite_is_named_by_its_step(tmp_path):
    with Recorder(tmp_path, steps=3, every=1) as recorder:
        recorder.add(1, {"loss": 1.0, "gradient_norm": float("nan")})
        with pytest.raises(FloatingPointError, match="gradient_norm is nan at step 1"):
            recorder.add(2, {"loss": 1.0, "gradient_norm": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    with Recorder(tmp_path, steps=2, every=1, writes=False) as recorder:
        recorder.add(1, {"loss": 1.0, "gradient_norm": 1.0})
        recorder.flush()
        recorder.sample(1, "cue", session())
    assert list(tmp_path.iterdir()) == []


def test_a_sample_can_be_read_heard_and_seen(tmp_path):
    with Recorder(tmp_path, steps=2, every=1) as recorder:
        recorder.sample(2, "cue", session())
    folder = tmp_path / "samples" / "0000002_cue"
    assert {p.name for p in folder.iterdir()} >= {"conversation.wav", "timeline.png", "report.html"}
    tags = {v.tag for event in events(tmp_path) for v in event.summary.value}
    assert tags == {"sample/cue"}
