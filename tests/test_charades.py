"""Charades: the two words, IoU and its thresholds, which action is asked for, anchors, layout."""

import numpy as np
import pytest

from interaction.eval.suite import Mode, Word
from interaction.eval.suites import charades
from interaction.eval.suites.charades import (
    Action,
    Charades,
    chosen_action,
    mean_delay,
    overlap,
    predicted,
    read_actions,
)
from tests.timing_for_tests import assert_anchors, fake_voice, made_by, said, scored

MODES = (Mode.COMPAT, Mode.STRICT)
MIOU, WITHOUT = "mIoU (%)", "diagnosis: mIoU without the mean delay (%)"


folder, made = made_by(Charades(), size=3, seed=4)


@pytest.mark.parametrize("mode", MODES)
def test_anchors(made, mode):
    suite, samples = made
    figures = assert_anchors(suite, samples, mode)
    names = {name for _, name in figures}
    assert names >= {MIOU, "R@0.3 (%)", "R@0.5 (%)", "R@0.7 (%)", WITHOUT}


def words(*pairs) -> list[Word]:
    return [Word(text, time, time + 0.3) for text, time in pairs]


@pytest.mark.parametrize(
    ("said_words", "strict", "compat"),
    [
        ([("start", 3.0), ("stop", 5.0)], (3.0, 5.0), (3.0, 5.0)),
        ([("Start.", 3.0), ("Stop!", 5.0)], (3.0, 5.0), (3.0, 5.0)),
        ([("start", 3.0)], None, None),
        ([("stop", 3.0)], None, None),
        ([], None, None),
        ([("stop", 3.0), ("start", 5.0)], None, (3.0, 5.0)),  # turned round
        ([("stop", 3.0), ("start", 4.0), ("stop", 6.0)], (4.0, 6.0), (3.0, 4.0)),
        ([("start", 3.0), ("start", 4.0), ("stop", 6.0), ("stop", 7.0)], (3.0, 6.0), (3.0, 6.0)),
        ([("start", 1.9), ("start", 3.0), ("stop", 5.0)], (3.0, 5.0), (3.0, 5.0)),  # before it
        ([("start", 2.0), ("stop", 5.0)], (2.0, 5.0), (2.0, 5.0)),
        ([("starting", 3.0), ("stop", 5.0)], None, None),
        ([("start", 3.0), ("stop", 3.0)], (3.0, 3.0), (3.0, 3.0)),
    ],
)
def test_predicted_span(said_words, strict, compat):
    assert predicted(words(*said_words), 2.0, Mode.STRICT) == strict
    assert predicted(words(*said_words), 2.0, Mode.COMPAT) == compat


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((10.0, 20.0), 1.0),
        (None, 0.0),
        ((20.0, 30.0), 0.0),  # touches
        ((21.0, 30.0), 0.0),
        ((10.0, 15.0), 0.5),
        ((5.0, 25.0), 0.5),
        ((15.0, 25.0), 5 / 15),
        ((12.0, 12.0), 0.0),
    ],
)
def test_overlap(span, expected):
    assert overlap(span, (10.0, 20.0)) == pytest.approx(expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threshold", charades.THRESHOLDS)
@pytest.mark.parametrize(("more", "hit"), [(0.0, 100.0), (1e-3, 100.0), (-1e-3, 0.0)])
def test_thresholds_on_both_sides(made, mode, threshold, more, hit):
    suite, samples = made

    def shorter(sample):
        low, high = sample.truth["span"]
        end = low + (threshold + more + 1e-12) * (high - low)
        return [said(low, "start"), said(end, "stop")]

    figures = scored(suite, samples, shorter, mode)
    assert figures["typed", f"R@{threshold:g} (%)"].measured.value == hit
    expected = 100 * (threshold + more)
    assert figures["typed", MIOU].measured.value == pytest.approx(expected)


def test_delay_is_taken_out_for_the_diagnosis_alone(made):
    suite, samples = made

    def late(sample):
        return [said(e.t + 0.6, e.payload["text"]) for e in suite.oracle(sample)]

    figures = scored(suite, samples, late, Mode.STRICT)
    assert figures["typed", WITHOUT].measured.value == pytest.approx(100)
    assert figures["typed", MIOU].measured.value < 80
    delay = figures["typed", "diagnosis: mean delay of both words (s)"].measured
    assert delay.value == pytest.approx(0.6)
    assert mean_delay([((1.0, 2.0), (0.5, 1.9))]) == pytest.approx(0.3)
    assert np.isnan(mean_delay([]))


def test_a_scorer_that_forgets_the_union_fails(made, monkeypatch):
    suite, samples = made

    def everything(sample):
        return [said(sample.truth["video_start"], "start"), said(sample.seconds - 0.4, "stop")]

    honest = scored(suite, samples, everything, Mode.STRICT)["typed", MIOU].measured.value
    assert honest < 70
    monkeypatch.setattr(charades, "iou", lambda one, other: 1.0 * (one[0] <= other[0] <= one[1]))
    broken = scored(suite, samples, everything, Mode.STRICT)["typed", MIOU].measured.value
    assert broken == 100


# ---------------------------------------------------------------- which action, layout


@pytest.mark.parametrize(
    ("actions", "label"),
    [
        ("c001 1.00 3.00", "c001"),
        ("c001 0.99 3.00", None),  # begins too near the start
        ("c001 7.00 9.00", "c001"),
        ("c001 7.00 9.01", None),  # ends too near the end
        ("c001 3.00 5.00", "c001"),
        ("c001 3.00 4.99", None),  # too short
        ("c001 2.00 4.00;c001 5.00 7.00", None),  # twice
        ("c001 2.00 4.00;c001 5.00 7.00;c009 2.00 4.50", "c009"),
        ("c001 2.00 4.00;c002 2.00 6.00", "c002"),  # the longest
        ("c007 2.00 4.00;c002 5.00 7.00", "c002"),  # the lowest class of equals
        ("c001 0.00 10.00", None),
        ("", None),
    ],
)
def test_chosen_action(actions, label):
    chosen = chosen_action(read_actions(actions), 10.0)
    assert (chosen.label if chosen else None) == label


def test_read_actions():
    text = "c092 11.90 21.20;c147 0.00 12.60"
    assert read_actions(text) == [Action("c092", (11.9, 21.2)), Action("c147", (0.0, 12.6))]
    with pytest.raises(ValueError, match=r"'c092 11\.90'"):
        read_actions("c092 11.90")


def test_official_layout(folder, made):
    _, samples = made
    header, row, *_ = (folder / "Charades_v1_test.csv").read_text().splitlines()
    assert header == (
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
    )
    assert row.split(",")[-2].count(";") == 1
    assert len(samples) == 6
    assert {sample.truth["action"] for sample in samples} == {"jumping", "kicking", "punching"}
    for sample in samples:
        low, high = sample.truth["span"]
        begin = sample.truth["video_start"]
        assert begin + 1 <= low < high - 2 + 1e-6
        assert sample.video.times[0] == pytest.approx(begin)
        if sample.text:
            expected = f"the person starts doing {sample.truth['action']} then say 'Stop'"
            assert expected in sample.text[0].text


def test_the_figure_moves_within_the_span(made):
    _, samples = made
    inside, outside = [], []
    for sample in samples:
        frames = np.asarray(sample.video.frames)[:, ::4, ::4].astype(int)
        change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
        times = sample.video.times[1:]
        low, high = sample.truth["span"]
        during = (times > low + 0.3) & (times < high - 0.3)
        inside.append(change[during].max())
        outside.append(np.median(change[times < low]))
    assert all(moving > 1.3 * still for moving, still in zip(inside, outside, strict=True))


def test_errors_name_what_is_missing(tmp_path, monkeypatch):
    fake_voice(monkeypatch)
    with pytest.raises(ValueError, match=r"no Charades_v1_test\.csv"):
        Charades().load(tmp_path)
    (tmp_path / "Charades_v1_test.csv").write_text("id,actions,length\nAB,c001 2 5,9\n")
    with pytest.raises(ValueError, match=r"no Charades_v1_classes\.txt"):
        Charades().load(tmp_path)
    (tmp_path / "Charades_v1_classes.txt").write_text("c001 Holding some clothes\n")
    with pytest.raises(ValueError, match=r"AB\.mp4 is missing"):
        Charades().load(tmp_path)
    (tmp_path / "Charades_v1_test.csv").write_text("id,length\nAB,9\n")
    with pytest.raises(ValueError, match="no column actions"):
        Charades().load(tmp_path)
