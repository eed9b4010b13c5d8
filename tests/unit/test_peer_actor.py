"""The peer's actor without Ray: what its calls wait for, and what they do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.actors import peer as peer_module
from dragonfly_ray.actors.peer import PeerActor
from dragonfly_ray.config import Settings, StorageSettings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.grants import SigningKey
from dragonfly_ray.model import Identity, Source
from dragonfly_ray.peer.node import PeerNode
from tests.origins import Behaviour, ScriptedOrigin
from tests.waiting import HANG, until

READERS = 64
SENDER = "scheduler"


class _Silent:
    """Schedulers that hear everything and say nothing."""

    def of(self, source_id: str) -> _Silent:
        return self

    def every(self) -> list[_Silent]:
        return [self]

    def call(self, message: m.Message) -> m.Message | None:
        return m.ReportReply() if isinstance(message, m.Report) else None


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PeerActor]:
    monkeypatch.setattr(peer_module, "_Links", lambda settings: _Silent())
    monkeypatch.setattr(peer_module, "RaySink", lambda *args: None)
    monkeypatch.setattr(peer_module, "logs", SimpleNamespace(setup=lambda *args, **named: None))
    settings = Settings(storage=StorageSettings(root=tmp_path))
    key = SigningKey.generate()
    made = PeerActor(Identity("n", "127.0.0.1", "n"), settings, [key.public_bytes()])
    yield made
    asyncio.run(made.stop())


def node_of(actor: PeerActor) -> PeerNode:
    return actor._node


def deliver(actor: PeerActor, url: str, spec_id: str = "s.0") -> m.Deliver:
    found = node_of(actor).queries.resolve(m.Resolve(Source(url)))
    assert found.task, found
    return m.Deliver(m.DistributionSpec(spec_id, Source(url), ("n",)), found.task, manifest=found.manifest)


def test_messages_never_wait_for_readers(actor: PeerActor) -> None:
    content = b"content" * 300_000
    with ScriptedOrigin(Behaviour(content)) as origin:
        first, second = deliver(actor, origin.url), deliver(actor, origin.url, "t.0")

        async def go() -> None:
            await actor.call(m.encode(first), SENDER, 1)
            run = node_of(actor)._runs[first.task.id]
            assert not run.engine.picker.done, "nothing is leased, so nothing comes"
            calls = [actor.await_range(first.task.id, 0, len(content), 120.0) for _ in range(READERS)]
            readers = [asyncio.ensure_future(call) for call in calls]
            await asyncio.to_thread(until, lambda: run.engine._readers == READERS)

            heard = await asyncio.wait_for(
                actor.call(m.encode(m.TaskUpdate(first.task.id, may_claim=False)), SENDER, 2), HANG
            )
            assert heard == b""
            await asyncio.wait_for(actor.call(m.encode(second), SENDER, 3), HANG)
            assert {d.spec.id for d in run.deliveries.open()} == {"s.0", "t.0"}
            for number, spec_id in enumerate(("s.0", "t.0"), 4):
                await asyncio.wait_for(actor.call(m.encode(m.Cancel(spec_id)), SENDER, number), HANG)
                assert run.engine.stopping.is_set() == (spec_id == "t.0")
                assert spec_id == "t.0" or not any(reader.done() for reader in readers)
            assert not any(await asyncio.gather(*readers))

        asyncio.run(go())


def test_messages_are_heard_in_order(actor: PeerActor) -> None:
    """A cancel never overtakes its delivery."""
    with ScriptedOrigin(Behaviour(b"content" * 300_000)) as origin:
        order = deliver(actor, origin.url)

        async def go() -> None:
            calls = []
            for number in range(50):
                spec = m.DistributionSpec(f"s.{number}", order.spec.source, ("n",))
                calls.append(
                    actor.call(m.encode(msgspec.structs.replace(order, spec=spec)), SENDER, 2 * number + 1)
                )
                calls.append(actor.call(m.encode(m.Cancel(spec.id)), SENDER, 2 * number + 2))
            await asyncio.gather(*calls)
            await asyncio.to_thread(until, lambda: not node_of(actor)._runs)

        asyncio.run(go())


def test_health_never_waits_for_a_store_that_is_busy(actor: PeerActor) -> None:
    """A folder of many files is being opened, or removed."""
    store = node_of(actor).store
    calls: Any = actor
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            assert free.wait(HANG)

    busy = threading.Thread(target=hold)
    busy.start()

    async def go() -> None:
        try:
            await asyncio.to_thread(held.wait, HANG)
            status = asyncio.ensure_future(actor.status())
            assert await asyncio.wait_for(calls.ping(), HANG)
            assert await asyncio.wait_for(calls.brief(), HANG)
            heard = await asyncio.wait_for(actor.call(m.encode(m.Cancel("s.0")), SENDER, 1), HANG)
            assert heard == b""
            assert not status.done()
        finally:
            free.set()
        assert (await asyncio.wait_for(status, HANG))["node_id"] == "n"

    asyncio.run(go())
    busy.join(HANG)


def test_a_message_that_is_not_known_is_answered_and_costs_no_other(actor: PeerActor) -> None:
    later = msgspec.msgpack.encode((m.VERSION + 1, {"type": "Teleport"}))
    refused = m.Unsupported("Teleport", m.VERSION + 1)

    async def go() -> None:
        assert m.decode(await actor.call(later, SENDER, 1)) == refused
        answer, objects = await actor.ask(later)
        assert (m.decode(answer), objects) == (refused, [])
        assert await actor.call(m.encode(m.Cancel("s.0")), SENDER, 2) == b""

    asyncio.run(go())


def test_a_scheduler_that_does_not_know_a_message_is_an_error_of_the_cluster() -> None:
    link = peer_module._Link.__new__(peer_module._Link)
    link._name, link._settings = "scheduler:0", Settings()
    link._actors = SimpleNamespace(call=lambda *a, **k: m.encode(m.Unsupported("Report", 2, 1, 1)))  # type: ignore[assignment]
    with pytest.raises(ClusterError, match="scheduler:0: unsupported message Report of version 2"):
        link.call(m.Report("h", "t"))
