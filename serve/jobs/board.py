"""How far the active jobs are, in memory: each replica's own, fed by its watch of the schedulers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dragonfly_ray.figures import Figures, figures
from dragonfly_ray.outcome import NodeOutcome
from dragonfly_ray.serve.cluster import Part

WINDOW = 3.0
"""Seconds that a rate is taken over."""
SAMPLE = 0.25
"""Seconds between two samples of one rate, at least."""
Key = tuple[str, int]
"""A job and which of its URLs."""
Clock = Callable[[], float]
ENDED = ("done", "failed")


class Rate:
    """Bytes a second over the last moments."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, at: float, total: int) -> None:
        samples = self._samples
        if len(samples) > 1 and at - samples[-2][0] < SAMPLE:
            samples[-1] = (at, total)
        else:
            samples.append((at, total))
        while len(samples) > 2 and at - samples[0][0] > WINDOW:
            samples.popleft()

    def now(self, at: float) -> float:
        """0 where nothing has been heard for the whole window."""
        if len(self._samples) < 2:
            return 0.0
        (t0, b0), (t1, b1) = self._samples[0], self._samples[-1]
        if at - t1 > WINDOW or t1 <= t0:
            return 0.0
        return max(0.0, (b1 - b0) / (t1 - t0))


@dataclass(slots=True)
class _Row:
    outcome: NodeOutcome
    changed: int
    rate: Rate = field(default_factory=Rate)
    moving: bool = False
    """Whether a rate above 0 was the last that was told."""


class LiveNode(NamedTuple):
    """One URL on one node, now."""

    url_index: int
    outcome: NodeOutcome
    bytes_done: int
    rate: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """One job, now. Bytes are those of all nodes together."""

    size: int | None
    bytes_done: int
    bytes_origin: int
    bytes_peers: int
    bytes_cache: int
    bytes_object_store: int
    bytes_audit: int
    nodes_done: int
    nodes_failed: int
    rate: float
    eta: float | None
    waiting: str
    task_ids: tuple[str, ...]


class JobBoard:
    """One job's parts. Not safe by itself: `Board` holds the lock."""

    def __init__(self, urls: int, targets: int) -> None:
        self.urls = urls
        self.targets = targets
        self.version = 0
        self.parts: dict[int, Part] = {}
        self.unknown: dict[int, float] = {}
        """Parts that the scheduler does not know -> when it is asked again."""
        self.stale: set[int] = set()
        """Parts whose version says nothing any more: their scheduler counts anew."""
        self.rows: dict[tuple[int, str], _Row] = {}
        self._rate = Rate()
        self._sums: tuple[int, ...] = ()
        self._summed = -1

    def take(self, part: Part, at: float) -> None:
        self.version += 1
        self.parts[part.index] = part
        self.unknown.pop(part.index, None)
        self.stale.discard(part.index)
        for outcome in part.nodes:
            row = self.rows.get((part.index, outcome.node_id))
            if row is None:
                row = self.rows[part.index, outcome.node_id] = _Row(outcome, self.version)
            elif row.outcome == outcome:
                continue
            else:
                row.outcome, row.changed = outcome, self.version
            row.rate.add(at, _done(part, outcome))
            row.moving = row.rate.now(at) > 0
        self._rate.add(at, self._sum()[0])

    def settle(self, at: float) -> bool:
        """Rates of those that stand still become 0, which is a change too."""
        still = [r for r in self.rows.values() if r.moving and not r.rate.now(at)]
        for row in still:
            row.moving = False
            row.changed = self.version + 1
        self.version += bool(still)
        return bool(still)

    @property
    def ended(self) -> bool:
        return len(self.parts) == self.urls and all(p.phase == "ended" for p in self.parts.values())

    def figures(self) -> Figures | None:
        """Once all of it has ended."""
        if not self.ended:
            return None
        parts = self.parts.values()
        seconds = max((part.seconds or 0.0 for part in parts), default=0.0)
        size = sum(part.size or 0 for part in parts)
        nodes = [
            (o.node_id, o.seconds if o.state == "done" else None)
            for o in (r.outcome for r in self.rows.values())
        ]
        return figures(seconds, size, nodes, [part.measured for part in parts])

    def nodes(self, since: int, at: float) -> list[LiveNode]:
        return [self._live(key, row, at) for key, row in self.rows.items() if row.changed > since]

    def node(self, key: tuple[int, str], at: float) -> LiveNode | None:
        row = self.rows.get(key)
        return None if row is None else self._live(key, row, at)

    def _live(self, key: tuple[int, str], row: _Row, at: float) -> LiveNode:
        part = self.parts[key[0]]
        done = _done(part, row.outcome)
        open_ = row.outcome.state not in ENDED
        rate = row.rate.now(at) if open_ else 0.0
        eta = ((part.size or 0) - done) / rate if rate and part.size else None
        return LiveNode(key[0], row.outcome, done, rate, eta)

    def totals(self, at: float) -> Totals:
        done, origin, peers, cache, small, audit, good, bad, left = self._sum()
        known = len(self.parts) == self.urls and all(p.size is not None for p in self.parts.values())
        rate = 0.0 if self.ended else self._rate.now(at)
        return Totals(
            size=sum(p.size or 0 for p in self.parts.values()) if known else None,
            bytes_done=done,
            bytes_origin=origin,
            bytes_peers=peers,
            bytes_cache=cache,
            bytes_object_store=small,
            bytes_audit=audit,
            nodes_done=good,
            nodes_failed=bad,
            rate=rate,
            eta=left / rate if rate and known else None,
            waiting=next((part.waiting for part in self.parts.values() if part.waiting), ""),
            task_ids=tuple(self.parts[i].task_id if i in self.parts else "" for i in range(self.urls)),
        )

    def _sum(self) -> tuple[int, ...]:
        if self._summed == self.version:
            return self._sums
        done = origin = peers = cache = small = audit = left = 0
        good: dict[str, int] = {}
        bad: set[str] = set()
        for (index, node), row in self.rows.items():
            o = row.outcome
            part = self.parts[index]
            have = _done(part, o)
            done, origin, peers = done + have, origin + o.bytes_origin, peers + o.bytes_peers
            cache, small = cache + o.bytes_cache, small + o.bytes_object_store
            audit += o.bytes_audit
            if o.state == "done":
                good[node] = good.get(node, 0) + 1
            elif o.state == "failed":
                bad.add(node)
            else:
                left += (part.size or 0) - have
        whole = sum(n == self.urls for n in good.values())
        self._sums = (done, origin, peers, cache, small, audit, whole, len(bad), left)
        self._summed = self.version
        return self._sums


