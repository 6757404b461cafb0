"""A model behind a WebSocket: the other side of `docs/remote.md`.

In: lanes of a checkpoint or of an exported artefact, an address. Out: a process that answers
sessions, one per connection and lane, until it is told to end; its health as JSON under
``/health``. Neither is encrypted, and anyone who reaches the port may come in: who serves others
puts a proxy before it.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from interaction.launching.status import REQUEUE
from interaction.serving.shared_lanes import SharedLanes, Stepped
from interaction.session.dialogue import Dialogue, seed_of
from interaction.session.wire import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    WireError,
    output_message,
    read_begin,
    read_input,
)
from interaction.streams.weave import LaneInput

_CLOSING_SECONDS = 2.0  # for a connection to say goodbye


class Server:
    """Sessions of `SharedLanes` over WebSockets at ``/``.

    Args:
        shared: the lanes, compiled.
        idle_seconds: a session that sends nothing for so long is ended.
    """

    def __init__(self, shared: SharedLanes, *, idle_seconds: float = 60.0):
        self._shared, self._idle = shared, idle_seconds
        self._grid = shared.grid
        self._talks: dict[asyncio.Future[None], web.WebSocketResponse] = {}
        self._ending = False
        app = web.Application()
        app.router.add_get("/", self._talk)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING_SECONDS)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is a free one where 0 was asked for.

        Raises:
            ValueError: the address cannot be had.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            raise ValueError(f"host={host} port={port} cannot be listened on: {error}") from None
        return self._runner.addresses[0][1]

    async def drain(self, seconds: float) -> int:
        """Take no more sessions, and wait until those that run have ended.

        Args:
            seconds: what they get; then they are told, and their connections closed.

        Returns:
            How many were told.
        """
        self._ending = True
        talks = dict(self._talks)  # who comes later is refused
        if talks:
            await asyncio.wait(talks, timeout=seconds)
        left = {over: socket for over, socket in talks.items() if not over.done()}
        if left:
            sentence = f"the server is ending, {seconds:g} s after it was told to"
            await asyncio.gather(*(_refuse(socket, sentence) for socket in left.values()))
            await asyncio.wait(left, timeout=_CLOSING_SECONDS)
        return len(left)

    async def stop(self) -> None:
        """Close everything."""
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        status = "serving"
        if self._ending:
            status = "ending"
        if self._shared.broken.is_set():
            status = "broken"
        return web.json_response(
            {"status": status, **self._shared.health()}, status=200 if status == "serving" else 503
        )

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        """One connection."""
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, timeout=_CLOSING_SECONDS)
        await socket.prepare(request)
        over = asyncio.get_running_loop().create_future()
        self._talks[over] = socket
        try:
            await self._session(socket)
            await socket.close()
        except ConnectionError:  # the other side is gone
            pass
        except Exception as error:
            known = isinstance(error, ValueError | TimeoutError) or self._shared.broken.is_set()
            await _refuse(socket, str(error) if known else "the server failed")
            if not known:
                raise
        finally:
            del self._talks[over]
            over.set_result(None)
        return socket

    async def _session(self, socket: web.WebSocketResponse) -> None:
        """A session from its beginning to its end, in a lane of its own.

        Raises:
            ValueError: it cannot be begun or gone on with; the sentence is for the client.
            TimeoutError: nothing came.
            StepError: the program failed.
        """
        message = await self._next(socket)
        if message is None:
            return
        begin = read_begin(message, sample_rate=self._grid.sample_rate)
        if self._ending:
            raise WireError("the server is ending and takes no more sessions")
        shared = self._shared
        lane = await shared.open(seed_of(begin.id, shared.seed))
        try:
            dialogue = Dialogue(shared.tokenizer, shared.weave, self._grid, begin.tools)
            await socket.send_json({"type": "ready", "protocol": PROTOCOL})
            now = 0
            while (message := await self._next(socket)) is not None:
                given = await asyncio.to_thread(self._heard, dialogue, message, now)
                output = await shared.step(lane, given)
                await socket.send_json(output_message(now, dialogue.tell(now, output)))
                now += 1
        finally:
            await shared.close(lane)

    def _heard(self, dialogue: Dialogue, message: Any, now: int) -> LaneInput:
        given = read_input(message, micro_turn=now, samples=self._grid.samples)
        return dialogue.hear(given)

    async def _next(self, socket: web.WebSocketResponse) -> Any:
        """The next message's JSON value; None: the session is over, said or not."""
        try:
            came = await socket.receive(timeout=self._idle)
        except TimeoutError:
            raise TimeoutError(f"nothing came for idle_seconds={self._idle:g}") from None
        if came.type is WSMsgType.BINARY:
            raise WireError("a message is binary where JSON text is due")
        if came.type is not WSMsgType.TEXT:
            return None
        try:
            message = json.loads(came.data)
        except (ValueError, RecursionError) as error:
            raise WireError(f"a message is no JSON: {error}") from None
        return None if isinstance(message, dict) and message.get("type") == "end" else message


