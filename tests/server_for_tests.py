"""A server in a thread of its own, and what its clients say to it.

In: `SharedLanes`. Out: `Running`, which is asked and stopped from the test's thread; messages,
samples, and a comparison of what two systems put out.
"""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request

import aiohttp
import numpy as np

from interaction.eval.records import SAMPLE_RATE, Kind, Sample
from interaction.serving.server import Server
from interaction.session.exchange import MicroTurnInput
from interaction.session.wire import from_pcm, to_pcm

TALKS = 14  # a seed whose model says and voices something in every session of these tests
BEGIN = {"type": "begin", "protocol": 1, "sample_rate": 16_000, "micro_turn_seconds": 0.2}
QUIET = {"micro_turn": 0, "pcm": to_pcm(np.zeros(3200))}


def health(port):
    """Status and JSON value of a server's ``/health``; status 0: nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


class Running:
    """A server in a thread of its own."""

    def __init__(self, shared, **keywords):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.shared, self.server = shared, Server(shared, **keywords)
        self.port = self.wait(self.server.start("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.port}/"

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)

    def health(self):
        return health(self.port)

    def until_sessions(self, count):
        end = time.monotonic() + 120
        while self.health()[1]["sessions"] != count:
            assert time.monotonic() < end, self.health()
            time.sleep(0.02)

    def exchange(self, *messages):
        """Raw messages, strings or JSON values, on a connection of their own; the last answer."""

        async def talk():
            async with aiohttp.ClientSession() as client, client.ws_connect(self.url) as socket:
                for message in messages:
                    if isinstance(message, bytes):
                        await socket.send_bytes(message)
                    else:
                        text = message if isinstance(message, str) else json.dumps(message)
                        await socket.send_str(text)
                    answer = await socket.receive_json(timeout=300)
                return answer

        return asyncio.run(talk())

    def stop(self):
        self.wait(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def sample(name="s/1", seconds=2.0, **changes):
    """Sound on the grid of 16 bits, as the wire carries it."""
    random = np.random.default_rng(len(name) + ord(name[-1]))
    wave = random.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
    return Sample("toy", "scene", name, seconds, audio=from_pcm(to_pcm(wave)), **changes)


def assert_same(found, wanted):
    kinds = {event.kind for event in wanted.events}
    assert kinds == {Kind.TEXT, Kind.AUDIO}, "what is not put out is not compared"
    assert [(e.t, e.kind) for e in found.events] == [(e.t, e.kind) for e in wanted.events]
    for a, b in zip(found.events, wanted.events, strict=True):
        if a.kind is Kind.AUDIO:
            np.testing.assert_array_equal(a.payload, from_pcm(to_pcm(b.payload)))
        else:
            assert a.payload == b.payload


def play_on(session):
    session.step(MicroTurnInput(0))


class FirstLane:
    """A board of lanes that are all free, stepped directly: the first one holds the session."""

    def __init__(self, lanes):
        self._lanes, self._held = lanes, False
        self.weave, self.grid, self.tokenizer = lanes.weave, lanes.grid, lanes.tokenizer

    def begin(self, seed):
        if self._held:
            self._lanes.close(0)
        self._held = self._lanes.open(seed=seed) == 0
        assert self._held

    def step(self, given):
        output = self._lanes.step([given] + [None] * (self._lanes.lanes - 1))[0]
        assert output is not None
        return output
