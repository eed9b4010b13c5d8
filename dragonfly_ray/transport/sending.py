"""What a sending thread of the upload server makes of a job, and how it gets it into the stream."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time

from dragonfly_ray.errors import DragonflyError, RemoteProtocolError
from dragonfly_ray.storage.os_errors import EXHAUSTED
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.child_connection import Child, Job, Shared
from dragonfly_ray.transport.negotiation import Feature
from dragonfly_ray.transport.streams import FileUnreadableError

log = logging.getLogger(__name__)


def send_some(child: Child, fd: int, offset: int, length: int) -> int:
    """How many bytes the stream took. Raises `OSError`: within a piece there is no way to say that it ends here."""
    try:
        count = child.stream.send_file(fd, offset, length)
    except FileUnreadableError as error:
        log.warning("task %.12s: piece %d: %s", child.task_id, child.piece, error.strerror)
        count = 0
    if not count:
        if child.shared:
            child.shared.on_unreadable(child.piece)
        raise OSError(errno.EIO, "piece cannot be read")
    return count


def prepare(child: Child, job: Job) -> None:
    """The job becomes what is sent next: a frame's head, and the stretches of files behind it."""
    child.moved = time.monotonic()
    if isinstance(job, bytes):
        child.head = job
        return
    if isinstance(job, p.Welcome | p.Digests):
        child.head = p.encode(job)
        return
    shared = child.shared
    assert shared is not None
    if isinstance(job, p.ManifestRequest):
        # Read only now: a child that never reads holds one chunk, not all that it asked for.
        child.head = p.encode(_manifest(shared, job))
        return
    uses = contextlib.ExitStack()
    try:
        if not shared.has(job):
            raise KeyError(job)
        digest = shared.digest(job)
        extents = uses.enter_context(shared.reading(job))
        _probe(extents)
    except (KeyError, DragonflyError):
        uses.close()
        child.head = p.encode(p.Missing(job))
        return
    except OSError as error:
        uses.close()
        child.head = _instead(shared, job, error)
        return
    length = sum(extent.length for extent in extents)
    child.uses = uses
    child.sends(job)
    encoding = p.Encoding.IDENTITY if Feature.ENCODINGS in child.agreed.features else None
    child.head = p.encode(p.DataHeader(job, length, digest, encoding))
    child.rest = list(extents)


def _instead(shared: Shared, index: int, error: OSError) -> bytes:
    """The answer to a request for a piece that cannot be opened or read."""
    if error.errno in EXHAUSTED:
        return p.encode(p.Busy(index, 1))
    log.warning("piece %d cannot be read: %s", index, error.strerror)
    shared.on_unreadable(index)
    return p.encode(p.Missing(index))


def _probe(extents: list[Extent]) -> None:
    """Before a piece is promised. Raises `OSError` where its file is cut short, or cannot be read at all."""
    for fd, offset, length in extents:
        if os.fstat(fd).st_size < offset + length or not os.pread(fd, 1, offset):
            raise OSError(errno.EIO, "file is truncated")


def _manifest(shared: Shared, ask: p.ManifestRequest) -> p.ManifestData:
    with shared.manifest_file.open("rb") as file:
        if ask.offset > os.fstat(file.fileno()).st_size:
            raise RemoteProtocolError(f"manifest requested beyond its end, at offset {ask.offset}")
        file.seek(ask.offset)
        return p.ManifestData(ask.offset, file.read(min(ask.length, p.MANIFEST_CHUNK)))
