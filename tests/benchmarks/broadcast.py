"""Ray's own way: one node fetches and puts, all others get. The object store is all that carries bytes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

TIMEOUT = 600.0


class Holder:
    """An actor on each node."""

    def ready(self) -> bool:
        return True

    def put(self, command: Sequence[str], path: str, parts: int) -> tuple[list[tuple[str, int]], list[Any]]:
        """Runs the command that fetches `path`; names and sizes of its files, and it as objects."""
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        root = Path(path)
        files = sorted(root.iterdir()) if root.is_dir() else [root]
        index = [(file.name if root.is_dir() else "", file.stat().st_size) for file in files]
        whole = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        return index, [ray.put(part) for part in np.array_split(whole, parts)]

    def take(self, index: list[tuple[str, int]], references: list[Any], path: str) -> None:
        """Writes what it gets, as files."""
        parts: list[Any] = ray.get(references)
        joined: Any = np.concatenate(parts) if len(parts) > 1 else parts[0]
        whole = memoryview(joined)
        at = 0
        for name, size in index:
            file = Path(path) / name if name else Path(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(whole[at : at + size])
            at += size


_holders: dict[str, Any] = {}
"""By node: a host that was killed and is back is another one."""


def broadcast(
    nodes: Mapping[str, str], command: Sequence[str], paths: Mapping[str, str], parts: int, tree: bool
) -> float:
    """Seconds until every node has its file. `nodes`: address -> node id; the first fetches.

    `tree`: the number of nodes that get it doubles from step to step, else all at once.
    """
    actor: Any = ray.remote(num_cpus=0)(Holder)
    for node in nodes.values():
        if node not in _holders:
            _holders[node] = actor.options(label_selector={"ray.io/node-id": node}).remote()
    holders = {address: _holders[node] for address, node in nodes.items()}
    ray.get([holder.ready.remote() for holder in holders.values()], timeout=TIMEOUT)
    first, *others = nodes
    clock = time.perf_counter()
    index, references = ray.get(holders[first].put.remote(command, paths[first], parts), timeout=TIMEOUT)
    step = 1
    while others:
        wave, others = (others[:step], others[step:]) if tree else (others, [])
        ray.get([holders[a].take.remote(index, references, paths[a]) for a in wave], timeout=TIMEOUT)
        step *= 2
    return time.perf_counter() - clock
