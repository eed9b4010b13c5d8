"""Drives the jobs: on every replica they are watched, on the leader they are carried out as well.

A job is `queued` until it is written down that it runs; only then is the cluster told, by the job's own id.
So whoever leads next, after whatever end of the one before, finds it running, asks the schedulers for it,
and tells them again only where they do not know it: with the same id and the same nodes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import select

from dragonfly_ray import logs
from dragonfly_ray.errors import ClusterError, DragonflyError
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.cluster import Cluster, Order
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE, first_line
from dragonfly_ray.serve.database.tables import Job, now
from dragonfly_ray.serve.jobs import idempotency, outcomes
from dragonfly_ray.serve.jobs.board import Board, Key
from dragonfly_ray.serve.jobs.orders import check_servers
from dragonfly_ray.serve.jobs.outcome_rules import CANCELLED
from dragonfly_ray.serve.jobs.watch import Watch
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import EVENTS

log = logging.getLogger(__name__)
ROUND = 0.5
"""Seconds after which at the latest a replica sees what others have written."""
GATHER = 0.1
"""Seconds between two rounds, at least: outcomes are written together."""
SUMS = 2.0
"""Seconds after which the sums of a job are written though no node has ended."""
AGAIN = 5.0
"""Seconds after which a cancel is repeated while the cluster has not ended the job."""
SILENCE = 2.0
"""Seconds without a response after which a job says that it waits for the cluster."""
CALLS = 8
"""Orders that are told at once; and as many cancels besides."""
HOUSEKEEPING = 3600.0
ALL = -1
"""In place of a shard: the cluster itself."""
WAITING = "waiting-for-cluster"
CredentialsOf = Callable[[str, str, Sequence[str]], Credentials]
"""What a named secret holds, for the job of this user (their id) and these URLs."""
OrderOf = Callable[[Job], Order]


@dataclass(slots=True)
class Active:
    """One job that has not ended, as this replica saw it last."""

    id: str
    state: str
    cancel_requested: bool
    secret: str
    created_by: str
    order: Order | None
    """None: it cannot be opened, see `broken`."""
    broken: str
    keys: dict[int, tuple[Key, ...]]
    """By shard; empty until the cluster has said how many there are."""


class Runner:
    """A service."""

    def __init__(
        self,
        database: Database,
        cluster: Cluster,
        leadership: Leadership,
        board: Board,
        *,
        order_of: OrderOf,
        credentials: CredentialsOf,
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._leadership = leadership
        self._board = board
        self._order_of = order_of
        self._watch = Watch(cluster, board)
        self._active: dict[str, Active] = {}
        self._deprived = False
        """Whether the database was away, the last time."""
        self._leader = _Leader(database, cluster, leadership, board, credentials, self.wake)
        self._loop = Loop("jobs", ROUND, self._round)
        self._deaf = board.listen(self._heard)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        # Whatever is told of a job, by whichever replica, is told with an event.
        self._database.signals.add(EVENTS, self._loop.wake)
        self._loop.start()

    def stop(self) -> None:
        self._database.signals.remove(EVENTS, self._loop.wake)
        self._deaf()
        self._loop.stop()
        self._watch.stop()
        self._leader.stop()

    def wake(self) -> None:
        """Somebody has written something that a round should see now."""
        self._loop.wake()

    def _heard(self) -> None:
        if self._leadership.leading:
            self._loop.wake()

    def _round(self, stopping: threading.Event) -> None:
        self._board.settle()
        try:
            self._look()
            if self._leadership.leading:
                self._leader.drive(list(self._active.values()))
            else:
                self._leader.rest()
            self._deprived = False
        except DB_UNAVAILABLE as error:
            if not self._deprived:
                log.warning("jobs: database unavailable, retrying: %s", first_line(error))
            self._deprived = True
        stopping.wait(GATHER)

    def _look(self) -> None:
        query = select(Job.id, Job.state, Job.cancel_requested).where(Job.state.in_(("queued", "running")))
        with self._database.read() as session:
            found = {id: (state, cancel) for id, state, cancel in session.execute(query)}
            new = [id for id in found if id not in self._active]
            rows = [row for id in new if (row := session.get(Job, id)) is not None]
        for id in self._active.keys() - found.keys():
            del self._active[id]
        for row in rows:
            self._active[row.id] = self._opened(row)
            self._board.track(row.id, len(row.urls), len(row.targets or ()))
        for id, job in self._active.items():
            job.state, job.cancel_requested = found[id]
        self._board.drop(self._active)
        self._watch.of(self._shards())

    def _opened(self, row: Job) -> Active:
        order, broken = None, ""
        try:
            order = self._order_of(row)
        except (DragonflyError, ValueError) as error:
            # This job cannot go on, the others can.
            broken = f"its URLs cannot be decrypted ({type(error).__name__}); was the manager's key changed?"
        return Active(row.id, row.state, row.cancel_requested, row.secret, row.created_by, order, broken, {})

    def _shards(self) -> dict[int, tuple[Key, ...]]:
        """What to watch at each shard: jobs of which the cluster may have been told."""
        found: dict[int, list[Key]] = {}
        for job in self._active.values():
            if job.state != "running" or job.order is None:
                continue
            if not job.keys and not self._place(job):
                continue
            for shard, keys in job.keys.items():
                found.setdefault(shard, []).extend(keys)
        return {shard: tuple(keys) for shard, keys in found.items()}

    def _place(self, job: Active) -> bool:
        assert job.order is not None
        by_shard: dict[int, list[Key]] = {}
        try:
            for index, source in enumerate(job.order.sources):
                by_shard.setdefault(self._cluster.shard_of(source), []).append((job.id, index))
        except ClusterError as error:
            self._board.silent(ALL, str(error))
            return False
        self._board.silent(ALL, "")
        job.keys = {shard: tuple(keys) for shard, keys in by_shard.items()}
        return True


@dataclass(slots=True)
class _Written:
    """What the leader has written of a job, or seen written."""

    version: int = -1
    at: float = 0.0
    states: dict[outcomes.OutcomeKey, str] | None = None
    away_since: float | None = None
    noted: bool | None = None
    """Whether it says that it waits; None: not known."""
    cancelled_at: float | None = None


class _Leader:
    """What only one replica does. Everything that it remembers may be forgotten: see `rest`."""

    def __init__(
        self,
        database: Database,
        cluster: Cluster,
        leadership: Leadership,
        board: Board,
        credentials: CredentialsOf,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._leadership = leadership
        self._board = board
        self._credentials = credentials
        self._wake = wake
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, str]] = set()
        self._unanswered: dict[str, str] = {}
        """Job -> why the cluster did not take its order, or its cancel."""
        self._pools = {kind: ThreadPoolExecutor(CALLS, f"jobs-{kind}") for kind in ("submit", "cancel")}
        self._written: dict[str, _Written] = {}
        self._tidied = -HOUSEKEEPING

    def rest(self) -> None:
        """Another leads."""
        self._written.clear()

    def stop(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def drive(self, jobs: list[Active]) -> None:
        ids = {job.id for job in jobs}
        for gone in self._written.keys() - ids:
            del self._written[gone]
        for job in jobs:
            try:
                with logs.about(job_id=job.id):
                    self._drive(job)
            except DB_UNAVAILABLE:
                raise
            except Exception:
                # One job that cannot be written holds up no other.
                log.exception("job %s: update failed", job.id, extra={"job_id": job.id})
        self._tidy()

    def _drive(self, job: Active) -> None:
        written = self._written.setdefault(job.id, _Written())
        if job.broken:
            self._stop(job, "undecipherable", job.broken)
        elif job.state == "queued":
            self._begin(job)
        else:
            if job.cancel_requested:
                self._cancel(job, written)
            elif (seen := self._board.version(job.id)) and seen[1]:
                self._do("submit", job, self._submit)
            self._record(job, written)
            self._say(job, written)

    # --- telling the cluster ----------------------------------------------------------------

    def _begin(self, job: Active) -> None:
        if job.cancel_requested:
            self._stop(job, CANCELLED, "cancelled before it started")
            return
        with self._database.write() as session:
            started = outcomes.start(session, job.id)
        if started:
            job.state = "running"
            self._do("submit", job, self._submit)

    def _cancel(self, job: Active, written: _Written) -> None:
        at = time.monotonic()
        with self._lock:
            if ("submit", job.id) in self._under_way:
                return  # what is not known there yet could not be cancelled; the end of the call wakes us
        seen = self._board.version(job.id)
        # A scheduler that restarted meanwhile took the cancel, and did not know of what.
        again = ROUND if seen is not None and seen[1] else AGAIN
        if written.cancelled_at is None or at - written.cancelled_at > again:
            written.cancelled_at = at
            self._do("cancel", job, self._call_off)

    def _submit(self, job: Active) -> None:
        assert job.order is not None
        credentials = Credentials()
        if job.secret:
            credentials = self._credentials(job.secret, job.created_by, [s.url for s in job.order.sources])
            check_servers(job.order, credentials, job.secret)
        if not self._leadership.leading:
            return
        self._cluster.submit(job.order, credentials)
        self._board.told(job.id)
        log.info("job %s: submitted to the cluster", job.id)

    def _call_off(self, job: Active) -> None:
        assert job.order is not None
        seen = self._board.version(job.id)
        if seen is not None and seen[1]:
            # A scheduler that has restarted does not know what its peers are at: only what it knows, it can stop.
            # It opens no source, so it needs no credentials.
            self._cluster.submit(job.order, Credentials())
        self._cluster.cancel(job.order)

    def _do(self, kind: str, job: Active, call: Callable[[Active], None]) -> None:
        """In a thread: a scheduler that is away may keep one call waiting, not the other jobs."""
        key = (kind, job.id)
        with self._lock:
            if key in self._under_way:
                return
            self._under_way.add(key)
        self._pools[kind].submit(self._guarded, key, job, call)

    def _guarded(self, key: tuple[str, str], job: Active, call: Callable[[Active], None]) -> None:
        try:
            with logs.about(job_id=job.id):
                call(job)
            self._unanswered.pop(job.id, None)
        except ClusterError as error:
            self._unanswered[job.id] = str(error)
            if key[0] == "cancel" and (written := self._written.get(job.id)):
                written.cancelled_at = None
        except DragonflyError as error:
            self._stop(job, error.kind, str(error))
        except DB_UNAVAILABLE as error:
            log.warning("job %s: %s: database unavailable, retrying: %s", job.id, key[0], first_line(error))
        except Exception:
            # Nobody waits for this thread; the next round tries again.
            log.exception("job %s: %s failed", job.id, key[0], extra={"job_id": job.id})
        finally:
            with self._lock:
                self._under_way.discard(key)
            self._wake()

    # --- writing down -----------------------------------------------------------------------

    def _stop(self, job: Active, kind: str, message: str) -> None:
        with self._database.write() as session:
            found = outcomes.stop(session, job.id, kind, message)
        if found is not None:
            log.info("job %s: %s (%s)", job.id, found.state, message, extra={"job_id": job.id})
            self._wake()

    def _record(self, job: Active, written: _Written) -> None:
        seen = self._board.version(job.id)
        if seen is None or seen[0] == written.version:
            return
        view = self._board.view(job.id)
        if view is None:
            return
        known = written.states or {}
        changed = {k: o for k, o in view.outcomes.items() if known.get(k) != o.state and o.state != "waiting"}
        if not (changed or view.ended) and time.monotonic() - written.at < SUMS:
            return
        verdict = None
        with self._database.write() as session:
            outcomes.record(session, job.id, changed, view.totals)
            if view.ended:
                verdict = outcomes.end(session, job.id, view.figures)
        written.states = known | {key: outcome.state for key, outcome in changed.items()}
        written.version, written.at = view.version, time.monotonic()
        if verdict is not None:
            log.info("job %s: %s on %d of %d nodes", job.id, verdict.state, verdict.nodes_done,
                     verdict.nodes_done + verdict.nodes_failed)  # fmt: skip
            self._wake()

    def _say(self, job: Active, written: _Written) -> None:
        """That it waits for a cluster that does not answer; and that it does not any more."""
        why = self._board.away((*job.keys, ALL)) or self._unanswered.get(job.id, "")
        at = time.monotonic()
        written.away_since = (written.away_since or at) if why else None
        waits = written.away_since is not None and at - written.away_since >= SILENCE
        if waits == written.noted or (why and not waits):
            return
        with self._database.write() as session:
            message = f"no response from the cluster; the job resumes when it responds ({why})"
            outcomes.note(session, job.id, WAITING if waits else "", message if waits else "")
        written.noted = waits

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied < HOUSEKEEPING:
            return
        with self._database.write() as session:
            idempotency.forget_old(session, now())
        self._tidied = time.monotonic()
