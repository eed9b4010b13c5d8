"""Brings several URLs into the stores of all nodes before anybody asks, and keeps them there for a day.

python examples/preheat.py URL URL …
"""

from __future__ import annotations

import sys

import ray

import dragonfly_ray as d

DAY = 86400.0


def main(*urls: str) -> int:
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    d.up()
    done = d.distribute(list(urls), on_failure="return")  # without `dest`: the stores only
    for outcome in done.failures:
        print(f"{outcome.node_id[:12]}: {outcome.error}", file=sys.stderr)
    for url in urls:
        pinned = d.pin(url, owner="preheat", ttl=DAY)
        print(f"{url}: on {len(d.where(url, partial=False))} nodes, pinned on {pinned}")
    return 1 if done.failures else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
