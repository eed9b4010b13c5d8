"""Exactly one peer per eligible node, as nodes come and go: states and actions, without Ray and clocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

READY_TIMEOUT = 30.0
"""Seconds for a peer to start; grows with every failure in a row."""
STRIKES = 3
"""Health checks in a row that time out, before a peer is replaced."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY = 30.0
"""Seconds of health after which earlier failures are forgotten."""

State = Literal["starting", "healthy", "failed"]


@dataclass(frozen=True, slots=True)
class Start:
    """Adopt the peer of this node if there is one, else create it; tell `ready` or `failed`."""

    node: str


@dataclass(frozen=True, slots=True)
class Check:
    """Ask for its health; tell `healthy`, `unanswered` or `died`."""

    node: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Whatever runs under this node's name must go."""

    node: str


Action = Start | Check | Kill


@dataclass(slots=True)
class NodePeer:
    """One node's peer. `since`: when it entered its state."""

    state: State
    since: float
    failures: int = 0
    strikes: int = 0
    due: float = 0.0
    """When to try again (failed) or to check next (healthy)."""
    checking: bool = False
    reason: str = ""


class Reconciler:
    """Events in, actions out of `tick`."""

    def __init__(self, *, interval: float = 1.0) -> None:
        self.interval = interval
        self.peers: dict[str, NodePeer] = {}

    def tick(self, nodes: Collection[str], now: float) -> list[Action]:
        """`nodes`: those that shall have a peer, all of the same look at the cluster."""
        actions: list[Action] = []
        for node in [n for n in self.peers if n not in nodes]:
            del self.peers[node]
            actions.append(Kill(node))
        for node in nodes:
            peer = self.peers.get(node)
            if peer is None:
                self.peers[node] = NodePeer("starting", now)
                actions.append(Start(node))
            elif peer.state == "starting":
                if now - peer.since > READY_TIMEOUT * (1 + peer.failures):
                    actions.append(Kill(node))
                    self.failed(node, "start timed out", now)
            elif peer.state == "failed":
                if now >= peer.due:
                    peer.state, peer.since = "starting", now
                    actions.append(Start(node))
            elif not peer.checking and now >= peer.due:
                peer.checking = True
                actions.append(Check(node))
        return actions

    # --- events -----------------------------------------------------------------------------

    def ready(self, node: str, now: float) -> None:
        peer = self.peers.get(node)
        if peer and peer.state == "starting":
            peer.state, peer.since, peer.strikes, peer.checking = "healthy", now, 0, False
            peer.due = now + self.interval

    def failed(self, node: str, reason: str, now: float) -> None:
        """It could not be started, or has died."""
        peer = self.peers.get(node)
        if peer is None or peer.state == "failed":
            return
        if peer.state == "healthy" and now - peer.since > STEADY:
            peer.failures = 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (peer.failures - 1)) if peer.failures else 0.0
        peer.state, peer.since, peer.due = "failed", now, now + pause
        peer.failures += 1
        peer.reason, peer.checking = reason, False

    def healthy(self, node: str, now: float) -> None:
        peer = self.peers.get(node)
        if peer:
            peer.checking, peer.strikes, peer.due = False, 0, now + self.interval

    def unanswered(self, node: str, now: float) -> list[Action]:
        """No answer in time. Once is bad luck; three times in a row it is replaced."""
        peer = self.peers.get(node)
        if peer is None or peer.state != "healthy":
            return []
        peer.checking, peer.due = False, now
        peer.strikes += 1
        if peer.strikes < STRIKES:
            return []
        self.failed(node, f"{STRIKES} health checks timed out", now)
        return [Kill(node)]

    def died(self, node: str, now: float) -> None:
        self.failed(node, "its process died", now)


class IdleSince:
    """For how long draining peers have had nothing to do. A moment without work is not the end of it."""

    CALM = 2.0
    """Seconds of it, after which a peer is drained."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}
        """Node -> since when, and until when it was seen so."""

    def seen(self, node: str, busy: bool, now: float) -> None:
        if busy:
            self._seen.pop(node, None)
        else:
            self._seen[node] = self._seen.get(node, (now, now))[0], now

    def forget(self, node: str) -> None:
        self._seen.pop(node, None)

    def keep(self, nodes: Collection[str]) -> None:
        """Forgets all others."""
        self._seen = {node: seen for node, seen in self._seen.items() if node in nodes}

    def for_long(self, node: str) -> bool:
        since, until = self._seen.get(node, (0.0, 0.0))
        return until - since >= self.CALM
