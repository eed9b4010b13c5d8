"""A file that is readable while it arrives."""

from __future__ import annotations

import io
import os
import time
from typing import Any

from typing_extensions import Buffer

from dragonfly_ray.actors.handles import get
from dragonfly_ray.errors import DeadlineError, InvalidRequestError, StorageError
from dragonfly_ray.submission import Submission

AHEAD = 4 * 1024 * 1024
"""Bytes that one question to the peer covers."""
STEP = 2.0
CALL_TIMEOUT = 30.0


class PieceFile(io.RawIOBase):
    """Raw reads of a task's file in the node's store; each waits until its pieces are there."""

    def __init__(self, submission: Submission, peer: Any) -> None:
        self._submission = submission
        self._peer = peer
        self._at = 0
        self._here: list[tuple[int, int]] = []
        """Ranges known to have arrived, newest first."""
        self._complete = False
        self._fd = -1
        layout = self._layout()
        self._size: int = layout["size"]
        self._base: int = layout["base"]
        self._complete = layout["complete"]
        if self._size:
            self._fd = self._open(layout["path"])

    def _layout(self) -> dict[str, Any]:
        try:
            while True:
                task = self._submission.task_ids()[0]
                if task:
                    found = get(self._peer.layout.remote(task), CALL_TIMEOUT, "this node's peer")
                    if found is not None:
                        if found["directory"]:
                            raise InvalidRequestError(
                                "open() needs a single file; this source is a directory"
                            )
                        return dict(found)
                if self._submission.wait(0.02):
                    self._submission.result(0).raise_for_failures()
        except BaseException:
            self._leave()
            raise

    def _open(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._leave()
            raise StorageError(
                f"{path}: {error.strerror}; content was evicted, or belongs to another user"
            ) from None

    def _leave(self) -> None:
        """A download that is not over is cancelled."""
        if not self._submission.done:
            self._submission.cancel()
        self._submission.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._at)
        if length <= 0:
            return 0
        self._await(self._at, length)
        count = os.preadv(self._fd, [view[:length]], self._base + self._at)
        if not count:
            raise StorageError(
                f"stored content is truncated at byte {self._at} of {self._size}; evict it, and fetch it again"
            )
        self._at += count
        return count

    def _await(self, offset: int, length: int) -> None:
        if self._complete or any(a <= offset and offset + length <= b for a, b in self._here):
            return
        end = min(self._size, max(offset + length, offset + AHEAD))
        # First what is wanted now, then as much of what follows as is there already.
        self._ask(offset, length)
        if self._peer_has(offset, end - offset, 0.0):
            length = end - offset
        self._here = [(offset, offset + length), *self._here[:63]]

    def _ask(self, offset: int, length: int) -> None:
        deadline = time.monotonic() + 600.0
        while not self._peer_has(offset, length, STEP):
            if self._submission.wait(0.0):
                self._submission.result(0).raise_for_failures()
                if not self._peer_has(offset, length, STEP):
                    raise StorageError("content was evicted while being read; pin it, or open it again")
                self._complete = True
                return
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"timed out: bytes {offset}-{offset + length - 1} did not arrive within 600 s"
                )

    def _peer_has(self, offset: int, length: int, timeout: float) -> bool:
        task = self._submission.task_ids()[0]
        call = self._peer.await_range.remote(task, offset, length, timeout)
        return bool(get(call, CALL_TIMEOUT + timeout, "this node's peer"))

    def close(self) -> None:
        """Lets go; a download that is not over is cancelled unless it was submitted `detached`."""
        if self.closed:
            return
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
        self._leave()
