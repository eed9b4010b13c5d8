"""A connection of the upload server, and what the server wants of tasks."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dragonfly_ray.errors import RemoteProtocolError
from dragonfly_ray.grants import NONCE_SIZE
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import Agreed
from dragonfly_ray.transport.states import PARENT, Machine
from dragonfly_ray.transport.streams import Stream

MAX_QUEUE = 256
"""Pieces that one child may have asked for at a time."""


class Shared(Protocol):
    """A task as the server sees it. All of it is called from the server's threads."""

    @property
    def manifest_file(self) -> Path: ...

    def bitmap(self, host_id: str) -> bytes: ...

    def digests(self) -> list[bytes | None]: ...

    def has(self, index: int) -> bool: ...

    def digest(self, index: int) -> bytes: ...

    def reading(self, index: int) -> AbstractContextManager[list[Extent]]: ...

    def on_have(self, host_id: str, items: list[tuple[int, bytes]]) -> None: ...

    def on_corrupt(self, host_id: str, index: int) -> None: ...

    def on_unreadable(self, index: int) -> None: ...

    def on_sent(self, host_id: str, nbytes: int) -> None: ...

    def on_joined(self, host_id: str) -> None: ...

    def on_left(self, host_id: str) -> None: ...


class Library(Protocol):
    """Where the server finds tasks."""

    def shared(self, task_id: str) -> Shared | None: ...


Job = bytes | int | p.ManifestRequest | p.Welcome | p.Digests
"""An encoded frame, the number of a piece, a stretch of the manifest, or a long frame that its sender encodes."""


class Child:
    """One connection. `busy` while a sender works on it; only then may others not close it."""

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.parser = p.Parser(most=p.MAX_HELLO)
        self.machine = Machine(PARENT)
        self.agreed = Agreed()
        self.unknown = 0
        """Frames of types that are not known here."""
        self.nonce = os.urandom(NONCE_SIZE)
        self.since = now
        self.seen = now
        self.moved = now
        """When it last took bytes of what it asked for."""
        self.unsent = 0
        self.lock = threading.Lock()
        self.jobs: deque[Job] = deque()
        """What to send, in order."""
        self.rest: list[Extent] = []
        """What is left of the piece under way."""
        self.piece = 0
        """Its number."""
        self.sent = bytearray()
        """A bitmap of the pieces that it was sent: only of these it may complain."""
        self.head = b""
        """What is left of the frame under way."""
        self.uses: contextlib.ExitStack | None = None
        self.busy = False
        self.blocked = False
        self.closing = False
        self.host_id = ""
        self.task_id = ""
        self.shared: Shared | None = None
        self.pieces = 0
        """Of its task."""

    def inside(self, *pieces: int) -> None:
        """Raises `RemoteProtocolError` unless the task has all of these."""
        for index in pieces:
            if not 0 <= index < self.pieces:
                raise RemoteProtocolError(f"piece {index} out of range, the task has {self.pieces} pieces")

    def sends(self, index: int) -> None:
        self.piece = index
        self.sent[index >> 3] |= 1 << (index & 7)

    def was_sent(self, index: int) -> bool:
        return bool(self.sent[index >> 3] >> (index & 7) & 1)

    def check(self) -> None:
        """Raises `RemoteProtocolError` where more waits than a child may ask for."""
        if len(self.jobs) > 4 * MAX_QUEUE:
            raise RemoteProtocolError(
                "too many replies queued: the child sends requests faster than it reads"
            )
