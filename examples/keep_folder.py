"""Keeps a folder of every node as the origin has it: what changed is fetched, the rest is left alone.

    python examples/keep_folder.py URL/ DEST [SECONDS [ROUNDS]]

Files are replaced one by one, each atomically. What the origin has no more stays on the nodes.
"""

from __future__ import annotations

import sys
import time

import ray

import dragonfly_ray as d
from dragonfly_ray.errors import DistributionFailedError, SourceError


def main(url: str, dest: str, seconds: str = "60", rounds: str = "0") -> int:
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    d.up()
    count = 0
    while True:
        try:
            done = d.distribute(url, dest=dest)
            fetched = sum(outcome.bytes_origin for outcome in done.outcomes)
            print(f"{len(done.paths)} nodes are up to date, {fetched} bytes from the origin", flush=True)
        except (DistributionFailedError, SourceError) as error:
            print(f"{error}; trying again in {seconds} s", file=sys.stderr, flush=True)
        count += 1
        if count == int(rounds):
            return 0
        time.sleep(float(seconds))


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
