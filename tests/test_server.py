"""A checkpoint behind a WebSocket: the model's own events, refusals, broken connections, the end.

In: a tiny random model in a server of this process, and evaluation's own client. Out: every session
gives what the same lanes give when they are stepped directly, whoever is beside it; whatever is
wrong with a message is told in one sentence, and no lane is lost.
"""

import asyncio
import concurrent.futures
import threading
import time

import pytest

from interaction.eval.records import Kind
from interaction.eval.runner import play
from interaction.eval.systems.model import Model
from interaction.eval.systems.remote import Remote
from interaction.streams.events import TextEvent
from interaction.streams.weave import LaneInput
from interaction.types import Control
from tests.models_for_tests import LIVE as CONFIG
from tests.models_for_tests import LIVE_LANES as LANES
from tests.models_for_tests import random_params

pytest.importorskip("aiohttp.web")
import aiohttp

from interaction.serving.server import Server
from interaction.serving.shared_lanes import AllTakenError, SharedLanes, StepError, lanes_of_model
from tests.server_for_tests import (
    BEGIN,
    QUIET,
    TALKS,
    FirstLane,
    Running,
    assert_same,
    play_on,
    sample,
)


def made():
    """Lanes of the model, all free."""
    return lanes_of_model(random_params(CONFIG, seed=TALKS), CONFIG, LANES)


@pytest.fixture(scope="module")
def lanes():
    """Compiled lanes, lent to one test after the other."""
    shared = SharedLanes(made)
    yield shared
    shared.shut_down()


@pytest.fixture
def serve(lanes):
    started = []

    def start(**keywords):
        started.append(Running(lanes, **keywords))
        return started[-1]

    yield start
    for running in started:
        running.stop()
    assert lanes.sessions == 0


@pytest.fixture
def remote(serve):
    running, clients = serve(), []

    def client():
        clients.append(Remote(running.url, pause=0.01, timeout=300))
        return clients[-1]

    client.running = running
    yield client
    for each in clients:
        each.shut_down()


@pytest.fixture(scope="module")
def own():
    return Model(lambda: FirstLane(made()))


# ---------------------------------------------------------------- the same as without a wire


def test_a_session_gives_what_the_lanes_give(remote, own):
    text = (TextEvent(0.1, Control.SYSTEM, "be kind"), TextEvent(0.7, Control.USER, "hi"))
    given = sample(text=text, tools={"add": {"type": "object", "result": 4}})
    found = play(remote(), given)
    assert_same(found, play(own, given))
    status, health = remote.running.health()
    assert (status, health["status"], health["lanes"], health["sessions"]) == (
        200, "serving", LANES, 0,
    )  # fmt: skip
    assert health["steps"] >= health["last"]["steps"] >= 10
    last = health["last"]
    assert 0 < last["p50_milliseconds"] <= last["p99_milliseconds"]
    assert 0 <= last["late"] <= last["steps"]


def test_a_client_is_told_of_text_that_gives_way(remote, own):
    """Typed until the store holds nothing else: events say how much went, as the lanes count it."""
    typed = tuple(TextEvent(0.2 * now + 0.1, Control.USER, "ABCDE") for now in range(13))
    given = sample("full/1", seconds=2.6, text=typed)
    found, wanted = (
        [(e.t, e.payload["forgotten_text"]) for e in play(each, given).of(Kind.UI)]
        for each in (remote(), own)
    )
    assert found == wanted and len(found) > 1 and min(slots for _, slots in found) > 0
    lanes = own._board._lanes
    assert sum(slots for _, slots in found) == int(lanes.state.cache["lost_text"][0])
    untold = play(remote(), sample("full/2"))
    assert not untold.of(Kind.UI)


def test_sessions_of_different_pace_do_not_touch_each_other(remote, own):
    quick, slow = sample("quick/2"), sample("slow/1", seconds=1.6)
    gone = threading.Event()

    def dawdle(seconds):
        """The slow one's clock: two steps beside the quick one, the others once that is gone."""
        gone.wait(0.05 if seconds < 0.5 else 5.0)

    class Slow(Remote):
        def converse(self, sample):
            conversation = super().converse(sample)
            conversation.wait_until = dawdle
            return conversation

    lazy = Slow(remote.running.url, pause=0.01, timeout=300)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(play, lazy, slow), pool.submit(play, remote(), quick)]
        quick_run = runs[1].result()
        gone.set()
        slow_run = runs[0].result()
    lazy.shut_down()
    assert_same(quick_run, play(own, quick))
    assert_same(slow_run, play(own, slow))


def test_who_waits_at_once_shares_a_step(lanes, own):
    async def together():
        taken = [await lanes.open(7), await lanes.open(7)]
        before = lanes.steps
        chunks = [sample("a/1").audio[:3200], sample("a/2").audio[:3200]]
        given = [LaneInput(0, audio=((0, chunk),)) for chunk in chunks]
        outputs = await asyncio.gather(*map(lanes.step, taken, given))
        bad = LaneInput(5, audio=())
        results = await asyncio.gather(
            lanes.step(taken[0], bad), lanes.step(taken[1], LaneInput(1)), return_exceptions=True
        )
        for lane in taken:
            await lanes.close(lane)
        return lanes.steps - before, outputs, results

    steps, outputs, (wrong, right) = asyncio.run(together())
    assert steps == 2  # one for both, and one for the session whose neighbour's input was wrong
    assert len({output.waveform.tobytes() for output in outputs}) == 2
    assert isinstance(wrong, ValueError) and "its input is of micro_turn=5" in str(wrong)
    assert right.closer


