"""What a task's pieces have been through, in an append-only file that survives a kill at any byte.

Records have one fixed length and a checksum, and are written with one `write` each: what a killed
process has written is in the page cache, whole or cut short, and the cut end is dropped at the
next start. The file begins with the digest of the manifest that it belongs to.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dragonfly_ray.model import DIGEST_SIZE

MAGIC = b"DRJ1"
_HEADER = struct.Struct(f"!4s{DIGEST_SIZE}s")
_RECORD = struct.Struct(f"!BI{DIGEST_SIZE}s")
_CHECK = struct.Struct("!I")
RECORD_SIZE = _RECORD.size + _CHECK.size
HAVE, DISCARDED, FINISHED = 1, 2, 3


class Record(NamedTuple):
    """`HAVE`: `piece` is here, with digest `data`. `DISCARDED`: it is not. `FINISHED`: file
    `piece` was complete, with the mark `data`."""

    kind: int
    piece: int
    data: bytes


class Journal:
    """Open for appending. Records of kinds that are not known are kept and skipped."""

    def __init__(self, path: Path, manifest_digest: bytes) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.records = list(self._load(_HEADER.pack(MAGIC, manifest_digest)))
        """What was in it when it was opened."""

    def _load(self, header: bytes) -> Iterator[Record]:
        size = os.fstat(self._fd).st_size
        data = os.pread(self._fd, size, 0)
        if data[: len(header)] != header:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, header)
            return
        at = len(header)
        while at + RECORD_SIZE <= size:
            body = data[at : at + _RECORD.size]
            (check,) = _CHECK.unpack_from(data, at + _RECORD.size)
            if zlib.crc32(body) != check:
                break
            kind, index, payload = _RECORD.unpack(body)
            if kind in (HAVE, DISCARDED, FINISHED):
                yield Record(kind, index, payload)
            at += RECORD_SIZE
        if at != size:
            os.ftruncate(self._fd, at)

    def append(self, *records: Record) -> None:
        """One write; all of them or, where the disk is full, none. Raises `OSError`."""
        data = bytearray()
        for record in records:
            body = _RECORD.pack(record.kind, record.piece, record.data.ljust(DIGEST_SIZE, b"\0"))
            data += body + _CHECK.pack(zlib.crc32(body))
        written = os.write(self._fd, data)
        try:
            while written < len(data):  # the disk is all but full: the rest says why, or goes in
                written += os.write(self._fd, data[written:])
        except OSError:
            # A torn record here would hide all that is appended after it.
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
