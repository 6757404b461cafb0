"""RepCount-A: both formulas, which number counts, the official layout, anchors, broken scorers."""

import csv

import numpy as np
import pytest

from interaction.eval.suite import Mode
from interaction.eval.suites import films, repcount
from interaction.eval.suites.repcount import (
    RepCount,
    Repeated,
    counted,
    counted_by_transcript,
    number_counted,
    number_in_transcript,
    read_annotation,
)
from interaction.eval.suites.replies import Number
from tests.timing_for_tests import assert_anchors, fake_voice, made_by, said, scored

MODES = (Mode.COMPAT, Mode.STRICT)
OBO, MAE = "off-by-one accuracy (%)", "mean normalised error (MAE)"


folder, made = made_by(RepCount(), size=3, seed=1)


@pytest.mark.parametrize("mode", MODES)
def test_anchors(made, mode):
    suite, samples = made
    figures = assert_anchors(suite, samples, mode)
    assert {name for _, name in figures} >= {OBO, MAE, "off-by-one accuracy of jumps (%)"}


@pytest.mark.parametrize(
    ("number", "count", "off_by_one", "error"),
    [
        (5, 5, 1.0, 0.0),
        (4, 5, 1.0, 1 / 5.1),
        (6, 5, 1.0, 1 / 5.1),
        (3, 5, 0.0, 2 / 5.1),
        (7, 5, 0.0, 2 / 5.1),
        (6.4, 5, 1.0, 1.4 / 5.1),  # rounds to 6
        (6.6, 5, 0.0, 1.6 / 5.1),
        (6.5, 5, 1.0, 1.5 / 5.1),  # half to even, as torch and numpy round
        (None, 5, 0.0, 5 / 5.1),
        (None, 1, 0.0, 1 / 1.1),  # saying nothing is no hit, near or not
        (0, 1, 1.0, 1 / 1.1),
    ],
)
def test_formulas_of_the_authors(number, count, off_by_one, error):
    result = counted(number, count)
    assert (result.off_by_one, result.error) == (off_by_one, pytest.approx(error))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("six", 6),
        ("Twenty", 20),
        ("none", 0),
        ("zero", 0),
        ("twenty one", None),  # words only up to twenty, and only alone
        ("I counted six", None),
        ("1, 2, 3", 1),  # the first one
        ("1,024", 1024),
        ("about 7.6 reps", 8),
        ("2.5", 2),
        ("-3", -3),
        ("", None),
    ],
)
def test_number_of_a_transcript_as_lmms_eval_reads_it(text, number):
    assert number_in_transcript(text) == number


def test_no_number_costs_the_count_itself_in_compat():
    result = counted_by_transcript("well done", 7)
    assert (result.off_by_one, result.error) == (0.0, 7.0)
    result = counted_by_transcript("8", 7)
    assert (result.off_by_one, result.error) == (1.0, pytest.approx(1 / 7.1))


@pytest.mark.parametrize(
    ("after", "expected"), [(0.0, 6), (4.0, 6), (5.0, 6), (5.0001, 6), (6.0, 6), (6.0001, None)]
)
def test_last_number_from_the_penultimate_end_on(after, expected):
    said_numbers = [Number(4.0, 4.0), Number(5.0, 5.0), Number(6.0, 6.0)]
    assert number_counted(said_numbers, after) == expected
    assert number_counted(said_numbers[:2], 5.0) == 5
    assert number_counted(said_numbers[:2], 5.001) is None


def test_penultimate_end():
    row = Repeated("squat", "a.mp4", 3, (10.0, 20.0, 20.0, 30.0, 31.0, 44.0))
    assert row.penultimate_end(10.0) == 3.0
    assert Repeated("squat", "a.mp4", 1, (10.0, 20.0)).penultimate_end(10.0) == 0.0
    assert Repeated("squat", "a.mp4", 0, ()).penultimate_end(10.0) == 0.0


def _counting(sample):
    """Counts aloud, one number a second, the last one at the end."""
    count, end = sample.truth["count"], sample.truth["last_end"]
    return [said(end - 0.5 * (count - n), str(n)) for n in range(1, count + 1)]


def test_counting_aloud_is_right_and_lmms_eval_reads_the_first_number(made):
    suite, samples = made
    strict = scored(suite, samples, _counting, Mode.STRICT)
    assert strict["spoken", OBO].measured.value == 100
    compat = scored(suite, samples, _counting, Mode.COMPAT)
    near = np.mean([100.0 * (s.truth["count"] <= 2) for s in samples if s.scene == "spoken"])
    assert compat["spoken", OBO].measured.value == near < 100


