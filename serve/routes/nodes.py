"""`/api/v1/nodes`: who is there, from the table; how they are now, from the cluster while it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.distribution import told_apart
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.database import tables
from dragonfly_ray.serve.etags import tag
from dragonfly_ray.serve.fleet import presenters
from dragonfly_ray.serve.fleet.nodes import changed_data, tell
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.problems import conflict, not_found
from dragonfly_ray.serve.records import audit, emit
from dragonfly_ray.serve.schemas.cluster import Node, NodeNote

router = APIRouter(prefix="/nodes", tags=["nodes"])
SORTED = {
    "node_id": tables.Node.node_id,
    "name": tables.Node.name,
    "address": tables.Node.address,
    "state": tables.Node.state,
    "first_seen_at": tables.Node.first_seen_at,
    "last_seen_at": tables.Node.last_seen_at,
}
Text = Annotated[str | None, Query(max_length=256)]


@router.get("")
@requires(Permission.NODES_READ)
def list_nodes(
    manager: Here,
    paging: Paged,
    response: Response,
    alive: bool | None = None,
    state: Text = None,
    role: Literal["seed", "peer"] | None = None,
    cordoned: bool | None = None,
    name: Annotated[str | None, Query(max_length=256, description="Substring of the name.")] = None,
) -> Page[Node]:
    """All that were ever seen and not forgotten.

    `X-Dragonfly-Cluster: away` says that the cluster does not answer: live figures are missing then.
    """
    views, error = _live(manager, response)
    query = select(tables.Node)
    if alive is not None:
        query = query.where(tables.Node.alive.is_(alive))
    if state is not None:
        query = query.where(tables.Node.state == state)
    if role is not None:
        query = query.where(tables.Node.seed.is_(role == "seed"))
    if cordoned is not None:
        query = query.where(tables.Node.cordoned.is_(cordoned))
    if name:
        query = query.where(tables.Node.name.icontains(name, autoescape=True))
    with manager.database.read() as session:
        names = _names(session)
        return page(
            session,
            query,
            paging,
            SORTED,
            tables.Node.node_id,
            lambda row: presenters.node(row, views.get(row.node_id), names, error),
            default="name",
        )


@router.get("/{node_id}")
@requires(Permission.NODES_READ)
def get_node(node_id: str, manager: Here, response: Response) -> Node:
    with manager.database.read() as session:
        row = _row(session, node_id)
    return _answer(manager, row, response)


@router.post("/{node_id}/cordon")
@requires(Permission.NODES_WRITE)
def cordon(node_id: str, body: NodeNote, manager: Here, request: Request, response: Response) -> Node:
    """New work is given to it only where it is named. Holds over restarts of everything."""
    return _decide(manager, request, response, node_id, "cordon", body.note)


@router.post("/{node_id}/uncordon")
@requires(Permission.NODES_WRITE)
def uncordon(node_id: str, manager: Here, request: Request, response: Response) -> Node:
    return _decide(manager, request, response, node_id, "uncordon")


@router.post("/{node_id}/drain")
@requires(Permission.NODES_WRITE)
def drain(node_id: str, body: NodeNote, manager: Here, request: Request, response: Response) -> Node:
    """It finishes what it has begun and feeds nobody any more; then its state is `drained`."""
    return _decide(manager, request, response, node_id, "drain", body.note)


@router.post("/{node_id}/undrain")
@requires(Permission.NODES_WRITE)
def undrain(node_id: str, manager: Here, request: Request, response: Response) -> Node:
    return _decide(manager, request, response, node_id, "undrain")


@router.delete("/{node_id}", status_code=204)
@requires(Permission.NODES_WRITE)
def forget(node_id: str, manager: Here, request: Request) -> None:
    """Takes a dead node off the list. One that lives is there again within seconds, so it is refused."""
    try:
        view = manager.fleet.nodes.get().get(node_id)
    except ClusterError:
        view = None
    with manager.database.write() as session:
        row = _row(session, node_id, lock=True)
        if row.alive or (view is not None and view.alive):
            raise conflict(f"node {row.name or node_id!r} is alive", "node-alive")
        session.delete(row)
        audit(session, request, "node.forget", "node", node_id, name=row.name)
        emit(session, "node.forgotten", "node", node_id, {"name": row.name})


_DECISIONS: dict[str, tuple[str, bool]] = {
    "cordon": ("cordoned", True),
    "uncordon": ("cordoned", False),
    "drain": ("draining", True),
    "undrain": ("draining", False),
}


def _decide(
    manager: Manager, request: Request, response: Response, node_id: str, action: str, note: str = ""
) -> Node:
    """The table first: what the cluster does not hear now, it is told as soon as it answers."""
    field, value = _DECISIONS[action]
    with manager.database.write() as session:
        row = _row(session, node_id, lock=True)
        setattr(row, field, value)
        if value:
            row.note = note
        elif not row.cordoned and not row.draining:
            row.note = ""
        row.version += 1
        audit(session, request, f"node.{action}", "node", node_id, name=row.name, note=note)
        emit(session, "node.changed", "node", node_id, changed_data(row))
    views, _ = _live(manager, None)
    view = views.get(node_id)
    if view is not None and view.alive:
        tell(manager.cluster, row, view)
        manager.fleet.nodes.forget()
    return _answer(manager, row, response)


def _answer(manager: Manager, row: tables.Node, response: Response) -> Node:
    views, error = _live(manager, response)
    tag(response, row.version)
    with manager.database.read() as session:
        names = _names(session)
    return presenters.node(row, views.get(row.node_id), names, error)


def _live(manager: Manager, response: Response | None) -> tuple[Mapping[str, NodeView], str]:
    """The cluster's own view, or why there is none."""
    try:
        views, error = manager.fleet.nodes.get(), ""
    except ClusterError as raised:
        views, error = {}, str(raised)
    if response is not None:
        response.headers[presenters.CLUSTER_HEADER] = presenters.AWAY if error else presenters.OK
    return views, error


def _names(session: Session) -> dict[str, str]:
    """Of the nodes that share their name with another, also with one that the cluster has forgotten."""
    shared = select(tables.Node.name).group_by(tables.Node.name).having(func.count() > 1)
    rows = session.execute(select(tables.Node.node_id, tables.Node.name).where(tables.Node.name.in_(shared)))
    return told_apart({row.node_id: row.name for row in rows})


def _row(session: Session, node_id: str, *, lock: bool = False) -> tables.Node:
    found = session.get(tables.Node, node_id, with_for_update=lock)
    if found is None:
        raise not_found("node", node_id)
    return found
