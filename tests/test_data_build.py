"""`launch.py data build`: recordings of any form to shards that training reads.

In: small recordings, files of words and TFDS folders made here. Out: micro-turns in which every
word stands no later than its sound; broken files named and passed over; sessions of the curriculum
equal, bit for bit, to those that training would make.
"""

import dataclasses
import fractions
import json
import pathlib

import av
import numpy as np
import pytest
import soundfile

import launch
from interaction.data import pipeline, tfds_folder
from interaction.data.build import command, tfds_plan
from interaction.data.build.conversation import Conversation, levelled, micro_turns, placed, spans
from interaction.data.build.folder import FolderPlan, Recorded, find
from interaction.data.build.known import KNOWN, Use
from interaction.data.build.word_files import read_words
from interaction.data.build.words import Talk, Word
from interaction.data.clips import Split
from interaction.data.shards.read import ShardsConfig, ShardSource
from interaction.data.shards.rows import RowSizes
from interaction.data.shards.write import read_manifest, write
from interaction.data.target_voice import LOUDNESS
from interaction.streams.audio import dmel
from interaction.streams.mel import mel_spectrogram
from interaction.streams.text import ByteTokenizer, ChannelReader
from interaction.types import Control
from tests.test_data import same, tiny_bank

RATE, TOKENS = 16_000, ByteTokenizer()
SIZES = RowSizes(slots=300, audio=80, patches=80)
PASS, SPEAK, YIELD = (TOKENS.control(c) for c in (Control.PASS, Control.SPEAK, Control.YIELD))


def tone(seconds: float, pitch: float = 220.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def at(start: float, wave: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    result = np.zeros(round(seconds * rate), np.float32)
    first = round(start * rate)
    result[first : first + len(wave)] = wave
    return result


class Told:
    """A listener that knows one word by heart, or says that it was not to be asked."""

    def __init__(self, *words: Word, unasked: bool = False):
        self.words, self.unasked = words, unasked

    def listen(self, wave):
        assert not self.unasked
        spoken = [w for w in self.words if np.any(wave[round((w.start + 0.05) * RATE) :][:100])]
        return Talk(tuple(spoken), tuple((w.start, w.end) for w in spoken))

    def align(self, wave, utterances):
        assert not self.unasked
        return tuple(
            Word(text, u.start + 0.2 * i, u.start + 0.2 * i + 0.1)
            for u in utterances
            for i, text in enumerate(u.text.split())
        )


# ---------------------------------------------------------------- files of words


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
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"user"
0
2.5
1
0.5
2.5
"say ""2"""
"IntervalTier"
"MODEL"
0
2.5
1
0.1
0.75
"two"
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


# ---------------------------------------------------------------- conversations


def read_back(turns) -> dict[int, str]:
    reader, result = ChannelReader(TOKENS), {}
    for t in turns:
        for piece in reader.push(t.micro_turn, t.text_out).pieces:
            result[t.micro_turn] = result.get(t.micro_turn, "") + piece.text
    return result


def test_what_is_said_stands_where_its_sound_is_put_out():
    user, model = at(0.1, tone(0.7), 4.0), at(1.3, tone(0.5, 330), 4.0)
    said = Talk((Word("oh", 1.3, 1.45), Word("yes", 1.5, 1.8)))
    turns = micro_turns(Conversation(user, model, said), SIZES)
    assert [t.micro_turn for t in turns] == list(range(20))
    np.testing.assert_array_equal(
        np.concatenate([t.audio[0].bins for t in turns]), dmel(user).reshape(-1, 80)
    )
    # Sound of 1.26 s to 1.88 s is that of the chunks 6 to 9, put out by micro-turns 5 to 8.
    assert [t.micro_turn for t in turns if t.speech is not None] == [5, 6, 7, 8]
    assert [t.text_out[-1] for t in turns[4:10]] == [PASS, SPEAK, SPEAK, SPEAK, SPEAK, YIELD]
    assert read_back(turns) == {5: "oh", 6: "yes"}
    mel = mel_spectrogram(levelled(model, said)).reshape(20, 16, 80)
    for t in turns[5:9]:
        np.testing.assert_array_equal(t.speech, mel[t.micro_turn + 1])
    heard = levelled(model, said)
    inside = heard[round(1.3 * RATE) : round(1.8 * RATE)]
    assert LOUDNESS * 0.8 < np.sqrt(np.mean(inside**2)) < LOUDNESS * 1.2


def test_a_wrong_shift_would_be_noticed():
    """Sound at the very start of a recording cannot be put out by any micro-turn."""
    wave = at(0.0, tone(0.3), 1.0)
    turns = micro_turns(Conversation(None, wave, Talk((Word("a", 0.0, 0.3),))), SIZES)
    assert [t.micro_turn for t in turns if t.speech is not None] == [0]
    assert all(not t.audio for t in turns)
    assert read_back(turns) == {}  # nor its word, which begins before any micro-turn


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(3, "one"), (3, "two"), (5, "three")], {3: "one two", 5: "three"}),
        ([(3, "seven"), (3, "eight"), (3, "nine")], {1: "seven", 2: "eight", 3: "nine"}),
        ([(3, "wonderfully")], {2: "wonderfu", 3: "lly"}),
        ([(3, "a"), (3, "wonderfully")], {1: "a", 2: "wonderfu", 3: "lly"}),
        ([(3, "wonderfully"), (3, "so")], {2: "wonderfu", 3: "lly so"}),
        ([(3, "äöüäö")], {2: "äöüä", 3: "ö"}),
        ([(0, "seven"), (0, "eight")], {0: "eight"}),
        ([], {}),
    ],
)
def test_words_are_never_later_than_their_sound(given, expected):
    timed = [(now, Word(text, 1.0, 2.0)) for now, text in given]
    assert placed(timed, 8) == expected


