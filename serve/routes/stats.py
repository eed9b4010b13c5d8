"""`/api/v1/stats`: how things stand, and what moved."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sse_starlette import EventSourceResponse

from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.schemas.news import NodeTraffic, Overview, TopTask, TrafficSeries
from dragonfly_ray.serve.stats import tasks, traffic

router = APIRouter(prefix="/stats", tags=["stats"])
SSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "A stream of server-sent events."}
}


@router.get("/overview")
@requires(Permission.STATS_READ)
def get_overview(manager: Here) -> Overview:
    return manager.stats.overview()


@router.get("/stream", response_class=EventSourceResponse, responses=SSE)
@requires(Permission.STATS_READ)
async def stream_overviews(request: Request, manager: Here) -> EventSourceResponse:
    """An event `overview` each second, with an `Overview` as its data."""
    return await manager.streams.sse(request, manager.stats.overviews())


@router.get("/traffic")
@requires(Permission.STATS_READ)
def get_traffic(
    manager: Here,
    since: Annotated[datetime | None, Query(description="Default: one hour before `until`.")] = None,
    until: Annotated[datetime | None, Query(description="Default: now.")] = None,
    step: Annotated[
        int | None,
        Query(ge=60, le=366 * 86_400, description="Seconds; a multiple of 60. Of 3600 beyond two days."),
    ] = None,
    node_id: Annotated[str, Query(max_length=64, description="Of one node.")] = "",
) -> TrafficSeries:
    """Bytes that nodes received, by where they came from. Begins where a step does; gaps are zeros."""
    at = now()
    end = traffic.in_utc(until) if until else at
    begin = traffic.in_utc(since) if since else end - timedelta(hours=1)
    with manager.database.read() as session:
        return traffic.series(session, begin, end, step or traffic.step_for(begin, end, at), at, node_id)


@router.get("/nodes")
@requires(Permission.STATS_READ)
def get_node_traffic(
    manager: Here,
    since: Annotated[datetime | None, Query(description="Default: 24 hours ago.")] = None,
) -> list[NodeTraffic]:
    """From the hour on that `since` lies in. Who received most comes first."""
    begin = traffic.in_utc(since) if since else now() - timedelta(hours=24)
    with manager.database.read() as session:
        return traffic.by_node(session, begin)


@router.get("/tasks")
@requires(Permission.STATS_READ)
def get_top_tasks(
    manager: Here, limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of rows.")] = 20
) -> list[TopTask]:
    """Of which jobs moved most, first."""
    with manager.database.read() as session:
        return tasks.top(session, limit)
