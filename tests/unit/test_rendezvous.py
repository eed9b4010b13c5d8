"""Which scheduler shard looks after a source, and who stands in for it."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from dragonfly_ray.scheduling.rendezvous import shard_of, shard_order

IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(100_000)]


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 16])
def test_shards_have_equal_shares(shards: int) -> None:
    counts = Counter(shard_of(each, shards) for each in IDS)
    assert set(counts) == set(range(shards))
    assert max(counts.values()) <= 1.05 * len(IDS) / shards


@pytest.mark.parametrize("shards", [1, 4, 15])
def test_another_shard_takes_its_share_and_moves_nothing_else(shards: int) -> None:
    moved = [each for each in IDS if shard_of(each, shards) != shard_of(each, shards + 1)]
    assert {shard_of(each, shards + 1) for each in moved} == {shards}
    assert len(moved) == pytest.approx(len(IDS) / (shards + 1), rel=0.1)


def test_the_order_is_that_of_succession() -> None:
    successors: Counter[int] = Counter()
    for each in IDS[:20_000]:
        order = shard_order(each, 4)
        assert sorted(order) == [0, 1, 2, 3]
        assert order[0] == shard_of(each, 4)
        if order[0] == 3:
            assert order[1] == shard_of(each, 3), "who stands in for a shard is who would have it without"
            successors[order[1]] += 1
    assert max(successors.values()) < 1.2 * sum(successors.values()) / 3, "what one leaves is spread"


def test_every_process_says_the_same() -> None:
    assert [shard_of(each, 8) for each in IDS[:8]] == [3, 5, 3, 3, 4, 7, 0, 6]
