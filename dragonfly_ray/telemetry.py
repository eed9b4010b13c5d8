"""One façade for metrics. What is counted is gathered here and handed to Ray about once a second."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Protocol

COUNTERS = {
    "dragonfly_bytes": ("Bytes received, by provenance", ("provenance",)),
    "dragonfly_bytes_sent": ("Bytes sent to other peers", ()),
    "dragonfly_pieces": ("Pieces verified and stored", ()),
    "dragonfly_leases": ("Origin leases granted, in pieces", ()),
    "dragonfly_evictions": ("Tasks evicted from the store", ()),
    "dragonfly_failures": ("Deliveries that failed, by kind of error", ("kind",)),
    "dragonfly_origin_throttled": ("Requests that an origin rejected with HTTP 429 or 503", ()),
    "dragonfly_peer_restarts": ("Peers restarted by the controller", ()),
}
GAUGES = {
    "dragonfly_active_tasks": ("Active tasks", ()),
    "dragonfly_receive_rate": ("Bytes per second received, over the last interval", ()),
    "dragonfly_send_rate": ("Bytes per second sent, over the last interval", ()),
    "dragonfly_store_used_bytes": ("Bytes used by a peer's store", ()),
    "dragonfly_store_quota_bytes": ("Quota of a peer's store, in bytes", ()),
    "dragonfly_disk_free_bytes": ("Free bytes on the file system of a peer's store", ()),
    "dragonfly_disk_total_bytes": ("Size of the file system of a peer's store, in bytes", ()),
    "dragonfly_peers": ("Nodes that should run a peer", ()),
    "dragonfly_unhealthy_peers": ("Nodes whose peer is not healthy", ()),
    "dragonfly_distributions": ("Active distributions", ()),
    "dragonfly_oldest_distribution_seconds": ("Age of the oldest active distribution, in seconds", ()),
    "dragonfly_stalled_distribution_seconds": (
        "Longest time without progress of any active distribution, in seconds",
        (),
    ),
}
RENAMED = {
    "dragonfly_origin_throttled": "dragonfly_origin_complaints",
    "dragonfly_stalled_distribution_seconds": "dragonfly_silent_distribution_seconds",
}
"""Name -> the former one, which is exported too until the next version: dashboards and alerts go on."""
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
                for each in _names(name):
                    self._sink.add(each, amount, {**self._tags, **dict(tags)})
        for name, value in values.items():
            for each in _names(name):
                self._sink.set(each, value, self._tags)


def _names(name: str) -> tuple[str, ...]:
    return (name, RENAMED[name]) if name in RENAMED else (name,)


class RaySink:
    """Ray's metrics, scraped from each node's export port as `ray_dragonfly_…`."""

    def __init__(self, *keys: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._counters = {
            each: Counter(each, text, tag_keys=(*keys, *tags))
            for name, (text, tags) in COUNTERS.items()
            for each in _names(name)
        }
        self._gauges = {
            each: Gauge(each, text, tag_keys=keys)
            for name, (text, _) in GAUGES.items()
            for each in _names(name)
        }

    def add(self, name: str, amount: float, tags: dict[str, str]) -> None:
        self._counters[name].inc(amount, tags)

    def set(self, name: str, value: float, tags: dict[str, str]) -> None:
        self._gauges[name].set(value, tags)
