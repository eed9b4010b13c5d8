"""What the manager asks of a cluster, and what it hears: a port, so that nothing above it knows Ray.

Calls block and are safe from any thread. They raise `ClusterError` where the cluster does not answer, and
`InvalidRequestError` for what it refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dragonfly_ray.figures import Measured
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.outcome import NodeOutcome
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.targets import Selector


@dataclass(frozen=True, slots=True)
class Order:
    """One job, as the cluster carries it out. The same id again is the same order: nothing happens twice."""

    id: str
    sources: tuple[Source, ...] = field(repr=False)
    targets: tuple[str, ...]
    """Ray node ids."""
    dest: str = ""
    """Empty: the content stays in the stores (a preheat)."""
    dest_roots: tuple[str, ...] = ()
    """`dest` must lie below one of them on the node itself, with no link on the way."""
    digest: str = ""
    link: bool = True
    policy: UrlPolicy = field(default_factory=UrlPolicy)


@dataclass(frozen=True, slots=True)
class Part:
    """One URL of an order, as its scheduler sees it now."""

    order_id: str
    index: int
    """Which of the order's sources."""
    url: str
    """Without secrets."""
    phase: str
    """resolving, running or ended."""
    version: int
    """Grows with every change."""
    task_id: str
    size: int | None
    pieces: int | None
    entries: int | None
    seconds: float | None
    nodes: tuple[NodeOutcome, ...]
    measured: Measured | None = None
    """Once it has ended."""
    waiting: str = ""
    """Why it waits for its origin, if it does."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node and its peer. Bytes are totals since the peer's process started; rates are bytes a second."""

    node_id: str
    name: str
    address: str
    alive: bool
    seed: bool
    labels: Mapping[str, str]
    state: str
    """Of the peer: healthy, starting, unhealthy, draining, drained or missing."""
    cordoned: bool = False
    draining: bool = False
    """Whether it was told to; a node that Ray itself drains has only the state."""
    incarnation: str = ""
    """New at every start of the peer's process: totals begin again."""
    store_used: int = 0
    store_quota: int = 0
    disk_free: int = 0
    disk_total: int = 0
    receive_rate: float = 0.0
    send_rate: float = 0.0
    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_cache: int = 0
    bytes_object_store: int = 0
    bytes_sent: int = 0
    active_tasks: int = 0
    settings_version: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class TaskView:
    """One version of a source, and how much of it is where."""

    task_id: str
    source_id: str
    url: str
    size: int
    pieces: int
    entries: int
    directory: bool
    active: int
    """Hosts at work on it."""
    whole: int
    """Nodes with a complete copy."""
    partial: int
    holders: Mapping[str, float]
    """Node id -> the share that it holds."""
    banned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Availability:
    """Which pieces are where, in at most so many cells a node as were asked for.

    Cell c of n covers the pieces [c * pieces // n, (c + 1) * pieces // n); its value is the share held, 0 to 255.
    """

    task_id: str
    pieces: int
    cells: int
    nodes: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Pin:
    node_id: str
    owner: str
    expires_at: float | None
    """Unix time; None: until it is taken away."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Traffic between peers in a task."""

    parent: str
    """Node ids."""
    child: str
    bytes: int


class Cluster(Protocol):
    """The cluster that this manager is for."""

    # --- orders -----------------------------------------------------------------------------

    def select(self, selector: Selector, cordoned: Collection[str] | None = None) -> list[str]:
        """The node ids that are meant; cordoned nodes only where they are named. Raises `UnknownNodesError`.

        `cordoned`: the ids of the nodes that count as such, whatever the cluster has been told so far (those that
        Ray itself drains count besides); None: as the cluster knows it.
        """

    def submit(self, order: Order, credentials: Credentials) -> None:
        """Begins it, detached; known ids are left as they are."""

    def shards(self) -> int: ...

    def shard_of(self, source: Source) -> int: ...

    def watch(
        self, shard: int, known: Mapping[tuple[str, int], int], timeout: float
    ) -> dict[tuple[str, int], Part | None]:
        """Waits up to `timeout` seconds for news of parts: (order id, index) -> the version that is known.

        Returns those that differ, gathered over 0.1 s; an end is told at once. None: its scheduler does not
        know it (any more), so submit it again.
        """

    def cancel(self, order: Order, kind: str = "cancelled", message: str = "cancelled") -> None:
        """Stops the work on every node; outputs that are there already stay."""

    # --- nodes ------------------------------------------------------------------------------

    def nodes(self) -> list[NodeView]:
        """All of them, dead ones that Ray still knows included; at most about a second old."""

    def cordon(self, node_id: str, on: bool) -> None:
        """A cordoned node is chosen for nothing new unless it is named. A restarted controller must be told again."""

    def drain(self, node_id: str, on: bool) -> None:
        """A draining node finishes what it has begun and is nobody's parent any more; then it is `drained`."""

    # --- tasks ------------------------------------------------------------------------------

    def tasks(self) -> list[TaskView]: ...

    def manifest(self, task_id: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """How many entries there are, and a page of them: path, size, kind, version, mode, mtime_ns, target."""

    def availability(self, task_id: str, cells: int) -> Availability | None: ...

    def edges(self, task_id: str, most: int = 256) -> list[Edge]:
        """Those that carried most."""

    def pin(self, task_id: str, owner: str, expires_at: float | None, nodes: Sequence[str] = ()) -> int:
        """On all holders, or on these nodes. Returns how many nodes did."""

    def unpin(self, task_id: str, owner: str, nodes: Sequence[str] = ()) -> int: ...

    def pins(self, task_id: str) -> list[Pin]: ...

    def evict(self, task_id: str, nodes: Sequence[str] = ()) -> int:
        """Everywhere, or on these nodes; outputs stay. Returns the bytes freed.

        Raises `InvalidRequestError` where it is pinned or in use.
        """

    # --- settings ---------------------------------------------------------------------------

    def settings(self) -> tuple[int, dict[str, Any]]:
        """The version that was applied last (0: none), and the cluster's settings by section."""

    def apply(self, version: int, changes: Mapping[str, Any]) -> None:
        """Dotted names -> values of live settings, on schedulers and peers within seconds; the rest as started.

        An older version than the one applied is ignored. Raises `InvalidRequestError` naming what is wrong.
        """
