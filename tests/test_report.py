"""What a session leaves behind: sound at playback times, numbers, the picture, the page, rows."""

import base64
import dataclasses
import html.parser
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
import soundfile

from interaction.session.report import write_report
from interaction.session.summary import (
    Channel,
    TrueEvent,
    conversation,
    level_db,
    summarise,
    words,
)
from interaction.session.terminal import TerminalStyle, TerminalTimeline, line_of
from tests.session_records import RATE, WIDTH, session, tone, turn

# ---------------------------------------------------------------- numbers and sound


def test_both_sides_stand_at_their_own_times():
    sound = conversation(session())
    heard, spoken = np.flatnonzero(sound[:, 0]), np.flatnonzero(sound[:, 1])
    assert sound.shape == (9 * WIDTH, 2)
    assert heard[0] == pytest.approx(WIDTH, abs=2)
    assert heard[-1] == pytest.approx(2 * WIDTH, abs=2)
    assert spoken[0] == pytest.approx(0.825 * RATE, abs=2)
    assert spoken[-1] == pytest.approx(1.225 * RATE, abs=2)
    np.testing.assert_array_equal(sound[round(0.825 * RATE) :][:WIDTH, 1], tone(500))


def test_sound_that_starts_too_early_waits_and_late_sound_leaves_a_gap():
    early = (
        turn(0, spoken_audio=np.full(WIDTH, 0.1, np.float32), play_start_seconds=0.3),
        turn(1, spoken_audio=np.full(WIDTH, 0.2, np.float32), play_start_seconds=0.45),
        turn(2, spoken_audio=np.full(WIDTH, 0.3, np.float32), play_start_seconds=0.9),
    )
    spoken = conversation(session(micro_turns=early))[:, 1]
    starts = {v: np.flatnonzero(spoken == np.float32(v)) / RATE for v in (0.1, 0.2, 0.3)}
    assert [len(starts[v]) for v in starts] == [WIDTH] * 3
    assert [starts[v][0] for v in starts] == pytest.approx([0.3, 0.5, 0.9])


def test_numbers_of_a_session():
    summary = summarise(session())
    assert summary.micro_turns == 9
    assert summary.seconds == pytest.approx(1.8)
    assert summary.median_milliseconds == 25.0
    assert summary.worst_milliseconds == 230.0
    assert 200 < summary.p99_milliseconds < 230
    assert summary.over_budget == 1
    assert summary.late_chunks == 1
    assert summary.dropped_chunks == 1
    assert summary.spoken_seconds == pytest.approx(0.4)
    assert summary.forgotten_text == 0
    more = (turn(0, forgotten_text=3), turn(1), turn(2, forgotten_text=1))
    assert summarise(session(micro_turns=more)).forgotten_text == 4


def test_words_stand_when_they_existed():
    found = [(w.channel, w.text, round(w.seconds, 3)) for w in words(session())]
    assert found == [
        (Channel.TEXT_IN, "hello </script> $title", 0.0),
        (Channel.WRITE, "five", 0.625),
        (Channel.SAY, "six", 0.825),
        (Channel.DELEGATE, "look it up", 1.43),
    ]


@pytest.mark.parametrize(
    ("samples", "decibels"),
    [(np.zeros(7), -60), (np.ones(7), 0), (np.full(7, 0.1), -20), (np.zeros(0), -60)],
)
def test_level(samples, decibels):
    assert level_db(samples) == pytest.approx(decibels, abs=1e-3)


def test_an_event_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match=r"end_seconds=1.0 is before start_seconds=2.0"):
        TrueEvent(2.0, 1.0, "five")


# ---------------------------------------------------------------- files


class _Page(html.parser.HTMLParser):
    """Every tag's attributes, and the JSON that the script draws."""

    def __init__(self, text: str):
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(
        session(),
        tmp_path_factory.mktemp("report") / "new",
        title="Five & <six>",
        inputs={"audio": "a tone", "video": "a red half"},
        true_events=[TrueEvent(0.2, 0.4, "tone")],
    )


def test_waves_hold_what_the_session_sounded_like(report):
    both, rate = soundfile.read(report.conversation, dtype="float32")
    alone, _ = soundfile.read(report.answer, dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(both, conversation(session()), atol=1e-4)
    np.testing.assert_array_equal(alone, both[:, 1])


def test_picture_shows_both_sides(report):
    with PIL.Image.open(report.timeline) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 800
    for colour in ((0x25, 0x63, 0xEB), (0xD9, 0x62, 0x0A), (200, 30, 30)):
        assert (np.abs(pixels - colour).sum(-1) < 12).sum() > 50, colour


def test_page_asks_no_network_for_anything(report):
    page = _Page(report.page.read_text("utf-8"))
    addresses = [v for _, name, v in page.attributes if name in ("src", "href")]
    assert len(addresses) == 4
    assert all(a.startswith("data:") for a in addresses)
    assert "default-src 'none'" in report.page.read_text("utf-8")
    outside = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", "".join(page.scripts))
    assert not outside


def test_page_holds_the_session_and_text_stays_text(report):
    page = _Page(report.page.read_text("utf-8"))
    data = json.loads(page.scripts[0])
    assert len(page.scripts) == 2
    assert "Five & <six>" in page.text
    assert [t["ms"] for t in data["turns"]] == [25.0] * 5 + [230.0] + [25.0] * 3
    assert data["words"][0]["text"] == "hello </script> $title"
    assert data["events"] == [{"start": 0.2, "end": 0.4, "label": "tone"}]
    assert data["thumbnails"]["times"] == [0.2, 0.4]
    assert len(data["envelope"]["heard"]) == 2 * 180
    assert max(data["envelope"]["spoken"]) == 127


def test_page_carries_the_sound_exactly(report):
    page = _Page(report.page.read_text("utf-8"))
    sources = [v for tag, name, v in page.attributes if tag == "audio" and name == "src"]
    files = (report.conversation, report.answer)
    for source, file in zip(sources, files, strict=True):
        sound, _ = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        want, _ = soundfile.read(file)
        np.testing.assert_array_equal(sound, want)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text_in": ("$x^2$ \x1b[31m", "b")},
        {"spoken_audio": tone(200, 1.5)},
        {"video_frame": np.full((41, 23, 3), 7, np.uint8)},
        {"written": "a long sentence that goes on " * 4},
    ],
)
def test_one_micro_turn_is_enough(tmp_path, changes):
    files = write_report(session(micro_turns=(turn(0, **changes),)), tmp_path, title="t", inputs={})
    assert all(p.stat().st_size > 0 for p in dataclasses.astuple(files))


