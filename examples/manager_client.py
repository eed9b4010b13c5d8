"""Distributes through a manager, from a machine that has no Ray running: `pip install 'dragonfly-ray[remote]'`.

DRAGONFLY_TOKEN=dfr_… python examples/manager_client.py MANAGER URL [DEST]
"""

from __future__ import annotations

import sys

import dragonfly_ray
from dragonfly_ray.errors import DragonflyError


def main(manager: str, url: str, dest: str | None = None) -> int:
    try:
        with dragonfly_ray.connect(manager) as cluster:
            done = cluster.distribute(url, dest=dest, on_failure="return")
    except DragonflyError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(done.paths)} nodes have it, {len(done.failures)} failed, after {done.seconds:.1f} s")
    return 1 if done.failures else 0


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
