"""What `load` keeps in Ray's object store: bounded, by use and by age, and put there once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import ray

from dragonfly_ray.actors.peer import PeerActor
from dragonfly_ray.model import Entry, Manifest, PieceTable, Source, Task, digest
from dragonfly_ray.peer.object_store import LoadedObjects
from tests.unit.test_peer_actor import actor, node_of
from tests.waiting import until

__all__ = ["actor"]

SIZE = 100_000


class Reference:
    """As Ray's: the object goes with the last of them."""


def test_the_least_recently_used_goes_first_and_the_latest_stays() -> None:
    kept: LoadedObjects[str] = LoadedObjects()
    for now, name in enumerate("abc"):
        kept.keep(name, name, 10, float(now), budget=30)
    assert kept.use("a", 3.0) == "a"
    kept.keep("d", "d", 15, 4.0, budget=30)
    assert [kept.use(name, 5.0) for name in "abcd"] == ["a", None, None, "d"]
    kept.keep("large", "large", 1000, 6.0, budget=30)
    assert [kept.use(name, 7.0) for name in ("a", "d", "large")] == [None, None, "large"]
    assert kept.nbytes == 1000


def test_what_nobody_asks_for_goes() -> None:
    kept: LoadedObjects[str] = LoadedObjects()
    kept.keep("a", "a", 10, 0.0, budget=30)
    kept.keep("b", "b", 10, 0.0, budget=30)
    kept.use("b", 50.0)
    kept.expire(60.0, idle=60.0)
    assert [kept.use(name, 60.0) for name in "ab"] == [None, "b"]


def stored(actor: PeerActor, name: str) -> str:
    """The id of a whole task in the peer's store."""
    content = name.encode() * (SIZE // len(name))
    manifest = Manifest((Entry("f", len(content), name),), directory=False)
    table, data, source = PieceTable.of(manifest), manifest.encode(), Source(f"http://h/{name}")
    task = Task(manifest.task_id(source.id), source.id, source.url, source.tenant, digest(data), len(data),
                table.size, len(table), 1, False, True)  # fmt: skip
    with node_of(actor).store.hold(task, manifest) as store:
        for piece in table:
            part = content[piece.offset : piece.offset + piece.length]
            store.put(piece.index, memoryview(part), digest(part))
    return task.id


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Reference]]:
    made: list[weakref.ref[Reference]] = []

    def put(value: np.ndarray[Any, Any]) -> Reference:
        assert value.nbytes == SIZE
        reference = Reference()
        made.append(weakref.ref(reference))
        return reference

    monkeypatch.setattr(ray, "put", put)
    return made


def alive(puts: list[weakref.ref[Reference]]) -> list[bool]:
    gc.collect()
    return [each() is not None for each in puts]


def test_a_peer_lets_go_of_what_is_beyond_its_budget_or_too_old(
    actor: PeerActor, puts: list[weakref.ref[Reference]]
) -> None:
    tasks = [stored(actor, name) for name in "abcd"]
    budget = actor._settings.peer.model_copy(update={"loaded_bytes": 2 * SIZE + 1})
    actor._settings = actor._settings.model_copy(update={"peer": budget})

    async def go() -> None:
        used = (await actor.load(tasks[0]))[0]
        for task in tasks[1:]:
            await actor.load(task)
        await asyncio.to_thread(until, lambda: alive(puts) == [True, False, True, True])  # the first is used
        del used
        await asyncio.to_thread(until, lambda: alive(puts) == [False, False, True, True])
        for _ in range(3):
            await actor.load(tasks[3])
        assert len(puts) == 4
        actor._objects.expire(1e18, idle=1.0)
        await asyncio.to_thread(until, lambda: not any(alive(puts)))

    asyncio.run(go())


def test_many_loads_at_once_put_it_there_once(actor: PeerActor, puts: list[weakref.ref[Reference]]) -> None:
    task = stored(actor, "a")

    async def go() -> None:
        found = await asyncio.gather(*(actor.load(task) for _ in range(20)))
        assert len({id(reference) for (reference,) in found}) == 1

    asyncio.run(go())
    assert len(puts) == 1
