"""A scheduler's core, and what it wants to say: without Ray and clocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import (
    SHORT_LEAF,
    Credentials,
    Endpoint,
    Entry,
    Host,
    Manifest,
    PieceTable,
    Source,
    Task,
    digest,
)
from dragonfly_ray.scheduling.scheduler import Action, SchedulerCore, Send

T = TypeVar("T")


PIECES = 100


def settings(policy: str = "all") -> Settings:
    return Settings(origin=OriginSettings(policy=policy))


def host(number: int, *, seed: bool = False, incarnation: str = "1") -> Host:
    return Host(f"h{number}", f"n{number}", (Endpoint("10.0.0.1", 1000 + number),), f"host{number}", seed,
                incarnation=incarnation)  # fmt: skip


def a_task(source: Source) -> Task:
    manifest = Manifest((Entry("f", PIECES * SHORT_LEAF, "v1"),), directory=False)
    table = PieceTable.of(manifest)
    assert len(table) == PIECES
    data = manifest.encode()
    return Task(manifest.task_id(source.id), source.id, source.url, source.tenant, digest(data), len(data),
                table.size, PIECES, 1, False, True)  # fmt: skip


SOURCE = Source("http://origin/f")


TASK = a_task(SOURCE)


class Cluster:
    """A core, and what it wants to say."""

    def __init__(self, hosts: Iterable[Host], policy: str = "all") -> None:
        self.core = SchedulerCore(settings(policy), lambda task, host: b"grant")
        self.now = 100.0
        self.found = TASK
        """What the source is resolved to."""
        self.said: list[Action] = []
        for each in hosts:
            self.do(self.core.announce(m.Announce(each), self.now))

    def do(self, actions: list[Action]) -> list[Action]:
        self.said += actions
        return actions

    def submit(self, targets: Iterable[int], spec_id: str = "s.0") -> None:
        spec = m.DistributionSpec(spec_id, SOURCE, tuple(f"n{t}" for t in targets))
        self.do(self.core.submit(spec, Credentials(), self.now))

    def resolved(self, spec_id: str = "s.0") -> None:
        self.do(self.core.resolved(spec_id, m.Resolved(task=self.found, manifest=b"m"), self.now))

    def report(self, number: int, **news: object) -> m.ReportReply:
        reply, actions = self.core.report(m.Report(f"h{number}", TASK.id, **news), self.now)  # type: ignore[arg-type]
        self.do(actions)
        return reply

    def sent(self, kind: type[T], to: int | None = None) -> list[T]:
        return [a.message for a in self.said if isinstance(a, Send) and isinstance(a.message, kind)
                and to in (None, int(a.host[1:]))]  # fmt: skip

    def end(self, number: int, spec_id: str = "s.0", *, ok: bool = True) -> None:
        ended = m.Ended(f"h{number}", spec_id, TASK.id, ok, kind="" if ok else "storage-full")
        self.do(self.core.ended(ended, self.now)[1])

    def view(self, spec_id: str = "s.0") -> dict[str, object]:
        found = self.core.view(spec_id)
        assert found is not None
        return found


def started(count: int = 4, **options: object) -> Cluster:
    cluster = Cluster((host(i) for i in range(count)), **options)  # type: ignore[arg-type]
    cluster.submit(range(count))
    cluster.resolved()
    return cluster
