"""The program that calls `distribute` on a host: reads orders as lines of JSON, answers in lines of JSON.

One process for many calls, since `ray.init` takes longer than most of them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

import dragonfly_ray as d
from dragonfly_ray.config import Settings
from tests.benchmarks import broadcast as ray_objects

_peers: dict[str, str] = {}
"""Address -> node id, of the nodes that are alive."""


def up(changes: dict[str, Any]) -> list[str]:
    """The actors, with settings that differ from the defaults; the addresses of all nodes."""
    d.up(Settings(**changes))
    return refresh()


def refresh() -> list[str]:
    _peers.clear()
    _peers.update({node.address: node.node_id for node in d.nodes() if node.alive})
    return sorted(_peers)


def down() -> bool:
    return d.down()


def states() -> dict[str, str]:
    """Address -> what the controller says of its peer."""
    return {host["address"]: host["state"] for host in d.status()["hosts"]}


def pids() -> dict[str, Any]:
    found = d.status()
    return {"actors": found["pids"], "peers": {h["address"]: h.get("pid", 0) for h in found["hosts"]}}


def distribute(url: str, dest: str, targets: list[str] | None, timeout: float) -> dict[str, Any]:
    """The clock: from the call to its return. `outcomes` by address."""
    nodes: Any = "all" if targets is None else [_peers[address] for address in targets]
    started = time.time()
    clock = time.perf_counter()
    done = d.distribute(url, nodes, dest=dest or None, on_failure="return", timeout=timeout)
    seconds = time.perf_counter() - clock
    # Not before: a driver's first call is to be seen as it is.
    addresses = {node: address for address, node in _peers.items()}
    if not addresses.keys() >= {o.node_id for o in done.outcomes}:
        addresses |= {node.node_id: node.address for node in d.nodes()}
    return {
        "started": started,
        "seconds": seconds,
        "size": done.size,
        "outcomes": {addresses[o.node_id]: o.to_dict() for o in done.outcomes},
    }


def evict(url: str) -> int:
    return d.evict(url)


def broadcast(command: list[str], paths: dict[str, str], parts: int, tree: bool) -> float:
    """Ray's own object broadcast to the hosts of `paths`, by address; the first of them fetches."""
    nodes = {address: _peers[address] for address in paths}
    return ray_objects.broadcast(nodes, command, paths, parts, tree)


ORDERS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (up, refresh, down, states, pids, distribute, evict, broadcast)
}


def main() -> None:
    address, node = sys.argv[1:]
    ray.init(address=address, _node_ip_address=node, log_to_driver=False, logging_level=logging.ERROR)
    print(json.dumps({"answer": "ready"}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer: dict[str, Any] = {"answer": ORDERS[order["order"]](**order["arguments"])}
        except Exception as error:  # noqa: BLE001, whatever it is, the bench has to hear of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
