"""A distribution under way, seen from whoever submitted it or found it again."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from dragonfly_ray import messages as m
from dragonfly_ray.actors.failures import failure
from dragonfly_ray.actors.handles import reach, scheduler_name
from dragonfly_ray.config import Settings
from dragonfly_ray.distribution import Distribution, Progress
from dragonfly_ray.errors import ClusterError, DragonflyError, NotRunningError
from dragonfly_ray.model import Credentials
from dragonfly_ray.outcome import received
from dragonfly_ray.scheduling.rendezvous import shard_of
from dragonfly_ray.watched import Watched

log = logging.getLogger(__name__)

POLL = 2.0
"""Seconds that one look waits for news; each is a sign of life to the scheduler."""
CALL_TIMEOUT = 10.0
PAUSE = 0.2
RATE_WINDOW = 3.0


class Submission(Watched):
    """Watches its distribution in a thread; awaitable.

    While this object lives the scheduler knows that somebody waits. A distribution that was not
    submitted `detached` is cancelled about 30 s after the last of them is gone.
    """

    def __init__(
        self,
        id: str,
        specs: Sequence[m.DistributionSpec],
        credentials: Credentials,
        settings: Settings,
        names: Mapping[str, str],
    ) -> None:
        super().__init__(id)
        self._specs = {spec.id: spec for spec in specs}
        self._credentials = credentials
        self._settings = settings
        self._names = dict(names)
        self._views: dict[str, dict[str, Any]] = {}
        self._moved: list[tuple[float, int]] = []
        self._silent_since: float | None = None
        shards: dict[int, list[str]] = {}
        for spec in specs:
            shards.setdefault(shard_of(spec.source.id, settings.scheduler.shards), []).append(spec.id)
        self._shard = {spec: shard for shard, members in shards.items() for spec in members}
        self._watchers = [
            threading.Thread(target=self._watch, args=(shard, members), name=f"watch-{id[:8]}", daemon=True)
            for shard, members in shards.items()
        ]

    def start(self) -> None:
        """Begins to watch, and to submit whatever the schedulers do not know (any more)."""
        for watcher in self._watchers:
            watcher.start()

    # --- for callers ------------------------------------------------------------------------

    def progress(self) -> Progress:
        """How far it is; never blocks."""
        with self._changed:
            return Progress.from_views(self._ordered(), self._names, self._rate())

    def _result(self) -> Distribution:
        done = Distribution.from_views(self.id, self._ordered(), self._names)
        done.raise_if_cancelled()
        return done

    def cancel(self, kind: str = "cancelled", message: str = "cancelled by its submitter") -> None:
        """Stops it everywhere; outputs that are there already stay."""
        calls = [
            self._scheduler(self._shard[s]).cancel.remote(s, kind, message, spec.run)
            for s, spec in self._specs.items()
        ]
        with contextlib.suppress(RayError):
            ray.get(calls, timeout=CALL_TIMEOUT)

    def task_ids(self) -> list[str]:
        """One for each URL, empty while it is not resolved."""
        with self._changed:
            return [self._views.get(s, {}).get("task_id", "") for s in self._specs]

    # --- watching ---------------------------------------------------------------------------

    def _over(self) -> bool:
        if self._error is not None:
            return True
        return len(self._views) == len(self._specs) and all(
            v["phase"] == "ended" for v in self._views.values()
        )

    def _ordered(self) -> list[dict[str, Any]]:
        return [self._views[s] for s in self._specs if s in self._views]

    def _rate(self) -> float:
        if len(self._moved) < 2:
            return 0.0
        (t0, b0), (t1, b1) = self._moved[0], self._moved[-1]
        return max(0.0, (b1 - b0) / (t1 - t0)) if t1 > t0 else 0.0

    def _scheduler(self, shard: int) -> Any:
        return reach(scheduler_name(shard), self._settings.namespace)

    def _watch(self, shard: int, specs: list[str]) -> None:
        try:
            self._follow(shard, specs)
        except Exception as error:
            log.exception("stopped following distribution %s", self.id)
            self._give_up(f"no longer tracked by this process ({type(error).__name__}); it is still running")

    def _follow(self, shard: int, specs: list[str]) -> None:
        handle: Any = None
        unknown = list(specs)
        while True:
            with self._changed:
                known = {s: self._views[s]["version"] if s in self._views else -1 for s in specs}
                over = all(s in self._views and self._views[s]["phase"] == "ended" for s in specs)
                if self._stopped or over or self._error is not None:
                    return
            if not ray.is_initialized():  # or Ray would connect again by itself
                self._give_up("this process disconnected from the cluster")
                return
            try:
                handle = handle or self._scheduler(shard)
                if unknown:
                    payloads = [m.encode(self._specs[s]) for s in unknown]
                    call = handle.submit_and_watch.remote(payloads, self._credentials, known, POLL)
                else:
                    call = handle.watch.remote(known, POLL)
                views = ray.get(call, timeout=POLL + CALL_TIMEOUT)
                self._silent_since = None
            except (RayError, NotRunningError) as error:
                handle, found = None, failure(error, scheduler_name(shard)).error
                if not isinstance(found, ClusterError):
                    self._end_with(found)
                    return
                if not self._patient(found):
                    return
                time.sleep(PAUSE)
                continue
            # A scheduler that does not know a spec has restarted: tell it again.
            unknown = [s for s, view in views.items() if view is None]
            self._take({s: view for s, view in views.items() if view is not None})

    def _patient(self, error: Exception) -> bool:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        patience = self._settings.peer.start_timeout
        if now - self._silent_since < patience:
            return True
        self._give_up(f"scheduler timed out ({patience:g} s): {error}")
        return False

    def _give_up(self, why: str) -> None:
        self._end_with(NotRunningError(f"distribution {self.id}: {why}"))

    def _end_with(self, error: DragonflyError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _take(self, views: dict[str, dict[str, Any]]) -> None:
        with self._changed:
            self._views |= views
            for spec_id, view in views.items():
                # Whoever attached asks for the run that it found, should the scheduler forget it.
                self._specs[spec_id] = msgspec.structs.replace(self._specs[spec_id], run=view["run"])
            now = time.monotonic()
            total = sum(received(n) for view in self._views.values() for n in view["nodes"].values())
            self._moved.append((now, total))
            self._moved = [(t, b) for t, b in self._moved if now - t < RATE_WINDOW]
            self._changed.notify_all()
