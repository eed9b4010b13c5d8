"""Cluster queries of live streams (cells, edges), shared by all viewers of a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

from dragonfly_ray.distribution import told_apart
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve.cluster import Availability, Cluster, Edge

T = TypeVar("T")
CELLS_EVERY = 0.5
EDGES_EVERY = 2.0
NAMES_EVERY = 5.0
LAST = 0.1
"""For whoever looks once more at the end."""
KEPT = 10.0
THREADS = 16
"""Calls at once; those of requests have threads of their own."""


class LiveQueries:
    """Within one event loop. What the cluster does not tell is left out: progress goes on without it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._found: dict[tuple[Any, ...], tuple[float, asyncio.Future[Any]]] = {}
        self._limiter: anyio.CapacityLimiter | None = None

    async def cells(self, task_id: str, cells: int, age: float = CELLS_EVERY) -> Availability | None:
        """Which pieces are where, as of at most `age` seconds ago."""
        return await self._kept(
            age, None, ("cells", task_id, cells), lambda: self._cluster.availability(task_id, cells)
        )

    async def edges(self, task_id: str, age: float = EDGES_EVERY) -> list[Edge]:
        return await self._kept(age, [], ("edges", task_id), lambda: self._cluster.edges(task_id))

    async def names(self) -> dict[str, str]:
        """Node id -> name, of all nodes."""
        return await self._kept(
            NAMES_EVERY,
            {},
            ("names",),
            lambda: told_apart({v.node_id: v.name for v in self._cluster.nodes()}),
        )

    async def thread(self, call: Callable[[], T]) -> T:
        """In a thread of these, beside the event loop."""
        self._limiter = self._limiter or anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    async def _kept(self, seconds: float, otherwise: T, key: tuple[Any, ...], look: Callable[[], T]) -> T:
        at = time.monotonic()
        kept = self._found.get(key)
        if kept is None or (kept[1].done() and at - kept[0] >= seconds * 0.9):
            self._found = {k: v for k, v in self._found.items() if at - v[0] < KEPT or not v[1].done()}
            kept = self._found[key] = (at, asyncio.ensure_future(self._asked(look, otherwise)))
        # Whoever goes away while it waits takes the look from nobody else.
        found: T = await asyncio.shield(kept[1])
        return found

    async def _asked(self, look: Callable[[], T], otherwise: T) -> T:
        try:
            return await self.thread(look)
        except DragonflyError:
            return otherwise
