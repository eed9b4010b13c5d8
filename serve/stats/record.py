"""Traffic in the database: rows of a minute and of an hour, by node and of all nodes together.

Peers tell totals since they started. A mark says how much of them is counted, in the transaction that counts it:
whoever counts next, after whatever pause, counts the rest and nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Traffic, TrafficMark
from dragonfly_ray.serve.database.upsert import insert
from dragonfly_ray.serve.stats.counts import NAMES, Counts

MINUTE = 60
HOUR = 3600
ALL = ""
"""The node id of the row that counts all of them."""
_BATCH = 500
_LOCK = "traffic"


def record(database: Database, views: Iterable[NodeView], at: datetime) -> None:
    """Counts what the nodes have received and sent since the last time."""
    views = [view for view in views if view.alive and view.incarnation]
    with database.read() as session:
        if not _gains(_marks(session), views):
            return
    with database.write() as session:
        serialise(session, _LOCK)
        marks = _marks(session)
        gains = _gains(marks, views)
        _mark(session, marks, views, gains, at)
        _add(session, gains, at)


def _marks(session: Session) -> dict[str, TrafficMark]:
    return {mark.node_id: mark for mark in session.scalars(select(TrafficMark))}


def _gains(marks: Mapping[str, TrafficMark], views: Iterable[NodeView]) -> dict[str, Counts]:
    """What is not counted yet, of those that have something new to tell."""
    found: dict[str, Counts] = {}
    for view in views:
        mark, told = marks.get(view.node_id), Counts.of(view)
        if mark is None:
            # What a cluster did before it had a manager is not traffic of this minute.
            found[view.node_id] = told if marks else Counts()
        elif mark.incarnation != view.incarnation:
            found[view.node_id] = told
        elif gained := told.since(Counts.stored(mark.seen)):
            found[view.node_id] = gained
    return found


def _mark(
    session: Session,
    marks: Mapping[str, TrafficMark],
    views: Iterable[NodeView],
    gains: Mapping[str, Counts],
    at: datetime,
) -> None:
    for view in views:
        if view.node_id not in gains:
            continue
        mark, told = marks.get(view.node_id), Counts.of(view)
        if mark is None:
            mark = TrafficMark(node_id=view.node_id, incarnation=view.incarnation, **Counts().as_dict())
            session.add(mark)
        elif mark.incarnation == view.incarnation:
            # A look that is older than the last one takes nothing back.
            told = told.highest(Counts.stored(mark.seen))
        mark.incarnation, mark.seen, mark.updated_at = view.incarnation, told.as_dict(), at
        for name, gained in gains[view.node_id].as_dict().items():
            setattr(mark, name, getattr(mark, name) + gained)


def _add(session: Session, gains: Mapping[str, Counts], at: datetime) -> None:
    some = {node: gained for node, gained in gains.items() if gained}
    if not some:
        return
    some[ALL] = sum(some.values(), Counts())
    rows = [
        {"at": floor(at, seconds), "seconds": seconds, "node_id": node, **gained.as_dict()}
        for seconds in (MINUTE, HOUR)
        for node, gained in some.items()
    ]
    for begin in range(0, len(rows), _BATCH):
        adding = insert(session, Traffic).values(rows[begin : begin + _BATCH])
        session.execute(
            adding.on_conflict_do_update(
                index_elements=["at", "seconds", "node_id"],
                set_={name: getattr(Traffic, name) + adding.excluded[name] for name in NAMES},
            )
        )


def floor(at: datetime, seconds: int) -> datetime:
    """The begin of the stretch that `at` lies in."""
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)
