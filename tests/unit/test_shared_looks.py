"""How many files a helper is asked to look at in one request: as many as it can answer for in time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.peer.distributed_stat import MOST_CHUNK, DistributedStat
from dragonfly_ray.sources import Seen


class Helper:
    """`chunks`: lengths of what it was asked for."""

    def __init__(self) -> None:
        self.chunks: list[int] = []
        self.asked = threading.Event()

    def call(self, message: m.Message) -> m.Message | None:
        assert isinstance(message, m.Stat)
        count = len(message.paths)
        self.chunks.append(count)
        self.asked.set()
        return m.StatReply(sizes=(1,) * count, versions=("v",) * count, ranges=(True,) * count)


@pytest.mark.parametrize(
    ("connections", "rate", "large"), [(48, 0.0, True), (2, 0.0, False), (48, 10.0, False)]
)
def test_large_chunks_need_many_connections(connections: int, rate: float, large: bool) -> None:
    helper = Helper()
    ask = m.Resolve(Source("http://h/d/"), Credentials(), helpers=("h1",), connections=connections, rate=rate)

    def look(paths: Sequence[str]) -> list[Seen]:
        assert helper.asked.wait(20)
        return [Seen(1, "v", True) for _ in paths]

    paths = [f"f{n}" for n in range(20_000)]
    assert len(DistributedStat(ask, helper)(look, paths)) == len(paths)
    assert (max(helper.chunks) > MOST_CHUNK) == large
