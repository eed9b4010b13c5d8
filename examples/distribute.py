"""Puts a file or a folder on every node of the Ray cluster, and says where each node got its bytes from.

    python examples/distribute.py URL DEST

Joins the cluster that `RAY_ADDRESS` names, or the one that runs on this machine; without any it starts one.
"""

from __future__ import annotations

import sys

import ray

import dragonfly_ray as d
from dragonfly_ray.errors import DragonflyError


def main(url: str, dest: str) -> int:
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    d.up()  # `distribute` would do it, too; here it waits until every node's peer is ready
    try:
        done = d.distribute(url, dest=dest, on_failure="return")
    except DragonflyError as error:
        print(error, file=sys.stderr)
        return 1
    for outcome in done.outcomes:
        came_from = f"{outcome.bytes_origin} bytes from the origin, {outcome.bytes_peers} from peers"
        print(f"{outcome.node_id[:12]} {outcome.state}: {outcome.path or outcome.error} ({came_from})")
    return 1 if done.failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
