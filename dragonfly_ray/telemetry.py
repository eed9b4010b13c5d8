"""One façade for metrics. What is counted is gathered here and handed to Ray about once a second."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Protocol

COUNTERS = {
    "dragonfly_bytes": ("Bytes received, by where they came from", ("provenance",)),
    "dragonfly_bytes_sent": ("Bytes sent to other peers", ()),
    "dragonfly_pieces": ("Pieces verified and stored", ()),
    "dragonfly_leases": ("Origin leases granted, in pieces", ()),
    "dragonfly_evictions": ("Tasks evicted from the store", ()),
    "dragonfly_failures": ("Deliveries that failed, by kind of error", ("kind",)),
    "dragonfly_origin_complaints": ("Times that an origin asked for patience (429, 503)", ()),
    "dragonfly_peer_restarts": ("Peers that had to be started again", ()),
}
GAUGES = {
    "dragonfly_active_tasks": ("Tasks under way", ()),
    "dragonfly_receive_rate": ("Bytes a second received, over the last interval", ()),
    "dragonfly_send_rate": ("Bytes a second sent, over the last interval", ()),
    "dragonfly_store_used_bytes": ("What a peer's store holds", ()),
    "dragonfly_store_quota_bytes": ("What it may hold", ()),
    "dragonfly_disk_free_bytes": ("Free on the file system of a peer's store", ()),
    "dragonfly_disk_total_bytes": ("Size of the file system of a peer's store", ()),
    "dragonfly_peers": ("Nodes that shall have a peer", ()),
    "dragonfly_unhealthy_peers": ("Of those, the ones whose peer is not healthy", ()),
    "dragonfly_distributions": ("Distributions under way", ()),
    "dragonfly_oldest_distribution_seconds": ("Age of the oldest distribution under way", ()),
    "dragonfly_silent_distribution_seconds": ("Since the last news of the one that had none for longest", ()),
}
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Sink(Protocol):
    """Where numbers go."""

    def add(self, name: str, amount: float, tags: dict[str, str]) -> None: ...

    def set(self, name: str, value: float, tags: dict[str, str]) -> None: ...


class Telemetry:
    """Cheap to call from any thread; `flush` hands on what was gathered.

    `receive_rate`, `send_rate`: bytes a second between the last two flushes, what was here already
    left out. `totals`: bytes since the start, by provenance, and those `sent`.
    """

    def __init__(self, sink: Sink | None = None, **tags: str) -> None:
        self._sink = sink
        self._tags = tags
        self._lock = threading.Lock()
        self._counts: dict[_Key, float] = defaultdict(float)
        self._values: dict[str, float] = {}
        self.totals = dict.fromkeys(("origin", "peers", "object-store", "cache", "audit", "sent"), 0)
        self.receive_rate = 0.0
        self.send_rate = 0.0

    def count(self, name: str, amount: float = 1, **tags: str) -> None:
        with self._lock:
            self._counts[name, tuple(sorted(tags.items()))] += amount
            if name == "dragonfly_bytes":
                self.totals[tags["provenance"]] += int(amount)
            elif name == "dragonfly_bytes_sent":
                self.totals["sent"] += int(amount)

    @property
    def received(self) -> int:
        """Bytes since the start, from wherever else."""
        return sum(self.totals[p] for p in ("origin", "peers", "object-store"))

    def gauge(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name] = value

    def flush(self, seconds: float = 1.0) -> None:
        """`seconds` since the last flush: what the rates are over."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
            values = dict(self._values)
        received = sum(
            n
            for (name, tags), n in counts.items()
            if name == "dragonfly_bytes" and ("provenance", "cache") not in tags
        )
        sent = sum(n for (name, _), n in counts.items() if name == "dragonfly_bytes_sent")
        self.receive_rate, self.send_rate = received / seconds, sent / seconds
        values |= {"dragonfly_receive_rate": self.receive_rate, "dragonfly_send_rate": self.send_rate}
        if self._sink is None:
            return
        for (name, tags), amount in counts.items():
            if amount > 0:
                self._sink.add(name, amount, {**self._tags, **dict(tags)})
        for name, value in values.items():
            self._sink.set(name, value, self._tags)


class RaySink:
    """Ray's metrics, scraped from each node's export port as `ray_dragonfly_…`."""

    def __init__(self, *keys: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._counters = {
            name: Counter(name, text, tag_keys=(*keys, *tags)) for name, (text, tags) in COUNTERS.items()
        }
        self._gauges = {name: Gauge(name, text, tag_keys=keys) for name, (text, _) in GAUGES.items()}

    def add(self, name: str, amount: float, tags: dict[str, str]) -> None:
        self._counters[name].inc(amount, tags)

    def set(self, name: str, value: float, tags: dict[str, str]) -> None:
        self._gauges[name].set(value, tags)
