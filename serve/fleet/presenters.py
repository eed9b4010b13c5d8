"""REST representations of nodes, tasks and settings, from rows and the cluster's views."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dragonfly_ray.distribution import told_apart
from dragonfly_ray.serve.cluster import Availability, Edge, NodeView, Pin, TaskView
from dragonfly_ray.serve.database import tables
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.schemas.base import By, Provenance
from dragonfly_ray.serve.schemas.cluster import (
    Cells,
    ConfigVersion,
    EdgeOut,
    EntryOut,
    Holder,
    Node,
    PinOut,
    Task,
    TaskDetail,
)
from dragonfly_ray.urls import redacted

url = functools.lru_cache(maxsize=20_000)(redacted)
"""As lists sort and search by it: of every task, at every request."""
CLUSTER_HEADER = "X-Dragonfly-Cluster"
"""Of answers that can be given without the cluster: whether it answers."""
OK, AWAY = "ok", "away"


def node(row: tables.Node, view: NodeView | None, names: Mapping[str, str], error: str = "") -> Node:
    """`names`: those of all nodes, told apart. `error`: why there is no view of any node."""
    live = view or NodeView(
        row.node_id, row.name, row.address, row.alive, row.seed, row.labels, row.state, error=error
    )
    alive = live.alive and (view is not None or row.alive)
    return Node(
        node_id=row.node_id,
        name=live.name,
        shown_name=names.get(row.node_id) or live.name,
        address=live.address,
        alive=alive,
        role="seed" if live.seed else "peer",
        state=live.state if alive else "dead",
        labels=dict(live.labels),
        cordoned=row.cordoned,
        draining=row.draining,
        note=row.note,
        version=row.version,
        store_used=live.store_used,
        store_quota=live.store_quota,
        disk_free=live.disk_free,
        disk_total=live.disk_total,
        receive_rate=live.receive_rate,
        send_rate=live.send_rate,
        bytes=Provenance(
            origin=live.bytes_origin,
            peers=live.bytes_peers,
            cache=live.bytes_cache,
            object_store=live.bytes_object_store,
        ),
        bytes_sent=live.bytes_sent,
        active_tasks=live.active_tasks,
        settings_version=live.settings_version,
        first_seen_at=row.first_seen_at,
        last_seen_at=now() if view is not None and view.alive else row.last_seen_at,
        error=live.error,
    )


def task(view: TaskView) -> Task:
    return Task(
        task_id=view.task_id,
        source_id=view.source_id,
        url=url(view.url),
        size=view.size,
        pieces=view.pieces,
        entries=view.entries,
        directory=view.directory,
        active=view.active,
        complete=view.whole,
        whole=view.whole,
        partial=view.partial,
    )


def task_detail(view: TaskView, pins: Sequence[Pin], nodes: Mapping[str, NodeView]) -> TaskDetail:
    names = names_of(nodes)
    return TaskDetail(
        **task(view).model_dump(),
        holders=[
            Holder(node_id=n, node=name(names, n), share=share) for n, share in sorted(view.holders.items())
        ],
        pins=[
            PinOut(
                node_id=p.node_id,
                node=name(names, p.node_id),
                owner=p.owner,
                expires_at=None if p.expires_at is None else datetime.fromtimestamp(p.expires_at, UTC),
            )
            for p in pins
        ],
        banned=list(view.banned),
    )


def entry(found: Mapping[str, Any]) -> EntryOut:
    mtime_ns = found.get("mtime_ns")
    return EntryOut(
        path=found["path"],
        size=found["size"],
        kind=found["kind"],
        version=found["version"],
        mode=found.get("mode"),
        mtime=None if mtime_ns is None else datetime.fromtimestamp(mtime_ns / 1e9, UTC),
        target=found.get("target") or "",
    )


def cells(found: Availability) -> Cells:
    return Cells(
        task_id=found.task_id,
        pieces=found.pieces,
        cells=found.cells,
        nodes={n: base64.b64encode(held).decode() for n, held in found.nodes.items()},
    )


def edge(found: Edge, names: Mapping[str, str]) -> EdgeOut:
    return EdgeOut(
        parent=found.parent,
        child=found.child,
        parent_node=name(names, found.parent),
        child_node=name(names, found.child),
        bytes=found.bytes,
    )


def config_version(row: tables.ConfigVersion) -> ConfigVersion:
    return ConfigVersion(
        version=row.version,
        values=row.values,
        comment=row.comment,
        rollback_of=row.rollback_of,
        created_by=By(id=row.created_by, name=row.created_by_name),
        created_at=row.created_at,
        applied_at=row.applied_at,
    )


def names_of(nodes: Mapping[str, NodeView]) -> dict[str, str]:
    """Node id -> a name that no other of them has."""
    return told_apart({node_id: view.name for node_id, view in nodes.items()})


def name(names: Mapping[str, str], node_id: str) -> str:
    """A node's name, or the beginning of its id while nobody knows it."""
    return names.get(node_id) or node_id[:12]
