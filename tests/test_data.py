"""Data: its configuration, rendered video, and batches that repeat and resume exactly."""

import dataclasses

import numpy as np
import pytest

from interaction import configuration
from interaction.data import bank as bank_module
from interaction.data import conversations as talk
from interaction.data import filmed, pipeline, video, voices
from interaction.data.clips import Split
from interaction.data.config import KINDS, DataConfig, Mixture, SourceFolders
from interaction.data.figure import BONES, JOINTS, kick_end, kick_motion, pose
from interaction.data.made_up_motions import made_up_motion
from interaction.streams.image import tubelets as live_tubelets
from interaction.streams.weave import unweave
from tests.data_for_tests import SMALL, tiny_bank

# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"audio_turns": 3}, "no field 'audio_turns'"),
        ({"mixture": {"digit": 1.0}}, "no field 'digit'"),
        ({"audio_micro_turns": 3}, "audio_micro_turns=3"),
        ({"human_share": 1.5}, r"human_share=1\.5"),
        ({"signal_to_noise": (9, 2)}, "lowest above highest"),
        ({"mixture": {"digits": -1.0}}, "shares >= 0"),
    ],
)
def test_config_says_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        configuration.build(DataConfig, values)


def test_config_from_a_dictionary():
    values = {"slots": 77, "mixture": {"kicks": 0.5}, "signal_to_noise": [3, 9]}
    config = configuration.build(DataConfig, values)
    assert config.slots == 77 and config.mixture.kicks == 0.5
    assert config.signal_to_noise == (3.0, 9.0)
    assert sum(config.mixture.shares()) == pytest.approx(1.0)
    assert len(Mixture().shares()) == len(KINDS)


def test_folders_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERACTION_MEDIA", str(tmp_path))
    assert SourceFolders().folder("media") == tmp_path
    monkeypatch.setenv("INTERACTION_MEDIA", str(tmp_path / "gone"))
    assert SourceFolders().folder("media") is None


def test_a_missing_extra_is_named():
    with pytest.raises(ImportError, match=r"interaction\[voices\]"):
        voices.require("no_such_module_at_all")


# ---------------------------------------------------------------- video


def test_rendered_tubelets_are_those_of_the_live_path():
    frames = np.random.default_rng(1).integers(0, 255, (6, 80, 80, 3)).astype(np.uint8)
    ours = video.tubelets(frames)
    for index in range(3):
        pair = frames[2 * index : 2 * index + 2]
        np.testing.assert_array_equal(ours[index], live_tubelets(pair, max_patches=4))


def test_flashes_can_be_seen():
    for seed in range(6):
        random = np.random.default_rng(seed)
        shown = video.flashes(random, Split.TRAIN, seconds=7.4, count=3)
        assert len(shown.event_ends) == 3 and shown.frames.dtype == np.uint8
        assert np.min(np.diff(shown.event_ends)) > 0.9
        jumps = np.abs(np.diff(shown.frames.astype(int), axis=0)).max(axis=3)
        moved = np.mean(jumps > 45, axis=(1, 2)) > 0.03
        for end in shown.event_ends:
            index = round(np.floor(end * 10 - 1e-6))  # last frame that is lit
            assert moved[index]


