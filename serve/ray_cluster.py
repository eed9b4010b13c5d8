"""The manager's port to a cluster, over its actors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.actors.connect import Actors, connect
from dragonfly_ray.actors.handles import CONTROLLER, find, peer_name, scheduler_name
from dragonfly_ray.actors.start import start_controller
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import ClusterError, DragonflyError, InvalidRequestError
from dragonfly_ray.figures import Measured
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.outcome import NodeOutcome
from dragonfly_ray.output_names import check_outputs, names_alike
from dragonfly_ray.policy import check_url
from dragonfly_ray.scheduling.rendezvous import shard_of
from dragonfly_ray.serve.cluster import (
    Availability,
    Edge,
    NodeView,
    Order,
    Part,
    Pin,
    TaskView,
)
from dragonfly_ray.statuses import NodeStatus, PeerStatus, TaskSummary, decode_nodes, decode_tasks
from dragonfly_ray.targets import Member, Selector, check_dest, select

T = TypeVar("T")
CALL_TIMEOUT = 10.0
PATIENCE = 20.0
"""Seconds for which an order or a cancel waits for a scheduler that restarts."""
FRESH = 0.5
"""Seconds for which a look at all nodes, or at all tasks, serves everybody who asks."""
GATHER = 5.0
"""Seconds that peers have for an answer, all together."""
EVICT = 60.0


class RayCluster:
    """`Cluster` on Ray. Joins the Ray cluster of this process, or the one that runs here.

    `start`: whether to start the actors where they are missing; `settings` count at the first start only.
    """

    def __init__(self, settings: Settings | None = None, *, start: bool = True) -> None:
        connect()
        own = settings or Settings()
        self._actors = Actors(own.namespace)
        if start and find(CONTROLLER, own.namespace) is None:
            start_controller(own)
        self._shards = 0
        self._nodes = _Kept(self._look_at_nodes)
        self._tasks = _Kept(self._look_at_tasks)

    # --- orders -----------------------------------------------------------------------------

    def select(self, selector: Selector, cordoned: Collection[str] | None = None) -> list[str]:
        members = [_member(status, cordoned) for status in self._nodes.get(0.0)]
        return [member.node_id for member in select(selector, members)]

    def submit(self, order: Order, credentials: Credentials) -> None:
        if order.dest:
            check_dest(order.dest, order.dest_roots)
            check_outputs(order.dest, [source.url for source in order.sources])
        for source in order.sources:
            check_url(source.url, order.policy, credentials.storage_options)
        alike = names_alike([source.url for source in order.sources])
        for index, (source, beside) in enumerate(zip(order.sources, alike, strict=True)):
            spec = m.DistributionSpec(
                id=_spec_id(order.id, index),
                source=source,
                targets=order.targets,
                dest=order.dest,
                digest=order.digest,
                link=order.link,
                detached=True,
                policy=order.policy,
                dest_roots=order.dest_roots,
                beside=beside,
                run=order.id,  # a job has one run: whoever leads next attaches to it, ended or not
            )
            name = scheduler_name(self.shard_of(source))
            self._again(name, "submit", m.encode(spec), credentials)

    def shards(self) -> int:
        if not self._shards:
            settings: Settings = self._ask(CONTROLLER, "settings")
            self._shards = settings.scheduler.shards
        return self._shards

    def shard_of(self, source: Source) -> int:
        return shard_of(source.id, self.shards())

    def watch(
        self, shard: int, known: Mapping[tuple[str, int], int], timeout: float
    ) -> dict[tuple[str, int], Part | None]:
        specs = {_spec_id(order, index): version for (order, index), version in known.items()}
        views = self._actors.call(
            scheduler_name(shard), "watch", specs, timeout, timeout=timeout + CALL_TIMEOUT
        )
        found: dict[tuple[str, int], Part | None] = {}
        for spec_id, view in views.items():
            order, _, index = spec_id.rpartition(".")
            found[order, int(index)] = None if view is None else _part(order, int(index), view)
        return found

    def cancel(self, order: Order, kind: str = "cancelled", message: str = "cancelled") -> None:
        for index, source in enumerate(order.sources):
            spec_id = _spec_id(order.id, index)
            self._again(scheduler_name(self.shard_of(source)), "cancel", spec_id, kind, message)

    # --- nodes ------------------------------------------------------------------------------

    def nodes(self) -> list[NodeView]:
        return [_node(status) for status in self._nodes.get(FRESH)]

    def _look_at_nodes(self) -> tuple[NodeStatus, ...]:
        return decode_nodes(self._ask(CONTROLLER, "overview"))

    def cordon(self, node_id: str, on: bool) -> None:
        self._mark(node_id, on, None)

    def drain(self, node_id: str, on: bool) -> None:
        self._mark(node_id, None, on)

    def _mark(self, node_id: str, cordoned: bool | None, draining: bool | None) -> None:
        self._again(CONTROLLER, "mark", node_id, cordoned, draining)
        self._nodes.forget()

    # --- tasks ------------------------------------------------------------------------------

    def tasks(self) -> list[TaskView]:
        return self._tasks.get(FRESH)

    def _look_at_tasks(self) -> list[TaskView]:
        calls = {shard: (scheduler_name(shard), "tasks") for shard in range(self.shards())}
        views: list[TaskView] = []
        for data in self._actors.gather(calls, CALL_TIMEOUT, _raise).values():
            listed = decode_tasks(data)
            views += [_task(task, listed.nodes) for task in listed.tasks]
        return views

    def manifest(self, task_id: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        failure: DragonflyError | None = None
        for node in self._keepers(task_id):
            try:
                found: tuple[int, list[dict[str, Any]]] = self._actors.call(
                    peer_name(node), "manifest", task_id, offset, limit, timeout=GATHER
                )
                return found
            except DragonflyError as error:
                failure = error
        raise failure or InvalidRequestError(f"task {task_id[:12]}: no node has any piece of it")

    def availability(self, task_id: str, cells: int) -> Availability | None:
        for shard in self._shards_of(task_id):
            found = self._ask(scheduler_name(shard), "availability", task_id, cells)
            if found is not None:
                pieces, number, nodes = found
                return Availability(task_id, pieces, number, nodes)
        return None

    def edges(self, task_id: str, most: int = 256) -> list[Edge]:
        for shard in self._shards_of(task_id):
            found = self._ask(scheduler_name(shard), "edges", task_id, most)
            if found:
                return [Edge(e["parent_node"], e["child_node"], e["bytes"]) for e in found]
        return []

    def pin(self, task_id: str, owner: str, expires_at: float | None, nodes: Sequence[str] = ()) -> int:
        return len(self._at(task_id, nodes, "pin", task_id, owner, expires_at))

    def unpin(self, task_id: str, owner: str, nodes: Sequence[str] = ()) -> int:
        return len(self._at(task_id, nodes, "unpin", task_id, owner))

    def pins(self, task_id: str) -> list[Pin]:
        found = self._at(task_id, (), "pins", task_id)
        return [
            Pin(node, owner, expires) for node, owners in found.items() for owner, expires in owners.items()
        ]

    def evict(self, task_id: str, nodes: Sequence[str] = ()) -> int:
        return sum(self._at(task_id, nodes, "evict", task_id, timeout=EVICT).values())

    def _at(
        self, task_id: str, nodes: Sequence[str], method: str, *args: Any, timeout: float = GATHER
    ) -> dict[str, Any]:
        """Asks those holders of a task that are meant, all at once: answers by node.

        A peer that is away has nothing to do; what a peer refuses is raised when all have answered.
        """
        calls = {
            node: (peer_name(node), method, *args)
            for node in self._keepers(task_id)
            if not nodes or node in nodes
        }
        refused: list[DragonflyError] = []

        def failed(node: str, error: DragonflyError) -> None:
            if not isinstance(error, ClusterError):
                refused.append(error)

        found = self._actors.gather(calls, timeout, failed)
        if refused:
            raise refused[0]
        return found

    def _keepers(self, task_id: str) -> list[str]:
        for shard in self._shards_of(task_id):
            found: list[str] = self._ask(scheduler_name(shard), "keepers", task_id)
            if found:
                return found
        return []

    def _shards_of(self, task_id: str) -> Sequence[int]:
        """The scheduler that has the task: all must be asked, since its source decided."""
        return range(self.shards())

    # --- settings ---------------------------------------------------------------------------

    def settings(self) -> tuple[int, dict[str, Any]]:
        version, settings = self._ask(CONTROLLER, "configured")
        return version, settings.model_dump(mode="json")

    def apply(self, version: int, changes: Mapping[str, Any]) -> None:
        self._again(CONTROLLER, "configure", version, dict(changes))

    # --- calls ------------------------------------------------------------------------------

    def _ask(self, name: str, method: str, *args: Any) -> Any:
        return self._actors.call(name, method, *args, timeout=CALL_TIMEOUT)

    def _again(self, name: str, method: str, *args: Any) -> Any:
        """For what may be done twice, and should be done."""
        return self._actors.call(name, method, *args, timeout=CALL_TIMEOUT, patience=PATIENCE)


class _Kept(Generic[T]):
    """A look that serves everybody for a while; one at a time looks, the others wait for it."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._found: tuple[float, T] | None = None

    def get(self, fresh: float) -> T:
        """What was found at most `fresh` seconds ago, or begun to be looked for after this call."""
        asked = time.monotonic()
        with self._lock:
            if self._found is None or self._found[0] < asked - fresh:
                began = time.monotonic()
                self._found = began, self._look()
            return self._found[1]

    def forget(self) -> None:
        """Something was changed: the next who asks looks again."""
        with self._lock:
            self._found = None


