"""Which scheduler looks after a source."""

from __future__ import annotations

from functools import lru_cache

from uhashring import HashRing


@lru_cache(maxsize=8)
def _ring(shards: int) -> HashRing:
    return HashRing(nodes=[str(index) for index in range(shards)])


def shard_of(source_id: str, shards: int) -> int:
    """0 … shards-1, by consistent hash: another shard more moves only its share."""
    return int(_ring(shards).get_node(source_id)) if shards > 1 else 0
