"""Raw conversations over any network, for tests that say what they like."""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol, Self

from dragonfly_ray.transport.memory import MemoryStream
from dragonfly_ray.transport.streams import Network, Stream
from dragonfly_ray.transport.tcp import TcpStream
from tests.waiting import HANG


class Raw(Protocol):
    """What a conversation needs of a socket or a `Wire`."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, count: int, /) -> bytes: ...


class Wire:
    """A stream with a socket's calls, which wait. What is left of a closed connection is read as from a socket."""

    def __init__(self, stream: Stream, network: Network) -> None:
        self.stream = stream
        self._network = network

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.stream.send(view) :]
            except BlockingIOError:
                self._await(write=True)

    def recv(self, count: int, /) -> bytes:
        buffer = memoryview(bytearray(count))
        while True:
            try:
                return bytes(buffer[: self.stream.recv_into([buffer])])
            except BlockingIOError:
                self._await(write=False)

    def _await(self, *, write: bool) -> None:
        poller = self._network.poller()
        try:
            poller.add(self.stream)
            poller.watch(self.stream, read=not write, write=write)
            assert poller.poll(HANG)
        finally:
            poller.remove(self.stream)
            poller.close()

    def finish(self) -> None:
        """Nothing more is said; the other end may go on."""
        if isinstance(self.stream, TcpStream):
            self.stream._sock.shutdown(socket.SHUT_WR)
        elif isinstance(self.stream, MemoryStream):
            self.stream.finish()

    def drain(self) -> None:
        """Until the other end has closed."""
        with contextlib.suppress(OSError):
            while self.recv(65536):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()


def connect(network: Network, port: int, timeout: float = 10.0) -> Wire:
    return Wire(network.connect("127.0.0.1", port, timeout, timeout), network)


class Listening:
    """Somebody at an address."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._listener = network.listen("127.0.0.1", 0)
        self.port = self._listener.port

    def accept(self) -> Wire:
        poller = self._network.poller()
        try:
            poller.add(self._listener)
            assert poller.poll(HANG)
            return Wire(self._listener.accept(), self._network)
        finally:
            poller.remove(self._listener)
            poller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