def test_a_number_said_too_early_does_not_count(made):
    suite, samples = made

    def early(sample):
        return [said(sample.truth["penultimate_end"] - 0.01, str(sample.truth["count"]))]

    def in_time(sample):
        return [said(sample.truth["penultimate_end"] + 0.01, str(sample.truth["count"]))]

    assert scored(suite, samples, early, Mode.STRICT)["typed", OBO].measured.value == 0
    assert scored(suite, samples, in_time, Mode.STRICT)["typed", OBO].measured.value == 100
    assert scored(suite, samples, early, Mode.COMPAT)["typed", OBO].measured.value == 100


def test_written_digits_count(made):
    suite, samples = made

    def written(sample):
        return [said(sample.truth["last_end"], str(sample.truth["count"]), "write")]

    for mode in MODES:
        assert scored(suite, samples, written, mode)["typed", OBO].measured.value == 100


def test_a_scorer_off_by_two_fails(made, monkeypatch):
    suite, samples = made

    def two_more(sample):
        return [said(sample.truth["last_end"], str(sample.truth["count"] + 2))]

    assert scored(suite, samples, two_more, Mode.STRICT)["typed", OBO].measured.value == 0
    broken = lambda number, count: repcount.Counted(float(abs(number - count) <= 2), 0.0)
    monkeypatch.setattr(repcount, "counted", lambda n, c: broken(n or 0, c))
    assert scored(suite, samples, two_more, Mode.STRICT)["typed", OBO].measured.value == 100


# ---------------------------------------------------------------- layout and films


def test_official_layout(folder, made):
    _, samples = made
    with (folder / "annotation" / "test.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["type", "name", "count", "L1"]
    for row in rows[1:]:
        assert len([cell for cell in row[3:] if cell]) == 2 * int(row[2])
        assert (folder / "video" / "test" / row[1]).is_file()
    assert {sample.truth["action"] for sample in samples} == {"jumps", "kicks", "punches"}
    typed = next(s for s in samples if s.scene == "typed")
    assert typed.text[0].text == f"Please count out reps for {typed.truth['action']}."
    assert typed.audio is None
    spoken = next(s for s in samples if s.scene == "spoken")
    assert spoken.audio is not None
    assert len(spoken.audio) == round(spoken.seconds * 16_000)
    assert np.flatnonzero(spoken.audio)[-1] / 16_000 < spoken.video.times[0]


def test_films_are_what_was_rendered(made):
    _, samples = made
    for sample in samples:
        video, truth = sample.video, sample.truth
        assert len(video.times) == len(video.frames)
        assert video.frames[3:5].shape == (2, 160, 160, 3)
        assert video.frames[0].dtype == np.uint8
        assert truth["penultimate_end"] < truth["last_end"] < video.times[-1] < sample.seconds
        moving = np.asarray(video.frames).astype(int)
        first = round((truth["penultimate_end"] - video.times[0]) * 10)
        last = round((truth["last_end"] - video.times[0]) * 10)
        change = np.abs(np.diff(moving[first:last], axis=0)).mean((1, 2, 3))
        assert change.max() > 1.2 * np.abs(np.diff(moving[:5], axis=0)).mean()


def test_further_columns_and_gaps_are_passed_over(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(",type,name,count,L1,L2,L10,L3\n0,squat,a.mp4,1.0,5,9,12,10\n1,x,b.mp4,,,,,\n")
    assert read_annotation(path) == [Repeated("squat", "a.mp4", 1, (5.0, 9.0, 10.0, 12.0))]
    path.write_text("type,name\nsquat,a.mp4\n")
    with pytest.raises(ValueError, match="no column count"):
        read_annotation(path)


def test_errors_name_what_is_missing(tmp_path, folder, monkeypatch):
    fake_voice(monkeypatch)
    with pytest.raises(ValueError, match=r"annotation/test\.csv"):
        RepCount().load(tmp_path)
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation" / "test.csv").write_text("type,name,count,L1\nsquat,gone.mp4,1,3\n")
    with pytest.raises(ValueError, match=r"gone\.mp4 is missing"):
        RepCount().load(tmp_path)


def test_a_missing_film_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.mp4: no such file"):
        films.film_seconds(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match="no video format"):
        films.film_seconds(tmp_path / "text.mp4")
