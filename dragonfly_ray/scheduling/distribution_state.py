"""One submitted spec: a source, its target nodes, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from dragonfly_ray.figures import Measured
from dragonfly_ray.messages import DistributionSpec, Ended, Sample
from dragonfly_ray.model import Credentials
from dragonfly_ray.outcome import NodeOutcome, NodeState
from dragonfly_ray.scheduling.origin_retry import Retry

SpecPhase = Literal["resolving", "running", "ended"]


@dataclass(slots=True)
class DistributionState:
    """One run of a spec's id."""

    spec: DistributionSpec
    credentials: Credentials
    nodes: dict[str, NodeOutcome]
    phase: SpecPhase = "resolving"
    resolver: str = ""
    lookers: tuple[str, ...] = ()
    """Hosts that may look at files for the resolver."""
    attempts: int = 0
    patience: Retry = field(default_factory=Retry)
    """With an origin that fails while it is looked at."""
    heard_look: float = float("-inf")
    """When a look for it last said that it goes on."""
    changes: int = 0
    """How often the content changed while it was fetched."""
    superseded: set[str] = field(default_factory=set)
    """Tasks that it had before that; hosts are told to leave them."""
    task_id: str = ""
    content: bytes = b""
    digests: bytes = b""
    manifest: bytes = b""
    beside: bool = False
    heartbeat: float = 0.0
    submitted: float = 0.0
    ended_at: float = 0.0
    version: int = 0
    """Grows with every change, so that a watcher can wait for the next."""
    tried: set[str] = field(default_factory=set)
    unfinished: int = 0
    """Nodes whose outcome is open."""
    fingerprint: str = ""
    """Of the credentials, and of whatever else chooses what the origin says: see `AccessProofs`."""
    pending: str = ""
    """The task that it has been resolved to, while it may not start."""
    proved: bool = False
    """It may have what others have read."""
    proving: str = ""
    """The host that reads samples for it."""
    proof_attempts: int = 0
    unproved_since: float = 0.0
    """When a proof failed first of what runs already."""
    unable: set[str] = field(default_factory=set)
    """Hosts that could not."""
    comparing: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    """Host -> what it compares with what it holds."""
    compared_by: set[str] = field(default_factory=set)
    partly: bool = False
    """Not all samples could be compared."""
    fed: set[str] = field(default_factory=set)
    """Hosts that carry it: what they have of it since, it has read itself."""
    runs: set[str] = field(default_factory=set)
    """Run tokens of the submissions that this run of the id serves."""
    adopted: bool = False
    """It had begun before this scheduler did."""
    measured: Measured | None = None
    """Once it has ended, where this scheduler has seen all of it, and no other distribution had the same task."""

    @classmethod
    def new(cls, spec: DistributionSpec, credentials: Credentials, now: float) -> DistributionState:
        nodes = {n: NodeOutcome(n) for n in spec.targets}
        return cls(
            spec, credentials, nodes, heartbeat=now, submitted=now, unfinished=len(nodes), runs={spec.run}
        )

    @property
    def small(self) -> bool:
        """The content comes with the delivery."""
        return bool(self.content) or self.beside

    @property
    def opener(self) -> str:
        """Equal for equal credentials, and tells nothing of them."""
        netloc = self.spec.source.url.partition("://")[2].partition("/")[0]
        known = (netloc.rpartition("@")[0], self.credentials)
        return hashlib.blake2s(msgspec.msgpack.encode(known, order="deterministic")).hexdigest()

    def unresolve(self) -> None:
        """It looks for its task again."""
        self.task_id, self.content, self.pending, self.proving = "", b"", "", ""
        self.proved, self.unproved_since = False, 0.0
        for each in (self.unable, self.comparing, self.compared_by, self.fed):
            each.clear()

    @property
    def open_nodes(self) -> list[str]:
        return [node for node, record in self.nodes.items() if not record.terminal]

    def move(self, node: str, state: NodeState) -> None:
        self.nodes[node] = replace(self.nodes[node], state=state)

    def end_node(self, node: str, ended: Ended, origin_pieces: str) -> None:
        self.unfinished -= not self.nodes[node].terminal
        told = {"state": "done" if ended.ok else "failed", "origin_pieces": origin_pieces}
        self.nodes[node] = NodeOutcome.from_row(node, msgspec.structs.asdict(ended) | told)

    def begin_again(self, alive: Callable[[str], bool]) -> None:
        """Other content is to come; nodes that have what was there before get it, too, if they live. What failed
        has failed."""
        for node, record in self.nodes.items():
            if not record.terminal or (record.state == "done" and alive(node)):
                self.unfinished += record.terminal
                self.nodes[node] = NodeOutcome(node)

    def fail_node(self, node: str, kind: str, message: str) -> None:
        record = self.nodes[node]
        self.unfinished -= not record.terminal
        self.nodes[node] = replace(record, state="failed", error_kind=kind, error=message)
