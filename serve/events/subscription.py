"""One reader of the feed: what it has not taken yet, and where it goes on when that became too much."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from dragonfly_ray.serve.events.filters import EventFilter

PAGE = 500
MOST = 1000


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """An event, and its JSON, which all readers share."""

    id: int
    type: str
    resource_type: str
    resource_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Opened:
    """Whatever comes after this event will be told."""

    after: int


@dataclass(frozen=True, slots=True)
class Lagged:
    """The reader was too slow; what follows comes from the database. Nothing is left out."""

    after: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Events after `after`, up to `until`, are not kept any more."""

    after: int
    until: int


Item = Opened | TaskUpdate | Lagged | Gap


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database has after an id."""

    news: list[TaskUpdate]
    more: bool
    forgotten: int
    """Up to here events may have been removed."""


Stat = Callable[[int, EventFilter, int], Stored]
"""(after, wanted, how many)."""


class Subscription:
    """`take` is for one coroutine; everything else for any thread. Made by `EventFeed.subscribe`.

    It is either live, and then the feed puts news into its queue, or behind: then it reads the database.
    """

    def __init__(
        self,
        look: Stat,
        wanted: EventFilter,
        position: int,
        *,
        live: bool,
        most: int = MOST,
        page: int = PAGE,
    ) -> None:
        self.wanted = wanted
        self.position = position
        """The last event that was taken, or left out as not wanted."""
        self._look = look
        self._most = most
        self._page = page
        self._lock = threading.Lock()
        self._queue: deque[TaskUpdate] = deque()
        self._live = live
        self._lagged = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def offer(self, news: Sequence[TaskUpdate]) -> None:
        """Never waits."""
        with self._lock:
            if not self._live:
                return
            wanted = [n for n in news if self.wanted.matches(n.type, n.resource_type, n.resource_id)]
            if not wanted:
                if not self._queue:
                    self.position = max(self.position, news[-1].id)
                return
            if len(self._queue) + len(wanted) > self._most:
                self._queue.clear()
                self._live, self._lagged = False, True
            else:
                self._queue.extend(wanted)
        self._wake()

    def close(self) -> None:
        """`take` returns nothing from now on."""
        self._closed = True
        self._wake()

    async def take(self) -> list[Item]:
        """What is new, at least one; empty: it is closed."""
        while not self._closed:
            self._news.clear()
            found = self._taken() if self._live else await self._caught_up()
            if found:
                return found
            if self._live:
                await self._news.wait()
        return []

    def _taken(self) -> list[Item]:
        with self._lock:
            # Between a look at the database and the queue that was begun before it, some are in both.
            found = [n for n in self._queue if n.id > self.position]
            self._queue.clear()
        if found:
            self.position = found[-1].id
        return list(found)

    async def _caught_up(self) -> list[Item]:
        after = self.position
        with self._lock:
            # From here on what comes is kept, so that nothing falls between this look and what follows it.
            self._queue.clear()
            self._live = True
        try:
            stored = await run_in_threadpool(self._look, after, self.wanted, self._page)
        except BaseException:
            self._fall_behind(after)
            raise
        found: list[Item] = [Lagged(after)] if self._lagged else []
        self._lagged = False
        if after < stored.forgotten:
            found.append(Gap(after, stored.forgotten))
        if stored.more:
            self._fall_behind(stored.news[-1].id)
        elif stored.news:
            self.position = stored.news[-1].id
        return [*found, *stored.news]

    def _fall_behind(self, position: int) -> None:
        with self._lock:
            self._queue.clear()
            self._live = False
            self.position = position

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            self._closed = True  # its event loop has ended, and so has its reader
