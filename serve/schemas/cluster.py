"""Nodes, tasks, settings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from dragonfly_ray.serve.schemas.base import By, In, Out, Provenance, Text


class Node(Out):
    node_id: str
    name: str
    shown_name: str = Field(description="Display name; nodes of the same name have part of their ids in it.")
    address: str
    alive: bool
    role: Literal["seed", "peer"]
    state: str = Field(
        description="State of its peer: healthy, starting, unhealthy, draining, drained, missing or dead."
    )
    labels: dict[str, str]
    cordoned: bool
    draining: bool
    note: str
    version: int
    store_used: int
    store_quota: int
    disk_free: int
    disk_total: int
    receive_rate: float
    send_rate: float
    bytes: Provenance = Field(description="Bytes received since its peer started.")
    bytes_sent: int
    active_tasks: int
    settings_version: int = Field(description="Version of the live settings in use.")
    first_seen_at: datetime
    last_seen_at: datetime
    error: str


class NodeNote(In):
    note: Text = Field("", description="Why.")


class Holder(Out):
    node_id: str
    node: str
    share: float = Field(description="0 to 1.")


class PinOut(Out):
    node_id: str
    node: str
    owner: str
    expires_at: datetime | None


class Task(Out):
    """One version of a source."""

    task_id: str
    source_id: str
    url: str
    size: int
    pieces: int
    entries: int
    directory: bool
    active: int = Field(description="Nodes with an active download.")
    complete: int = Field(description="Nodes with a complete copy.")
    whole: int = Field(description="Former name of `complete`.", deprecated=True)
    partial: int


class TaskDetail(Task):
    holders: list[Holder]
    pins: list[PinOut]
    banned: list[str]


class EntryOut(Out):
    path: str
    size: int
    kind: Literal["file", "dir", "symlink"]
    version: str
    mode: int | None = None
    mtime: datetime | None = None
    target: str = ""


class Entries(Out):
    total: int
    items: list[EntryOut]


class Cells(Out):
    """Which pieces are where. Cell c of n covers pieces [c*pieces//n, (c+1)*pieces//n)."""

    task_id: str
    pieces: int
    cells: int
    nodes: dict[str, str] = Field(description="Node id -> Base64, a byte a cell: the share held, 0 to 255.")


class EdgeOut(Out):
    parent: str
    child: str
    parent_node: str
    child_node: str
    bytes: int


class Pin(In):
    node_ids: Annotated[
        list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=100_000)
    ] = []
    ttl: Annotated[float, Field(gt=0, le=10 * 365 * 86400)] | None = Field(
        None, description="Seconds; null: without expiry."
    )


class Evict(In):
    node_ids: Annotated[
        list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=100_000)
    ] = []


class Touched(Out):
    nodes: int


class Freed(Out):
    bytes: int


class Config(Out):
    """What is in force."""

    version: int
    values: dict[str, Any] = Field(
        description="Dotted names of live settings -> values that differ from the start's."
    )
    effective: dict[str, Any] = Field(description="Every setting of the cluster, by section.")
    applied: int = Field(description="Nodes that use this version.")
    nodes: int
    json_schema: dict[str, Any] = Field(description="JSON Schema of the live settings.")


class ConfigChange(In):
    """`values` replace those of the version before: what is left out is as at the start."""

    values: Annotated[dict[Annotated[str, StringConstraints(max_length=128)], Any], Field(max_length=200)]
    comment: Text = ""


class ConfigVersion(Out):
    version: int
    values: dict[str, Any]
    comment: str
    rollback_of: int | None
    created_by: By
    created_at: datetime
    applied_at: datetime | None = Field(
        None, description="When all nodes used it for the first time; null: not yet, or never."
    )
