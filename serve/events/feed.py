"""The events of the database as they are committed, for every reader of this replica."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database import Database, tables
from dragonfly_ray.serve.events.filters import EventFilter
from dragonfly_ray.serve.events.subscription import MOST, PAGE, Stored, Subscription, TaskUpdate
from dragonfly_ray.serve.records import EVENTS
from dragonfly_ray.serve.schemas.news import Event

log = logging.getLogger(__name__)
FORGOTTEN = "forgotten"
"""The cursor that says up to which id events have been removed."""
FALLBACK = 5.0
"""Seconds between looks that nobody asked for."""


class EventFeed:
    """A service. Reads each event once, however many readers there are, and none of them holds up another.

    Ids are in the order of commits (see `records.emit`), so whoever has seen one has seen all before it.
    """

    def __init__(self, database: Database, *, fallback: float = FALLBACK, most: int = MOST) -> None:
        self.head = 0
        """The last event that was seen."""
        self._database = database
        self._most = most
        self._lock = threading.Lock()
        self._readers: set[Subscription] = set()
        self._loop = Loop("event-feed", fallback, self._tail)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        with self._database.read() as session:
            self.head = _last(session)
        self._database.signals.add(EVENTS, self._loop.wake)
        self._loop.start()

    def stop(self) -> None:
        self._database.signals.remove(EVENTS, self._loop.wake)
        self._loop.stop()
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.close()

    @contextlib.contextmanager
    def subscribe(self, wanted: EventFilter, after: int | None = None) -> Iterator[Subscription]:
        """Within a coroutine: what comes from now on, or everything after an event that was seen before."""
        with self._lock:
            position = self.head if after is None else after
            reader = Subscription(self.look, wanted, position, live=after is None, most=self._most)
            self._readers.add(reader)
        try:
            yield reader
        finally:
            with self._lock:
                self._readers.discard(reader)

    @property
    def readers(self) -> int:
        return len(self._readers)

    def newest(self) -> int:
        """The last event that was committed."""
        with self._database.read() as session:
            return _last(session)

    def look(self, after: int, wanted: EventFilter, limit: int) -> Stored:
        with self._database.read() as session:
            rows = _after(session, after, wanted, limit)
            # Read after them: what is removed meanwhile is told once too often rather than never.
            forgotten = session.get(tables.Cursor, FORGOTTEN)
            return Stored(
                news=[_news(row) for row in rows[:limit]],
                more=len(rows) > limit,
                forgotten=forgotten.event_id if forgotten else 0,
            )

    def _tail(self, stopping: threading.Event) -> None:
        more = True
        while more and not stopping.is_set():
            with self._database.read() as session:
                rows = _after(session, self.head, EventFilter(), PAGE)
            more = len(rows) > PAGE
            news = [_news(row) for row in rows[:PAGE]]
            if news:
                self._pass_on(news)

    def _pass_on(self, news: list[TaskUpdate]) -> None:
        with self._lock:
            # Together: who subscribes afterwards begins behind these, and who did before gets them.
            self.head = news[-1].id
            readers = list(self._readers)
        for reader in readers:
            reader.offer(news)


def _after(session: Session, after: int, wanted: EventFilter, limit: int) -> list[tables.Event]:
    """One more than asked for, if there is one."""
    query = select(tables.Event).where(tables.Event.id > after, *wanted.conditions())
    return list(session.scalars(query.order_by(tables.Event.id).limit(limit + 1)))


def _last(session: Session) -> int:
    """The newest id that was given out, also when that event is not kept any more."""
    newest = session.scalar(select(func.max(tables.Event.id))) or 0
    forgotten = session.get(tables.Cursor, FORGOTTEN)
    return max(newest, forgotten.event_id if forgotten else 0)


def _news(row: tables.Event) -> TaskUpdate:
    return TaskUpdate(
        id=row.id,
        type=row.type,
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        text=Event.model_validate(row).model_dump_json(),
    )
