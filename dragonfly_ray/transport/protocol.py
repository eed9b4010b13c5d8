"""The piece protocol, without sockets: bytes to frames and back.

A child opens one connection to each parent. The parent speaks first, with a nonce (`Challenge`); the child's
`Hello` brings its grant and its signature; `Accepted` brings the parent's, and `Welcome` follows. Every frame is an 8-byte header (type, flags, two
bytes of zero, length of the body; big-endian) and its body. A `Data` frame is followed by the
piece itself, whose length is in the body: it never passes through here. A frame of a length that its type cannot have
is refused by its header alone, and so is one of a type that is not known, unless both ends skip these (`Unknown`). The
first words of both ends begin alike in every version, with what the end speaks; a later version may have more at their
end than is known here. `negotiation` says what is agreed on, `states` which frame may come when.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from dragonfly_ray.errors import LocalProtocolError, RemoteProtocolError
from dragonfly_ray.grants import NONCE_SIZE, SIGNATURE_SIZE
from dragonfly_ray.model import DIGEST_SIZE, MAX_LEAF
from dragonfly_ray.transport.negotiation import CURRENT, VERSION, Capabilities

HEADER = struct.Struct("!BBHI")
MAX_FRAME = 4 * 1024 * 1024
MAX_HELLO = 8 * 1024
"""Nobody without a grant makes us hold more than this."""
MAX_PIECE = MAX_LEAF
MANIFEST_CHUNK = 1024 * 1024
_INDEX = struct.Struct("!I")
_PAIR = struct.Struct("!II")
_OFFSET = struct.Struct("!Q")
_RANGE = struct.Struct("!QI")
_SPEAKS = struct.Struct("!HHI")
"""Highest version, least version, features."""
_HELLO = struct.Struct(f"!BBH{NONCE_SIZE}s{SIGNATURE_SIZE}s")
_CODE = struct.Struct("!B")
_DATA = struct.Struct(f"!II{DIGEST_SIZE}s")
DATA_SIZE = _DATA.size
"""Of the head of a piece without its encoding, which takes a byte more."""
_ITEM = struct.Struct(f"!I{DIGEST_SIZE}s")
ITEMS = 16 * 1024
"""Digests in a frame of a greeting: what encoding one takes delays nobody else for long."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The parent's first word, to whoever connects. Of versions that are not spoken here, only `capabilities` is known."""

    nonce: bytes
    capabilities: Capabilities = CURRENT


@dataclass(frozen=True, slots=True)
class Hello:
    """The child's first word. `proof`: its signature of the `Handshake`.

    Of versions that are not spoken here, only `capabilities` is known.
    """

    task_id: str
    host_id: str
    grant: bytes
    nonce: bytes = bytes(NONCE_SIZE)
    proof: bytes = bytes(SIGNATURE_SIZE)
    capabilities: Capabilities = CURRENT


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the parent has: a bitmap (piece 0 is bit 0 of byte 0) and the digests of those pieces.

    `following`: how many more digests come in `Digests` frames right behind it, where one frame is too short.
    """

    bitmap: bytes
    digests: tuple[tuple[int, bytes], ...]
    following: int = 0


@dataclass(frozen=True, slots=True)
class Digests:
    """More digests of a `Welcome`."""

    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The child's grant and proof are good. `proof`: the parent's signature of the `Handshake`."""

    proof: bytes


class Refusal(IntEnum):
    OTHER = 0
    GRANT = 1
    """Another grant may help."""
    BANNED = 2
    VERSION = 3


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    code: int = Refusal.OTHER


@dataclass(frozen=True, slots=True)
class Request:
    """The child wants `count` pieces from `first` on."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The child does not want these any more; what is on its way arrives still."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Have:
    """The child has these pieces now."""

    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Corrupt:
    """What came as this piece does not match its digest."""

    index: int


@dataclass(frozen=True, slots=True)
class ManifestRequest:
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ManifestData:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DataHeader:
    """Piece `index` follows in `length` bytes. `digest`: of the piece, however it is encoded.

    `encoding`: an `Encoding`, where both ends understand these; None: not said, the piece is as it is.
    """

    index: int
    length: int
    digest: bytes
    encoding: int | None = None


class Encoding(IntEnum):
    """How a piece is sent."""

    IDENTITY = 0


@dataclass(frozen=True, slots=True)
class Busy:
    """Not now: these were not sent, and may be asked for again."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Missing:
    """The parent has this piece no more."""

    index: int


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A frame of type `kind` came, which is not known here: it was skipped."""

    kind: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not sent: a frame of type `kind`, which is not known here, has come and was skipped."""

    kind: int


