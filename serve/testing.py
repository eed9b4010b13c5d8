"""A cluster that a test, or whoever builds on the manager, moves by hand: no Ray, no bytes."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError, NotRunningError
from dragonfly_ray.figures import Measured
from dragonfly_ray.live_settings import changed
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.outcome import NodeOutcome
from dragonfly_ray.serve.cluster import Availability, Edge, NodeView, Order, Part, Pin, TaskView
from dragonfly_ray.targets import Member, Selector, select
from dragonfly_ray.urls import redacted

SIZE = 64 * 1024 * 1024
PIECES = 256


class FakeCluster:
    """`nodes` nodes. Orders stay `running` until `advance`, `end` or `fail` says otherwise.

    With `at_once` they succeed as they are submitted. `down` makes every call fail, as when the
    schedulers are away; `forget` is a scheduler's restart.
    """

    def __init__(self, nodes: int = 4, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.down = False
        self.orders: dict[str, Order] = {}
        self.credentials: dict[str, Credentials] = {}
        self.submitted: list[str] = []
        """Ids of orders, as they were begun; the same one again only after `forget`."""
        self.cancelled: list[str] = []
        self.measured: Measured | None = None
        """What is told of orders that end from now on."""
        self.applied: tuple[int, dict[str, Any]] = (0, {})
        self.views = {
            f"{n:056x}": NodeView(
                node_id=f"{n:056x}",
                name=f"node-{n}",
                address=f"10.0.{n // 250}.{n % 250 + 1}",
                alive=True,
                seed=n == 0,
                labels={"pool": "gpu" if n % 2 else "cpu"},
                state="healthy",
                incarnation="1",
                store_quota=1 << 40,
                disk_total=1 << 41,
                disk_free=1 << 40,
            )
            for n in range(nodes)
        }
        self.contents: dict[str, TaskView] = {}
        self.held_pins: dict[str, list[Pin]] = {}
        self._parts: dict[tuple[str, int], Part] = {}
        self._changed = threading.Condition()

    # --- moved by hand ----------------------------------------------------------------------

    def advance(self, order_id: str, share: float, *, nodes: Sequence[str] = (), index: int = 0) -> None:
        """So much of the content is on these nodes (all of them by default)."""
        self._nodes_of(order_id, index, nodes, state="running", bytes_peers=int(SIZE * share))

    def end(self, order_id: str, *, nodes: Sequence[str] = (), index: int = 0, **more: Any) -> None:
        """These nodes (all that are open) have everything. `more`: of their outcomes."""
        path = self.orders[order_id].dest or f"/store/{order_id}"
        changes = {"state": "done", "size": SIZE, "bytes_peers": SIZE, "seconds": 1.0, "path": path, **more}
        self._nodes_of(order_id, index, nodes, **changes)

    def fail(
        self, order_id: str, kind: str, message: str, *, nodes: Sequence[str] = (), index: int = 0
    ) -> None:
        self._nodes_of(order_id, index, nodes, state="failed", error_kind=kind, error=message)

    def wait_for_origin(self, order_id: str, why: str, *, index: int = 0) -> None:
        """It does, until it is called with an empty `why`."""
        with self._changed:
            self._set(dataclasses.replace(self._parts[order_id, index], waiting=why))

    def forget(self) -> None:
        """The schedulers have restarted, and know nothing."""
        with self._changed:
            self._parts.clear()
            self._changed.notify_all()

    def set_node(self, node_id: str, **changes: Any) -> None:
        with self._changed:
            self.views[node_id] = dataclasses.replace(self.views[node_id], **changes)

    def _nodes_of(self, order_id: str, index: int, nodes: Sequence[str], **changes: Any) -> None:
        with self._changed:
            part = self._parts[order_id, index]
            found = tuple(
                dataclasses.replace(n, **changes)
                if (not nodes or n.node_id in nodes) and n.state not in ("done", "failed")
                else n
                for n in part.nodes
            )
            self._set(dataclasses.replace(part, nodes=found))

    def _set(self, part: Part) -> None:
        ended = all(n.state in ("done", "failed") for n in part.nodes)
        part = dataclasses.replace(
            part,
            version=part.version + 1,
            phase="ended" if ended else "running",
            seconds=1.0 if ended else None,
            measured=self.measured if ended else None,
        )
        self._parts[part.order_id, part.index] = part
        if ended and part.task_id:
            self.contents[part.task_id] = TaskView(
                task_id=part.task_id,
                source_id=self.orders[part.order_id].sources[part.index].id,
                url=part.url,
                size=SIZE,
                pieces=PIECES,
                entries=1,
                directory=False,
                active=0,
                whole=sum(n.state == "done" for n in part.nodes),
                partial=0,
                holders={n.node_id: 1.0 for n in part.nodes if n.state == "done"},
            )
        self._changed.notify_all()

    def _up(self) -> None:
        if self.down:
            raise NotRunningError("scheduler:0 did not respond")

    # --- the port ---------------------------------------------------------------------------

    def select(self, selector: Selector, cordoned: Collection[str] | None = None) -> list[str]:
        self._up()
        known = [
            Member(
                v.node_id,
                v.address,
                v.name,
                labels=v.labels,
                alive=v.alive,
                seed=v.seed,
                cordoned=v.cordoned or v.draining if cordoned is None else v.node_id in cordoned,
            )
            for v in self.views.values()
        ]
        return [m.node_id for m in select(selector, known)]

    def submit(self, order: Order, credentials: Credentials) -> None:
        self._up()
        with self._changed:
            if (order.id, 0) in self._parts:
                return
            self.orders[order.id] = order
            self.credentials[order.id] = credentials
            self.submitted.append(order.id)
            for index, source in enumerate(order.sources):
                self._set(
                    Part(
                        order_id=order.id,
                        index=index,
                        url=redacted(source.url),
                        phase="running",
                        version=0,
                        task_id=source.id,
                        size=SIZE,
                        pieces=PIECES,
                        entries=1,
                        seconds=None,
                        nodes=tuple(NodeOutcome(n, "running") for n in order.targets),
                    )
                )
        if self.at_once:
            for index in range(len(order.sources)):
                self.end(order.id, index=index)

    def shards(self) -> int:
        return 1

    def shard_of(self, source: Source) -> int:
        return 0

    def watch(
        self, shard: int, known: Mapping[tuple[str, int], int], timeout: float
    ) -> dict[tuple[str, int], Part | None]:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                self._up()
                news = {k: p for k, v in known.items() if (p := self._parts.get(k)) is None or p.version != v}
                left = deadline - time.monotonic()
                if news or left <= 0:
                    return news
                self._changed.wait(min(left, 0.2))

    def cancel(self, order: Order, kind: str = "cancelled", message: str = "cancelled") -> None:
        self._up()
        self.cancelled.append(order.id)
        for index in range(len(order.sources)):
            if (order.id, index) in self._parts:
                self.fail(order.id, kind, message, index=index)

    def nodes(self) -> list[NodeView]:
        self._up()
        return list(self.views.values())

    def cordon(self, node_id: str, on: bool) -> None:
        self._up()
        self._known(node_id)
        self.set_node(node_id, cordoned=on)

    def drain(self, node_id: str, on: bool) -> None:
        self._up()
        self._known(node_id)
        self.set_node(node_id, draining=on, state="draining" if on else "healthy")

    def _known(self, node_id: str) -> None:
        if node_id not in self.views:
            raise InvalidRequestError(f"no such node: {node_id}")

    def tasks(self) -> list[TaskView]:
        self._up()
        return list(self.contents.values())

    def manifest(self, task_id: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        self._up()
        entry = {
            "path": "f",
            "size": SIZE,
            "kind": "file",
            "version": "1",
            "mode": None,
            "mtime_ns": None,
            "target": "",
        }
        return 1, [entry][offset : offset + limit]

    def availability(self, task_id: str, cells: int) -> Availability | None:
        self._up()
        with self._changed:
            parts = list(self._parts.values())
        for part in parts:
            if part.task_id == task_id:
                cells = min(cells, PIECES)
                return Availability(
                    task_id, PIECES, cells, {n.node_id: _filled(n, cells) for n in part.nodes}
                )
        return None

    def edges(self, task_id: str, most: int = 256) -> list[Edge]:
        self._up()
        nodes = list(self.views)
        return [Edge(nodes[0], child, SIZE) for child in nodes[1:]][:most] if task_id in self.contents else []

    def pin(self, task_id: str, owner: str, expires_at: float | None, nodes: Sequence[str] = ()) -> int:
        self._up()
        chosen = [n for n in self._task(task_id).holders if not nodes or n in nodes]
        self.unpin(task_id, owner, nodes)
        self.held_pins.setdefault(task_id, []).extend(Pin(n, owner, expires_at) for n in chosen)
        return len(chosen)

    def unpin(self, task_id: str, owner: str, nodes: Sequence[str] = ()) -> int:
        self._up()
        held = self.held_pins.get(task_id, [])
        gone = [p for p in held if p.owner == owner and (not nodes or p.node_id in nodes)]
        self.held_pins[task_id] = [p for p in held if p not in gone]
        return len(gone)

    def pins(self, task_id: str) -> list[Pin]:
        self._up()
        return list(self.held_pins.get(task_id, []))

    def evict(self, task_id: str, nodes: Sequence[str] = ()) -> int:
        self._up()
        task = self._task(task_id)
        if self.held_pins.get(task_id):
            raise InvalidRequestError(f"task {task_id[:12]} is pinned")
        gone = [n for n in task.holders if not nodes or n in nodes]
        left = {n: share for n, share in task.holders.items() if n not in gone}
        self.contents[task_id] = dataclasses.replace(task, holders=left, whole=len(left))
        if not left:
            del self.contents[task_id]
        return task.size * len(gone)

    def _task(self, task_id: str) -> TaskView:
        found = self.contents.get(task_id)
        if found is None:
            raise InvalidRequestError(f"no such task: {task_id}")
        return found

    def settings(self) -> tuple[int, dict[str, Any]]:
        self._up()
        version, changes = self.applied
        return version, changed(Settings(), changes).model_dump(mode="json")

    def apply(self, version: int, changes: Mapping[str, Any]) -> None:
        self._up()
        if version < self.applied[0]:
            return
        changed(Settings(), changes)
        self.applied = (version, dict(changes))
        for node in self.views:
            self.set_node(node, settings_version=version)


def _filled(node: NodeOutcome, cells: int) -> bytes:
    done = int(cells * node.bytes_done / SIZE)
    return b"\xff" * done + b"\x00" * (cells - done)
