"""Which scheduler looks after a source: rendezvous hashing (highest random weight)."""

from __future__ import annotations

import hashlib
from functools import lru_cache


def shard_order(source_id: str, shards: int) -> list[int]:
    """All shards, the responsible one first; the others in the order in which they would stand in for it.

    One shard more or less moves only its own share of the sources.
    """
    return sorted(range(shards), key=lambda shard: _weight(source_id, shard), reverse=True)


@lru_cache(maxsize=4096)
def shard_of(source_id: str, shards: int) -> int:
    """0 … shards-1."""
    return shard_order(source_id, max(1, shards))[0]


def _weight(source_id: str, shard: int) -> bytes:
    return hashlib.blake2b(source_id.encode(), digest_size=8, key=shard.to_bytes(4, "little")).digest()