Frame = (
    Hello | Welcome | Refused | Request | Cancel | Have | Corrupt | ManifestRequest | ManifestData
    | DataHeader | Busy | Missing | Ping | Pong | Digests | Challenge | Accepted | Unsupported
)  # fmt: skip
_TYPES: dict[type, int] = {
    Hello: 1, Welcome: 2, Refused: 3, Request: 4, Cancel: 5, Have: 6, Corrupt: 7, ManifestRequest: 8,
    ManifestData: 9, DataHeader: 10, Busy: 11, Missing: 12, Ping: 13, Pong: 14, Digests: 15,
    Challenge: 16, Accepted: 17, Unsupported: 18,
}  # fmt: skip
_CLASSES = {number: cls for cls, number in _TYPES.items()}
MAX_REASON = 512
MAX_UNKNOWN = 64 * 1024
"""Bytes of a frame of an unknown type that are skipped."""
_LENGTHS: dict[type, tuple[int, int]] = {
    Challenge: (_SPEAKS.size, MAX_HELLO),
    Hello: (_SPEAKS.size, MAX_HELLO),
    Accepted: (SIGNATURE_SIZE, SIGNATURE_SIZE),
    Welcome: (_PAIR.size, MAX_FRAME),
    Refused: (_CODE.size, _CODE.size + MAX_REASON),
    Request: (_PAIR.size, _PAIR.size),
    Cancel: (_PAIR.size, _PAIR.size),
    Have: (0, MAX_FRAME),
    Corrupt: (_INDEX.size, _INDEX.size),
    ManifestRequest: (_RANGE.size, _RANGE.size),
    ManifestData: (_OFFSET.size, _OFFSET.size + MANIFEST_CHUNK),
    DataHeader: (_DATA.size, _DATA.size + 1),
    Busy: (_PAIR.size, _PAIR.size),
    Missing: (_INDEX.size, _INDEX.size),
    Ping: (0, 0),
    Pong: (0, 0),
    Digests: (0, ITEMS * _ITEM.size),
    Unsupported: (1, 1),
}
"""The least and the most bytes of each body."""


def encode(frame: Frame) -> bytes:
    body = _body(frame)
    if len(body) > MAX_FRAME:
        raise LocalProtocolError(
            f"{type(frame).__name__} frame of {len(body)} bytes exceeds the maximum frame size"
        )
    return HEADER.pack(_TYPES[type(frame)], 0, 0, len(body)) + body


def _body(frame: Frame) -> bytes:
    match frame:
        case Hello():
            task, host = frame.task_id.encode(), frame.host_id.encode()
            lengths = len(task), len(host), len(frame.grant)
            head = _capabilities(frame.capabilities) + _HELLO.pack(*lengths, frame.nonce, frame.proof)
            return head + task + host + frame.grant
        case Welcome():
            head = _PAIR.pack(len(frame.bitmap), frame.following)
            return head + frame.bitmap + _items(frame.digests)
        case Refused():
            return _CODE.pack(frame.code) + frame.reason.encode()[:MAX_REASON]
        case Challenge():
            return _capabilities(frame.capabilities) + frame.nonce
        case Accepted():
            return frame.proof
        case Request() | Cancel() | Busy():
            return _PAIR.pack(frame.first, frame.count)
        case Have() | Digests():
            return _items(frame.items)
        case Corrupt() | Missing():
            return _INDEX.pack(frame.index)
        case ManifestRequest():
            return _RANGE.pack(frame.offset, frame.length)
        case ManifestData():
            return _OFFSET.pack(frame.offset) + frame.data
        case DataHeader():
            coded = b"" if frame.encoding is None else bytes([frame.encoding])
            return _DATA.pack(frame.index, frame.length, frame.digest) + coded
        case Unsupported():
            return bytes([frame.kind])
        case Ping() | Pong():
            return b""


def _capabilities(said: Capabilities) -> bytes:
    return _SPEAKS.pack(said.version, said.least, said.features)


