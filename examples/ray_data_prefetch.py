"""A Ray Data pipeline whose next shards arrive while the ones before are worked on.

    python examples/ray_data_prefetch.py URL URL …

Every shard leaves the origin once, however many nodes read it, and however many epochs. Needs `ray[data]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data

import dragonfly_ray as d

AHEAD = 2
"""Shards under way beside the one that is worked on."""


def read(row: dict[str, Any]) -> dict[str, Any]:
    """Runs on any node. What was prefetched is a file of this node's store by now."""
    path = d.fetch(row["url"])
    return {"url": row["url"], "bytes": path.stat().st_size, "ones": path.read_bytes().count(b"\x01")}


def prefetched(urls: Sequence[str]) -> Iterator[str]:
    """Each URL, once all nodes have it; the next ones are under way meanwhile."""
    under_way: list[d.Submission] = []
    for place, url in enumerate(urls):
        begun = place + len(under_way)
        under_way += [d.submit(each) for each in urls[begun : place + 1 + AHEAD]]
        under_way.pop(0).result().raise_for_failures()
        yield url


def main(*urls: str) -> int:
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    d.up()
    ray.data.DataContext.get_current().enable_progress_bars = False
    for url in prefetched(urls):
        (row,) = ray.data.from_items([{"url": url}]).map(read).take_all()
        print(f"{row['url']}: {row['bytes']} bytes, {row['ones']} of them are 1")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
