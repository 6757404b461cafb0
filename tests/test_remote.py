"""A system behind a WebSocket: what goes over the wire and what goes wrong on it.

In: a server in this process that speaks `docs/remote.md`. Out: the same run as the system gives
here, and one sentence for every way to break the protocol.
"""

import asyncio
import base64
import io
import json
import pathlib
import re
import threading

import numpy as np
import PIL.Image
import pytest

from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Sample
from interaction.eval.runner import play
from interaction.eval.systems.remote import Remote
from interaction.session.exchange import STOP_PLAYBACK, forgotten
from interaction.session.wire import from_pcm, output_message, read_event, to_pcm
from interaction.streams.events import TextEvent, VideoFrames
from interaction.types import Control

web = pytest.importorskip("aiohttp.web")


class Server:
    """Answers each input by `answer(message)`; keeps what came."""

    def __init__(self, answer, ready=None):
        self.came, self._answer = [], answer
        self._ready = {"type": "ready", "protocol": 1} if ready is None else ready
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self):
        app = web.Application()
        app.router.add_get("/talk", self._talk)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"ws://127.0.0.1:{self._runner.addresses[0][1]}/talk"

    async def _talk(self, request):
        socket = web.WebSocketResponse(max_msg_size=2**26)
        await socket.prepare(request)
        async for message in socket:
            content = json.loads(message.data)
            self.came.append(content)
            if content["type"] == "begin":
                await socket.send_json(self._ready)
            elif content["type"] == "input":
                answer = self._answer(content)
                if answer is None:
                    await socket.close()
                elif isinstance(answer, str):
                    await socket.send_str(answer)
                else:
                    await socket.send_json(answer)
        return socket

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def output(message, *events):
    return {"type": "output", "micro_turn": message["micro_turn"], "events": list(events)}


def echo(message):
    events = [{"t": message["ends"], "kind": "audio", "pcm": a["pcm"]} for a in message["audio"]]
    for text in message["text"]:
        payload = {"channel": "write", "text": text["text"]}
        events.append({"t": message["ends"], "kind": "text", "payload": payload})
    return output(message, *events)


@pytest.fixture
def serve():
    started = []

    def start(answer, **keywords):
        server = Server(answer, keywords.pop("ready", None))
        remote = Remote(server.url, pause=0.01, **keywords)
        started.extend([remote.shut_down, server.stop])
        return server, remote

    yield start
    for stop in started:
        stop()


def sample(**changes):
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (2, 6, 8, 3), dtype=np.uint8)
    values = {
        "seconds": 1.0,
        "audio": random.normal(0, 0.1, SAMPLE_RATE // 2).astype(np.float32),
        "video": VideoFrames(np.array([0.25, 0.5]), frames),
        "text": (TextEvent(0.3, Control.USER, "héllo"),),
        "tools": {"add": {"type": "object", "result": 4}},
    }
    return Sample("toy", "wire", "w/1", **values | changes)


def test_everything_goes_over_the_wire_and_comes_back(serve):
    server, remote = serve(echo)
    given = sample()
    run = play(remote, given)
    begin, *inputs, end = server.came
    assert begin["id"] == "w/1"
    assert begin["tools"] == {"add": {"type": "object"}}  # what a call gives back is not told
    assert end == {"type": "end"}
    assert [m["micro_turn"] for m in inputs] == list(range(5))
    (frame,) = inputs[1]["video"]
    picture = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(frame["png"]))))
    np.testing.assert_array_equal(picture, given.video.frames[0])
    assert run.text() == "héllo"
    heard = from_pcm("".join([to_pcm(given.audio)]))
    np.testing.assert_array_equal(run.waveform()[3200 : 3200 + len(heard)], heard)
    assert len(run.step_seconds) == 5


