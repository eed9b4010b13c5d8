"""What is computed along the contiguous prefix while bytes arrive: the digest that a caller expects."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dragonfly_ray.checksums import new_hash, parse_digest
from dragonfly_ray.errors import DragonflyError, IntegrityError
from dragonfly_ray.peer.supervisor import Supervisor
from dragonfly_ray.storage.task_store import TaskStore


class PrefixReader:
    """A thread that feeds each piece to `feed` once, as soon as all before it are here."""

    def __init__(
        self, threads: Supervisor, store: TaskStore, name: str, feed: Callable[[int, bytes], object]
    ) -> None:
        self._threads = threads
        self._store = store
        self._feed = feed
        self._next = 0
        self._more = threading.Event()
        self._more.set()
        self._thread = threads.spawn(name, self._follow)

    def advance(self) -> None:
        """A piece arrived."""
        self._more.set()

    def _follow(self) -> None:
        store, count = self._store, len(self._store.table)
        while self._next < count and not self._threads.over:
            self._more.wait(1.0)
            self._more.clear()
            while self._next < count and store.has(self._next) and not self._threads.over:
                self._feed(self._next, store.read(self._next))
                self._next += 1

    def finish(self) -> None:
        """Waits for the rest: all of it must be here. Raises what the task has failed for."""
        self._more.set()
        self._thread.join()
        if self._threads.error:
            raise self._threads.error
        if self._next < len(self._store.table):
            raise DragonflyError(f"{self._store.task.url}: ended before all of it was hashed")


class PrefixHash:
    """Follows a download."""

    def __init__(self, threads: Supervisor, store: TaskStore, wanted: str) -> None:
        self._store = store
        self._algorithm, _ = parse_digest(wanted)
        self._hash = new_hash(self._algorithm)
        self._follower = PrefixReader(threads, store, "prefix", lambda _, data: self._hash.update(data))
        self.advance = self._follower.advance

    def check(self, wanted: str) -> None:
        """Raises `IntegrityError` if the content is not what the caller expects. All of it must be here."""
        self._follower.finish()
        # Where it differs, a piece may have been replaced after it was hashed.
        if (self._algorithm, self._hash.hexdigest()) != parse_digest(wanted):
            check_whole(self._store, wanted)


def check_whole(store: TaskStore, wanted: str) -> None:
    """As `PrefixHash.check`, in a pass of its own."""
    algorithm, value = parse_digest(wanted)
    hasher = new_hash(algorithm)
    for index in range(len(store.table)):
        hasher.update(store.read(index))
    found = hasher.hexdigest()
    if found != value:
        raise IntegrityError(
            f"{store.task.url}: {algorithm} is {found[:16]}…, expected {value[:16]}…; nothing was written"
        )
