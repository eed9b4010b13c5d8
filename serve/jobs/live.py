"""One job as it goes on, for whoever looks: first all of it, then what changes, until it has ended.

Nothing is queued for a client. Each message is made of what the board says at that moment, so a slow
client hears less often, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent

from dragonfly_ray.serve.cluster import Availability, Edge
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE
from dragonfly_ray.serve.database.tables import Job as JobRow
from dragonfly_ray.serve.database.tables import JobNode as NodeRow
from dragonfly_ray.serve.jobs import presenters
from dragonfly_ray.serve.jobs.board import Board, LiveNode
from dragonfly_ray.serve.jobs.live_queries import CELLS_EVERY, EDGES_EVERY, LAST, LiveQueries
from dragonfly_ray.serve.schemas.jobs import ENDED

TICK = 0.2
"""Seconds between two messages about nodes, at least."""
SHARE = 4
"""So many times as long as a message took to make, passes until the next: a busy replica tells less often."""
JOB_EVERY = 1.0
CHUNK = 2000
"""Outcomes in one message."""
MOST_TASKS = 8
"""Of a job with more URLs than that under way, the cells of so many are looked at."""
Key = tuple[int, str]
_text = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Seen:
    """What this client has been told."""

    version: int = -1
    names: dict[str, str] = field(default_factory=dict)
    states: dict[Key, str] = field(default_factory=dict)
    cells: dict[int, dict[str, bytes]] = field(default_factory=dict)
    edges: list[dict[str, Any]] = field(default_factory=list)


class Live:
    """The stream of one job to one client."""

    def __init__(self, database: Database, board: Board, looks: LiveQueries, job_id: str, cells: int) -> None:
        self._database = database
        self._board = board
        self._looks = looks
        self._job_id = job_id
        self._cells = cells
        self._row: JobRow | None = None
        self._seen = _Seen()
        self._due: dict[str, float] = {}

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        yield ServerSentEvent(comment="open")
        with self._changes() as changed:
            for event in await self._stubborn(self._whole):
                yield event
            while not self._over():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), JOB_EVERY / 2)
                changed.clear()
                begun = time.monotonic()
                progress = await self._looks.thread(self._progress)
                pause = max(TICK, SHARE * (time.monotonic() - begun))
                for event in progress:
                    yield event
                for event in await self._tried(self._refresh):
                    yield event
                async for event in self._looked():
                    yield event
                await asyncio.sleep(pause)
            for event in await self._stubborn(self._last):
                yield event
            self._due.clear()
            async for event in self._looked(LAST, LAST):
                yield event
        yield ServerSentEvent(event="end", data="{}")

    async def _stubborn(self, call: Callable[[], list[ServerSentEvent]]) -> list[ServerSentEvent]:
        """Until the database answers."""
        while True:
            try:
                return await self._looks.thread(call)
            except DB_UNAVAILABLE:
                await asyncio.sleep(JOB_EVERY)

    async def _tried(self, call: Callable[[], list[ServerSentEvent]]) -> list[ServerSentEvent]:
        """A database that is away for a while ends no stream."""
        try:
            return await self._looks.thread(call)
        except DB_UNAVAILABLE:
            return []

    @contextlib.contextmanager
    def _changes(self) -> Iterator[asyncio.Event]:
        """Set after each change on the board."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def told() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(changed.set)

        end = self._board.listen(told)
        try:
            yield changed
        finally:
            end()

    def _over(self) -> bool:
        return self._row is None or self._row.state in ENDED

    def _is_due(self, what: str, seconds: float) -> bool:
        at = time.monotonic()
        if at < self._due.get(what, 0.0):
            return False
        self._due[what] = at + seconds
        return True

    # --- progress: in threads ---------------------------------------------------------------

    def _whole(self) -> list[ServerSentEvent]:
        """The job and all its nodes."""
        # What changes while the rows are read is told again, rather than missed.
        before = self._board.version(self._job_id)
        with self._database.read() as session:
            self._row = row = session.get(JobRow, self._job_id)
            if row is None:
                return []
            rows = self._rows(session)
        self._seen.version = before[0] if before else -1
        self._seen.names = {r.node_id: r.node_name for r in rows}
        nodes = presenters.nodes(rows, row, self._board)
        self._seen.states = {(n.url_index, n.node_id): n.state for n in nodes}
        self._is_due("job", JOB_EVERY)
        return [self._job(row), *_chunked([presenters.plain(n) for n in nodes], always=True)]

    def _progress(self) -> list[ServerSentEvent]:
        """What the board has heard since."""
        changes = self._board.changes(self._job_id, self._seen.version)
        if changes is None or self._row is None:
            return []
        self._seen.version, nodes = changes
        row, names, since = self._row, self._seen.names, presenters.elapsed(self._row)
        return _chunked(
            [
                presenters.plain_live(n, row, names.get(n.outcome.node_id, ""), since)
                for n in nodes
                if self._is_news(n)
            ]
        )

    def _refresh(self) -> list[ServerSentEvent]:
        """The job's row may have changed: who made it run, or ended it, wrote that down."""
        before = self._row
        active = self._board.version(self._job_id) is not None
        if active and before and before.state == "running" and not self._is_due("job", JOB_EVERY):
            return []
        with self._database.read() as session:
            self._row = row = session.get(JobRow, self._job_id)
        if row is None or row.state in ENDED or (before and row.state == before.state == "queued"):
            return []
        return [self._job(row)]

    def _last(self) -> list[ServerSentEvent]:
        """As it is written down: what the board said last need not have been all."""
        row = self._row
        if row is None:
            return []
        with self._database.read() as session:
            seen = self._seen.states
            rows = [r for r in self._rows(session) if seen.get((r.url_index, r.node_id)) != r.state]
        return [
            *_chunked([presenters.plain(n) for n in presenters.nodes(rows, row, self._board)]),
            self._job(row),
        ]

    def _rows(self, session: Session) -> list[NodeRow]:
        query = select(NodeRow).where(NodeRow.job_id == self._job_id)
        return list(session.scalars(query.order_by(NodeRow.url_index, NodeRow.node_id)))

    def _job(self, row: JobRow) -> ServerSentEvent:
        return ServerSentEvent(event="job", data=presenters.job(row, self._board).model_dump_json())

    def _is_news(self, node: LiveNode) -> bool:
        """What was done stays done, also while a scheduler that has restarted looks at it anew."""
        key = (node.url_index, node.outcome.node_id)
        before = self._seen.states.get(key)
        if before is None or (before == "done" and node.outcome.state != "done"):
            return False
        self._seen.states[key] = node.outcome.state
        return True

    # --- what the cluster is asked ----------------------------------------------------------

    async def _looked(
        self, cells_age: float = CELLS_EVERY, edges_age: float = EDGES_EVERY
    ) -> AsyncIterator[ServerSentEvent]:
        totals = self._board.totals(self._job_id)
        tasks = list(totals.task_ids) if totals else list(self._row.task_ids) if self._row else []
        if not any(tasks):
            return
        if self._is_due("cells", CELLS_EVERY):
            for index, task_id in [(i, t) for i, t in enumerate(tasks) if t][:MOST_TASKS]:
                found = await self._looks.cells(task_id, self._cells, cells_age)
                if found is not None and (event := await self._looks.thread(self._filled(index, found))):
                    yield event
        if self._is_due("edges", EDGES_EVERY):
            edges = [e for t in tasks[:MOST_TASKS] if t for e in await self._looks.edges(t, edges_age)]
            if event := self._fed(edges, await self._looks.names()):
                yield event

    def _filled(self, index: int, found: Availability) -> Callable[[], ServerSentEvent | None]:
        def made() -> ServerSentEvent | None:
            first = index not in self._seen.cells
            before = self._seen.cells.setdefault(index, {})
            changed = {
                node: cells
                for node, cells in found.nodes.items()
                if node in self._seen.names and before.get(node) != cells
            }
            if not changed and not first:
                return None
            before.update(changed)
            body = {
                "url_index": index,
                "pieces": found.pieces,
                "cells": found.cells,
                "nodes": {node: base64.b64encode(cells).decode() for node, cells in changed.items()},
            }
            return ServerSentEvent(event="cells", data=_text(body).decode())

        return made

    def _fed(self, edges: list[Edge], names: dict[str, str]) -> ServerSentEvent | None:
        sums: dict[tuple[str, str], int] = {}
        for edge in edges:
            sums[edge.parent, edge.child] = sums.get((edge.parent, edge.child), 0) + edge.bytes
        names = names | self._seen.names
        told = [
            {
                "parent": parent,
                "child": child,
                "parent_node": names.get(parent, parent[:12]),
                "child_node": names.get(child, child[:12]),
                "bytes": carried,
            }
            for (parent, child), carried in sorted(sums.items(), key=lambda e: (-e[1], e[0]))
        ]
        if told == self._seen.edges:
            return None
        self._seen.edges = told
        return ServerSentEvent(event="edges", data=_text(told).decode())


def _chunked(nodes: list[dict[str, Any]], *, always: bool = False) -> list[ServerSentEvent]:
    """`nodes` messages, none of them too long. `always`: an empty one, rather than none."""
    starts = range(0, len(nodes), CHUNK) or (range(1) if always else range(0))
    return [ServerSentEvent(event="nodes", data=_text(nodes[s : s + CHUNK]).decode()) for s in starts]
