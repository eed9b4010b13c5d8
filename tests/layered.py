"""A layer over a network that compresses what passes, as encryption would change it: what the seam has to bear.

It holds bytes back, hands out more than one read of the network below brought, and sends files by reading them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Sequence

from dragonfly_ray.transport.streams import (
    FileUnreadableError,
    Listener,
    Network,
    Poller,
    Ready,
    Stream,
    StreamInfo,
)

CHUNK = 64 * 1024


class DeflatedStream:
    def __init__(self, inner: Stream) -> None:
        self.inner = inner
        self._pack = zlib.compressobj(1)
        self._unpack = zlib.decompressobj()
        self._decoded = bytearray()
        self._raw = memoryview(bytearray(4096))
        self._held = b""
        """Encoded, and not taken by the network below yet."""
        self._sending = threading.Lock()

    @property
    def pending(self) -> bool:
        return bool(self._decoded)

    def recv_into(self, views: Sequence[memoryview], least: int = 1) -> int:
        while not self._decoded:
            count = self.inner.recv_into([self._raw])
            if not count:
                return 0
            self._decoded += self._unpack.decompress(self._raw[:count])
        count = 0
        for view in views:
            part = min(len(view), len(self._decoded) - count)
            view[:part] = memoryview(self._decoded)[count : count + part]
            count += part
        del self._decoded[:count]
        return count

    def send(self, data: bytes | memoryview, *, more: bool = False) -> int:
        with self._sending:
            self._flush()
            part = data[:CHUNK]
            self._held = self._pack.compress(part) + self._pack.flush(zlib.Z_SYNC_FLUSH)
            with contextlib.suppress(BlockingIOError):  # it is taken: it goes before what is sent next
                self._flush()
            return len(part)

    def _flush(self) -> None:
        while self._held:
            self._held = self._held[self.inner.send(self._held) :]

    @property
    def held(self) -> bool:
        return bool(self._held)

    def flush_held(self) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._flush()

    def send_file(self, fd: int, offset: int, length: int) -> int:
        try:
            data = os.pread(fd, min(length, CHUNK), offset)
        except OSError as error:
            raise FileUnreadableError(error.errno, error.strerror) from None
        return self.send(data) if data else 0

    def info(self) -> StreamInfo:
        inner = self.inner.info()
        return inner._replace(unsent=inner.unsent + len(self._held))

    def shutdown(self) -> None:
        self.inner.shutdown()

    def close(self) -> None:
        self.inner.close()


class DeflatedListener:
    def __init__(self, inner: Listener) -> None:
        self.inner = inner
        self.port = inner.port

    def accept(self) -> DeflatedStream:
        return DeflatedStream(self.inner.accept())

    def close(self) -> None:
        self.inner.close()


class DeflatedPoller:
    """What a stream holds back is sent as soon as there is room, whether anybody waits for that or not."""

    def __init__(self, inner: Poller) -> None:
        self._inner = inner
        self._outer: dict[Stream | Listener, DeflatedStream | DeflatedListener] = {}
        self._wanted: dict[DeflatedStream, tuple[bool, bool]] = {}

    def add(self, source: Stream | Listener) -> None:
        assert isinstance(source, DeflatedStream | DeflatedListener)
        self._outer[source.inner] = source
        self._inner.add(source.inner)
        if isinstance(source, DeflatedStream):
            self.watch(source)

    def watch(self, source: Stream | Listener, *, read: bool = True, write: bool = False) -> None:
        assert isinstance(source, DeflatedStream | DeflatedListener)
        if isinstance(source, DeflatedStream):
            self._wanted[source] = read, write
        self._inner.watch(source.inner, read=read, write=write)

    def remove(self, source: Stream | Listener) -> None:
        assert isinstance(source, DeflatedStream | DeflatedListener)
        self._outer.pop(source.inner, None)
        if isinstance(source, DeflatedStream):
            self._wanted.pop(source, None)
        self._inner.remove(source.inner)

    def poll(self, timeout: float) -> list[Ready]:
        holding = [s for s in list(self._wanted) if s.held]
        for each in holding:
            each.flush_held()
        pending = {s for s, (read, _) in list(self._wanted.items()) if read and s.pending}
        wait = 0.0 if pending else min(timeout, 0.01) if any(s.held for s in holding) else timeout
        found = {}
        for source, readable, writable in self._inner.poll(wait):
            if outer := self._outer.get(source):
                found[outer] = Ready(outer, readable, writable)
        for each in pending:
            found[each] = Ready(each, True, found[each].writable if each in found else False)
        return list(found.values())

    def wake(self) -> None:
        self._inner.wake()

    def close(self) -> None:
        self._inner.close()


class DeflatedNetwork:
    def __init__(self, inner: Network) -> None:
        self._inner = inner

    def connect(self, address: str, port: int, connect_timeout: float, timeout: float) -> DeflatedStream:
        return DeflatedStream(self._inner.connect(address, port, connect_timeout, timeout))

    def listen(self, address: str, port: int) -> DeflatedListener:
        return DeflatedListener(self._inner.listen(address, port))

    def poller(self) -> DeflatedPoller:
        return DeflatedPoller(self._inner.poller())
