"""Files with the times of words: every form gives the same words, a broken one is named."""

import json

import pytest

from interaction.data.build.word_files import read_words
from interaction.data.build.words import Talk
from tests.conversations_for_tests import SHORT

JSON = (
    ([{"text": "yes", "start": 1, "end": 1.5, "speaker": "model"},
      {"word": " hello", "start": 0.1, "end": 0.4, "speaker": "USER"}],
     [("hello", 0.1, 0.4)], [("yes", 1.0, 1.5)]),
    ({"words": [{"text": "yes", "start": 1, "end": 1.5, "channel": 2}]}, [], [("yes", 1.0, 1.5)]),
    ({"segments": [{"text": "oh yes", "start": 1, "end": 2, "speaker": "assistant", "words": [
        {"word": "oh", "start": 1, "end": 1.3}, {"word": "yes", "start": 1.4, "end": 2}]}]},
     [], [("oh", 1.0, 1.3), ("yes", 1.4, 2.0)]),
    ({"utterances": [{"text": "oh yes", "start": 1, "end": 2, "speaker": "right"}]},
     [], [("oh yes", 1.0, 2.0)]),
    ({"alignments": [["yes", [1.0, 1.5], "SPEAKER_MAIN"], ["hm", [0, 0.2], "SPEAKER_USER"]]},
     [("hm", 0.0, 0.2)], [("yes", 1.0, 1.5)]),
)  # fmt: skip


def words(talk: Talk) -> list[tuple[str, float, float]]:
    return [(w.text, w.start, w.end) for w in talk.words]


@pytest.mark.parametrize(("values", "user", "model"), JSON)
def test_json(tmp_path, values, user, model):
    path = tmp_path / "call.json"
    path.write_text(json.dumps(values))
    read = read_words(path)
    assert (words(read["user"]), words(read["model"])) == (user, model)


def test_rttm(tmp_path):
    path = tmp_path / "call.rttm"
    path.write_text(
        ";; a comment\nSPKR-INFO call 1 <NA> <NA> <NA> unknown user <NA>\n"
        "SPEAKER call 1 0.50 1.25 <NA> <NA> user <NA> <NA>\n"
        "SPEAKER call 2 3.00 0.50 <NA> <NA> spk_7 <NA>\n"
        "LEXEME call 2 3.10 0.30 yes lex model 0.9\n"
    )
    read = read_words(path)
    assert read["user"] == Talk((), ((0.5, 1.75),))
    assert read["model"].speech == ((3.0, 3.5),)  # by its channel: the name says nothing
    assert words(read["model"]) == [("yes", 3.1, pytest.approx(3.4))]


LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "user - words"
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 2.5
            text = "say ""2"""
    item [2]:
        class = "IntervalTier"
        name = "model - words"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 1e-1
            xmax = 0.75
            text = "two"
    item [3]:
        class = "IntervalTier"
        name = "model - phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0.1
            xmax = 0.75
            text = "T"
'''


@pytest.mark.parametrize("text", [LONG, SHORT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrid(tmp_path, text, encoding):
    path = tmp_path / "call.TextGrid"
    path.write_text(text, encoding=encoding)
    read = read_words(path)
    assert words(read["user"]) == [('say "2"', 0.5, 2.5)]
    assert words(read["model"]) == [("two", 0.1, 0.75)]


BAD = (
    ("a.json", '{"text": "x"}', "hold neither words nor segments"),
    ("a.json", '[{"text": "x", "start": 1, "end": 2}]', "'x' at 1 s has no speaker"),
    ("a.json", '[{"text": "x", "start": 1, "end": 0.5, "speaker": "user"}]', r"end=0\.5 are no"),
    ("a.json", '[{"text": "x", "start": 1, "end": 2, "speaker": "Bob"}]', "'Bob' is neither"),
    ("a.json", '[{"start": 1, "speaker": "user"}]', "'word'"),
    ("a.json", "[", "a.json"),
    ("a.rttm", "SPEAKER a 1 0.5", "line 1 has 4 fields"),
    ("a.rttm", "SPEAKER a 1 0.5 0 <NA> <NA> user", "no span of time"),
    ("a.TextGrid", "hello", "it ends in the middle"),
    ("a.TextGrid", LONG[:500], "it ends in the middle"),
    ("a.TextGrid", '"ooTextFile" "Pitch" 1 2', "not a TextGrid"),
)


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_broken_files_of_words_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}|{message}"):
        read_words(tmp_path / name)
