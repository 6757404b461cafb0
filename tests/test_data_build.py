"""`launch.py data build`: recordings of any form to shards that training reads.

In: small recordings, files of words and TFDS folders made here. Out: micro-turns in which every
word stands no later than its sound; broken files named and passed over; sessions of the curriculum
equal, bit for bit, to those that training would make.
"""

import dataclasses
import fractions
import itertools
import json
import pathlib

import av
import numpy as np
import pytest
import soundfile

import launch
from configs import finetune
from interaction import configuration
from interaction.checkpoints import native
from interaction.data import pipeline
from interaction.data.build import command
from interaction.data.build.conversation import Conversation, levelled, micro_turns, placed, spans
from interaction.data.build.folder import FolderPlan, Recorded, find
from interaction.data.build.words import Talk, Word
from interaction.data.clips import Split
from interaction.data.shards.read import ShardsConfig, ShardSource
from interaction.data.shards.rows import RowSizes
from interaction.data.shards.write import read_manifest, write
from interaction.data.target_voice import LOUDNESS
from interaction.data.voices import EspeakVoice, espeak_words
from interaction.models.config import InteractionConfig
from interaction.streams.audio import dmel
from interaction.streams.mel import mel_spectrogram
from interaction.train.loop import TrainConfig
from interaction.types import Control
from tests.conversations_for_tests import RATE, SHORT, SIZES, TOKENS, Told, at, read_back, tone
from tests.data_for_tests import tiny_bank
from tests.test_data import same

PASS, SPEAK, YIELD = (TOKENS.control(c) for c in (Control.PASS, Control.SPEAK, Control.YIELD))


# ---------------------------------------------------------------- conversations


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


@pytest.mark.slow
def test_words_are_found_where_nobody_wrote_them_down(tmp_path):
    """By the ears of the evaluation; and laid over the sound where only their text is known."""
    for module in ("espeakng_loader", "faster_whisper", "pocketsphinx"):
        pytest.importorskip(module)
    from interaction.eval.listening import Ears

    text = "the seven green apples are on the table"
    spoken = espeak_words(text, EspeakVoice("en-us+max", 140))
    start, end = 1.3 + spoken.words[0].start, 1.3 + spoken.words[-1].end
    model = at(1.3, spoken.samples[: 6 * RATE], 9.0)
    aligned = Ears().align(model, [Word(text, 1.3, end)])
    assert [word.text for word in aligned] == text.split()
    assert abs(aligned[0].start - start) < 0.1 and abs(aligned[-1].end - end) < 0.15
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(aligned))
    soundfile.write(tmp_path / "call.flac", np.stack([at(0.1, tone(0.7), 9.0), model], 1), RATE)
    plan = FolderPlan(str(tmp_path), tuple(find(tmp_path)), Ears())
    turns = [turn for made in plan.sessions(0) for turn in made.turns]
    heard = read_back(turns)
    assert len(set(" ".join(heard.values()).lower().strip(".").split()) & set(text.split())) >= 5
    speaking = [turn.micro_turn for turn in turns if turn.speech is not None]
    assert abs(speaking[0] - 5) <= 1 and abs(speaking[-1] - (int(end / 0.2) - 1)) <= 1
    assert all(speaking[0] - 1 <= now <= speaking[-1] for now in heard)


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


# ---------------------------------------------------------------- training on them


@pytest.mark.parametrize("arg", ["", "beside", "tiny"])
def test_fine_tuning_starts_from_what_is_there(arg):
    values = finetune.get_config(arg).to_dict()
    assert values.pop("trainer") == "interaction"
    config = configuration.build(TrainConfig, values)
    assert config.shards == ShardsConfig(("shards",), share=1 / 3 if arg == "beside" else 1.0)
    assert (config.curriculum is not None) == (arg == "beside")
    root = pathlib.Path(__file__).parents[1]
    assert (root / config.vocoder).is_file()
    if config.start:  # training compares them in the same way
        saved = native.read_native_config(root / config.start)["model"]
        model = configuration.build(InteractionConfig, saved)
        free = {
            name: getattr(model, name) for name in ("max_text_out", "pass_bias", "global_slots")
        }
        assert dataclasses.replace(config.model, **free) == model
    with pytest.raises(ValueError, match="arg='small'"):
        finetune.get_config("small")


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
