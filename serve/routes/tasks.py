"""`/api/v1/tasks`: what lies where, from the cluster; pins and evictions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from dragonfly_ray.errors import ClusterError, InvalidRequestError
from dragonfly_ray.serve.cluster import NodeView, TaskView
from dragonfly_ray.serve.fleet import presenters
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page_of
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import conflict, not_found
from dragonfly_ray.serve.records import audit, emit
from dragonfly_ray.serve.schemas.cluster import (
    Cells,
    EdgeOut,
    Entries,
    Evict,
    Freed,
    Pin,
    Task,
    TaskDetail,
    Touched,
)
from dragonfly_ray.urls import redacted

router = APIRouter(prefix="/tasks", tags=["tasks"])
TaskId = Annotated[str, Path(max_length=128)]
JUST_NOW = 0.2
"""Seconds: what is unknown may have begun since the last look, so it is looked again, but not for every request."""
MOST_EDGES = 256
SORTED = {
    "task_id": lambda t: t.task_id,
    "url": lambda t: presenters.url(t.url),
    "size": lambda t: t.size,
    "active": lambda t: t.active,
    "complete": lambda t: t.whole,
    "whole": lambda t: t.whole,
}


@router.get("")
@requires(Permission.TASKS_READ)
def list_tasks(
    manager: Here,
    paging: Paged,
    url: Annotated[str | None, Query(max_length=4096, description="Substring of the URL.")] = None,
    node_id: Annotated[
        str | None, Query(max_length=64, description="Stored on this node, at least partially.")
    ] = None,
) -> Page[Task]:
    """Everything that lies on some node, or is on its way there."""
    found: Any = manager.fleet.tasks.get().values()
    if node_id is not None:
        found = [t for t in found if node_id in t.holders]
    if url:
        found = [t for t in found if url.lower() in presenters.url(t.url).lower()]
    return page_of(found, paging, SORTED, lambda t: t.task_id, presenters.task, default="task_id")


@router.get("/{task_id}")
@requires(Permission.TASKS_READ)
def get_task(task_id: TaskId, manager: Here) -> TaskDetail:
    task = _task(manager, task_id)
    return presenters.task_detail(task, manager.cluster.pins(task_id), _nodes(manager))


@router.get("/{task_id}/entries")
@requires(Permission.TASKS_READ)
def list_entries(
    task_id: TaskId,
    manager: Here,
    offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Entries:
    """The files of its manifest, in its order."""
    _task(manager, task_id)
    total, found = manager.cluster.manifest(task_id, offset, limit)
    return Entries(total=total, items=[presenters.entry(e) for e in found])


@router.get("/{task_id}/cells")
@requires(Permission.TASKS_READ)
def get_cells(task_id: TaskId, manager: Here, cells: Annotated[int, Query(ge=1, le=4096)] = 256) -> Cells:
    """Which pieces are where, in so many cells a node at most; no nodes where no scheduler knows it just now."""
    task = _task(manager, task_id)
    found = manager.cluster.availability(task_id, cells)
    if found is None:
        return Cells(task_id=task_id, pieces=task.pieces, cells=min(cells, task.pieces), nodes={})
    return presenters.cells(found)


@router.get("/{task_id}/edges")
@requires(Permission.TASKS_READ)
def list_edges(
    task_id: TaskId, manager: Here, limit: Annotated[int, Query(ge=1, le=MOST_EDGES)] = MOST_EDGES
) -> list[EdgeOut]:
    """Traffic between peers; edges with most bytes first."""
    _task(manager, task_id)
    names = presenters.names_of(_nodes(manager))
    return [presenters.edge(e, names) for e in manager.cluster.edges(task_id, limit)]


@router.post("/{task_id}/pin")
@requires(Permission.TASKS_WRITE)
def pin(task_id: TaskId, body: Pin, manager: Here, caller: Caller, request: Request) -> Touched:
    """Keeps it from being evicted on its holders, or on some of them, in the caller's name."""
    task = _task(manager, task_id)
    expires_at = None if body.ttl is None else time.time() + body.ttl
    touched = manager.cluster.pin(task_id, owner_of(caller), expires_at, body.node_ids)
    _record(manager, request, "pin", task, nodes=touched, node_ids=body.node_ids, ttl=body.ttl)
    return Touched(nodes=touched)


@router.delete("/{task_id}/pin")
@requires(Permission.TASKS_WRITE)
def unpin(task_id: TaskId, manager: Here, caller: Caller, request: Request) -> Touched:
    """Takes the caller's own pin away, everywhere."""
    task = _task(manager, task_id)
    touched = manager.cluster.unpin(task_id, owner_of(caller))
    _record(manager, request, "unpin", task, nodes=touched)
    return Touched(nodes=touched)


@router.post("/{task_id}/evict")
@requires(Permission.TASKS_WRITE)
def evict(task_id: TaskId, body: Evict, manager: Here, request: Request) -> Freed:
    """Deletes it from the stores, everywhere or on some nodes; outputs at a `dest` stay."""
    task = _task(manager, task_id)
    try:
        freed = manager.cluster.evict(task_id, body.node_ids)
    except InvalidRequestError as error:
        raise conflict(str(error), "task-in-use") from error
    _record(manager, request, "evict", task, bytes=freed, node_ids=body.node_ids)
    return Freed(bytes=freed)


def owner_of(caller: Principal) -> str:
    """Whose pin it is, as the peers know it."""
    return f"manager:{caller.name}"


_EVENTS = {"pin": "task.pinned", "unpin": "task.unpinned", "evict": "task.evicted"}
_MOST_NAMED = 100


def _record(manager: Manager, request: Request, action: str, task: TaskView, **detail: Any) -> None:
    ids = detail.pop("node_ids", None)
    if ids:
        detail |= {"node_ids": ids[:_MOST_NAMED], "node_ids_total": len(ids)}
    told = {"url": redacted(task.url), **detail}
    with manager.database.write() as session:
        audit(session, request, f"task.{action}", "task", task.task_id, **told)
        emit(session, _EVENTS[action], "task", task.task_id, told)
    manager.fleet.tasks.forget()


def _task(manager: Manager, task_id: str) -> TaskView:
    found = manager.fleet.tasks.get().get(task_id) or manager.fleet.tasks.get(JUST_NOW).get(task_id)
    if found is None:
        raise not_found("task", task_id)
    return found


def _nodes(manager: Manager) -> Mapping[str, NodeView]:
    try:
        return manager.fleet.nodes.get()
    except ClusterError:
        return {}
