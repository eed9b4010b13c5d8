"""Checksums of whole files: hashes by name, and a stream of pieces held against what an origin offers."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from blake3 import blake3

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Manifest, PieceTable

try:
    import google_crc32c
except ImportError:  # comes with the extra gcs
    google_crc32c = None  # type: ignore[assignment]

STRENGTH = ("sha256", "sha512", "sha1", "md5", "crc32c", "crc32")
"""Of what origins offer, the one to compare first: a checksum that cannot be made up before one that can."""

UNFORGEABLE = frozenset(STRENGTH[:4])
"""Those of them for which nobody makes up other content by chance or in a moment."""


class Hash(Protocol):
    @property
    def digest_size(self) -> int: ...

    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    digest_size = 4

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    digest_size = 4

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = google_crc32c.extend(self._value, bytes(data))

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def new_hash(algorithm: str) -> Hash:
    """Of hashlib, or blake3. Raises `ValueError` for one that is not known here."""
    return blake3() if algorithm == "blake3" else hashlib.new(algorithm, usedforsecurity=False)


def new_checksum(algorithm: str) -> Hash:
    """One of `STRENGTH`. Raises `ValueError` where this node cannot compute it."""
    if algorithm == "crc32":
        return _Crc32()
    if algorithm == "crc32c":
        if google_crc32c is None:
            raise ValueError(algorithm)
        return _Crc32c()
    return new_hash(algorithm)


def spelled(algorithm: str, value: bytes | str) -> str:
    """`algorithm:hex`, as `Entry.checksum` has it; empty for what is no such checksum, or unknown here."""
    try:
        size = new_checksum(algorithm).digest_size if algorithm in STRENGTH else 0
        raw = bytes.fromhex(value) if isinstance(value, str) else value
    except (ValueError, TypeError):
        return ""
    return f"{algorithm}:{raw.hex()}" if size and len(raw) == size else ""


def strongest(offered: Sequence[str]) -> str:
    """Of several in the form of `spelled`; empty if there is none."""
    known = {text.partition(":")[0]: text for text in offered if text}
    return next((known[name] for name in STRENGTH if name in known), "")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An entry that is not what its origin offers."""

    path: str
    algorithm: str
    offered: str
    found: str

    def __str__(self) -> str:
        return (
            f"({self.path}): {self.algorithm} of what was read from the origin is {self.found[:16]}…, "
            f"the origin offers {self.offered[:16]}…"
        )


class EntryChecksums:
    """Takes the pieces of a task in order, and compares each entry that has a checksum when it is through."""

    def __init__(self, manifest: Manifest, table: PieceTable) -> None:
        self._manifest = manifest
        self._table = table
        self._hash: Hash | None = None
        self.mismatch: Mismatch | None = None
        """The first."""

    def feed(self, index: int, data: bytes | memoryview) -> None:
        """Piece `index`; the one before it came before."""
        view, at = memoryview(data), 0
        for segment in self._table.segments(index):
            entry = self._manifest.entries[segment.entry]
            algorithm, _, offered = entry.checksum.partition(":")
            part = view[at : at + segment.length]
            at += segment.length
            if segment.offset == 0:
                self._hash = _known(algorithm)
            if self._hash is None:
                continue
            self._hash.update(part)
            if segment.offset + segment.length == entry.size:
                found, self._hash = self._hash.hexdigest(), None
                if found != offered and self.mismatch is None:
                    self.mismatch = Mismatch(entry.path, algorithm, offered, found)


def _known(algorithm: str) -> Hash | None:
    """None where there is nothing to compare, or not on this node."""
    try:
        return new_checksum(algorithm) if algorithm else None
    except ValueError:
        return None


def offers_any(manifest: Manifest) -> bool:
    """Whether some entry of it has a checksum."""
    return any(entry.checksum for entry in manifest.entries)


def parse_digest(text: str) -> tuple[str, str]:
    """(algorithm, hex) of `sha256:…`, `blake3:…` or any algorithm of hashlib that has a fixed length; a bare
    64-digit hex is sha256. Raises `InvalidRequestError`."""
    algorithm, found, value = text.partition(":")
    if not found:
        algorithm, value = "sha256", text
    algorithm, value = algorithm.lower(), value.lower()
    shown = text[:80]
    try:
        size = new_hash(algorithm).digest_size
    except (ValueError, TypeError):
        size = 0
    if not size:  # unknown, switched off in this OpenSSL, or of whatever length one asks for (shake_128)
        raise InvalidRequestError(
            f"digest {shown!r}: unknown algorithm {algorithm[:40]!r}; use sha256 or blake3"
        )
    if len(value) != 2 * size or any(c not in "0123456789abcdef" for c in value):
        raise InvalidRequestError(f"digest {shown!r}: {algorithm} needs {2 * size} hexadecimal digits")
    return algorithm, value