def test_long_sessions_go_on_in_more_staves(tmp_path):
    def height(count):
        record = session(micro_turns=tuple(turn(m) for m in range(count)))
        files = write_report(record, tmp_path / str(count), title="t", inputs={})
        with PIL.Image.open(files.timeline) as picture:
            return picture.height

    assert height(170) == pytest.approx(3 * height(75), rel=0.1)


def test_an_empty_session_is_refused(tmp_path):
    with pytest.raises(ValueError, match="micro_turns is empty"):
        write_report(session(micro_turns=()), tmp_path, title="t", inputs={})


def test_text_that_is_forgotten_stands_in_the_report_the_picture_and_the_terminal(tmp_path):
    """A line of the timeline, where it is; none of it in a session that forgot nothing."""
    kept = (turn(0, text_in=("first",)), turn(1), turn(2, written="five"))
    lost = (kept[0], dataclasses.replace(kept[1], forgotten_text=3), kept[2])
    record, other = session(micro_turns=lost), session(micro_turns=kept)
    found = [(w.channel, w.text, round(w.seconds, 3)) for w in words(record)]
    assert found[1] == (Channel.FORGOTTEN, "3 text slots", 0.425)
    assert [w.channel for w in words(other)] == [Channel.TEXT_IN, Channel.WRITE]
    told, untold = (
        write_report(each, tmp_path / name, title="t", inputs={})
        for name, each in (("told", record), ("untold", other))
    )
    page = _Page(told.page.read_text("utf-8"))
    data = json.loads(page.scripts[0])
    assert [m["forgotten"] for m in data["turns"]] == [0, 3, 0]
    assert data["words"][1] == {"t": 0.425, "channel": "forgotten", "text": "3 text slots"}
    assert "3slots of text forgotten" in page.text  # a tile: number and name
    red = []
    for files in (told, untold):
        with PIL.Image.open(files.timeline) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        # Every step is within its time: nothing but the line's name and word is of this red,
        # beside the dashes of the 200 ms, which both pictures have.
        red.append(int((np.abs(pixels - (0xDC, 0x26, 0x26)).sum(-1) < 12).sum()))
    assert red[0] > red[1] + 50
    assert " forgotten_text=3 close=pass" in line_of(lost[1])
    assert "forgotten" not in line_of(kept[1])
    stream = io.StringIO()
    with TerminalTimeline(stream, TerminalStyle.LIVE) as timeline:
        timeline.show(lost[1])
    timeline.close(summarise(record))
    assert "forgets" in stream.getvalue()
    assert "3 slots of the oldest text gave way" in stream.getvalue()


# ---------------------------------------------------------------- terminal


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (
            2,
            '   0.4s heard=-60dB video=yes late=2 write="five" close=end spoken=-60dB ms=25.0/200',
        ),
        (6, "   1.2s heard=-60dB video=no dropped=1 close=pass spoken=-60dB ms=25.0/200"),
        (3, '   0.6s heard=-60dB video=no say="six" close=speak spoken=-13dB ms=25.0/200'),
    ],
)
def test_plain_lines(number, line):
    assert line_of(session().micro_turns[number]) == line


def test_output_that_is_no_terminal_gets_plain_lines():
    stream = io.StringIO()
    timeline = TerminalTimeline(stream)
    record = session()
    with timeline:
        for micro_turn in record.micro_turns:
            timeline.show(micro_turn)
    timeline.close(summarise(record))
    lines = stream.getvalue().splitlines()
    assert timeline.style is TerminalStyle.LINES
    assert len(lines) == 9 + 3
    assert "\x1b" not in stream.getvalue()
    assert "median 25.0 ms" in lines[-2]
    assert "1 over" in lines[-2]


def test_live_rows_show_words_and_cannot_be_steered_by_them():
    stream = io.StringIO()
    with TerminalTimeline(stream, TerminalStyle.LIVE) as timeline:
        timeline.show(turn(0, written="five \x1b[2J", spoken_audio=tone(500)))
        timeline.show(turn(1, step_milliseconds=230.0))
    shown = stream.getvalue()
    assert "five" in shown
    assert "\x1b[2J" not in shown
    assert "▆" in shown
    assert "1 over 200 ms" in shown
