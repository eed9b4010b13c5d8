"""One look at everything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.database.tables import Job, Node, TrafficMark
from dragonfly_ray.serve.schemas.base import Provenance
from dragonfly_ray.serve.schemas.news import Overview

DAY = timedelta(hours=24)


def overview(
    session: Session, views: Sequence[NodeView] | None, error: str, rates: Provenance, at: datetime
) -> Overview:
    """`views`: None where the cluster does not answer, for the reason that `error` tells."""
    active = _states(session, Job.state.in_(("queued", "running")))
    ended = _states(session, Job.ended_at >= at - DAY)
    without_origin = TrafficMark.bytes_peers + TrafficMark.bytes_cache + TrafficMark.bytes_object_store
    saved, origin = session.execute(
        select(func.sum(without_origin), func.sum(TrafficMark.bytes_origin))
    ).one()
    alive = [view for view in views or () if view.alive]
    if views is None:
        total = session.scalar(select(func.count()).select_from(Node)) or 0
        cordoned = session.scalar(select(func.count()).select_from(Node).where(Node.cordoned)) or 0
    else:
        total, cordoned = len(views), sum(view.cordoned for view in views)
    return Overview(
        at=at,
        rates=rates,
        bytes_saved=int(saved or 0),
        bytes_origin=int(origin or 0),
        jobs_active=active.get("running", 0),
        jobs_queued=active.get("queued", 0),
        jobs_ended_24h=ended,
        nodes_alive=len(alive),
        nodes_healthy=sum(view.state == "healthy" for view in alive),
        nodes_cordoned=cordoned,
        nodes_total=total,
        store_used=sum(view.store_used for view in alive),
        store_quota=sum(view.store_quota for view in alive),
        cluster_error=None if views is not None else error,
    )


def _states(session: Session, condition: ColumnElement[bool]) -> dict[str, int]:
    query = select(Job.state, func.count().label("number")).where(condition).group_by(Job.state)
    return {row.state: row.number for row in session.execute(query)}
