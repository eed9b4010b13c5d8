"""A cluster of many nodes whose copies fill as those of a real swarm do: what leaves the origin first is everywhere first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dragonfly_ray.model import Credentials
from dragonfly_ray.outcome import NodeOutcome
from dragonfly_ray.serve.cluster import Availability, Edge, Order, Part
from dragonfly_ray.serve.testing import FakeCluster

RUN = 8
"""Pieces of one origin lease."""


class Swarm(FakeCluster):
    """`reach` moves an order on. Every piece comes to every node at its own time, between 0 and 1."""

    def __init__(self, nodes: int, *, pieces: int = 1024, size: int = 16 << 30) -> None:
        super().__init__(nodes)
        self.pieces = pieces
        self.size = size
        self.shares: dict[tuple[str, int], float] = {}
        self.broken: dict[str, tuple[str, str]] = {}
        """Node id -> what it fails with, once a third of the way is gone."""
        random = np.random.default_rng(7)
        runs = random.permutation(-(-pieces // RUN)) / (pieces / RUN)
        left_origin = np.repeat(runs, RUN)[:pieces] * 0.8
        slowness = random.uniform(0.02, 0.2, (nodes, 1))
        self._times: npt.NDArray[np.float32] = np.minimum(
            left_origin + slowness * random.random((nodes, pieces)) ** 0.5, 0.999
        ).astype(np.float32)
        self._weights = random.pareto(1.2, (nodes, 3)) + 0.2
        self._parents = random.integers(0, nodes, (nodes, 3))
        self._index = {node: i for i, node in enumerate(self.views)}

    def submit(self, order: Order, credentials: Credentials) -> None:
        known = (order.id, 0) in self._parts
        super().submit(order, credentials)
        if not known:
            for index in range(len(order.sources)):
                self.reach(order.id, 0.0, index=index)

    def reach(self, order_id: str, share: float, *, index: int = 0) -> None:
        """So much of the order's time has gone."""
        with self._changed:
            part = self._parts[order_id, index]
            self.shares[order_id, index] = share
            nodes = tuple(self._outcome(part, n, share) for n in part.nodes)
            self._set(dataclasses.replace(part, size=self.size, pieces=self.pieces, nodes=nodes))
            if part.task_id in self.contents:
                self.contents[part.task_id] = dataclasses.replace(
                    self.contents[part.task_id], size=self.size, pieces=self.pieces
                )

    def _outcome(self, part: Part, node: NodeOutcome, share: float) -> NodeOutcome:
        if node.state in ("done", "failed"):
            return node
        if share > 0.33 and node.node_id in self.broken:
            kind, message = self.broken[node.node_id]
            return dataclasses.replace(node, state="failed", error_kind=kind, error=message, seconds=20.0)
        row = self._times[self._index[node.node_id]]
        got = int((row <= share).mean() * self.size)
        origin = got // len(part.nodes)
        cached = got // 16 if self._index[node.node_id] % 5 == 0 else 0
        whole = share >= 1.0 or got >= self.size
        return dataclasses.replace(
            node,
            state="done" if whole else "running",
            size=self.size if whole else 0,
            bytes_origin=origin,
            bytes_cache=cached,
            bytes_peers=got - origin - cached,
            seconds=60.0 * share,
            path=self.orders[part.order_id].dest or f"/store/{part.task_id}",
        )

    def availability(self, task_id: str, cells: int) -> Availability | None:
        for key, part in reversed(self._parts.items()):
            if part.task_id == task_id:
                cells = min(cells, self.pieces)
                return Availability(task_id, self.pieces, cells, self._cells(part, cells, self.shares[key]))
        return None

    def _cells(self, part: Part, cells: int, share: float) -> dict[str, bytes]:
        starts = np.arange(cells) * self.pieces // cells
        widths = np.diff(np.append(starts, self.pieces))
        found = {}
        for node in part.nodes:
            at = min(share, 0.34) if node.state == "failed" else share
            held = self._times[self._index[node.node_id]] <= at
            sums = np.add.reduceat(held, starts, dtype=np.int32)
            found[node.node_id] = (sums * 255 // widths).astype(np.uint8).tobytes()
        return found

    def edges(self, task_id: str, most: int = 256) -> list[Edge]:
        nodes = list(self.views)
        for part in reversed(self._parts.values()):
            if part.task_id == task_id:
                found = [
                    Edge(nodes[parent], n.node_id, int(n.bytes_peers * weight))
                    for n in part.nodes
                    for parent, weight in self._feeders(self._index[n.node_id])
                    if n.bytes_peers and nodes[parent] != n.node_id
                ]
                return sorted(found, key=lambda e: -e.bytes)[:most]
        return []

    def _feeders(self, node: int) -> Iterable[tuple[int, float]]:
        weights = self._weights[node] / self._weights[node].sum()
        return zip(self._parents[node].tolist(), weights.tolist(), strict=True)
