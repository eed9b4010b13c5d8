"""The statistics of one replica: what runs beside requests, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator

from sse_starlette import ServerSentEvent

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.cluster import Cluster, NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import EVENTS
from dragonfly_ray.serve.schemas.news import Overview
from dragonfly_ray.serve.stats import tasks
from dragonfly_ray.serve.stats.live import Live
from dragonfly_ray.serve.stats.meter import Meter
from dragonfly_ray.serve.stats.overview import overview
from dragonfly_ray.serve.stats.record import record

SAMPLE = 10.0
"""Seconds between two looks at the nodes' totals."""
LIVE = 1.0


class Stats:
    """A service. Every replica looks at the nodes, for its rates; the leader writes down what it sees."""

    def __init__(
        self, database: Database, cluster: Cluster, leadership: Leadership, *, sample: float = SAMPLE
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._leadership = leadership
        self._meter = Meter()
        self.live = Live("overview", LIVE, lambda: self.overview().model_dump_json())
        self._sampler = Loop("traffic", sample, self._sample)
        self._counter = Loop("task-traffic", sample, self._count)

    @property
    def alive(self) -> bool:
        return all(part.alive for part in self._parts)

    @property
    def _parts(self) -> tuple[Loop | Live, ...]:
        return self._sampler, self._counter, self.live

    def start(self) -> None:
        self._database.signals.add(EVENTS, self._counter.wake)
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        self._database.signals.remove(EVENTS, self._counter.wake)
        for part in self._parts:
            part.stop()

    def overview(self) -> Overview:
        """As of now, whether the cluster answers or not."""
        views, error = None, ""
        try:
            views = self._look()
        except DragonflyError as failed:
            error = str(failed)
        rates = self._meter.rates(time.monotonic())
        with self._database.read() as session:
            return overview(session, views, error, rates, now())

    async def overviews(self) -> AsyncGenerator[ServerSentEvent]:
        """One `overview` a second."""
        newest = self.live.newest()
        try:
            yield ServerSentEvent(comment="open")
            async for text in newest:
                yield ServerSentEvent(event="overview", data=text)
        finally:
            await newest.aclose()

    def _look(self) -> list[NodeView]:
        views = self._cluster.nodes()
        self._meter.look(time.monotonic(), views)
        return views

    def _sample(self, stopping: threading.Event) -> None:
        views = self._look()
        if self._leadership.leading:
            record(self._database, views, now())

    def _count(self, stopping: threading.Event) -> None:
        if self._leadership.leading:
            tasks.count_ended(self._database, stopping)
