"""Questions about traffic: over time, and by node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.tables import Node, Traffic
from dragonfly_ray.serve.problems import invalid
from dragonfly_ray.serve.schemas.base import Provenance
from dragonfly_ray.serve.schemas.news import NodeTraffic, TrafficPoint, TrafficSeries
from dragonfly_ray.serve.stats.counts import NAMES, Counts
from dragonfly_ray.serve.stats.record import ALL, HOUR, MINUTE, floor

MINUTES_KEPT = timedelta(hours=48)
"""What is older is there by the hour only."""
MOST_POINTS = 2000
_STEPS = (60, 300, 900, 3600, 21_600, 86_400, 604_800)
_GOOD = 400
"""Points of a chart, if nobody says."""


def step_for(since: datetime, until: datetime, at: datetime) -> int:
    """A step that gives a chart of a sensible size."""
    least = HOUR if since < at - MINUTES_KEPT else MINUTE
    span = (until - since).total_seconds()
    return next((s for s in _STEPS if s >= least and span / s <= _GOOD), _STEPS[-1])


def series(
    session: Session, since: datetime, until: datetime, step: int, at: datetime, node_id: str = ""
) -> TrafficSeries:
    """Of a node, or of all. Steps in which nothing moved are zeros. Raises `Problem`."""
    resolution = MINUTE if step % HOUR else HOUR
    if step % MINUTE:
        raise invalid(f"step {step}: must be a multiple of {MINUTE} seconds")
    if since >= until:
        raise invalid("since: must be before until")
    begin = floor(since, step)
    points = -(-int(until.timestamp() - begin.timestamp()) // step)
    if points > MOST_POINTS:
        raise invalid(f"step {step}: {points} points exceed the limit of {MOST_POINTS}")
    if resolution == MINUTE and begin < at - MINUTES_KEPT - timedelta(seconds=step):
        raise invalid(
            f"step {step}: beyond {MINUTES_KEPT.days} days only hours are kept; must be a multiple of {HOUR}"
        )
    found = [Counts()] * points
    query = select(Traffic).where(
        Traffic.node_id == (node_id or ALL),
        Traffic.seconds == resolution,
        Traffic.at >= begin,
        Traffic.at < begin + timedelta(seconds=points * step),
    )
    for row in session.scalars(query):
        index = int(row.at.timestamp() - begin.timestamp()) // step
        found[index] += Counts(*(getattr(row, name) for name in NAMES))
    total = sum(found, Counts())
    return TrafficSeries(
        since=begin,
        until=begin + timedelta(seconds=points * step),
        step=step,
        points=[
            TrafficPoint(at=begin + timedelta(seconds=i * step), seconds=step, bytes=each.provenance)
            for i, each in enumerate(found)
        ],
        total=total.provenance,
        saved=total.saved,
    )


def by_node(session: Session, since: datetime) -> list[NodeTraffic]:
    """From the hour on that `since` lies in; who received most comes first."""
    sums = [func.sum(getattr(Traffic, name)).label(name) for name in NAMES]
    query = (
        select(Traffic.node_id, Node.name, *sums)
        .outerjoin(Node, Node.node_id == Traffic.node_id)
        .where(Traffic.seconds == HOUR, Traffic.at >= floor(since, HOUR), Traffic.node_id != ALL)
        .group_by(Traffic.node_id, Node.name)
    )
    found = [
        NodeTraffic(
            node_id=node_id,
            node=name or "",
            bytes=Provenance(
                origin=int(origin), peers=int(peers), cache=int(cache), object_store=int(objects)
            ),
            bytes_sent=int(sent),
        )
        for node_id, name, origin, peers, cache, objects, sent in session.execute(query)
    ]
    return sorted(found, key=lambda n: (-sum(dict(n.bytes).values()), n.node_id))


def in_utc(value: datetime) -> datetime:
    """A time of a caller; without a zone it is UTC. Raises `Problem` for one out of range."""
    try:
        found = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if not 1970 <= found.year < 9000:
            raise OverflowError
    except (OverflowError, ValueError):
        raise invalid("time out of range") from None
    return found
