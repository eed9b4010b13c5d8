"""How long a restarted scheduler needs until it knows full caches again, and how long reports wait meanwhile.

    python -m tests.benchmarks.restart --peers 64 --pieces 2000000

The real core, pages and encoder behind an asyncio loop as in the scheduler's actor; peers send a page when the one
before is answered. Without Ray: an actor call adds about a millisecond to each page.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections.abc import Sequence

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.model import Credentials, Endpoint, Host, Source, Task, digest
from dragonfly_ray.peer.registration import PAGE_TASKS
from dragonfly_ray.scheduling.scheduler import SchedulerCore

PER_TASK = 512
"""Pieces of a file of 64 MiB."""
REPORTERS = 8


def tasks_of(count: int) -> list[Task]:
    sources = [Source(f"https://models.example.org/shard-{i:05}.safetensors") for i in range(count)]
    return [
        Task(digest(s.id.encode()).hex(), s.id, s.url, "", digest(b"manifest"), 300, PER_TASK << 17, PER_TASK, 1,
             False, True)
        for s in sources
    ]  # fmt: skip


def pages_of(host: Host, tasks: Sequence[Task]) -> list[bytes]:
    held = [m.Held(task, b"", root=digest(task.id.encode())) for task in tasks]
    sequence = secrets.token_hex(8)
    parts = [(), *(tuple(held[i : i + PAGE_TASKS]) for i in range(0, len(held), PAGE_TASKS)), ()]
    return [
        m.encode(m.Announce(host, part, sequence=sequence, page=n, last=n == len(parts) - 1))
        for n, part in enumerate(parts)
    ]


class Restarted:
    """As the actor hears it: one page at a time, anything else in between."""

    def __init__(self) -> None:
        self.core = SchedulerCore(Settings(), lambda task, host: b"grant")
        self._pages = asyncio.Lock()

    async def announce(self, payload: bytes) -> None:
        message = m.decode(payload)
        assert isinstance(message, m.Announce)
        async with self._pages:
            assert self.core.follows(message)
            self.core.announce(message, time.monotonic())
            await asyncio.sleep(0)


async def measure(peers: int, pieces: int) -> dict[str, float]:
    tasks = tasks_of(pieces // PER_TASK)
    hosts = [Host(f"h{i}", f"n{i}", (Endpoint("10.0.0.1", 1000 + i),), f"host{i}") for i in range(peers)]
    announcements = [pages_of(host, tasks) for host in hosts]
    scheduler, waits = Restarted(), [0.0]
    busy = tasks_of(len(tasks) + 1)[-1]

    async def peer(pages: Sequence[bytes]) -> None:
        for page in pages:
            await scheduler.announce(page)

    async def reporter(number: int) -> None:
        """Every 100 ms; what counts is how long after its time the report is answered."""
        while not over.is_set():
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            report = m.decode(m.encode(m.Report(hosts[number].id, busy.id, claim=4)))
            assert isinstance(report, m.Report)
            reply, _ = scheduler.core.report(report, time.monotonic())
            assert reply.known
            waits.append(time.monotonic() - due)

    for host in hosts[:REPORTERS]:
        scheduler.core.announce(m.Announce(host), time.monotonic())
    source = Source("https://models.example.org/busy")
    scheduler.core.submit(
        m.DistributionSpec("busy.0", source, tuple(h.node_id for h in hosts[:REPORTERS])), Credentials(), 0.0
    )
    scheduler.core.resolved("busy.0", m.Resolved(task=busy, manifest=b"m"), time.monotonic())
    over = asyncio.Event()
    reporters = [asyncio.ensure_future(reporter(n)) for n in range(REPORTERS)]
    began, used = time.monotonic(), time.process_time()
    await asyncio.gather(*(peer(pages) for pages in announcements))
    seconds, used = time.monotonic() - began, time.process_time() - used
    over.set()
    await asyncio.gather(*reporters)
    assert all(len(scheduler.core.tasks[t.id].holders) == peers for t in tasks)
    return {
        "peers": peers,
        "tasks": len(tasks),
        "pieces of each peer": len(tasks) * PER_TASK,
        "MiB of each peer": sum(map(len, announcements[0])) / (1 << 20),
        "pages of each peer": len(announcements[0]),
        "seconds until all are known": seconds,
        "seconds of one core": used,
        "longest wait of a report, seconds": max(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=64)
    parser.add_argument("--pieces", type=int, default=2_000_000)
    options = parser.parse_args()
    for name, value in asyncio.run(measure(options.peers, options.pieces)).items():
        print(f"{name:36}{value:12.3f}")


if __name__ == "__main__":
    main()
