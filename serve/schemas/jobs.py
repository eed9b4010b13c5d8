"""Distributions and preheats."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from dragonfly_ray.figures import Figures
from dragonfly_ray.model import Links
from dragonfly_ray.options import JobOptions, check_together, options_of
from dragonfly_ray.outcome import NodeState
from dragonfly_ray.serve.schemas.base import By, Failure, In, Name, Out, Provenance

MOST_URLS = 100
Url = Annotated[str, StringConstraints(min_length=3, max_length=4096)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Labels = dict[
    Annotated[str, StringConstraints(max_length=256)], Annotated[str, StringConstraints(max_length=256)]
]
Nodes = (
    Annotated[str, StringConstraints(min_length=1, max_length=256)]
    | Annotated[int, Field(ge=1, le=1_000_000)]
    | Labels
    | Annotated[
        list[
            Annotated[str, StringConstraints(min_length=1, max_length=256)]
            | Annotated[int, Field(ge=1, le=1_000_000)]
            | Labels
        ],
        Field(min_length=1, max_length=10_000),
    ]
)
"""`"all"`, `"seeds"`, a count, a share (`"10%"`), a node id, IP or name, labels, or a list of these."""
Kind = Literal["distribution", "preheat"]
State = Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"succeeded", "partial", "failed", "cancelled"})


def _option(name: str, default: Any = None, note: str = "") -> Any:
    """What it means is said where all options are; here, what it may hold at most, and what JSON leaves out."""
    return Field(default, description=f"{options_of(JobOptions)[name][1].brief} {note}".strip())


class _Create(In):
    urls: Annotated[
        list[Url],
        Field(
            min_length=1,
            max_length=MOST_URLS,
            description="Any URL that fsspec opens; a directory ends with `/`.",
        ),
    ]
    nodes: Nodes = Field(
        "all", description='`"all"`, `"seeds"`, a count, `"10%"`, ids, IPs, names, labels, or a list.'
    )
    name: Annotated[str, StringConstraints(max_length=256)] = _option("name", "")
    digest: Annotated[str, StringConstraints(max_length=200)] | None = _option("digest")
    include: Annotated[list[Pattern], Field(max_length=100)] = _option("include", [])
    exclude: Annotated[list[Pattern], Field(max_length=100)] = _option("exclude", [])
    secret: Name | None = _option("secret")
    tag: Annotated[str, StringConstraints(max_length=256)] = _option("tag", "")
    application: Annotated[str, StringConstraints(max_length=256)] = _option("application", "")
    filtered_query_params: Annotated[list[Pattern], Field(max_length=100)] = _option(
        "filtered_query_params", []
    )
    links: Links = _option("links", "refuse", "Symlinks that point outside the folder are always refused.")

    @model_validator(mode="after")
    def _together(self) -> _Create:
        check_together(self.urls, digest=self.digest, what="urls")
        return self


class DistributionCreate(_Create):
    """Content that shall lie on nodes, at `dest` or in their stores."""

    dest: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = _option(
        "dest", None, "Inside one of the manager's `dest_roots`."
    )
    link: bool = _option("link", True)


class PreheatCreate(_Create):
    """Content that shall lie in the stores of nodes. `nodes`: `seeds`, `all`, a share, a count, or names."""


class Progress(Out):
    """`rate`: bytes a second over all nodes, now; `eta`: seconds, if it can be told."""

    bytes_done: int = 0
    bytes_total: int = 0
    rate: float = 0.0
    eta: float | None = None
    nodes_total: int = 0
    nodes_done: int = 0
    nodes_failed: int = 0
    waiting: str = Field("", description="Why it is waiting for its origin (backoff); empty: not waiting.")


class Job(Out):
    id: str
    kind: Kind
    name: str
    state: State
    urls: list[str]
    nodes: Nodes
    dest: str | None
    digest: str | None
    include: list[str]
    exclude: list[str]
    link: bool
    secret: str | None = Field(description="Display name.")
    tag: str
    application: str
    filtered_query_params: list[str]
    links: Links
    created_by: By
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None = Field(description="Seconds from its start to its end, or until now.")
    size: int | None = Field(description="Bytes of content, all URLs together; null while unknown.")
    progress: Progress
    bytes: Provenance
    bytes_audit: int = Field(description="Bytes of all nodes together; not contained in any other number.")
    figures: Figures | None = Field(
        None, description="Set once it has ended, where the cluster reported them."
    )
    error: Failure | None = Field(description="Of the whole job; each node's own is in its outcome.")
    task_ids: list[str] = Field(description="One per URL; empty while not resolved.")
    schedule_id: str | None
    retry_of: str | None


class JobNode(Out):
    """One URL on one node. `seconds`: from the job's start to the last byte there."""

    node_id: str
    node: str
    url_index: int
    url: str
    state: NodeState
    path: str | None
    size: int
    bytes_done: int
    rate: float = Field(description="Current bytes per second.")
    eta: float | None
    seconds: float
    bytes: Provenance
    bytes_audit: int = Field(
        description="Read at the origin only to audit what another node had read; not contained in any other number."
    )
    origin_pieces: str = Field(
        description="Pieces that the node read at the origin under a lease, as in `0-63,70`."
    )
    merged: bool
    written_by: str | None
    error: Failure | None


class Retry(In):
    """Which nodes to try again; none: all that failed."""

    node_ids: Annotated[
        list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=100_000)
    ] = []


class Checked(Out):
    """What a request would mean, and all that is wrong with it."""

    nodes: list[str] = Field(description="Node ids.")
    size: int | None = Field(None, description="Bytes; null where unknown before the download.")
    problems: list[Failure] = []