def test_calls_get_their_results(serve):
    def answer(message):
        call = {"function": "add", "args": {"a": 2, "b": 2}}
        event = {"t": message["ends"], "kind": "tool", "payload": call}
        return output(message, *([event] if message["micro_turn"] == 1 else []))

    server, remote = serve(answer)
    run = play(remote, sample())
    results = [m["tool_results"] for m in server.came if m["type"] == "input"]
    assert [json.loads(r[0])["result"] for r in results if r] == [4]
    assert results[2]
    assert run.of(Kind.TOOL)[0].payload["args"] == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda m: None, "ended the connection"),
        (lambda m: "no json", "sent no message: 'no json'"),
        (lambda m: {"type": "error", "message": "out of memory"}, "reports: out of memory"),
        (lambda m: {"type": "ready"}, "sent 'ready' where 'output' was due"),
        (lambda m: {"type": "output", "micro_turn": 7}, "answered micro_turn=7, asked was 0"),
        (lambda m: output(m, {"t": 1.0, "kind": "text", "payload": {}}), "docs/remote.md"),
    ],
)
def test_a_broken_answer_is_told(serve, answer, sentence):
    _, remote = serve(answer)
    with pytest.raises(ConnectionError, match=re.escape(sentence)):
        play(remote, sample())


def test_another_protocol_is_refused(serve):
    _, remote = serve(echo, ready={"type": "ready", "protocol": 9})
    with pytest.raises(ConnectionError, match="speaks protocol 9, this is 1"):
        play(remote, sample())


def test_an_endpoint_that_is_not_there_is_tried_and_told():
    remote = Remote("ws://127.0.0.1:9/nothing", tries=2, pause=0.01)
    try:
        with pytest.raises(ConnectionError, match="could not be reached in 2 tries"):
            play(remote, sample())
    finally:
        remote.shut_down()
    with pytest.raises(ValueError, match="must begin with ws://"):
        Remote("http://127.0.0.1")


def test_an_endpoint_that_does_not_answer_is_told(serve):
    def slow(message):
        import time

        time.sleep(0.6)
        return echo(message)

    _, remote = serve(slow, timeout=0.2)
    with pytest.raises(ConnectionError, match="did not answer within"):
        play(remote, sample())


def test_a_live_endpoint_is_fed_in_real_time(serve):
    _, remote = serve(echo, tempo="live")
    import time

    begin = time.monotonic()
    play(remote, sample(seconds=0.6))
    assert time.monotonic() - begin >= 0.6


def test_sound_outside_of_16_bits_is_clipped_and_bad_base64_refused():
    np.testing.assert_array_equal(from_pcm(to_pcm(np.array([2.0, -2.0]))), [32767 / 32768, -1.0])
    with pytest.raises(ConnectionError, match=r"docs/remote\.md"):
        read_event({"t": 0.2, "kind": "audio", "pcm": "!"})


def test_that_text_was_forgotten_goes_over_the_wire():
    event = OutputEvent(0.8, Kind.UI, forgotten(3))
    message = json.loads(json.dumps(output_message(3, [event])))
    assert message["events"] == [{"t": 0.8, "kind": "ui", "payload": {"forgotten_text": 3}}]
    assert read_event(message["events"][0]) == event
    for told in (0, "3", True, None):
        broken = {"t": 0.8, "kind": "ui", "payload": {"forgotten_text": told}}
        with pytest.raises(ConnectionError, match=f"forgotten_text={told!r} is no number of slots"):
            read_event(broken)


def test_the_page_shows_messages_that_are_understood():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "remote.md").read_text()
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.S)]
    kinds = [block["type"] for block in blocks]
    assert kinds == ["begin", "input", "output"]
    events = [e | ({"pcm": ""} if "pcm" in e else {}) for e in blocks[2]["events"]]
    assert [read_event(event).kind for event in events] == [
        Kind.TEXT,
        Kind.AUDIO,
        Kind.TOOL,
        Kind.UI,
        Kind.UI,
    ]
    assert [e["payload"] for e in events[3:]] == [STOP_PLAYBACK, forgotten(3)]