def _raise(key: object, error: DragonflyError) -> None:
    raise error


def _spec_id(order: str, index: int) -> str:
    return f"{order}.{index}"


def _part(order: str, index: int, view: Mapping[str, Any]) -> Part:
    return Part(
        order_id=order,
        index=index,
        url=view["url"],
        phase=view["phase"],
        version=view["version"],
        task_id=view["task_id"],
        size=view["size"],
        pieces=view["pieces"],
        entries=view["entries"],
        seconds=view["seconds"],
        measured=msgspec.convert(view.get("measured"), Measured | None),
        waiting=view.get("waiting", ""),
        nodes=tuple(NodeOutcome.from_row(node, row) for node, row in view["nodes"].items()),
    )


def _member(status: NodeStatus, cordoned: Collection[str] | None) -> Member:
    kept_out = status.cordoned or status.draining
    if cordoned is not None:
        by_ray = status.draining and not status.drain_ordered
        kept_out = by_ray or status.node_id in cordoned
    return Member(
        node_id=status.node_id,
        address=status.address,
        name=status.name,
        hostname=status.hostname,
        labels=status.labels,
        alive=status.alive,
        seed=status.seed,
        cordoned=kept_out,
    )


def _node(status: NodeStatus) -> NodeView:
    peer = status.peer or PeerStatus("", "", 0)
    moves = status.state in ("healthy", "draining")
    return NodeView(
        node_id=status.node_id,
        name=status.name,
        address=status.address,
        alive=status.alive,
        seed=status.seed,
        labels=status.labels,
        state=status.state,
        cordoned=status.cordoned,
        draining=status.drain_ordered,
        incarnation=peer.incarnation,
        store_used=peer.store_used,
        store_quota=peer.store_quota,
        disk_free=peer.disk_free,
        disk_total=peer.disk_total,
        receive_rate=peer.receive_rate if moves else 0.0,
        send_rate=peer.send_rate if moves else 0.0,
        bytes_origin=peer.bytes_origin,
        bytes_peers=peer.bytes_peers,
        bytes_cache=peer.bytes_cache,
        bytes_object_store=peer.bytes_object_store,
        bytes_sent=peer.bytes_sent,
        active_tasks=peer.active_tasks if moves else 0,
        settings_version=peer.settings_version,
        error=status.reason,
    )


def _task(task: TaskSummary, nodes: Sequence[str]) -> TaskView:
    return TaskView(
        task_id=task.task_id,
        source_id=task.source_id,
        url=task.url,
        size=task.size,
        pieces=task.pieces,
        entries=task.entries,
        directory=task.directory,
        active=task.active,
        whole=task.whole,
        partial=task.partial,
        holders={nodes[number]: share for number, share in task.holders.items()},
        banned=tuple(nodes[number] for number in task.banned),
    )