async def _refuse(socket: web.WebSocketResponse, sentence: str) -> None:
    """Say why it ends, and end it."""
    try:
        await socket.send_json({"type": "error", "message": sentence})
        await socket.close()
    except ConnectionError:
        pass


def serve(
    make: Callable[[], Stepped],
    *,
    host: str,
    port: int,
    seed: int = 0,
    drain_seconds: float = 30.0,
    idle_seconds: float = 60.0,
    sigterm_status: int = 0,
) -> int:
    """Serve lanes until a signal, or until their program fails.

    SIGTERM: `sigterm_status` once the sessions have ended, or `drain_seconds` later; a second
    signal ends it at once. SIGINT: the same, with 0; SIGUSR2, by which SLURM says that the time is
    up: with `REQUEUE`.

    Returns:
        The exit status; 1 if the program failed.

    Raises:
        ValueError: the address cannot be had, or a number makes no sense.
    """
    for name, value in (("drain_seconds", drain_seconds), ("idle_seconds", idle_seconds)):
        if not 0 <= value < float("inf") or (name == "idle_seconds" and not value):
            raise ValueError(f"{name}={value} is no time to wait")
    print("compiling", flush=True)
    shared = SharedLanes(make, seed=seed)
    try:
        server = Server(shared, idle_seconds=idle_seconds)
        statuses = {
            signal.SIGTERM: sigterm_status, signal.SIGINT: 0, signal.SIGUSR2: REQUEUE,
        }  # fmt: skip
        return asyncio.run(_until_told(server, shared, (host, port), drain_seconds, statuses))
    finally:
        shared.shut_down()


async def _until_told(
    server: Server,
    shared: SharedLanes,
    address: tuple[str, int],
    drain_seconds: float,
    statuses: Mapping[signal.Signals, int],
) -> int:
    told, hurry = asyncio.Event(), asyncio.Event()
    came: list[signal.Signals] = []

    def tell(number: signal.Signals) -> None:
        (hurry if came else told).set()
        came.append(number)

    loop = asyncio.get_running_loop()
    for number in statuses:
        loop.add_signal_handler(number, tell, number)
    host, port = address[0], await server.start(*address)
    print(
        f"listening on ws://{host}:{port}/ and http://{host}:{port}/health, lanes={shared.lanes}",
        flush=True,
    )
    await _first(told.wait(), shared.broken.wait())
    if shared.broken.is_set():
        print("error: the model's step failed", flush=True)
        await server.drain(0.0)
        await server.stop()
        return 1
    print(f"ending: {shared.sessions} session(s) have {drain_seconds:g} s", flush=True)
    await _first(server.drain(drain_seconds), hurry.wait())
    await server.stop()
    return statuses[came[0]]


async def _first(*works: Any) -> None:
    """Wait for one of them; the others are left."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    for task in done:
        task.result()
