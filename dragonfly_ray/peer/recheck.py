"""Pieces of this node that others call bad, or that could not be sent: hashed again by one worker, in turn."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from dragonfly_ray import bitset
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.storage.task_store import TaskStore

log = logging.getLogger(__name__)

RECHECK_INTERVAL_S = 60.0
"""Between two looks at one piece that somebody complains of."""
MAX_PENDING = 256
"""Of one complaining host; what it complains of beyond is not looked at."""

Item = tuple[str, int]
"""Task id and piece."""


class RecheckQueue:
    """Which piece is looked at next: those who complain take turns, whatever one of them says. No thread, no clock."""

    def __init__(self, interval: float = RECHECK_INTERVAL_S, most: int = MAX_PENDING) -> None:
        self._interval = interval
        self._most = most
        self._pending: OrderedDict[str, deque[Item]] = OrderedDict()
        self._queued: set[Item] = set()
        self._seen: OrderedDict[Item, float] = OrderedDict()

    def add(self, item: Item, host: str, now: float) -> bool:
        """Whether it is looked at: not if it waits already, or was looked at not long ago, or `host` says too much."""
        while self._seen and now - next(iter(self._seen.values())) >= self._interval:
            self._seen.popitem(last=False)
        mine = self._pending.get(host, ())
        if item in self._queued or item in self._seen or len(mine) >= self._most:
            return False
        self._pending.setdefault(host, deque()).append(item)
        self._queued.add(item)
        self._seen[item] = now
        return True

    def next(self) -> Item | None:
        if not self._pending:
            return None
        host, waiting = self._pending.popitem(last=False)
        item = waiting.popleft()
        self._queued.discard(item)
        if waiting:
            self._pending[host] = waiting  # at the end: the others first
        return item


class Rechecker:
    """The worker. `lost(task_store, pieces)` is told of what turned out bad and was discarded."""

    def __init__(
        self, find: Callable[[str], TaskStore | None], lost: Callable[[TaskStore, list[int]], None]
    ) -> None:
        self._find = find
        self._lost = lost
        self._complaints = RecheckQueue()
        self._withdrawn: dict[Item, None] = {}
        """Pieces that could not be sent and wait to be looked at, in order."""
        self._failed: OrderedDict[Item, float] = OrderedDict()
        """Those that could not be sent, though reading them went well since."""
        self._lock = threading.Lock()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def complained(self, task_id: str, index: int, host: str) -> None:
        """A child says that the piece is bad."""
        with self._lock:
            if self._complaints.add((task_id, index), host, time.monotonic()):
                self._start()

    def unreadable(self, task_id: str, index: int) -> None:
        """The piece could not be sent for an error of its file. Nobody gets it until it is looked at."""
        with self._lock:
            self._withdrawn.setdefault((task_id, index))
            self._start()

    def withdrawn(self, task_id: str, index: int) -> bool:
        return (task_id, index) in self._withdrawn

    def pieces_withdrawn(self, task_id: str) -> list[int]:
        return [index for task, index in list(self._withdrawn) if task == task_id] if self._withdrawn else []

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        self._wake.put(False)
        if self._thread:
            self._thread.join(timeout=10)

    def _start(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="recheck", daemon=True)
            self._thread.start()
        self._wake.put(True)

    def _run(self) -> None:
        while self._wake.get():
            with self._lock:
                item = next(iter(self._withdrawn), None)
                complaint = None if item else self._complaints.next()
            try:
                if item:
                    self._look_at_failed(item)
                elif complaint:
                    self._look_at_suspect(complaint)
            except DragonflyError as error:
                log.info("recheck of a piece failed: %s", error)
            except Exception:
                log.exception("recheck of a piece failed")
            finally:
                if item:
                    with self._lock:
                        self._withdrawn.pop(item, None)

    def _look_at_suspect(self, item: Item) -> None:
        """An error of reading is no verdict: sending it will fail as well, and then it counts."""
        found = self._find(item[0])
        if found is None or not found.has(item[1]):
            return
        try:
            if found.verify(item[1]):
                return
        except DragonflyError:
            raise
        except OSError as error:
            log.warning("task %.12s: piece %d cannot be read: %s", *item, error.strerror)
            return
        self._discard(found, item[1], "does not match its digest")

    def _look_at_failed(self, item: Item) -> None:
        found = self._find(item[0])
        if found is None or not found.has(item[1]):
            return
        now = time.monotonic()
        while self._failed and now - next(iter(self._failed.values())) >= RECHECK_INTERVAL_S:
            self._failed.popitem(last=False)
        if not found.recheck(item[1]) or item in self._failed:
            self._failed.pop(item, None)
            self._discard(found, item[1], "cannot be read")
        else:
            self._failed[item] = now

    def _discard(self, found: TaskStore, index: int, why: str) -> None:
        """With all that the same damage to a file has cost."""
        log.warning("task %.12s: piece %d in the store %s, dropped", found.task.id, index, why)
        before = bitset.from_bytes(found.have(), len(found.table)) | 1 << index
        found.discard(index)
        found.survey()
        after = bitset.from_bytes(found.have(), len(found.table))
        self._lost(found, list(bitset.members(before & ~after)))
