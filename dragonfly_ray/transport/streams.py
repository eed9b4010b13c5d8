"""The byte stream that connections run on, and what makes streams: a `Network`.

The upload server and the connections to parents know these protocols only, so that another carrier (`tcp`, `memory`),
or a layer over one (encryption, compression), takes the place of a network and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class FileUnreadableError(OSError):
    """`Stream.send_file` could not read the file; the stream itself is well."""


class StreamInfo(NamedTuple):
    peer: str
    """`address:port` of the other end, for people."""
    ended: bool
    """The other end sends no more, though some of what it sent may be unread."""
    unsent: int
    """Bytes that were sent here and that the other end has not received."""


class Stream(Protocol):
    """Bytes to and from one other end, in order. One thread receives, one sends at a time; any may close.

    A stream that was connected waits for at most its time-out in each call, and raises `TimeoutError` then. One that
    was accepted never waits: it raises `BlockingIOError`, and a `Poller` says when to try again. Raises another
    `OSError` where the connection is broken.
    """

    def recv_into(self, views: Sequence[memoryview], least: int = 1) -> int:
        """Fills the views in order, as far as bytes are there; how many, 0: the other end has closed.

        So many as `least` are worth waking up for; after the time-out, fewer are returned too.
        """

    def send(self, data: bytes | memoryview, *, more: bool = False) -> int:
        """How many bytes were taken, at least one. `more`: others follow at once, as in `MSG_MORE`."""

    def send_file(self, fd: int, offset: int, length: int) -> int:
        """As `send`, from an open file; 0: it ends before `offset`. Raises `FileUnreadableError` if the file is at fault."""

    def info(self) -> StreamInfo: ...

    def shutdown(self) -> None:
        """Ends both directions. Whoever waits in a call of either end goes on; `close` has to follow."""

    def close(self) -> None:
        """Ends it and frees what it holds. No other call may be under way but a waiting one, which ends."""


class Listener(Protocol):
    @property
    def port(self) -> int: ...

    def accept(self) -> Stream:
        """The next connection. Raises `BlockingIOError` where none waits, another `OSError` where it cannot be had."""

    def close(self) -> None: ...


class Ready(NamedTuple):
    source: Stream | Listener
    readable: bool
    """There are bytes, an end or an error to receive, or a connection to accept."""
    writable: bool


class Poller(Protocol):
    """Says which of many streams and listeners of its network can go on. One thread polls; any may call the rest.

    Level-triggered, and of the stream: what a layer has decoded and not handed out yet counts as readable.
    """

    def add(self, source: Stream | Listener) -> None:
        """Watches it for reading."""

    def watch(self, source: Stream | Listener, *, read: bool = True, write: bool = False) -> None: ...

    def remove(self, source: Stream | Listener) -> None:
        """Before it is closed; may be called again."""

    def poll(self, timeout: float) -> list[Ready]:
        """Waits until something is ready, `wake` is called, or `timeout` seconds have passed."""

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Network(Protocol):
    """Makes connections of one kind."""

    def connect(self, address: str, port: int, connect_timeout: float, timeout: float) -> Stream:
        """`timeout`: of each call of the stream, in seconds. Raises `OSError`."""

    def listen(self, address: str, port: int) -> Listener:
        """`port` 0: any that is free. Raises `OSError`."""

    def poller(self) -> Poller: ...
