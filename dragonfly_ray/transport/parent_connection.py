"""A child's end of a connection to one parent."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import GrantError, RemoteProtocolError, StalledError, TransportError
from dragonfly_ray.grants import NONCE_SIZE, Handshake, SigningKey
from dragonfly_ray.model import Host
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import ANSWERS_UNKNOWN, CURRENT, Agreed, Capabilities, Feature
from dragonfly_ray.transport.protocol import Busy, Missing, Pong
from dragonfly_ray.transport.states import CHILD, MAX_UNKNOWN_FRAMES, Machine, State
from dragonfly_ray.transport.streams import Network, Stream
from dragonfly_ray.transport.tcp import TCP

__all__ = ["Busy", "Caller", "Data", "Missing", "ParentConnection", "Pong"]

W = TypeVar("W", p.Challenge, p.Accepted, p.Welcome)

CHUNK = 1024 * 1024
"""The most that one read takes."""
GATHERED = 512 * 1024
"""So many bytes of a piece are gathered in the stream before anybody is woken."""
HEAD = p.HEADER.size + p.DATA_SIZE
"""Bytes (and one, where encodings are told) before a piece: they are read together with the end of the piece before it."""
CHUNKY = 16 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opens connections: a host, the key of its process, and its grant for one task."""

    host_id: str
    key: SigningKey
    task_id: str
    grant: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Data:
    """A piece, in the buffer that was lent for it. `digest` is what the parent says of it."""

    index: int
    digest: bytes
    view: memoryview


Answer = Data | Busy | Missing | Pong


