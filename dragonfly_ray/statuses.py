"""What actors tell of themselves: small, typed, cheap to gather from a thousand of them."""

from __future__ import annotations

from typing import Literal

import msgspec

PeerState = Literal["healthy", "starting", "unhealthy", "draining", "drained", "missing"]


class PeerStatus(msgspec.Struct, frozen=True, array_like=True):
    """Comes with every health check. Bytes are totals since the process started, rates a second."""

    host_id: str
    incarnation: str
    pid: int
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
    children: int = 0
    """Connections of other peers."""
    settings_version: int = 0
    marks_stamp: int = 0
    """Of the latest mark of a node that it has heard of."""


class NodeStatus(msgspec.Struct, frozen=True, array_like=True):
    """One node of the cluster, as its controller sees it."""

    node_id: str
    address: str
    name: str
    hostname: str
    labels: dict[str, str]
    alive: bool
    seed: bool
    state: PeerState
    cordoned: bool = False
    draining: bool = False
    """By order, or since Ray drains it."""
    reason: str = ""
    """Why its peer is not healthy."""
    peer: PeerStatus | None = None
    """As its peer said last."""
    drain_ordered: bool = False
    """Whether it drains by order, too."""


class TaskSummary(msgspec.Struct, frozen=True, array_like=True):
    """One task as a scheduler knows it, without its edges."""

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
    partial: int
    holders: dict[int, float]
    """Number of a node in `TaskList.nodes` -> the share that it holds."""
    banned: tuple[int, ...] = ()


class TaskList(msgspec.Struct, frozen=True, array_like=True):
    nodes: tuple[str, ...]
    tasks: tuple[TaskSummary, ...]


_nodes = msgspec.msgpack.Decoder(tuple[NodeStatus, ...])
_tasks = msgspec.msgpack.Decoder(TaskList)
_peer = msgspec.msgpack.Decoder(PeerStatus)
encode = msgspec.msgpack.encode


def decode_nodes(data: bytes) -> tuple[NodeStatus, ...]:
    return _nodes.decode(data)


def decode_tasks(data: bytes) -> TaskList:
    return _tasks.decode(data)


def decode_peer(data: bytes) -> PeerStatus:
    return _peer.decode(data)
