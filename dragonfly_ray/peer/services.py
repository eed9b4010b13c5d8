"""What a peer lends to the tasks that are under way on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.grants import SigningKey
from dragonfly_ray.model import Task
from dragonfly_ray.peer.buffers import BufferPool
from dragonfly_ray.peer.output_turns import OutputTurns
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.telemetry import Telemetry
from dragonfly_ray.transport.limiter import RateLimiter
from dragonfly_ray.transport.negotiation import CURRENT, Capabilities
from dragonfly_ray.transport.streams import Network
from dragonfly_ray.transport.tcp import TCP


@dataclass
class PeerServices:
    """What a peer lends to its tasks."""

    host_id: str
    key: SigningKey
    """Of this process."""
    node_name: str
    node_id: str
    settings: Settings
    store: PieceStore
    pool: BufferPool
    announce: Callable[[str], None]
    """Tells the scheduler of a source everything again: it has forgotten."""
    introduce: Callable[[TaskStore], None]
    """Tells the scheduler what is here of a task. Raises `ClusterError`."""
    link: Callable[[str], SchedulerLink]
    """By source id."""
    give_up: Callable[[Task], None]
    """Tells the scheduler, too."""
    ended: Callable[[m.Ended], None]
    telemetry: Telemetry = field(default_factory=Telemetry)

    turns: OutputTurns = field(default_factory=OutputTurns)
    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(None))
    """Of what all tasks together receive."""
    network: Network = TCP
    """What connections to parents are made with."""
    capabilities: Capabilities = CURRENT
    uploads: Callable[[], int] = lambda: 0
    """How many children are being sent to."""
    zone: str = ""
    """Of this host (its `idc`); empty: none."""
    location: str = ""
    """Of this host, `region|zone|rack`; empty: not known."""

    def received(self, provenance: str, nbytes: int) -> None:
        """Bytes that came in; waits where a limit says so."""
        if provenance in ("origin", "peers", "audit"):
            self.limiter.take(nbytes)
        self.telemetry.count("dragonfly_bytes", nbytes, provenance=provenance)
