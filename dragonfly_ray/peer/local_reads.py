"""What readers on a peer's own node ask for: where the bytes of a task are, and that they come first."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from dragonfly_ray.errors import InvalidRequestError, StorageError
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore


class LocalReads:
    """Of the content in one peer's store. `stored` gives a task that is there or raises `NotRunningError`; `under_way`
    the download of one, which may begin within so many seconds."""

    def __init__(
        self,
        name: str,
        store: PieceStore,
        stored: Callable[[str], TaskStore],
        under_way: Callable[[str, float], TaskDownload | None],
    ) -> None:
        """`name`: of the node, for people."""
        self._name = name
        self._store = store
        self._stored = stored
        self._under_way = under_way

    def layout(self, task_id: str) -> dict[str, Any] | None:
        """Where a reader finds the bytes of a single file; None while its manifest is not here.

        `{"path", "base", "size", "complete"}`: the content starts `base` bytes into the file `path`,
        and what has not arrived yet reads as zeros. Raises `StorageError`, also if it is evicted meanwhile.
        """
        found = self._store.get(task_id)
        if found is None:
            return None
        shown: dict[str, Any] = {"path": "", "base": 0, "size": found.table.size}
        shown |= {"complete": found.complete, "directory": found.task.directory}
        if found.table.size:
            if not found.has(0):
                found.make(0)
            with _of_store(found), found.reading(0) as (extent, *_):
                shown |= {"path": os.readlink(f"/proc/self/fd/{extent.fd}"), "base": extent.offset}
        return shown

    def await_range(self, task_id: str, offset: int, length: int, timeout: float) -> bool:
        """Whether these bytes of the content are here within `timeout` seconds; they are fetched first."""
        found = self._store.get(task_id)
        if found is None:
            return False
        pieces = found.table.covering(offset, length)
        if all(found.has(piece) for piece in pieces):
            return True
        # Whoever resolved it has a store of the task before its own delivery comes.
        deadline = time.monotonic() + timeout
        run = self._under_way(task_id, timeout)
        return run is not None and run.engine.await_pieces(pieces, deadline - time.monotonic())

    @contextlib.contextmanager
    def mapped(self, task_id: str) -> Iterator[memoryview]:
        """The content of a complete task of one file, mapped: its pages are the page cache's.

        Raises `NotRunningError` where it is not in the store, else `StorageError`.
        """
        found = self._stored(task_id)
        if not found.complete:
            raise StorageError(f"{self._name}: {found.task.url} is incomplete in the store")
        if found.task.directory:
            raise InvalidRequestError(f"{found.task.url}: is a directory; only a single file can be mapped")
        if not found.table.size:
            yield memoryview(b"")
            return
        with contextlib.ExitStack() as stack:
            with _of_store(found):
                (extent, *_) = stack.enter_context(found.reading(0))
                start = extent.offset - extent.offset % mmap.ALLOCATIONGRANULARITY
                end = extent.offset + found.table.size
                whole = mmap.mmap(extent.fd, end - start, offset=start, access=mmap.ACCESS_READ)
            pages = stack.enter_context(whole)
            view = memoryview(pages)[extent.offset - start :]
            try:
                yield view
            finally:
                view.release()


@contextlib.contextmanager
def _of_store(stored: TaskStore) -> Iterator[None]:
    """What the system says of the store's files becomes a `StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # a file that is gone, cut short, or cannot be mapped
        why = getattr(error, "strerror", None) or error
        raise StorageError(
            f"{stored.task.url}: cannot be read from the store ({why}); evict it, and fetch it again"
        ) from None