def _done(part: Part, outcome: NodeOutcome) -> int:
    """Of a node that has everything: all of it, wherever it came from."""
    if outcome.state == "done":
        return outcome.size or part.size or 0
    return min(outcome.bytes_done, part.size) if part.size is not None else outcome.bytes_done


@dataclass(frozen=True, slots=True)
class View:
    """What the leader must know of a job."""

    version: int
    unknown: bool
    ended: bool
    outcomes: Mapping[tuple[int, str], NodeOutcome]
    totals: Totals
    figures: Figures | None = None


class Board:
    """All active jobs. Safe from any thread; nobody waits in it for anything but the processor."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, JobBoard] = {}
        self._listeners: list[Callable[[], None]] = []
        self._away: dict[int, str] = {}

    # --- fed --------------------------------------------------------------------------------

    def track(self, job_id: str, urls: int, targets: int) -> None:
        with self._lock:
            self._jobs.setdefault(job_id, JobBoard(urls, targets))

    def drop(self, keep: Iterable[str]) -> None:
        """All but these."""
        kept = set(keep)
        with self._lock:
            gone = [job for job in self._jobs if job not in kept]
            for job in gone:
                del self._jobs[job]
        if gone:
            self._tell()

    def take(self, news: Mapping[Key, Part | None], pause: float) -> None:
        """`pause`: seconds after which a scheduler is asked again for what it does not know."""
        if not news:
            return
        at = self._clock()
        with self._lock:
            for (job_id, index), part in news.items():
                job = self._jobs.get(job_id)
                if job is None:
                    continue
                if part is None:
                    job.version += index not in job.unknown
                    job.unknown[index] = at + pause
                    job.stale.add(index)
                else:
                    job.take(part, at)
        self._tell()

    def told(self, job_id: str) -> None:
        """Its order was submitted: the scheduler may be asked at once."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None:
                job.unknown.clear()

    def settle(self) -> None:
        at = self._clock()
        with self._lock:
            changed = [job.settle(at) for job in self._jobs.values()]
        if any(changed):
            self._tell()

    def silent(self, shard: int, why: str) -> None:
        """It does not answer; empty: it does."""
        with self._lock:
            if why:
                self._away[shard] = why
            else:
                self._away.pop(shard, None)

    # --- asked ------------------------------------------------------------------------------

    def known(self, keys: Iterable[Key]) -> dict[Key, int]:
        """What there is to watch for: those that have not ended, with the version that is known."""
        at = self._clock()
        found: dict[Key, int] = {}
        with self._lock:
            for key in keys:
                job = self._jobs.get(key[0])
                if job is None or job.unknown.get(key[1], 0.0) > at:
                    continue
                part = job.parts.get(key[1])
                if part is None or key[1] in job.stale:
                    found[key] = -1
                elif part.phase != "ended":
                    found[key] = part.version
        return found

    def away(self, shards: Iterable[int]) -> str:
        """Why one of these shards cannot be asked now; empty: all can."""
        with self._lock:
            return next((why for shard in shards if (why := self._away.get(shard))), "")

    def view(self, job_id: str) -> View | None:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            outcomes = {key: row.outcome for key, row in job.rows.items()}
            return View(
                job.version, bool(job.unknown), job.ended, outcomes, job.totals(self._clock()), job.figures()
            )

    def version(self, job_id: str) -> tuple[int, bool] | None:
        """A number that grows with each change, and whether a scheduler does not know the job."""
        with self._lock:
            job = self._jobs.get(job_id)
            return None if job is None else (job.version, bool(job.unknown))

    def totals(self, job_id: str) -> Totals | None:
        with self._lock:
            job = self._jobs.get(job_id)
            return job.totals(self._clock()) if job is not None and job.parts else None

    def changes(self, job_id: str, since: int) -> tuple[int, list[LiveNode]] | None:
        """All that changed after version `since` (-1: everything), and the version now."""
        with self._lock:
            job = self._jobs.get(job_id)
            return None if job is None else (job.version, job.nodes(since, self._clock()))

    def nodes(self, job_id: str, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], LiveNode]:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return {}
            at = self._clock()
            return {key: live for key in keys if (live := job.node(key, at)) is not None}

    # --- listeners --------------------------------------------------------------------------

    def listen(self, told: Callable[[], None]) -> Callable[[], None]:
        """Calls `told` from any thread after a change; it must not block. Returns what ends it."""
        with self._lock:
            self._listeners.append(told)

        def end() -> None:
            with self._lock:
                self._listeners.remove(told)

        return end

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for told in listeners:
            told()
