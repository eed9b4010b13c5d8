"""The feed itself: bounded readers that lose nothing, looks without a hint, and what is made for many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Event
from dragonfly_ray.serve.events.feed import EventFeed
from dragonfly_ray.serve.events.filters import EventFilter
from dragonfly_ray.serve.events.subscription import Item, Lagged, Stored, Subscription, TaskUpdate
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.stats.live import Live
from tests.waiting import HANG, until


@contextmanager
def running(feed: EventFeed, database: Database) -> Iterator[EventFeed]:
    database.listener.start()
    feed.start()
    try:
        yield feed
    finally:
        feed.stop()
        database.listener.stop()


def write(database: Database, count: int, type: str = "job.created") -> None:
    with database.write() as session:
        for n in range(count):
            emit(session, type, "job", str(n))


async def taken(reader: Subscription, count: int) -> list[Item]:
    """At least so many news, and what else was told with them."""
    found: list[Item] = []
    async with asyncio.timeout(HANG):
        while sum(isinstance(item, TaskUpdate) for item in found) < count:
            found += await reader.take()
    return found


def ids(found: list[Item]) -> list[int]:
    return [item.id for item in found if isinstance(item, TaskUpdate)]


def test_a_slow_reader_is_told_and_loses_nothing(database: Database) -> None:
    feed = EventFeed(database, most=10)

    async def read() -> None:
        with feed.subscribe(EventFilter(types=("job.*",))) as slow, feed.subscribe(EventFilter()) as quick:
            write(database, 5)
            assert len(ids(await taken(quick, 5))) == 5
            write(database, 1200)
            write(database, 3, type="node.left")
            seen = ids(await taken(quick, 1203))
            found = await taken(slow, 1205)
            assert Lagged(0) in found
            assert ids(found) == sorted(set(ids(found)))
            assert len(ids(found)) == 1205
            write(database, 2)
            again = await taken(slow, 2)
            assert ids(again)[0] > seen[-1]
            assert not any(isinstance(item, Lagged) for item in again)

    with running(feed, database):
        asyncio.run(read())


def test_events_that_nobody_told_of_are_found_by_a_look(database: Database) -> None:
    feed = EventFeed(database, fallback=0.05)

    async def read() -> None:
        with feed.subscribe(EventFilter()) as reader:
            with database.write() as session:
                session.add(Event(type="job.created"))
            assert len(await taken(reader, 1)) == 1

    with running(feed, database):
        asyncio.run(read())


def test_a_look_that_fails_leaves_out_nothing(database: Database) -> None:
    write(database, 3)
    feed = EventFeed(database)
    failures = [True]

    def look(after: int, wanted: EventFilter, limit: int) -> Stored:
        if failures.pop():
            failures.append(False)
            raise OperationalError("look", {}, Exception("away"))
        failures.append(False)
        return feed.look(after, wanted, limit)

    async def read() -> None:
        reader = Subscription(look, EventFilter(), 0, live=False)
        with pytest.raises(OperationalError):
            await reader.take()
        assert len(ids(await taken(reader, 3))) == 3

    asyncio.run(read())


def test_between_a_look_and_the_queue_nothing_is_lost_or_doubled() -> None:
    """What is pushed while the database is read may be in both."""
    kept = [TaskUpdate(n, "t", "", "", "") for n in range(1, 6)]

    async def read() -> list[Item]:
        def look(after: int, wanted: EventFilter, limit: int) -> Stored:
            reader.offer(kept[3:])  # 4 and 5, of which 4 is also found
            return Stored(kept[:4], more=False, forgotten=0)

        reader = Subscription(look, EventFilter(), 0, live=False)
        return await taken(reader, 5)

    assert ids(asyncio.run(read())) == [1, 2, 3, 4, 5]


def test_long_backlogs_come_in_pages(database: Database) -> None:
    write(database, 1100)
    feed = EventFeed(database)

    async def read() -> list[Item]:
        with feed.subscribe(EventFilter(), after=0) as reader:
            first = await reader.take()
            assert len(first) == 500
            return first + await taken(reader, 600)

    with running(feed, database):
        found = ids(asyncio.run(read()))
    assert found == sorted(set(found))
    assert len(found) == 1100


def test_readers_end_with_the_feed(database: Database) -> None:
    feed = EventFeed(database)

    async def read() -> list[Item]:
        with feed.subscribe(EventFilter()) as reader:
            waiting = asyncio.ensure_future(reader.take())
            await asyncio.sleep(0)
            await asyncio.to_thread(feed.stop)
            return await asyncio.wait_for(waiting, HANG)

    feed.start()
    assert asyncio.run(read()) == []


def test_types_and_prefixes() -> None:
    wanted = EventFilter(types=("job.*", "node.left"), resource_type="job")
    assert wanted.matches("job.ended", "job", "x")
    assert not wanted.matches("node.left", "node", "x")
    assert not wanted.matches("jobs.ended", "job", "x")
    assert EventFilter().matches("anything", "", "")


# --- made once for many ---------------------------------------------------------------------------


def test_it_is_made_once_however_many_look_and_not_at_all_when_nobody_does() -> None:
    made = 0
    there = threading.Event()

    def make() -> str:
        nonlocal made
        made += 1
        there.set()
        return str(made)

    live = Live("test", 0.05, make)

    async def look(viewers: int, times: int) -> list[list[str]]:
        async def one() -> list[str]:
            newest: Any = live.newest()
            try:
                return [await anext(newest) for _ in range(times)]
            finally:
                await newest.aclose()

        async with asyncio.timeout(HANG):
            return await asyncio.gather(*(one() for _ in range(viewers)))

    live.start()
    try:
        assert not there.wait(0.3)
        seen = asyncio.run(look(viewers=5, times=4))
        assert made < 5 * 4
        assert all(each == sorted(set(each), key=int) for each in seen)
        assert live.viewers == 0

        def quiet() -> bool:
            there.clear()
            return not there.wait(0.3)

        until(quiet)  # one may be under way
        before = made
        assert quiet()
        assert made == before
    finally:
        live.stop()
