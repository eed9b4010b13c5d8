"""`/api/v1/events`: what happened, as a list and as it happens."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, WebSocket
from sqlalchemy import select
from sse_starlette import EventSourceResponse

from dragonfly_ray.serve.database import tables
from dragonfly_ray.serve.events import encoders
from dragonfly_ray.serve.events.filters import EventFilter, existing
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.schemas.news import Event, EventType

router = APIRouter(prefix="/events", tags=["events"])
After = Annotated[int | None, Query(ge=0, lt=2**63, description="Only events after the one with this id.")]
LastEventId = Annotated[int | None, Header(ge=0, lt=2**63, description="Takes precedence over `after`.")]
SSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "A stream of server-sent events."}
}


def _wanted(
    types: Annotated[
        list[EventType],
        Query(max_length=50, description="Event types such as `job.ended` or `node.*`; default: all."),
    ] = [],  # noqa: B006
    resource_type: Annotated[str, Query(max_length=32)] = "",
    resource_id: Annotated[str, Query(max_length=256)] = "",
) -> EventFilter:
    return EventFilter(tuple(types), resource_type, resource_id)


Filter = Annotated[EventFilter, Depends(_wanted)]


@router.get("")
@requires(Permission.EVENTS_READ)
def list_events(manager: Here, paging: Paged, wanted: Filter, after: After = None) -> Page[Event]:
    """The oldest first; `sort=-id` for the newest."""
    query = select(tables.Event).where(*wanted.resource())
    if after is not None:
        query = query.where(tables.Event.id > after)
    with manager.database.read() as session:
        return page(
            session,
            query,
            paging,
            {"id": tables.Event.id},
            tables.Event.id,
            Event.model_validate,
            default="id",
            any_of=(tables.Event.type, existing(session, wanted.types)) if wanted.types else None,
        )


@router.get("/stream", response_class=EventSourceResponse, responses=SSE)
@requires(Permission.EVENTS_READ)
async def stream_events(
    request: Request,
    manager: Here,
    wanted: Filter,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """Events as they happen, as unnamed messages: `data` is an `Event`, `id` its id.

    With `Last-Event-ID` (which browsers send when they connect again) or `after` it begins behind that event, and
    leaves out nothing. Two messages have a name: `lagged` tells a slow reader that what it missed follows,
    `gap` that events between the ids `after` and `until` are not kept any more.
    """
    begin = after if last_event_id is None else last_event_id
    return await manager.streams.sse(request, encoders.as_sse(encoders.items(manager.feed, wanted, begin)))


@router.websocket("/ws")
@requires(Permission.EVENTS_READ)
async def socket_events(socket: WebSocket, manager: Here, wanted: Filter, after: After = None) -> None:
    """The same as messages of JSON: `{"open": {"after": …}}` first, `{"event": {…}}`, `{"lagged": {…}}`, `{"gap": {…}}`."""
    await manager.streams.websocket(socket, encoders.as_texts(encoders.items(manager.feed, wanted, after)))