def test_a_kick_goes_up_and_comes_back():
    times, joints = kick_motion()
    foot = joints[:, JOINTS.index("right_ankle"), 1]
    assert foot.max() - foot[0] > 0.8
    np.testing.assert_allclose(joints[-1], joints[0], atol=1e-9)
    assert times[np.argmax(foot)] < kick_end() < times[-1]
    np.testing.assert_allclose(pose(np.array([-1.0, 99.0]), kick_motion()), joints[[0, -1]])
    thigh = np.linalg.norm(
        joints[:, JOINTS.index("left_knee")] - joints[:, JOINTS.index("left_hip")], axis=1
    )
    np.testing.assert_allclose(thigh[: len(times) // 2], 0.422, atol=1e-6)


def test_a_made_up_movement_leaves_rest_and_comes_back():
    spans, stances = [], []
    for seed in range(40):
        times, joints, end = made_up_motion(np.random.default_rng(seed))
        away = np.linalg.norm(joints - joints[0], axis=2).max(axis=1)
        assert away[-1] < 1e-9
        assert away.max() >= 0.6
        assert times[np.argmax(away)] <= end < times[-1]
        bones = [
            np.linalg.norm(joints[:, JOINTS.index(a)] - joints[:, JOINTS.index(b)], axis=1)
            for a, b, _, _ in BONES
        ]
        assert all(np.ptp(bone) < 1e-9 for bone in bones)  # nothing is stretched
        spans.append(times[-1])
        stances.append(joints[0, JOINTS.index("left_wrist")])
    assert len(set(spans)) == 40
    assert np.std(stances, axis=0).max() > 0.05  # metres


def test_still_videos_draw_nothing_for_figures_that_none_asks_for(monkeypatch):
    shown = video.still(np.random.default_rng(1), Split.TEST, seconds=1.0)
    monkeypatch.setattr(video, "made_up_motion", None)
    first = np.random.default_rng(1)
    again = video.still(first, Split.TEST, seconds=1.0)
    np.testing.assert_array_equal(shown.frames, again.frames)
    old = np.random.default_rng(1)
    assert old.random() < 0.6  # this one holds a figure
    frames = video.figure_video(old, Split.TEST, (), 1.0, 10)
    np.testing.assert_array_equal(frames, again.frames)


def test_kicks_move_the_picture_and_still_does_not():
    kicks = video.kicks(np.random.default_rng(5), Split.TRAIN, seconds=8.2, count=3)
    assert len(kicks.event_ends) == 3
    with pytest.raises(ValueError, match="at most 6 fit"):
        video.kicks(np.random.default_rng(5), Split.TRAIN, seconds=8.4, count=9)
    assert video.still(np.random.default_rng(5), Split.TRAIN, seconds=3.0).event_ends == ()


def test_a_film_goes_to_and_fro():
    film = np.arange(4)[:, None]
    taken = filmed.film_excerpt(np.random.default_rng(0), film, 11)[:, 0]
    assert len(taken) == 11 and set(np.abs(np.diff(taken))) <= {0, 1}


# ---------------------------------------------------------------- pipeline


@pytest.fixture
def cached(monkeypatch, tmp_path):
    config = dataclasses.replace(SMALL, folders=SourceFolders(cache=str(tmp_path), media="/no"))
    monkeypatch.setattr(bank_module, "make_clips", lambda config: tiny_bank().clips)
    pipeline.conversations.cache_clear()
    yield config
    pipeline.conversations.cache_clear()


def same(one, two) -> bool:
    pairs = []
    for part in ("slots", "payloads", "targets"):
        for field in dataclasses.fields(getattr(one, part)):
            pairs.append([getattr(getattr(b, part), field.name) for b in (one, two)])
    return all(np.array_equal(a, b) for a, b in pairs)


def test_batches_repeat_and_resume(cached):
    stream = pipeline.batches(cached, size=3, workers=0)
    first, state = next(stream), None
    state = stream.get_state()
    second, third = next(stream), next(stream)
    assert first.slots.token.shape == (3, cached.slots)
    assert first.payloads.audio.shape == (3, cached.audio, 80)
    assert first.payloads.patches.shape == (3, cached.patches, 2, 40, 40, 3)
    assert not same(first, second)
    again = pipeline.batches(cached, size=3, workers=0)
    again.set_state(state)
    assert same(next(again), second)
    assert same(next(pipeline.batches(cached, size=3, workers=0, start=2)), third)


def test_too_long_a_conversation_is_cut_at_a_micro_turn(cached):
    turns = talk.Conversations(cached, tiny_bank(), Split.TRAIN).micro_turns(1, "digits")
    whole = pipeline.fitted(turns, cached)
    cut = pipeline.fitted(turns, dataclasses.replace(cached, slots=100))
    assert len(cut.slots.stream) <= 100 < len(whole.slots.stream)
    kept = unweave(cut, pipeline.weave_config(cached))
    assert [t.text_out for t in kept] == [t.text_out for t in turns[: len(kept)]]
