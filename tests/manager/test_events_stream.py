"""Events as they happen: over real connections, on both databases."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dragonfly_ray.serve.accounts import tokens
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import OpenStream, Token, User, now
from dragonfly_ray.serve.events.quota import StreamQuota
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests import postgres
from tests.manager import people
from tests.manager.conftest import token_of
from tests.manager.serving import Reader, serving, stream
from tests.waiting import HANG, until

BARE = "/api/v1/events/stream"
STREAM = f"{BARE}?types=job.*"
"""Without news of nodes, which come by themselves."""


@pytest.fixture
def cluster() -> FakeCluster:
    """Without nodes: nothing happens by itself."""
    return FakeCluster(0)


def write(database: Database, *ids: str, type: str = "job.created") -> None:
    for id in ids:
        with database.write() as session:
            emit(session, type, type.partition(".")[0], id, {"n": id})


def take(reader: Reader, count: int) -> list[str]:
    return [reader.next().json["resource_id"] for _ in range(count)]


def test_events_are_streamed_as_they_are_committed(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        with stream(url + STREAM, token_of(database, "viewer")) as reader:
            write(database, "a")
            message = reader.next()
            assert message.name == ""
            assert message.json["type"] == "job.created"
            assert message.json["data"] == {"n": "a"}
            assert int(message.id) == message.json["id"]
            write(database, "b", "c")
            assert take(reader, 2) == ["b", "c"]


def test_only_what_is_wanted(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        token = token_of(database, "viewer")
        with (
            stream(f"{url}{STREAM}&types=node.left", token) as some,
            stream(f"{url}{STREAM}&resource_type=job&resource_id=b", token) as one,
        ):
            write(database, "x", type="node.changed")
            write(database, "a", "b")
            write(database, "y", type="node.left")
            write(database, "b", type="job.ended")
            assert take(some, 4) == ["a", "b", "y", "b"]
            assert [one.next().json["type"] for _ in range(2)] == ["job.created", "job.ended"]


@pytest.mark.parametrize("by", ["header", "query"])
def test_who_comes_back_misses_nothing_and_gets_nothing_twice(app: FastAPI, by: str) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        token = token_of(database, "viewer")
        with stream(url + STREAM, token) as reader:
            write(database, "a", "b")
            take(reader, 1)
            seen = reader.next().id
        write(database, *"cdefg")
        again = (
            stream(url + STREAM, token, **{"Last-Event-ID": seen})
            if by == "header"
            else stream(f"{url}{STREAM}&after={seen}", token)
        )
        with again as reader:
            assert take(reader, 5) == [*"cdefg"]
            write(database, "h")
            assert take(reader, 1) == ["h"]


def test_the_opening_says_where_to_go_on_from(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        write(database, "a")
        token = token_of(database, "viewer")
        with stream(url + STREAM, token) as reader:
            begin = reader.opened.id
        write(database, "b")
        with stream(url + STREAM, token, **{"Last-Event-ID": begin}) as reader:
            assert take(reader, 1) == ["b"]


def test_an_id_of_another_database_is_taken_as_now(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        write(database, "a")
        with stream(f"{url}{STREAM}&after={2**62}", token_of(database, "viewer")) as reader:
            write(database, "b")
            assert take(reader, 1) == ["b"]


def test_readers_see_every_event_of_concurrent_writers_once_and_in_order(app: FastAPI) -> None:
    writers, each = 8, 25
    with serving(app) as url:
        database = app.state.manager.database
        token = token_of(database, "viewer")

        def write_some(writer: int) -> None:
            write(database, *(f"{writer}-{n}" for n in range(each)))

        with stream(url + STREAM, token) as first, stream(f"{url}{STREAM}&after=0", token) as second:
            with ThreadPoolExecutor(writers) as pool:
                list(pool.map(write_some, range(writers)))
            seen = [[reader.next() for _ in range(writers * each)] for reader in (first, second)]
    for messages in seen:
        ids = [int(m.id) for m in messages]
        assert ids == sorted(set(ids))
        of = [m.json["resource_id"] for m in messages]
        for writer in range(writers):
            assert [o for o in of if o.startswith(f"{writer}-")] == [f"{writer}-{n}" for n in range(each)]


def test_another_replicas_events_are_streamed_at_once(
    postgres_server: postgres.Postgres, settings: ManagerSettings
) -> None:
    with postgres_server.database() as at:
        settings = settings.model_copy(update={"database_url": at})
        first, second = (create_app(settings, FakeCluster(2)) for _ in range(2))
        with serving(first), serving(second) as url:
            database = first.state.manager.database
            with stream(url + STREAM, token_of(database, "viewer")) as reader:
                write(database, "a", "b")
                # Within the client's time-out, which is far below the feed's look without a hint.
                assert take(reader, 2) == ["a", "b"]


def test_a_revoked_token_ends_its_stream_and_no_other(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        manager.streams.recheck = 0.1
        gone, stays = (token_of(manager.database, "viewer") for _ in range(2))
        with stream(url + STREAM, stays) as other, stream(url + STREAM, gone) as reader:
            with manager.database.write() as session:
                session.query(Token).filter_by(hash=tokens.hashed(gone)).one().revoked_at = now()
            with pytest.raises(StopIteration):
                reader.next()
            write(manager.database, "a")
            assert take(other, 1) == ["a"]


def test_a_lesser_role_ends_the_stream_of_its_owner(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        manager.streams.recheck = 0.1
        token = token_of(manager.database, "viewer")
        people.role(manager.database, "nothing", ())
        with stream(url + STREAM, token) as reader:
            with manager.database.write() as session:
                owner = session.query(Token).filter_by(hash=tokens.hashed(token)).one().user_id
                session.get_one(User, owner).role = "nothing"
            with pytest.raises(StopIteration):
                reader.next()


def test_who_may_not_gets_no_stream(app: FastAPI) -> None:
    with serving(app) as url:
        assert httpx.get(url + STREAM, timeout=60.0).status_code == 401
        assert (
            httpx.get(url + STREAM, headers={"Authorization": "Bearer dfr_x"}, timeout=60.0).status_code
            == 401
        )


def test_streams_end_with_the_manager(app: FastAPI) -> None:
    with serving(app) as url, stream(url + STREAM, token_of(app.state.manager.database, "viewer")) as reader:
        app.state.manager.streams.stop()
        with pytest.raises(StopIteration):
            reader.next()


def test_a_client_that_goes_is_forgotten(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        with stream(url + STREAM, token_of(manager.database, "viewer")):
            assert (manager.streams.open, manager.feed.readers) == (1, 1)
        assert manager.streams.idle.wait(HANG)
        assert manager.feed.readers == 0


def test_no_more_streams_than_allowed(settings: ManagerSettings) -> None:
    limits = settings.limits.model_copy(update={"streams": 2})
    app = create_app(settings.model_copy(update={"limits": limits}), FakeCluster(1))
    with serving(app) as url:
        token = token_of(app.state.manager.database, "viewer")
        with stream(url + STREAM, token), stream(url + STREAM, token):
            answer = httpx.get(url + STREAM, headers={"Authorization": f"Bearer {token}"}, timeout=60.0)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:dragonfly:problem:too-many-streams"
            assert int(answer.headers["Retry-After"]) > 0


def test_a_user_has_so_many_streams_over_all_replicas(settings: ManagerSettings) -> None:
    limits = settings.limits.model_copy(update={"user_streams": 2})
    limited = settings.model_copy(update={"limits": limits})
    one, two = (create_app(limited, FakeCluster(1)) for _ in range(2))
    with serving(one) as first, serving(two) as second:
        database = one.state.manager.database
        token, other = token_of(database, "viewer"), token_of(database, "viewer")
        headers = {"Authorization": f"Bearer {token}"}
        with stream(first + STREAM, token):
            with stream(second + STREAM, token):
                for url in (first, second):
                    answer = httpx.get(url + STREAM, headers=headers, timeout=60.0)
                    assert (answer.status_code, answer.json()["status"]) == (429, 429)
                    assert answer.json()["type"] == "urn:dragonfly:problem:too-many-streams"
                    assert int(answer.headers["Retry-After"]) > 0
                with stream(second + STREAM, other):
                    pass
            until(lambda: opened(database) == 1)
            with stream(second + STREAM, token):
                assert opened(database) == 2
        until(lambda: opened(database) == 0)


def test_sockets_count_as_streams(settings: ManagerSettings) -> None:
    limits = settings.limits.model_copy(update={"user_streams": 1})
    app = create_app(settings.model_copy(update={"limits": limits}), FakeCluster(1))
    with serving(app) as url:
        database = app.state.manager.database
        token = token_of(database, "viewer")
        headers = {"Authorization": f"Bearer {token}"}
        socket = url.replace("http", "ws") + "/api/v1/events/ws"
        with connect(socket, additional_headers=headers) as opened_socket:
            assert "open" in json.loads(opened_socket.recv(HANG))
            assert httpx.get(url + STREAM, headers=headers, timeout=60.0).status_code == 429
            with pytest.raises(InvalidStatus) as refused, connect(socket, additional_headers=headers):
                pass
            assert refused.value.response.status_code == 429
        until(lambda: opened(database) == 0)
        with stream(url + STREAM, token):
            pass


def test_streams_of_a_replica_that_died_count_no_more(database: Database) -> None:
    user = people.user(database, "vera", "viewer")
    dead = StreamQuota(database, 1, ttl=0.3)
    living = StreamQuota(database, 1, ttl=0.3, renew=0.05)
    dead.keep(dead.open(user))  # and nobody renews it
    with pytest.raises(Problem, match="at most 1"):
        living.open(user)

    def opens_again() -> bool:
        try:
            living.keep(living.open(user))
        except Problem:
            return False
        return True

    until(opens_again)
    living.start()
    try:
        for _ in range(3):
            before = _expiry(database)
            until(partial(_later, database, before))
            with pytest.raises(Problem):
                living.open(user)
    finally:
        living.stop()
    assert opened(database) == 0


def opened(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(OpenStream)) or 0


def _later(database: Database, before: datetime) -> bool:
    return _expiry(database) > before


def _expiry(database: Database) -> datetime:
    with database.read() as session:
        return session.scalars(select(OpenStream.expires_at)).one()


def test_heartbeats_while_nothing_happens(app: FastAPI) -> None:
    with serving(app) as url:
        app.state.manager.streams.heartbeat = 0.1
        with stream(url + STREAM, token_of(app.state.manager.database, "viewer")) as reader:
            beat = reader.message()
            assert beat.comments
            assert not beat.data


def test_pages_of_the_list(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        write(database, *"abcde")
        write(database, "x", type="node.left")
        headers = {"Authorization": f"Bearer {token_of(database, 'viewer')}"}

        def get(types: tuple[str, ...] = ("job.*", "node.left"), **params: Any) -> Any:
            params["types"] = types
            answer = httpx.get(f"{url}/api/v1/events", params=params, headers=headers, timeout=60.0)
            assert answer.status_code == 200, answer.text
            return answer.json()

        first = get(limit=2, types=("job.*",))
        second = get(limit=9, types=("job.*",), cursor=first["next_cursor"])
        assert [e["resource_id"] for e in first["items"] + second["items"]] == [*"abcde"]
        assert second["next_cursor"] is None
        third = first["items"][1]["id"]
        assert [e["resource_id"] for e in get(after=third)["items"]] == [*"cde", "x"]
        assert [e["resource_id"] for e in get(sort="-id", limit=1)["items"]] == ["x"]


# --- WebSocket ------------------------------------------------------------------------------------


def test_a_websocket_tells_the_same(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        socket = f"{url.replace('http', 'ws')}/api/v1/events/ws?types=job.*"
        token = token_of(manager.database, "viewer")
        with connect(socket, additional_headers={"Authorization": f"Bearer {token}"}) as reader:
            assert "open" in json.loads(reader.recv(HANG))
            write(manager.database, "a", "b")
            events = [json.loads(reader.recv(HANG))["event"] for _ in range(2)]
            assert [e["resource_id"] for e in events] == ["a", "b"]
        after = f"{socket}&after={events[0]['id']}"
        with connect(after, additional_headers={"Authorization": f"Bearer {token}"}) as reader:
            reader.recv(HANG)
            assert json.loads(reader.recv(HANG))["event"]["resource_id"] == "b"
            manager.streams.stop()
            with pytest.raises(ConnectionClosed) as closed:
                reader.recv(HANG)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


def test_a_websocket_without_a_token_is_refused(app: FastAPI) -> None:
    with (
        serving(app) as url,
        pytest.raises(InvalidStatus) as refused,
        connect(f"{url.replace('http', 'ws')}/api/v1/events/ws"),
    ):
        pass
    assert refused.value.response.status_code in (401, 403)


def test_a_websocket_ends_when_its_token_is_revoked(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        manager.streams.recheck = 0.1
        token = token_of(manager.database, "viewer")
        headers = {"Authorization": f"Bearer {token}"}
        with connect(f"{url.replace('http', 'ws')}/api/v1/events/ws", additional_headers=headers) as reader:
            reader.recv(HANG)
            with manager.database.write() as session:
                session.query(Token).filter_by(hash=tokens.hashed(token)).one().revoked_at = now()
            with pytest.raises(ConnectionClosed) as closed:
                reader.recv(HANG)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
