"""What others may know of a scheduler's state, as plain values."""

from __future__ import annotations

import heapq
from typing import Any

from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.urls import redacted


def view(cluster: ClusterState, spec_id: str) -> dict[str, Any] | None:
    """What a submitter may know of a spec: plain values."""
    state = cluster.specs.get(spec_id)
    if state is None:
        return None
    task = cluster.tasks.get(state.task_id)
    nodes = {}
    for node, record in state.nodes.items():
        entry = record.to_dict()
        host = cluster.by_node.get(node, "")
        if task and not record.terminal and host in task.traffic:
            traffic = task.traffic[host]
            entry |= {"bytes_origin": traffic.origin, "bytes_peers": traffic.peers}
            entry |= {"bytes_cache": traffic.cache, "bytes_small": traffic.small}
        nodes[node] = entry
    return {
        "id": spec_id,
        "url": redacted(state.spec.source.url),
        "phase": state.phase,
        "version": state.version,
        "seconds": (state.ended_at or 0.0) - state.submitted if state.ended_at else None,
        "size": task.task.size if task else None,
        "pieces": task.task.pieces if task else None,
        "entries": task.task.entries if task else None,
        "task_id": state.task_id,
        "nodes": nodes,
    }  # fmt: skip


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
