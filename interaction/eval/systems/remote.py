"""Any system behind a WebSocket, 200 ms at a time (protocol: `docs/remote.md`).

In: every micro-turn's input, as JSON with 16-bit PCM in base64. Out: the events that come back.
The round trip is what the runner measures. The client comes with the extra `serve`.
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from interaction.data.voices import require
from interaction.eval.records import SAMPLE_RATE, MicroTurnInput, OutputEvent, Sample
from interaction.session.wire import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    begin_message,
    input_message,
    read_event,
)


class Tempo(enum.Enum):
    """LOCKSTEP sends the next input as soon as the output is there; LIVE waits for its time."""

    LOCKSTEP = "lockstep"
    LIVE = "live"


class Remote:
    """A client of one endpoint.

    Args:
        url: ``ws://`` or ``wss://``.
        tempo: "lockstep", or "live" for an endpoint that lives in real time.
        name: of the system.
        timeout: seconds to wait for an answer.
        tries: connections tried before it is given up.
        pause: seconds between them.

    Raises:
        ImportError: the extra `serve` is missing.
        ValueError: no such address or tempo.
    """

    def __init__(
        self,
        url: str,
        *,
        tempo: str = "lockstep",
        name: str = "remote",
        timeout: float = 60.0,
        tries: int = 3,
        pause: float = 1.0,
    ):
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"url={url!r} must begin with ws:// or wss://")
        self.name, self.url, self._tempo = name, url, Tempo(tempo)
        self._timeout, self._tries, self._pause = timeout, tries, pause
        self._aiohttp = require("aiohttp", "serve")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = self._wait(self._open(), "open a client")

    async def _open(self):
        return self._aiohttp.ClientSession()

    def converse(self, sample: Sample) -> "RemoteConversation":
        """Connect and begin a session.

        Raises:
            ConnectionError: the endpoint is not there, or refuses.
        """
        return RemoteConversation(self, sample, live=self._tempo is Tempo.LIVE)

    def shut_down(self) -> None:
        """Close the client and its thread."""
        self._wait(self._client.close(), "close the client")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def connect(self):
        """A WebSocket."""
        problem: Exception | None = None
        for attempt in range(self._tries):
            if attempt:
                time.sleep(self._pause)
            try:
                return self._wait(
                    self._client.ws_connect(self.url, max_msg_size=MAX_MESSAGE_BYTES),
                    "connect to it",
                )
            except (ConnectionError, self._aiohttp.ClientError) as error:
                problem = error
        raise ConnectionError(f"{self.url} could not be reached in {self._tries} tries: {problem}")

    def exchange(self, socket, message: Mapping[str, Any], wanted: str) -> dict[str, Any]:
        """Send a message, and the answer to it."""
        return self._wait(self._exchange(socket, message, wanted), f"wait for {wanted!r}")

    def hang_up(self, socket) -> None:
        """Say that the session is over."""

        async def end() -> None:
            if not socket.closed:
                with contextlib.suppress(ConnectionError):  # the other side is gone
                    await socket.send_json({"type": "end"})
            await socket.close()

        self._wait(end(), "end the session")

    async def _exchange(self, socket, message, wanted: str) -> dict[str, Any]:
        await socket.send_json(message)
        answer = await socket.receive()
        kinds = self._aiohttp.WSMsgType
        if answer.type is not kinds.TEXT:
            reason = f"code {socket.close_code}" if socket.closed else answer.type.name
            raise ConnectionError(
                f"{self.url} ended the connection ({reason}) where {wanted!r} was due"
            )
        try:
            content = json.loads(answer.data)
            kind = content["type"]
        except (json.JSONDecodeError, TypeError, KeyError):
            raise ConnectionError(f"{self.url} sent no message: {answer.data[:200]!r}") from None
        if kind == "error":
            raise ConnectionError(f"{self.url} reports: {content.get('message')}")
        if kind != wanted:
            raise ConnectionError(f"{self.url} sent {kind!r} where {wanted!r} was due")
        return content

    def _wait(self, work, what: str):
        future = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        try:
            return future.result(self._timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise ConnectionError(
                f"{self.url} did not answer within {self._timeout} s ({what})"
            ) from None


async def _awaited(work):
    return await work


class RemoteConversation:
    """One session over one connection."""

    def __init__(self, remote: Remote, sample: Sample, *, live: bool):
        self._remote, self._socket = remote, remote.connect()
        tools = {
            name: {key: value for key, value in tool.items() if key != "result"}
            for name, tool in sample.tools.items()
        }
        begin = begin_message(
            sample_rate=SAMPLE_RATE,
            tools=tools,
            suite=sample.suite,
            scene=sample.scene,
            id=sample.id,
            seconds=sample.seconds,
        )
        try:
            answer = remote.exchange(self._socket, begin, "ready")
            if answer.get("protocol") != PROTOCOL:
                raise ConnectionError(
                    f"{remote.url} speaks protocol {answer.get('protocol')}, this is {PROTOCOL}"
                )
        except ConnectionError:
            with contextlib.suppress(ConnectionError):
                remote.hang_up(self._socket)
            raise
        self._began = time.monotonic() if live else None

    def step(self, given: MicroTurnInput) -> list[OutputEvent]:
        """One micro-turn over the wire and back."""
        answer = self._remote.exchange(self._socket, input_message(given), "output")
        if answer.get("micro_turn") != given.micro_turn:
            raise ConnectionError(
                f"{self._remote.url} answered micro_turn={answer.get('micro_turn')}, asked was "
                f"{given.micro_turn}"
            )
        return [read_event(event) for event in answer.get("events", ())]

    def wait_until(self, seconds: float) -> None:
        """Of a live endpoint: let session time come to `seconds`."""
        if self._began is not None:
            time.sleep(max(0.0, self._began + seconds - time.monotonic()))

    def close(self) -> None:
        """Hang up."""
        self._remote.hang_up(self._socket)