def _items(items: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(_ITEM.pack(index, digest) for index, digest in items)


def welcome(bitmap: bytes, digests: Sequence[tuple[int, bytes]]) -> Iterator[Welcome | Digests]:
    """The greeting of a parent, in as many frames as it takes."""
    first = max(0, min(ITEMS, (MAX_FRAME - _PAIR.size - len(bitmap)) // _ITEM.size))
    yield Welcome(bitmap, tuple(digests[:first]), max(0, len(digests) - first))
    for start in range(first, len(digests), ITEMS):
        yield Digests(tuple(digests[start : start + ITEMS]))


def decode_header(
    header: bytes | bytearray | memoryview, most: int = MAX_FRAME, *, skip: bool = False
) -> tuple[int, int]:
    """(type, length of the body). Raises `RemoteProtocolError` before anybody makes room for nonsense.

    `skip`: a type that is not known is let through, with at most `MAX_UNKNOWN` bytes.
    """
    kind, flags, zero, length = HEADER.unpack(header)
    cls = _CLASSES.get(kind)
    if skip and cls is None and length <= MAX_UNKNOWN and not (flags or zero):
        return kind, length
    if cls is None or flags or zero:
        raise RemoteProtocolError(f"unknown frame type {kind} (flags {flags}, {zero})")
    if length > most:
        raise RemoteProtocolError(f"frame of {length} bytes exceeds the limit of {most}")
    least, longest = _LENGTHS[cls]
    if not least <= length <= longest:
        raise RemoteProtocolError(f"{cls.__name__} frame with invalid length {length}")
    return kind, length


def decode(kind: int, body: bytes) -> Frame | Unknown:
    """The frame of a header that `decode_header` has passed. Raises `RemoteProtocolError`."""
    cls = _CLASSES.get(kind)
    if cls is None:
        return Unknown(kind)
    try:
        return _decode(cls, body)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise RemoteProtocolError(f"malformed {cls.__name__} frame: {error}") from None


def _decode(cls: type, body: bytes) -> Frame:
    if cls is Hello:
        return _decode_hello(body)
    if cls is Challenge:
        return _decode_challenge(body)
    if cls is Accepted:
        return Accepted(body)
    if cls is Welcome:
        size, following = _PAIR.unpack_from(body)
        start = _PAIR.size + size
        if start > len(body):
            raise ValueError("truncated bitmap")
        if following > 8 * size:
            raise ValueError(f"{following} more digests for {8 * size} pieces")
        return Welcome(body[_PAIR.size : start], tuple(_ITEM.iter_unpack(body[start:])), following)
    if cls is Refused:
        return Refused(body[_CODE.size :].decode(errors="replace"), body[0])
    if cls in (Request, Cancel, Busy):
        first, count = _PAIR.unpack(body)
        return cls(first, count)
    if cls in (Have, Digests):
        return cls(tuple(_ITEM.iter_unpack(body)))
    if cls in (Corrupt, Missing):
        return cls(*_INDEX.unpack(body))
    if cls is ManifestRequest:
        return ManifestRequest(*_RANGE.unpack(body))
    if cls is ManifestData:
        return ManifestData(_OFFSET.unpack_from(body)[0], body[_OFFSET.size :])
    if cls is DataHeader:
        coded = body[DATA_SIZE] if len(body) > DATA_SIZE else None
        index, length, said = _DATA.unpack_from(body)
        found = DataHeader(index, length, said, coded)
        if found.length > MAX_PIECE:
            raise ValueError(f"invalid piece length {found.length}")
        return found
    if cls is Unsupported:
        return Unsupported(body[0])
    return Ping() if cls is Ping else Pong()


def _decode_challenge(body: bytes) -> Challenge:
    capabilities, rest = Capabilities(*_SPEAKS.unpack_from(body)), body[_SPEAKS.size :]
    if not capabilities.known:
        return Challenge(bytes(NONCE_SIZE), capabilities)
    _check_rest(rest, NONCE_SIZE, capabilities)
    return Challenge(rest[:NONCE_SIZE], capabilities)


def _decode_hello(body: bytes) -> Hello:
    capabilities, rest = Capabilities(*_SPEAKS.unpack_from(body)), body[_SPEAKS.size :]
    if not capabilities.known:
        return Hello("", "", b"", capabilities=capabilities)
    task, host, grant, nonce, proof = _HELLO.unpack_from(rest)
    rest = rest[_HELLO.size :]
    _check_rest(rest, task + host + grant, capabilities)
    names = rest[:task].decode(), rest[task : task + host].decode()
    return Hello(*names, rest[task + host :][:grant], nonce, proof, capabilities)


def _check_rest(rest: bytes, length: int, capabilities: Capabilities) -> None:
    """Only a later version may have more to say than is known here."""
    if len(rest) < length or (len(rest) > length and capabilities.version <= VERSION):
        raise ValueError("inconsistent lengths")


class Parser:
    """Frames out of a stream of bytes, however it is cut. Only for streams without piece payloads.

    `skip`: frames of unknown types are passed as `Unknown`, and not refused.
    """

    def __init__(self, most: int = MAX_FRAME) -> None:
        self.most = most
        """The longest body accepted; may be raised when the other side is known."""
        self.skip = False
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Frame | Unknown]:
        """The frames that are complete now. Raises `RemoteProtocolError`; the stream is of no use then."""
        self._buffer += data
        found: list[Frame | Unknown] = []
        while len(self._buffer) >= HEADER.size:
            kind, length = decode_header(self._buffer[: HEADER.size], self.most, skip=self.skip)
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frame = decode(kind, bytes(self._buffer[HEADER.size : end]))
            del self._buffer[:end]
            found.append(frame)
        return found