# ---------------------------------------------------------------- refusals


def test_one_session_too_many_is_refused_and_comes_in_later(remote):
    held = [remote().converse(sample(f"h/{n}")) for n in range(LANES)]
    with pytest.raises(ConnectionError, match=f"reports: all of lanes={LANES} lanes hold a sess"):
        remote().converse(sample())
    held.pop().close()
    remote.running.until_sessions(LANES - 1)
    held.append(remote().converse(sample()))
    for conversation in held:
        conversation.close()
    remote.running.until_sessions(0)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("no json", "a message is no JSON"),
        (b"\0", "a message is binary where JSON text is due"),
        ([1], "type=[1] where type='begin' is due"),
        ({"type": "input"}, "type='input' where type='begin' is due"),
        (BEGIN | {"protocol": 2}, "protocol=2 where protocol=1 is spoken"),
        (BEGIN | {"sample_rate": 48_000}, "sample_rate=48000 where sample_rate=16000 is spoken"),
        (
            BEGIN | {"micro_turn_seconds": 0.1},
            "micro_turn_seconds=0.1 where micro_turn_seconds=0.2 is spoken",
        ),
        (BEGIN | {"tools": 3}, "begin.tools=3 where an object is due"),
        (BEGIN | {"id": "\ud800"}, "id is no text"),
    ],
)
def test_a_session_that_cannot_begin_is_told_why(serve, message, sentence):
    running = serve()
    answer = running.exchange(message)
    assert answer["type"] == "error" and sentence in answer["message"]
    running.until_sessions(0)


def test_a_malformed_input_ends_its_session_alone(remote):
    beside = remote().converse(sample())
    answer = remote.running.exchange(BEGIN, {"type": "input", "micro_turn": 4})
    assert answer == {"type": "error", "message": "micro_turn=4 where micro_turn=0 is due"}
    remote.running.until_sessions(1)
    beside.close()
    remote.running.until_sessions(0)


def test_system_text_that_cannot_be_kept_ends_its_session(remote):
    text = (TextEvent(0.0, Control.SYSTEM, "far too much to keep " * 9),)
    with pytest.raises(ConnectionError, match=r"system text takes [0-9]+ slots"):
        play(remote(), sample(text=text, seconds=6.0))
    remote.running.until_sessions(0)


# ---------------------------------------------------------------- broken off, idle, told to end


def test_a_broken_connection_frees_its_lane(serve):
    running = serve()

    async def vanish():
        async with aiohttp.ClientSession() as client:
            socket = await client.ws_connect(running.url)
            await socket.send_json(BEGIN)
            assert (await socket.receive_json())["type"] == "ready"
            await asyncio.to_thread(running.until_sessions, 1)
            await socket.send_json({"type": "input", "micro_turn": 0, "audio": [QUIET]})
            socket._response.connection.transport.abort()  # no goodbye, a step is running

    asyncio.run(vanish())
    running.until_sessions(0)


def test_a_session_that_sends_nothing_is_ended(serve):
    running = serve(idle_seconds=0.2)

    async def linger():
        async with aiohttp.ClientSession() as client, client.ws_connect(running.url) as socket:
            await socket.send_json(BEGIN)
            return [await socket.receive_json() for _ in range(2)]

    ready, error = asyncio.run(linger())
    assert ready["type"] == "ready"
    assert error == {"type": "error", "message": "nothing came for idle_seconds=0.2"}
    running.until_sessions(0)


def test_told_to_end_it_lets_sessions_end(remote):
    running = remote.running
    first = remote().converse(sample())
    ends = asyncio.run_coroutine_threadsafe(running.server.drain(120.0), running._loop)
    while running.health()[1]["status"] != "ending":
        time.sleep(0.01)
    assert running.health()[0] == 503
    with pytest.raises(ConnectionError, match="is ending and takes no more sessions"):
        remote().converse(sample())
    first.close()
    assert ends.result(120) == 0


def test_sessions_that_do_not_end_are_told(remote):
    running = remote.running
    session = remote().converse(sample())
    assert running.wait(running.server.drain(0.05)) == 1
    remote_error = "is ending, 0.05 s after it was told to|ended the connection|closing"
    with pytest.raises((ConnectionError, aiohttp.ClientError), match=remote_error):
        play_on(session)
    session.close()
    running.until_sessions(0)


def test_a_program_that_fails_is_said_and_seen(lanes, serve, monkeypatch):
    running = serve()

    def broken(_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(lanes._lanes, "step", broken)
    try:
        answer = running.exchange(BEGIN, {"type": "input", "micro_turn": 0, "audio": [QUIET]})
        assert answer["message"] == "the model's step failed: no memory"
        assert running.health()[0] == 503 and running.health()[1]["status"] == "broken"
        running.until_sessions(0)
    finally:
        lanes.broken.clear()
    assert issubclass(StepError, RuntimeError) and issubclass(AllTakenError, ValueError)


def test_a_taken_port_is_one_sentence(serve, lanes):
    running = serve()
    with pytest.raises(ValueError, match=f"port={running.port} cannot be listened on"):
        asyncio.run(Server(lanes).start("127.0.0.1", running.port))