class ParentConnection:
    """Sends from any thread; one thread receives.

    `bitmap`, `digests`: what the parent said that it has, when the connection was opened.
    """

    def __init__(self, stream: Stream, name: str, settings: TransportSettings, pieces: int) -> None:
        self._stream = stream
        self._name = name
        self._pieces = pieces
        self._settings = settings
        self._sending = threading.Lock()
        self._closed = False
        self._head = memoryview(bytearray(HEAD))
        self._machine = Machine(CHILD, name)
        self._unknown = 0
        self.agreed = Agreed()
        self._ahead = b""
        """What was read beyond what was asked for."""
        self._asked: Counter[int] = Counter()
        """Pieces asked for and not answered: nothing else is accepted."""
        self._pinged = 0
        self._asking = threading.Lock()
        self.bitmap = b""
        self.digests: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"ParentConnection({self._name})"

    @classmethod
    def open(
        cls,
        parent: Host,
        caller: Caller,
        settings: TransportSettings,
        pieces: int,
        network: Network = TCP,
        capabilities: Capabilities = CURRENT,
    ) -> ParentConnection:
        """Connects to the first endpoint that answers, and waits until the parent says what it has.

        `pieces`: of the task; a parent that speaks of others is not heard, nor one without the key of `parent`.

        Raises `GrantError` if it refuses the grant, else `TransportError`.
        """
        failure: TransportError | None = None
        for endpoint in parent.endpoints:
            name = f"{endpoint.address}:{endpoint.port}"
            try:
                stream = network.connect(
                    endpoint.address, endpoint.port, settings.connect_timeout, settings.stall_timeout
                )
            except OSError as error:
                failure = TransportError(f"{name}: {error.strerror or type(error).__name__}")
                continue
            connection = cls(stream, name, settings, pieces)
            try:
                connection._greet(parent, caller, capabilities)
            except BaseException:
                connection.close()
                raise
            return connection
        raise failure or TransportError("the parent has no endpoint")

    def _greet(self, parent: Host, caller: Caller, capabilities: Capabilities) -> None:
        try:
            self._prove(parent, caller, capabilities)
        except RemoteProtocolError as error:
            # Nobody knows yet whose word that was.
            raise TransportError(str(error)) from None
        answer = self._greeting(p.Welcome)
        if len(answer.bitmap) != -(-self._pieces // 8) or self._beyond(answer.bitmap):
            raise RemoteProtocolError(f"{self._name}: WELCOME bitmap does not match {self._pieces} pieces")
        if len(answer.digests) + answer.following > self._pieces:
            raise RemoteProtocolError(
                f"{self._name}: WELCOME announces more digests than {self._pieces} pieces"
            )
        self.bitmap, self.digests = answer.bitmap, self._described(answer.digests)
        self._take_digests(answer.following)
        self._machine.greeted()

    def _prove(self, parent: Host, caller: Caller, capabilities: Capabilities) -> None:
        """Who we are, to a parent that proves who it is."""
        challenge = self._greeting(p.Challenge)
        agreed = capabilities.agree(challenge.capabilities)
        if agreed is None:
            text = f"{self._name}: protocol version {challenge.capabilities}, this host has {capabilities}"
            raise TransportError(f"{text}; install one version of the package on every node")
        nonce = os.urandom(NONCE_SIZE)
        both = Handshake(
            caller.task_id,
            caller.host_id,
            parent.id,
            challenge.nonce,
            nonce,
            challenge.capabilities.signed,
            capabilities.signed,
        )
        proof = both.sign("child", caller.key)
        self._send(p.Hello(caller.task_id, caller.host_id, caller.grant, nonce, proof, capabilities))
        accepted = self._greeting(p.Accepted)
        try:
            both.verify("parent", parent.key, accepted.proof)
        except GrantError:
            # Not its lie: its address is somebody else's now.
            raise TransportError(f"{self._name}: the peer at this address is not host {parent.id}") from None
        self.agreed = agreed
        coded = Feature.ENCODINGS in agreed.features
        self._head = memoryview(bytearray(HEAD + coded))

    def _greeting(self, kind: type[W]) -> W:
        """The parent's next word, if it is of this kind."""
        answer = self._frame()
        if isinstance(answer, p.Refused):
            error = GrantError if answer.code == p.Refusal.GRANT else TransportError
            raise error(f"{self._name}: {answer.reason}")
        if not isinstance(answer, kind):
            raise RemoteProtocolError(f"{self._name}: expected WELCOME, got {type(answer).__name__}")
        return answer

    def _beyond(self, bitmap: bytes) -> bool:
        """Whether the last byte of a bitmap names pieces that the task does not have."""
        spare = -self._pieces % 8
        return bool(spare) and bool(bitmap[-1] >> (8 - spare))

    def _described(self, items: Sequence[tuple[int, bytes]]) -> dict[int, bytes]:
        found = dict(items)
        if any(index >= self._pieces for index in found):
            raise RemoteProtocolError(f"{self._name}: digests for pieces beyond {self._pieces}")
        return found

    def _take_digests(self, left: int) -> None:
        """Those of a greeting that is longer than a frame."""
        while left:
            try:
                frame = self._frame()
            except RemoteProtocolError as error:
                raise RemoteProtocolError(
                    f"{self._name}: {left} digests of its WELCOME are missing ({error})"
                ) from None
            if not isinstance(frame, p.Digests) or not 0 < len(frame.items) <= left:
                raise RemoteProtocolError(f"{self._name}: {left} digests of its WELCOME are missing")
            self.digests.update(self._described(frame.items))
            left -= len(frame.items)

    # --- sending ----------------------------------------------------------------------------

    def request(self, first: int, count: int) -> None:
        """Asks for `count` pieces from `first` on; each is answered by `Data`, `Busy` or `Missing`."""
        with self._asking:
            self._asked.update(range(first, first + count))
        self._send(p.Request(first, count))

    def cancel(self, first: int, count: int) -> None:
        self._send(p.Cancel(first, count))

    def have(self, items: Sequence[tuple[int, bytes]]) -> None:
        """Tells the parent what is here; it may want it from us."""
        most = p.MAX_FRAME // 64
        for start in range(0, len(items), most):
            self._send(p.Have(tuple(items[start : start + most])))

    def corrupt(self, index: int) -> None:
        self._send(p.Corrupt(index))

    def ping(self) -> None:
        with self._asking:
            self._pinged += 1
        self._send(p.Ping())

    def _send(self, frame: p.Frame) -> None:
        self._machine.sent(type(frame))
        data = memoryview(p.encode(frame))
        try:
            with self._sending:
                while data:
                    data = data[self._stream.send(data) :]
        except TimeoutError:
            raise StalledError(f"{self._name}: send timed out, the parent does not read requests") from None
        except OSError as error:
            raise TransportError(f"{self._name}: {error.strerror or 'closed'}") from None

    # --- receiving --------------------------------------------------------------------------

    def receive(
        self,
        take: Callable[[int, int], memoryview],
        length_of: Callable[[int], int],
        progress: Callable[[int], None] = lambda count: None,
    ) -> Answer:
        """The next answer. `take(index, length)` lends the buffer for a piece.

        `length_of(index)`: how long the piece is. The parent's own word of it must be the same, or nothing
        is taken. Raises `RemoteProtocolError`, and `StalledError` after `stall_timeout` seconds without a byte.
        """
        frame = self._frame()
        if isinstance(frame, p.DataHeader):
            self._answered(frame.index, 1)
            expected = length_of(frame.index)
            if frame.length != expected:
                text = f"{self._name}: piece {frame.index} has {frame.length} bytes, expected {expected}"
                raise RemoteProtocolError(text)
            if frame.encoding not in (None, p.Encoding.IDENTITY):
                text = (
                    f"{self._name}: piece {frame.index} in encoding {frame.encoding}, which was not agreed on"
                )
                raise RemoteProtocolError(text)
            view = take(frame.index, expected)
            self._fill(view, progress)
            return Data(frame.index, frame.digest, view)
        if isinstance(frame, Missing):
            self._answered(frame.index, 1)
            return frame
        if isinstance(frame, Busy):
            self._answered(frame.first, frame.count)
            return frame
        if isinstance(frame, Pong):
            self._ponged()
            return frame
        if isinstance(frame, p.Unsupported):
            raise TransportError(f"{self._name}: does not support frame type {frame.kind}")
        raise RemoteProtocolError(f"{self._name}: unexpected frame {type(frame).__name__} from a parent")

    def _ponged(self) -> None:
        with self._asking:
            if not self._pinged:
                raise RemoteProtocolError(f"{self._name}: unsolicited PONG")
            self._pinged -= 1

    def _answered(self, first: int, count: int) -> None:
        """Before a buffer is lent, or a caller walks through the numbers of a parent that lies."""
        with self._asking:
            if not 0 < count <= len(self._asked) or any(
                i not in self._asked for i in range(first, first + count)
            ):
                raise RemoteProtocolError(f"{self._name}: unrequested reply for {count} pieces from {first}")
            for index in range(first, first + count):
                self._asked[index] -= 1
                if not self._asked[index]:
                    del self._asked[index]

    def manifest(self, size: int, progress: Callable[[int], None] = lambda count: None) -> bytes:
        """The manifest's `size` bytes. Before the first request only. What `progress(count)` raises ends it."""
        found = bytearray()
        while len(found) < size:
            most = min(p.MANIFEST_CHUNK, size - len(found))
            self._send(p.ManifestRequest(len(found), most))
            answer = self._frame(progress)
            if not isinstance(answer, p.ManifestData) or answer.offset != len(found):
                raise RemoteProtocolError(f"{self._name}: sent no manifest")
            if not 0 < len(answer.data) <= most:
                raise RemoteProtocolError(f"{self._name}: sent no manifest")
            found += answer.data
        return bytes(found)

    def _frame(self, progress: Callable[[int], None] | None = None) -> p.Frame:
        """The next one that is known, and may come now."""
        header = bytearray(p.HEADER.size)
        while True:
            self._fill(memoryview(header))
            kind, length = p.decode_header(header, skip=self.agreed.version >= ANSWERS_UNKNOWN)
            body = bytearray(length)
            if length:
                self._fill(memoryview(body), progress)
            frame = p.decode(kind, bytes(body))
            if not isinstance(frame, p.Unknown):
                break
            self._on_unknown(frame)
        self._machine.received(type(frame))
        return frame

    def _on_unknown(self, frame: p.Unknown) -> None:
        """It may be of a later version: the parent hears that it is not understood, a few times."""
        self._unknown += 1
        if self._unknown > MAX_UNKNOWN_FRAMES or self._machine.state is not State.OPEN:
            raise RemoteProtocolError(f"{self._name}: unknown frame type {frame.kind}")
        self._send(p.Unsupported(frame.kind))

    def _fill(self, view: memoryview, progress: Callable[[int], None] | None = None) -> None:
        at, end = self._read_ahead(view), len(view)
        if at and progress:
            progress(at)
        try:
            while at < end:
                # With every packet, a receiver that is woken costs several times as much.
                least = min(end - at, GATHERED) if end > CHUNKY else 1
                count = self._stream.recv_into(self._into(view[at:]), least)
                if not count:
                    raise TransportError(f"{self._name}: closed by the parent")
                beyond = max(0, at + count - end)
                self._ahead = bytes(self._head[:beyond])
                at += count - beyond
                if progress:
                    progress(count - beyond)
        except TimeoutError:
            text = f"{self._name}: timed out, no data for {self._settings.stall_timeout:g} s"
            raise StalledError(text) from None
        except TransportError:
            raise
        except OSError as error:
            raise TransportError(f"{self._name}: {error.strerror or 'closed'}") from None

    def _into(self, rest: memoryview) -> list[memoryview]:
        """Where the next bytes go. When these may be the last, the head of what follows comes along."""
        return [rest, self._head] if len(rest) <= CHUNK else [rest[:CHUNK]]

    def _read_ahead(self, view: memoryview) -> int:
        """How many bytes of it were read before."""
        count = min(len(view), len(self._ahead))
        if count:
            view[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
        return count

    def check(self) -> None:
        """Raises `TransportError` if the parent has closed it. Does not wait."""
        if self._stream.info().ended:
            raise TransportError(f"{self._name}: closed by the parent")

    def close(self) -> None:
        """From any thread; whoever is receiving gets a `TransportError`."""
        if not self._closed:
            self._closed = True
            self._stream.close()
