"""What others may know of a scheduler's state, as plain values."""

from __future__ import annotations

import heapq
from typing import Any

import msgspec
import numpy as np

from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState
from dragonfly_ray.statuses import TaskSummary
from dragonfly_ray.urls import redacted

ROWS = 64
"""Nodes whose pieces are counted together."""
SHOWN_EDGES = 256
"""Of each task, in the status: those that carried most."""


def view(cluster: ClusterState, spec_id: str) -> dict[str, Any] | None:
    """What a submitter may know of a spec: plain values."""
    state = cluster.specs.get(spec_id)
    if state is None:
        return None
    task = cluster.tasks.get(state.task_id)
    nodes = {}
    for node, record in state.nodes.items():
        entry = record.to_row()
        host = cluster.by_node.get(node, "")
        if task and not record.terminal and host in task.traffic:
            traffic = task.traffic[host]
            entry |= {"bytes_origin": traffic.origin, "bytes_peers": traffic.peers}
            entry |= {"bytes_cache": traffic.cache, "bytes_small": traffic.small}
            entry |= {"bytes_audit": traffic.audit}
        nodes[node] = entry
    return {
        "id": spec_id,
        "run": state.spec.run,
        "url": redacted(state.spec.source.url),
        "phase": state.phase,
        "version": state.version,
        "seconds": (state.ended_at or 0.0) - state.submitted if state.ended_at else None,
        "size": task.task.size if task else None,
        "pieces": task.task.pieces if task else None,
        "entries": task.task.entries if task else None,
        "waiting": "" if state.phase == "ended" else state.patience.why or (task.failure if task else ""),
        "task_id": state.task_id,
        "nodes": nodes,
        "measured": msgspec.to_builtins(state.measured),
    }  # fmt: skip


def status(cluster: ClusterState) -> dict[str, Any]:
    """All of it, for people."""
    return {
        "hosts": {h.host.node_id: h.alive for h in cluster.hosts.values()},
        "tasks": [
            {
                "task_id": t.task.id,
                "source_id": t.task.source_id,
                "url": t.task.url,
                "size": t.task.size,
                "pieces": t.task.pieces,
                "whole": sum(t.is_complete(h) for h in t.holders),
                "partial": sum(0 < b != t.everything for b in t.holders.values()),
                "active": len(t.participants),
                "banned": sorted(t.banned),
                "edges": edges(cluster, t.task.id, SHOWN_EDGES),
            }
            for t in cluster.tasks.values()
        ],
        "distributions": [view(cluster, spec_id) for spec_id in cluster.specs],
    }


def where(cluster: ClusterState, source_id: str) -> dict[str, float]:
    """Node id -> the share of the source's newest task that it holds."""
    tasks = [t for t in cluster.tasks.values() if t.task.source_id == source_id]
    if not tasks:
        return {}
    found: dict[str, float] = {}
    for task in tasks:
        for host, held in task.holders.items():
            if cluster.usable(task, host) and (held or not task.task.pieces):
                share = held.bit_count() / task.task.pieces if task.task.pieces else 1.0
                node = cluster.hosts[host].host.node_id
                found[node] = max(share, found.get(node, 0.0))
    return found


def held(cluster: ClusterState, source_id: str) -> dict[str, list[str]]:
    """Node id -> the tasks of the source that it holds, whole or in part."""
    found: dict[str, list[str]] = {}
    for task in cluster.tasks.values():
        if task.task.source_id == source_id:
            for host in task.holders:
                if cluster.usable(task, host):
                    found.setdefault(cluster.hosts[host].host.node_id, []).append(task.task.id)
    return found


def summary(cluster: ClusterState, task: TaskState, number: dict[str, int]) -> TaskSummary:
    """One task without its edges. `number`: node -> its number in the list, which grows where one is new."""
    pieces, whole = task.task.pieces, 0
    holders: dict[int, float] = {}
    for host, held in task.holders.items():
        if cluster.usable(task, host) and (held or not pieces):
            complete = held == task.everything
            whole += complete
            share = 1.0 if complete else held.bit_count() / pieces
            holders[number.setdefault(cluster.hosts[host].host.node_id, len(number))] = share
    banned = [cluster.hosts[h].host.node_id for h in sorted(task.banned) if h in cluster.hosts]
    return TaskSummary(
        task_id=task.task.id,
        source_id=task.task.source_id,
        url=task.task.url,
        size=task.task.size,
        pieces=pieces,
        entries=task.task.entries,
        directory=task.task.directory,
        active=len(task.participants),
        whole=whole,
        partial=len(holders) - whole,
        holders=holders,
        banned=tuple(number.setdefault(node, len(number)) for node in banned),
    )


def keepers(cluster: ClusterState, task_id: str) -> list[str]:
    """The nodes that hold something of a task, those with its manifest and most of it first."""
    task = cluster.tasks.get(task_id)
    if task is None:
        return []
    known = [h for h in {**dict.fromkeys(task.manifest_holders), **task.holders} if cluster.alive(h)]
    known.sort(key=lambda h: (h not in task.manifest_holders, -task.holders.get(h, 0).bit_count()))
    return [cluster.hosts[h].host.node_id for h in known]


def availability(cluster: ClusterState, task_id: str, cells: int) -> tuple[int, int, dict[str, bytes]] | None:
    """Pieces, cells, and for each node the share of each cell that it holds, 0 to 255.

    255 is all of it, and 0 nothing: what lies between is neither.
    """
    task = cluster.tasks.get(task_id)
    if task is None:
        return None
    pieces = task.task.pieces
    cells = max(0, min(cells, pieces))
    held = {cluster.hosts[h].host.node_id: bits for h, bits in task.holders.items() if cluster.alive(h)}
    if not cells or not held:
        return pieces, cells, dict.fromkeys(held, b"")
    width = (pieces + 7) // 8
    packed = np.frombuffer(b"".join(bits.to_bytes(width, "little") for bits in held.values()), np.uint8)
    edges = np.arange(cells + 1) * pieces // cells
    whole = np.diff(edges)
    found: dict[str, bytes] = {}
    names = list(held)
    for start in range(
        0, len(names), ROWS
    ):  # some at a time: what is unpacked stays in the processor's cache
        rows = packed.reshape(len(names), width)[start : start + ROWS]
        ones = np.unpackbits(rows, axis=1, count=pieces, bitorder="little")
        if cells == pieces:
            shares = ones * np.uint8(255)
        else:
            counts = np.add.reduceat(ones, edges[:-1], axis=1, dtype=np.uint32)
            shares = np.where(counts == 0, 0, np.maximum(1, counts * 255 // whole)).astype(np.uint8)
        found |= {name: row.tobytes() for name, row in zip(names[start : start + ROWS], shares, strict=True)}
    return pieces, cells, found


def edges(cluster: ClusterState, task_id: str, most: int) -> list[dict[str, Any]]:
    """Who feeds whom: the `most` edges that carried most, and the decision that drew each."""
    task = cluster.tasks.get(task_id)
    if task is None:
        return []
    heaviest = heapq.nlargest(most, task.flows, key=lambda edge: edge[2])
    return [
        {
            "parent": parent,
            "child": child,
            "parent_node": _node(cluster, parent),
            "child_node": _node(cluster, child),
            "bytes": nbytes,
            "decision": task.drawn_in(parent, child),
        }
        for parent, child, nbytes in heaviest
    ]


def _node(cluster: ClusterState, host: str) -> str:
    known = cluster.hosts.get(host)
    return known.host.node_id if known else ""
