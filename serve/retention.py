"""What is old enough goes: the leader's work, in small transactions, so that nobody waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import (
    Attempt,
    Audit,
    Base,
    Cursor,
    Delivery,
    Event,
    IdempotencyKey,
    Job,
    JobNode,
    SignIn,
    TaskTraffic,
    Traffic,
    Webhook,
    now,
)
from dragonfly_ray.serve.database.upsert import insert
from dragonfly_ray.serve.events.feed import FORGOTTEN
from dragonfly_ray.serve.jobs import idempotency
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.settings import Retention
from dragonfly_ray.serve.stats import tasks
from dragonfly_ray.serve.stats.record import MINUTE
from dragonfly_ray.serve.stats.traffic import MINUTES_KEPT

log = logging.getLogger(__name__)
EVERY = 600.0
BATCH = 500
PAUSE = 0.05
"""Seconds between two batches: whoever waits to write comes in between."""
ATTEMPTS_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Rule:
    """`old`: which rows go. `first`: what is done in the transaction, before they do."""

    table: type[Base]
    key: tuple[InstrumentedAttribute[Any], ...]
    old: ColumnElement[bool]
    first: Callable[[Session, list[Any]], None] | None = None


class Housekeeping:
    """A service."""

    def __init__(
        self,
        database: Database,
        leadership: Leadership,
        retention: Retention,
        *,
        every: float = EVERY,
        batch: int = BATCH,
        pause: float = PAUSE,
    ) -> None:
        self._database = database
        self._leadership = leadership
        self._retention = retention
        self._batch = batch
        self._pause = pause
        self._loop = Loop("retention", every, self._round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def clean(self, at: datetime, stopping: threading.Event) -> dict[str, int]:
        """Removes all that is too old as of `at`. Returns how many rows of which table."""
        removed: dict[str, int] = {}
        for rule in self._rules(at):
            count = 0
            while not stopping.is_set() and (gone := self._one_batch(rule)):
                count += gone
                stopping.wait(self._pause)
            if count:
                removed[rule.table.__tablename__] = removed.get(rule.table.__tablename__, 0) + count
        if removed:
            log.info("retention: removed expired rows: %s", removed)
            with self._database.write() as session:
                audit(session, None, "retention", removed=removed)
        return removed

    def _round(self, stopping: threading.Event) -> None:
        if self._leadership.leading:
            self.clean(now(), stopping)

    def _one_batch(self, rule: _Rule) -> int:
        # The rows of a job go with it, and it may have a thousand for each URL.
        limit = max(1, self._batch // 20) if rule.table is Job else self._batch
        with self._database.read() as session:
            query = select(*rule.key).where(rule.old).order_by(*rule.key).limit(limit)
            keys = [tuple(row) for row in session.execute(query)]
        if not keys:
            return 0
        with self._database.write() as session:
            if rule.first is not None:
                rule.first(session, [key[0] for key in keys])
            which = (
                rule.key[0].in_([k[0] for k in keys]) if len(rule.key) == 1 else tuple_(*rule.key).in_(keys)
            )
            # Asked again: what was old a moment ago may have been touched.
            gone = session.execute(delete(rule.table).where(which, rule.old).returning(rule.key[0])).all()
        return len(gone)

    def _rules(self, at: datetime) -> list[_Rule]:
        keep = self._retention
        found = [
            _Rule(
                IdempotencyKey,
                (IdempotencyKey.user_id, IdempotencyKey.key),
                IdempotencyKey.created_at < at - idempotency.KEPT,
            ),
            _Rule(Attempt, (Attempt.id,), Attempt.at < at - ATTEMPTS_KEPT),
            _Rule(SignIn, (SignIn.hash,), SignIn.expires_at < at),
            _Rule(
                Traffic,
                (Traffic.at, Traffic.seconds, Traffic.node_id),
                and_(Traffic.seconds == MINUTE, Traffic.at < at - MINUTES_KEPT),
            ),
        ]
        if keep.audit:
            found.append(_Rule(Audit, (Audit.id,), Audit.at < at - timedelta(days=keep.audit)))
        if keep.events:
            found.append(
                _Rule(
                    Event,
                    (Event.id,),
                    and_(Event.at < at - timedelta(days=keep.events), Event.id <= self._told()),
                    _forget,
                )
            )
        if keep.deliveries:
            old = Delivery.created_at < at - timedelta(days=keep.deliveries)
            found.append(_Rule(Delivery, (Delivery.id,), and_(Delivery.state != "pending", old)))
        if keep.stats:
            before = at - timedelta(days=keep.stats)
            found += [
                _Rule(Traffic, (Traffic.at, Traffic.seconds, Traffic.node_id), Traffic.at < before),
                _Rule(TaskTraffic, (TaskTraffic.task_id,), TaskTraffic.last_at < before),
            ]
        if keep.jobs:
            found.append(_Rule(Job, (Job.id,), Job.ended_at < at - timedelta(days=keep.jobs), _empty))
        return found

    def _told(self) -> int:
        """Up to here webhooks and statistics have made of events what they make of them."""
        with self._database.read() as session:
            behind = session.scalar(select(func.min(Webhook.cursor)).where(Webhook.enabled))
            counted = session.get(Cursor, tasks.CURSOR)
            last_ended = session.scalar(select(func.max(Event.id)).where(Event.type == "job.ended")) or 0
            newest = session.scalar(select(func.max(Event.id))) or 0
        seen = counted.event_id if counted else 0
        # No job has ended since the last that was counted: there is nothing to wait for.
        return min(newest if behind is None else behind, newest if seen >= last_ended else seen)


def _forget(session: Session, ids: list[int]) -> None:
    """Whoever comes back with an id from before is told that there is a gap. Another leader may do the same."""
    adding = insert(session, Cursor).values(name=FORGOTTEN, event_id=max(ids))
    further = adding.excluded.event_id > Cursor.event_id
    session.execute(
        adding.on_conflict_do_update(
            index_elements=["name"], set_={"event_id": adding.excluded.event_id}, where=further
        )
    )


def _empty(session: Session, ids: list[str]) -> None:
    session.execute(delete(JobNode).where(JobNode.job_id.in_(ids)))
