"""The nodes table follows the cluster, and the cluster what was decided about its nodes.

Cordons and drains are decided in the table: a controller that has restarted, or was away when it should
have heard, is told again. Who was there and who is not is seen in the cluster.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.cluster import Cluster, NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Node, now
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import emit

log = logging.getLogger(__name__)
INTERVAL = 2.0
LEAD_WAIT = 0.5
"""Seconds that a round waits for the lease: the first one comes right after it, not an interval later."""
ABSENT = 15.0
"""Seconds for which an answer of the cluster may leave a node out before it counts as gone."""
SEEN = timedelta(seconds=30)
"""`last_seen_at` of nodes that live is as old as that at most."""
DEAD = "dead"
_CHUNK = 500


class NodeKeeper:
    """A service; only the leader's does something. `absent`: seconds, as `ABSENT`."""

    def __init__(
        self, database: Database, cluster: Cluster, leadership: Leadership, *, absent: float = ABSENT
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._leadership = leadership
        self._absent_for = absent
        self._absent: dict[str, float] = {}
        """Node id -> since when the cluster leaves it out."""
        self._away = False
        self._loop = Loop("nodes", INTERVAL, self.round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def wake(self) -> None:
        self._loop.wake()

    def round(self, stopping: threading.Event) -> None:
        if not self._leadership.wait(LEAD_WAIT) or stopping.is_set():
            return
        # Before the table is read: what is decided meanwhile is newer than what is compared with it.
        views = self._views()
        if not views:
            return
        with self._database.read() as session:
            rows = self._known(session, views)
        if self._is_news(rows, views):
            with self._database.write() as session:
                rows = self._known(session, views, lock=True)
                for view in views.values():
                    self._follow(session, rows, view)
                self._bury(session, rows, views)
                self._seen(session)
        for row in rows.values():
            if stopping.is_set() or not self._leadership.leading:
                return
            if row.node_id in views and views[row.node_id].alive:
                tell(self._cluster, row, views[row.node_id])

    def _views(self) -> dict[str, NodeView]:
        """Nothing while the cluster is unavailable: nobody is dead only because nobody can be asked."""
        try:
            views = {v.node_id: v for v in self._cluster.nodes()}
        except DragonflyError as error:
            if not self._away:
                log.warning("nodes: cluster unavailable: %s", error)
            self._away = True
            self._absent.clear()
            return {}
        if self._away:
            log.info("nodes: cluster available again")
        self._away = False
        return views

    def _known(self, session: Session, views: dict[str, NodeView], *, lock: bool = False) -> dict[str, Node]:
        """Rows of all that lived, and of those that live now. Long dead ones are not looked at."""
        query = select(Node).with_for_update() if lock else select(Node)
        rows = {r.node_id: r for r in session.scalars(query.where(Node.alive))}
        back = [v.node_id for v in views.values() if v.alive and v.node_id not in rows]
        for some in chunks(back, _CHUNK):
            rows |= {r.node_id: r for r in session.scalars(query.where(Node.node_id.in_(some)))}
        return rows

    def _is_news(self, rows: dict[str, Node], views: dict[str, NodeView]) -> bool:
        """Most rounds change nothing, and then nobody's writing has to wait for them."""
        at, oldest = time.monotonic(), now() - SEEN
        for node_id in rows:
            if node_id in views:
                self._absent.pop(node_id, None)
            else:
                self._absent.setdefault(node_id, at)
        return (
            any(self._is_gone(node_id) for node_id in rows)
            or any(r.alive and r.last_seen_at < oldest for r in rows.values())
            or any(v.alive and v.node_id not in rows for v in views.values())
            or any(differences(rows[v.node_id], v) for v in views.values() if v.node_id in rows)
        )

    def _is_gone(self, node_id: str) -> bool:
        since = self._absent.get(node_id)
        return since is not None and time.monotonic() - since >= self._absent_for

    def _follow(self, session: Session, rows: dict[str, Node], view: NodeView) -> None:
        row = rows.get(view.node_id)
        if row is None:
            # A dead one that nobody knows was forgotten on purpose, or was never of interest.
            if view.alive:
                rows[view.node_id] = _added(session, view)
            return
        lived, different = row.alive, differences(row, view)
        for name, value in different.items():
            setattr(row, name, value)
        if lived and not view.alive:
            _emit(session, "node.left", row, error=view.error)
        elif view.alive and not lived:
            row.last_seen_at = now()
            _emit(session, "node.joined", row)
        elif different:
            _emit(session, "node.changed", row)

    def _bury(self, session: Session, rows: dict[str, Node], views: dict[str, NodeView]) -> None:
        for row in rows.values():
            if row.node_id not in views and self._is_gone(row.node_id):
                del self._absent[row.node_id]
                row.alive, row.state = False, DEAD
                _emit(session, "node.left", row, error="the cluster no longer knows the node")

    def _seen(self, session: Session) -> None:
        session.flush()
        session.execute(
            update(Node).where(Node.alive, Node.last_seen_at < now() - SEEN).values(last_seen_at=now())
        )


def chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while some := list(itertools.islice(rest, size)):
        yield some


def tell(cluster: Cluster, row: Node, view: NodeView) -> None:
    """The cluster, what was decided, where it does otherwise. What it does not hear now it is told again later."""
    try:
        if row.cordoned != view.cordoned:
            cluster.cordon(row.node_id, row.cordoned)
        if row.draining != view.draining:
            cluster.drain(row.node_id, row.draining)
    except DragonflyError as error:
        log.warning("node %.12s: cordon or drain not delivered yet, retrying: %s", row.node_id, error)


def changed_data(row: Node) -> dict[str, Any]:
    """The data of a node's events."""
    return {
        "name": row.name,
        "state": row.state,
        "alive": row.alive,
        "cordoned": row.cordoned,
        "draining": row.draining,
    }


def _emit(session: Session, type: str, row: Node, **more: Any) -> None:
    emit(session, type, "node", row.node_id, changed_data(row) | {k: v for k, v in more.items() if v})


def _added(session: Session, view: NodeView) -> Node:
    """A node that is seen for the first time is as it is found, cordons included."""
    row = Node(node_id=view.node_id, cordoned=view.cordoned, draining=view.draining)
    for name, value in differences(row, view).items():
        setattr(row, name, value)
    session.add(row)
    _emit(session, "node.joined", row)
    return row


def differences(row: Node, view: NodeView) -> dict[str, Any]:
    """What is different in the cluster. Only what is seen: what was decided stays."""
    found: dict[str, Any] = {
        "name": view.name,
        "address": view.address,
        "labels": dict(view.labels),
        "seed": view.seed,
        "alive": view.alive,
        "state": view.state if view.alive else DEAD,
    }
    return {name: value for name, value in found.items() if getattr(row, name) != value}
