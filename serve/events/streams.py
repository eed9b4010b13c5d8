"""Streams to clients: counted, limited, and ended when the client goes, its rights go, or the manager does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from typing import Any, TypeVar

import anyio
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from dragonfly_ray.serve.accounts.auth import authorize
from dragonfly_ray.serve.events.quota import StreamQuota
from dragonfly_ray.serve.principal import principal_of
from dragonfly_ray.serve.problems import Problem

log = logging.getLogger(__name__)
T = TypeVar("T")
RECHECK = 5.0
"""Seconds between looks whether the caller still may."""
GRACE = 60.0
"""Seconds that a stream stays open while the database cannot be asked about that."""
HEARTBEAT = 15
SEND_TIMEOUT = 30.0
"""Seconds after which a client that takes nothing is let go."""
GOING_AWAY = 1001
POLICY_VIOLATION = 1008


class Streams:
    """A service: the open streams of this replica."""

    def __init__(
        self, most: int, quota: StreamQuota, *, recheck: float = RECHECK, heartbeat: float = HEARTBEAT
    ) -> None:
        self._most = most
        self._quota = quota
        self.recheck = recheck
        self.heartbeat = heartbeat
        self._lock = threading.Lock()
        self._open: set[_Over] = set()
        self._stopped = False
        self.idle = threading.Event()
        """Set while none is open."""
        self.idle.set()

    def start(self) -> None:
        """Nothing to do: streams come by themselves."""

    def stop(self) -> None:
        """Ends all of them, from any thread; none is opened any more."""
        with self._lock:
            self._stopped = True
            found = list(self._open)
        for over in found:
            over.tell()

    @property
    def open(self) -> int:
        return len(self._open)

    async def sse(self, request: Request, events: AsyncGenerator[ServerSentEvent]) -> EventSourceResponse:
        """`events` as server-sent events; closed in every case. Raises `Problem` where there are too many."""
        return _Response(self, request, events, await self._admit(request))

    async def websocket(self, socket: WebSocket, texts: AsyncGenerator[str]) -> None:
        """`texts` as messages, until the other side closes; what it says is not listened to."""
        counted = await self._admit(socket)
        self._quota.keep(counted)
        try:
            await self._tell(socket, texts)
        finally:
            await self._release(counted)

    async def _tell(self, socket: WebSocket, texts: AsyncGenerator[str]) -> None:
        await socket.accept()
        with self.entered() as over:
            gone = asyncio.ensure_future(_gone(socket))
            try:
                async with contextlib.aclosing(until(texts, self._ended(socket, over), gone)) as wanted:
                    async for text in wanted:
                        await asyncio.wait_for(socket.send_text(text), SEND_TIMEOUT)
            except (WebSocketDisconnect, TimeoutError):
                log.debug("stream client disconnected or not reading")
                return
        if gone.cancelled():
            await socket.close(GOING_AWAY if self._stopped else POLICY_VIOLATION)

    async def _admit(self, connection: HTTPConnection) -> str:
        """The stream's id among those of its user. Raises `Problem` where there are too many."""
        if self._stopped or self.open >= self._most:
            raise Problem(
                503,
                "too-many-streams",
                "Too many streams",
                f"this replica has {self._most} streams open or is shutting down",
                headers={"Retry-After": "5"},
            )
        return await run_in_threadpool(self._quota.open, principal_of(connection).user_id)

    async def _release(self, counted: str) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await run_in_threadpool(self._quota.close, counted)
            except SQLAlchemyError as error:
                # It counts until its row expires.
                log.warning("end of a stream not recorded: %s", type(error).__name__)

    @contextlib.contextmanager
    def entered(self) -> Iterator[_Over]:
        over = _Over()
        with self._lock:
            self._open.add(over)
            self.idle.clear()
            if self._stopped:
                over.tell()
        try:
            yield over
        finally:
            with self._lock:
                self._open.discard(over)
                if not self._open:
                    self.idle.set()

    async def _ended(self, connection: HTTPConnection, over: _Over) -> None:
        """Returns when the stream has to end."""
        known = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.event.wait(), self.recheck)
            if over.event.is_set():
                return
            try:
                await run_in_threadpool(authorize, connection)
                known = time.monotonic()
            except Problem:
                return
            except SQLAlchemyError:
                if time.monotonic() - known > GRACE:
                    return


class _Over:
    """Tells one stream to end."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self.event.set)


class _Response(EventSourceResponse):
    def __init__(
        self,
        streams: Streams,
        connection: HTTPConnection,
        events: AsyncGenerator[ServerSentEvent],
        counted: str,
    ) -> None:
        super().__init__(
            self._ended_in_time(connection, events), ping=streams.heartbeat, send_timeout=SEND_TIMEOUT
        )
        self._streams = streams
        self._events = events
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams._quota.keep(self._counted)
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._events.aclose()
            await self._streams._release(self._counted)

    async def _ended_in_time(
        self, connection: HTTPConnection, events: AsyncGenerator[ServerSentEvent]
    ) -> AsyncGenerator[ServerSentEvent]:
        with self._streams.entered() as over:
            ended = self._streams._ended(connection, over)
            async with contextlib.aclosing(until(events, ended)) as wanted:
                async for event in wanted:
                    yield event


async def until(items: AsyncGenerator[T], *ends: Awaitable[None]) -> AsyncGenerator[T]:
    """`items`, until one of `ends` is there. Closes `items`, and cancels `ends`."""
    waited: set[asyncio.Future[Any]] = {asyncio.ensure_future(end) for end in ends}
    step: asyncio.Future[T] | None = None
    try:
        while True:
            step = asyncio.ensure_future(anext(items))
            await asyncio.wait({step, *waited}, return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in waited):
                return
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if step is not None:
            waited.add(step)
        for task in waited:
            task.cancel()
        # Whatever cancelled this has to wait until what it uses is given back.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*waited, return_exceptions=True)
            await items.aclose()


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