def test_spans_close_small_gaps():
    said = Talk((Word("a", 1.0, 1.2), Word("b", 1.5, 1.6)), ((4.0, 5.0),))
    assert np.allclose(spans(said), [(0.96, 1.68), (3.96, 5.08)])


# ---------------------------------------------------------------- a folder


def write_video(path: pathlib.Path, seconds: float, sound: np.ndarray | None = None) -> None:
    """A video of a brightening picture, 48 x 64 at 25 per second, perhaps with stereo sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=44_100)
            audio.layout = "stereo"
        for index in range(round(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * index, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = 44_100, fractions.Fraction(1, 44_100)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def stereo(seconds: float, rate: int, start: float = 1.3) -> np.ndarray:
    left = at(0.1, tone(0.7, rate=rate), seconds, rate)
    return np.stack([left, at(start, tone(0.5, 330, rate), seconds, rate)])


WORDS = [{"text": "yes", "start": 1.3, "end": 1.8, "speaker": "model"}]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> pathlib.Path:
    """Five that can be used, four that cannot, and a page of text."""
    root = tmp_path_factory.mktemp("recordings")
    (root / "more").mkdir()
    soundfile.write(root / "a.wav", stereo(9.0, 44_100).T, 44_100)
    (root / "a.json").write_text(json.dumps(WORDS))
    soundfile.write(root / "more" / "b.flac", stereo(4.0, 8_000).T, 8_000)
    (root / "more" / "b.rttm").write_text("SPEAKER b 2 1.25 0.6 <NA> <NA> model\n")
    soundfile.write(root / "c.ogg", stereo(3.0, 48_000).T, 48_000)
    write_video(root / "d.mp4", 3.0, stereo(3.0, 44_100))
    (root / "d.TextGrid").write_text(SHORT)
    soundfile.write(root / "e.wav", stereo(2.4, RATE).T, RATE)
    write_video(root / "e.mkv", 1.7)
    (root / "e.json").write_text(json.dumps([WORDS[0] | {"text": "yes it is"}]))
    soundfile.write(root / "mono.wav", tone(1.0), RATE)
    (root / "empty.wav").write_bytes(b"")
    (root / "noise.wav").write_bytes(b"no sound at all" * 40)
    soundfile.write(root / "late.wav", stereo(1.5, RATE, 0.4).T, RATE)
    (root / "late.json").write_text(json.dumps([WORDS[0] | {"start": 9, "end": 9.5}]))
    (root / "notes.txt").write_text("hello")
    return root


LISTENER = Told(Word("yes", 1.3, 1.8), Word("no", 2.0, 2.2))


@pytest.fixture(scope="module")
def plan(recordings) -> FolderPlan:
    return FolderPlan(str(recordings), tuple(find(recordings)), LISTENER, SIZES, 2)


def test_recordings_are_found_with_what_lies_beside_them(plan):
    by_name = {found.sound: found for found in plan.found}
    assert list(by_name) == ["a.wav", "c.ogg", "d.mp4", "e.wav", "empty.wav", "late.wav",
                             "mono.wav", "more/b.flac", "noise.wav"]  # fmt: skip
    assert by_name["d.mp4"] == Recorded("d.mp4", "d.TextGrid", "d.mp4")
    assert by_name["e.wav"] == Recorded("e.wav", "e.json", "e.mkv")
    assert by_name["c.ogg"] == Recorded("c.ogg")


def sessions(plan: FolderPlan, name: str):
    return plan.sessions([found.sound for found in plan.found].index(name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.wav", {5: "yes"}),
        ("more/b.flac", {5: "yes"}),  # only what the RTTM calls the model's is listened to
        ("c.ogg", {5: "yes"}),
        ("e.wav", {5: "yes", 6: "it", 7: "is"}),
    ],
)
def test_any_rate_and_container_gives_the_same_words(plan, name, said):
    turns = [turn for made in sessions(plan, name) for turn in made.turns]
    assert read_back(turns) == said
    speaking = [turn.micro_turn for turn in turns if turn.speech is not None]
    assert speaking[0] == 5 and speaking == list(range(5, speaking[-1] + 1))
    assert all(len(turn.audio) == 1 for turn in turns)


def test_a_long_recording_is_cut_and_says_where_it_came_from(plan):
    made = sessions(plan, "a.wav")
    assert [len(session.turns) for session in made] == [20, 20, 5]
    assert made[1].origin == "a.wav from 4.0 s"
    assert made[1].turns[0].micro_turn == 20


def test_video_comes_with_its_sound_or_beside_it(plan):
    (own,), (beside,) = sessions(plan, "d.mp4"), sessions(plan, "e.wav")
    seen = [turn.micro_turn for turn in own.turns if turn.video is not None]
    assert seen == list(range(15))
    lit = [turn.video.mean() for turn in beside.turns if turn.video is not None]
    assert len(beside.turns) == 12 and len(lit) == 9 and (np.diff(lit) > 3).all()
    assert beside.turns[0].video.shape == (4, 2, 40, 40, 3)


def test_broken_files_are_named_and_the_others_are_kept(plan, tmp_path):
    manifest = write(plan, tmp_path)
    assert manifest is not None
    told = {failure.input: failure.error for failure in manifest.failures}
    assert set(told) == {"mono.wav", "empty.wav", "noise.wav", "late.wav"}
    assert "1 channel(s); 2 are needed" in told["mono.wav"]
    assert "0 bytes" in told["empty.wav"]
    assert "no sound or video format" in told["noise.wav"]
    assert "words at 9.00 s lie after its end at 1.50 s" in told["late.wav"]
    text = command.told(manifest, tmp_path)
    assert "4 inputs were left out" in text and "slots filled: " in text
    source = ShardSource(ShardsConfig((str(tmp_path),)))
    assert len(source) == manifest.sessions == 7


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no sound and no video"),
        (["a.txt", ".hidden.wav"], "no sound and no video"),
        (["a.wav", "a.flac"], "a has 2 files of recordings: a.flac and a.wav"),
        (["a.wav", "a.json", "a.rttm"], "2 files of words"),
    ],
)
def test_folders_that_say_too_little_or_too_much(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find(tmp_path / "gone")


# ---------------------------------------------------------------- the curriculum


@pytest.fixture
def supply(monkeypatch):
    """Plain conversations of made-up clips, as the configuration of a run names them."""
    monkeypatch.setattr(pipeline, "load_bank", lambda config: tiny_bank())
    monkeypatch.setattr(pipeline, "bank_path", lambda config: pathlib.Path(__file__))
    pipeline.conversations.cache_clear()
    yield {
        "data": {
            "seed": 5, "slip_share": 0.1, "audio_micro_turns": 31, "video_micro_turns": 23,
            "silent_video_micro_turns": 29, "slots": 300, "patches": 116,
            "folders": {"media": "/nowhere"},
        }
    }  # fmt: skip
    pipeline.conversations.cache_clear()


def test_a_session_comes_back_from_its_shard_as_straight_from_the_curriculum(
    supply, tmp_path, monkeypatch
):
    parsed = launch._parser().parse_args(
        ["data", "build", "--curriculum", "x.py", "--sessions", "6", "--per-shard", "4",
         "--out", str(tmp_path)]
    )  # fmt: skip
    manifest = command.run(parsed, listener=Told(unasked=True), read_config=lambda place: supply)
    assert manifest is not None and manifest.sessions == 6 and len(manifest.files) == 2
    config = command.generated_config(supply)
    straight = next(pipeline.batches(config, size=6, workers=0, split=Split.TRAIN))
    source = ShardSource(ShardsConfig((str(tmp_path),)))
    shards = pipeline.stack(manifest.rows, [source[i] for i in range(6)])
    assert same(shards, straight)
    assert not same(
        pipeline.stack(manifest.rows, [source[i] for i in (1, 0, 2, 3, 4, 5)]), straight
    )
    # Beside the curriculum they take their share of the places.
    mixed = next(
        pipeline.batches(
            config, size=4, workers=0, shards=ShardsConfig((str(tmp_path),), share=0.5)
        )
    )
    first = straight.slots.token[:2]
    np.testing.assert_array_equal(mixed.slots.token[[0, 2]], first)


# ---------------------------------------------------------------- TFDS


def tfds_set(root: pathlib.Path, name: str, features: dict, examples: list[dict]) -> pathlib.Path:
    """A data set as TFDS leaves it: written by TFDS itself, its features then said to be sound.

    Without TensorFlow TFDS writes tensors, not its `Audio`; the records of both are the same, and
    ``features.json`` is given the form that TFDS 4.9.10 gives it (`AudioFeature` of its
    feature.proto).
    """
    import tensorflow_datasets as tfds

    sounds = {n: f for n, f in features.items() if isinstance(f, dict)}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.1")
        code_path = None  # this file is no package of a data set

        def _info(self):
            made = {n: tfds.features.Tensor(shape=(None,), dtype=np.dtype(f["dtype"]))
                    for n, f in sounds.items()}  # fmt: skip
            every = tfds.features.FeaturesDict({**features, **made})
            return tfds.core.DatasetInfo(builder=self, features=every)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    Builder.name = name
    Builder(data_dir=str(root), file_format="array_record").download_and_prepare()
    folder = root / name / "2.0.1"
    values = json.loads((folder / "features.json").read_text())
    for feature, form in sounds.items():
        values["featuresDict"]["features"][feature] = {
            "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
            "audio": {"shape": {"dimensions": ["-1"]}, "encoding": "none", **form},
        }
    (folder / "features.json").write_text(json.dumps(values))
    return folder


def whole(wave: np.ndarray, dtype="int64") -> np.ndarray:
    return np.round(wave * 32_767).astype(dtype)


@pytest.fixture(scope="module")
def tfds_root(tmp_path_factory) -> pathlib.Path:
    tfds = pytest.importorskip("tensorflow_datasets")
    text, scalar = tfds.features.Text(), tfds.features.Scalar(np.int64)
    root = tmp_path_factory.mktemp("tfds")
    waves = [tone(0.4 + 0.1 * i, 200 + 40 * i, 8_000) for i in range(5)]
    tfds_set(
        root, "spoken_digit",
        {"audio": {"dtype": "int64", "sampleRate": "8000", "fileFormat": "wav"},
         "label": tfds.features.ClassLabel(num_classes=10), "audio/filename": text},
        [{"audio": whole(w), "label": i, "audio/filename": f"{i}_theo_0.wav"}
         for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "speech_commands",
        {"audio": {"dtype": "int16", "sampleRate": "16000", "fileFormat": "wav"},
         "label": tfds.features.ClassLabel(names=["down", "go"])},
        [{"audio": whole(w, "int16"), "label": i % 2} for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "librispeech",
        {"speech": {"dtype": "int64", "sampleRate": "16000", "fileFormat": "flac"}, "text": text,
         "speaker_id": scalar, "chapter_id": scalar, "id": text},
        [{"speech": whole(w), "text": "MISTER QUILTER IS THE APOSTLE OF", "speaker_id": 7,
          "chapter_id": 8, "id": str(i)} for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "ljspeech",
        {"id": text, "speech": {"dtype": "int64", "sampleRate": "22050"}, "text": text,
         "text_normalized": text},
        [{"id": "a", "speech": whole(tone(0.8, 300, 22_050)), "text": "1 of 2",
          "text_normalized": "one of two, the first"}] * 3,
    )  # fmt: skip
    return root


def test_an_example_is_read_without_tensorflow(tfds_root):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("spoken_digit", str(tfds_root))), "test")
    assert len(folder) == 5
    wanted = {str(i): tone(0.4 + 0.1 * i, 200 + 40 * i, 8_000) for i in range(5)}
    for index in range(5):
        example = folder[index]
        assert example.rate == 8_000
        np.testing.assert_allclose(example.samples, wanted[example.text], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("spoken_digit", set("01234")),
        ("speech_commands", {"down", "go"}),
        ("librispeech", {"MISTER QUILTER IS THE APOSTLE OF"}),
    ],
)
def test_what_is_heard_is_written_after_its_end(tfds_root, tmp_path, name, texts):
    parsed = launch._parser().parse_args(
        ["data", "build", "--tfds", name, "--data-dir", str(tfds_root), "--out", str(tmp_path),
         "--row", "slots=300", "--row", "audio=80"]
    )  # fmt: skip
    plan = command._plan(parsed, Told(unasked=True), launch.read_config)
    turns = [turn for made in plan.sessions(0) for turn in made.turns]
    written, told = read_back(turns), []
    for now in sorted(written):  # pieces in micro-turns that follow each other are one text
        if told and now == told[-1][1] + 1:
            told[-1] = (told[-1][0] + written[now], now)
        else:
            told.append((written[now], now))
    assert {text for text, _ in told} == texts and len(told) == 5
    assert all(turn.speech is None for turn in turns)
    loud = [t.micro_turn for t in turns if t.audio[0].bins.max() > 3]
    for now in sorted(written):
        assert any(before <= now for before in loud)
    assert min(written) >= min(loud) + 1


def test_what_is_read_is_typed_then_said(tfds_root, tmp_path):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("ljspeech", str(tfds_root))), "train",
                                    KNOWN["ljspeech"].audio, KNOWN["ljspeech"].text)  # fmt: skip
    plan = tfds_plan.TfdsPlan(folder, Use.READ, Told(), SIZES, together=2)
    assert plan.inputs == 2
    (made,) = plan.sessions(1)
    typed = [t for t in made.turns if t.text_in]
    assert (
        "".join(TOKENS.decode(p.tokens) for t in typed for p in t.text_in)
        == "one of two, the first"
    )
    speaking = [t.micro_turn for t in made.turns if t.speech is not None]
    assert typed[-1].micro_turn <= speaking[0]
    assert " ".join(read_back(made.turns).values()) == "one of two, the first"


def test_voxpopuli_is_known_by_its_features_alone():
    """It is no data set of TFDS 4.9.10 itself; a prepared one has these features."""
    assert (KNOWN["voxpopuli"].audio, KNOWN["voxpopuli"].text) == ("audio", "normalized_text")


TFDS_BAD = (
    ({"split": "dev"}, r"no split 'dev' in ArrayRecord; it has \['spoken_digit-test'"),
    ({"audio": "speech"}, "no feature 'speech'"),
    ({"audio": "label", "text": "gone"}, "no feature 'gone'"),
)


@pytest.mark.parametrize(("values", "message"), TFDS_BAD)
def test_what_a_data_set_lacks_is_named(tfds_root, values, message):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("spoken_digit", str(tfds_root))))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataclasses.replace(folder, **values).check()


def test_a_data_set_that_is_not_there_says_how_to_get_it(tfds_root):
    with pytest.raises(FileNotFoundError, match="tfds build fleurs --file_format=array_record"):
        tfds_folder.locate("fleurs", str(tfds_root))


# ---------------------------------------------------------------- the command


def test_the_command_from_the_door(recordings, tmp_path, capsys):
    soundfile.write(tmp_path / "in.wav", np.zeros((100, 2)), RATE)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "a.json", "mono.wav"):
        (folder / name).write_bytes((recordings / name).read_bytes())
    asked = ["data", "build", "--from", str(folder), "--out", str(tmp_path / "out")]
    assert launch.main(asked) == 0
    text = capsys.readouterr().out
    assert "1 shards" in text and "1 inputs were left out" in text and "mono.wav" in text
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert launch.main(asked) == 0  # nothing is left to do
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == first
    assert read_manifest(tmp_path / "out").rows == RowSizes()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--from", "/nowhere"], "/nowhere: there is no such folder"),
        (["--from", ".", "--row", "slots"], "--row slots: write it as NAME=N"),
        (["--from", ".", "--row", "slot=9"], "did you mean 'slots'"),
        (["--from", ".", "--per-shard", "0"], "--per-shard 0"),
        (["--curriculum", "configs/nano.py", "--split", "dev"], "--split dev"),
        (["--curriculum", "configs/vocoder.py"], "neither curriculum nor data"),
        (["--curriculum", "configs/nano.py", "--row", "slots=9"], "the sizes are those of"),
        (["--tfds", "spoken_digit", "--data-dir", "/nowhere"], "holds no version of spoken_digit"),
    ],
)
def test_the_command_names_what_it_cannot_do(extra, message, tmp_path, capsys):
    assert launch.main(["data", "build", "--out", str(tmp_path), *extra]) == 1
    assert message in capsys.readouterr().err
