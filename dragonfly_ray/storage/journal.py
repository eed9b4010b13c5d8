"""What a task's pieces have been through, in an append-only file that survives a kill at any byte.

Records have one fixed length and a checksum, and are written with one `write` each: what a killed
process has written is in the page cache, whole or cut short, and the cut end is dropped at the
next start. The file begins with the digest of the manifest that it belongs to.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from dragonfly_ray.model import DIGEST_SIZE
from dragonfly_ray.storage.open_files import OpenFiles

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
    """For appending. Records of kinds that are not known are kept and skipped.

    `files`: those of the store, which decide how many stay open.
    """

    def __init__(self, path: Path, manifest_digest: bytes, files: OpenFiles | None = None) -> None:
        self._path = str(path)
        self._files = OpenFiles(1) if files is None else files
        self._closed = False
        header = _HEADER.pack(MAGIC, manifest_digest)
        with self._files.use(self._path, os.O_CREAT | os.O_APPEND) as fd:
            self.records = list(_load(fd, header))
            """What was in it when it was opened."""

    def append(self, *records: Record) -> None:
        """One write; all of them or, where the disk is full, none. Raises `OSError`."""
        data = bytearray()
        for record in records:
            body = _RECORD.pack(record.kind, record.piece, record.data.ljust(DIGEST_SIZE, b"\0"))
            data += body + _CHECK.pack(zlib.crc32(body))
        with self._open() as fd:
            written = os.write(fd, data)
            try:
                while written < len(data):  # the disk is all but full: the rest says why, or goes in
                    written += os.write(fd, data[written:])
            except OSError:
                # A torn record here would hide all that is appended after it.
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise

    def _open(self) -> AbstractContextManager[int]:
        if self._closed:
            raise OSError(errno.EBADF, "the journal is closed")
        return self._files.use(self._path, os.O_APPEND)

    def sync(self) -> None:
        with self._open() as fd:
            os.fdatasync(fd)

    def close(self) -> None:
        self._closed = True
        self._files.forget(self._path)


def _load(fd: int, header: bytes) -> Iterator[Record]:
    """What is in it; a torn tail is truncated."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    if data[: len(header)] != header:
        os.ftruncate(fd, 0)
        os.write(fd, header)
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
        os.ftruncate(fd, at)
