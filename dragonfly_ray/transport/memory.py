"""Streams within one process, without descriptors: for tests, and for peers that are simulated byte by byte."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from dragonfly_ray.transport.streams import FileUnreadableError, Listener, Ready, Stream, StreamInfo

CAPACITY = 256 * 1024
"""Bytes that are under way in each direction at most."""


class _Pipe:
    """One direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False

    @property
    def room(self) -> int:
        return CAPACITY - len(self.data)


class MemoryStream:
    """One end of a pair. `changed`: the pair's lock, notified whenever bytes or an end move."""

    def __init__(
        self, incoming: _Pipe, outgoing: _Pipe, changed: threading.Condition, timeout: float, peer: str
    ) -> None:
        self._in, self._out = incoming, outgoing
        self._changed = changed
        self._timeout = timeout
        self._peer = peer
        self.other: MemoryStream = self
        self.poller: MemoryPoller | None = None

    def __repr__(self) -> str:
        return f"MemoryStream({self._peer})"

    def recv_into(self, views: Sequence[memoryview], least: int = 1) -> int:
        pipe, least = self._in, min(least, CAPACITY)
        with self._changed:
            self._await(lambda: len(pipe.data) >= least or pipe.ended)
            if not pipe.data:
                if pipe.ended:
                    return 0
                raise TimeoutError if self._timeout else BlockingIOError(errno.EAGAIN, "nothing there")
            count = 0
            for view in views:
                part = min(len(view), len(pipe.data) - count)
                view[:part] = memoryview(pipe.data)[count : count + part]
                count += part
            del pipe.data[:count]
            self._notify()
        return count

    def send(self, data: bytes | memoryview, *, more: bool = False) -> int:
        with self._changed:
            return self._put(memoryview(data)[: self._room()])

    def send_file(self, fd: int, offset: int, length: int) -> int:
        with self._changed:
            room = self._room()
            try:
                data = os.pread(fd, min(length, room), offset)
            except OSError as error:
                raise FileUnreadableError(error.errno, error.strerror) from None
            return self._put(memoryview(data))

    def _room(self) -> int:
        """How many bytes go, at least one. Under the lock."""
        pipe = self._out
        self._await(lambda: bool(pipe.room) or pipe.ended)
        if pipe.ended:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if not pipe.room:
            raise TimeoutError if self._timeout else BlockingIOError(errno.EAGAIN, "no room")
        return pipe.room

    def _put(self, data: memoryview) -> int:
        self._out.data += data
        self._notify()
        return len(data)

    def _await(self, condition: Callable[[], bool]) -> None:
        if self._timeout:
            self._changed.wait_for(condition, self._timeout)

    def _notify(self) -> None:
        self._changed.notify_all()
        for end in (self, self.other):
            if end.poller:
                end.poller.look()

    @property
    def readable(self) -> bool:
        return bool(self._in.data) or self._in.ended

    @property
    def writable(self) -> bool:
        return bool(self._out.room) or self._out.ended

    def info(self) -> StreamInfo:
        return StreamInfo(self._peer, self._in.ended, len(self._out.data))

    def shutdown(self) -> None:
        with self._changed:
            self._in.ended = self._out.ended = True
            self._notify()

    def finish(self) -> None:
        """Nothing more is sent from here; the other end may go on."""
        with self._changed:
            self._out.ended = True
            self._notify()

    def close(self) -> None:
        self.shutdown()


class MemoryListener:
    def __init__(self, port: int, closed: Callable[[int], object]) -> None:
        self._port = port
        self._closed = closed
        self.waiting: deque[MemoryStream] = deque()
        self.poller: MemoryPoller | None = None

    @property
    def port(self) -> int:
        return self._port

    def offer(self, stream: MemoryStream) -> None:
        self.waiting.append(stream)
        if self.poller:
            self.poller.look()

    def accept(self) -> MemoryStream:
        try:
            return self.waiting.popleft()
        except IndexError:
            raise BlockingIOError(errno.EAGAIN, "nobody waits") from None

    def close(self) -> None:
        self._closed(self._port)
        while self.waiting:
            self.waiting.popleft().close()

    readable = property(lambda self: bool(self.waiting))
    writable = False


class MemoryPoller:
    def __init__(self) -> None:
        self._watched: dict[MemoryStream | MemoryListener, tuple[bool, bool]] = {}
        self._changed = threading.Condition()
        self._woken = False

    def add(self, source: Stream | Listener) -> None:
        mine = _mine(source)
        mine.poller = self
        self.watch(mine)

    def watch(self, source: Stream | Listener, *, read: bool = True, write: bool = False) -> None:
        with self._changed:
            self._watched[_mine(source)] = read, write
            self._changed.notify()

    def remove(self, source: Stream | Listener) -> None:
        with self._changed:
            self._watched.pop(_mine(source), None)

    def poll(self, timeout: float) -> list[Ready]:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (found := self._ready()) and not self._woken:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    break
            self._woken = False
        return found

    def _ready(self) -> list[Ready]:
        found = [
            Ready(source, read and source.readable, write and source.writable)
            for source, (read, write) in self._watched.items()
        ]
        return [each for each in found if each.readable or each.writable]

    def look(self) -> None:
        """A source of it may have become ready."""
        with self._changed:
            self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._watched.clear()


def _mine(source: Stream | Listener) -> MemoryStream | MemoryListener:
    assert isinstance(source, MemoryStream | MemoryListener)
    return source


class MemoryNetwork:
    """Ports of its own: whoever shall meet is given the same one. Addresses are not looked at."""

    def __init__(self) -> None:
        self._listeners: dict[int, MemoryListener] = {}
        self._ports = itertools.count(1)

    def connect(self, address: str, port: int, connect_timeout: float, timeout: float) -> MemoryStream:
        listener = self._listeners.get(port)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours, theirs = pair(timeout, 0.0, f"{address}:{port}")
        listener.offer(theirs)
        return ours

    def listen(self, address: str, port: int) -> MemoryListener:
        port = port or next(self._ports)
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        made = MemoryListener(port, lambda port: self._listeners.pop(port, None))
        self._listeners[port] = made
        return made

    def poller(self) -> MemoryPoller:
        return MemoryPoller()


def pair(timeout: float, other_timeout: float, peer: str = "memory") -> tuple[MemoryStream, MemoryStream]:
    """Both ends of a connection."""
    changed, there, back = threading.Condition(), _Pipe(), _Pipe()
    first = MemoryStream(back, there, changed, timeout, peer)
    second = MemoryStream(there, back, changed, other_timeout, "memory")
    first.other, second.other = second, first
    return first, second
