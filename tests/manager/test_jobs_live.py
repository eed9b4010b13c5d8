"""A job's live stream: all of it first, then what changes, then its end."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dragonfly_ray.serve.database.tables import Token, now
from dragonfly_ray.serve.schemas.cluster import EdgeOut
from dragonfly_ray.serve.schemas.jobs import Job, JobNode
from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests.manager.conftest import token_of
from tests.manager.jobs_help import nodes_of, submit
from tests.manager.serving import Message, Reader, serving, stream
from tests.waiting import until


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as found:
        yield found


@pytest.fixture
def token(url: str, app: FastAPI) -> str:
    return token_of(app.state.manager.database, "operator")


@pytest.fixture
def client(url: str, token: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as found:
        yield found


def heard(reader: Reader, name: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
    """The next message of that name that fits."""
    while True:
        message: Message = reader.next()
        if message.name == name and fits(message.json):
            return message.json


def test_a_stream_from_the_start_to_the_end(
    client: httpx.Client, url: str, token: str, cluster: FakeCluster
) -> None:
    made = submit(client, name="live")
    until(lambda: {n["state"] for n in nodes_of(client, made)} == {"running"})
    with stream(f"{url}/api/v1/distributions/{made['id']}/live?cells=16", token) as reader:
        first = heard(reader, "job")
        assert Job.model_validate(first).id == made["id"]
        nodes = [JobNode.model_validate(n) for n in heard(reader, "nodes")]
        assert [n.node_id for n in nodes] == sorted(cluster.views)
        one = nodes[1].node_id
        cluster.advance(made["id"], 0.5, nodes=[one])
        changed = heard(reader, "nodes", lambda ns: any(n["bytes_done"] for n in ns))
        assert [(n["node_id"], n["bytes_done"]) for n in changed] == [(one, SIZE // 2)]
        JobNode.model_validate(changed[0])
        cells = heard(reader, "cells", lambda c: one in c["nodes"] and any(base64.b64decode(c["nodes"][one])))
        assert (cells["url_index"], cells["cells"]) == (0, 16)
        assert base64.b64decode(cells["nodes"][one]) == b"\xff" * 8 + b"\x00" * 8
        cluster.fail(made["id"], "storage-full", "disk full", nodes=[one])
        failed = heard(reader, "nodes", lambda ns: any(n["error"] for n in ns))
        assert next(n["error"] for n in failed if n["node_id"] == one) == {
            "kind": "storage-full",
            "message": "disk full",
        }
        cluster.end(made["id"])
        states = {one: "failed"}
        rest: dict[str, Any] = {}
        while (message := reader.next()).name != "end":
            rest[message.name] = message.json
            if message.name == "nodes":
                states |= {n["node_id"]: n["state"] for n in message.json}
        assert states == {node: "failed" if node == one else "done" for node in cluster.views}
        assert rest["job"]["state"] == "partial"
        assert rest["job"]["progress"]["nodes_failed"] == 1
        assert {EdgeOut.model_validate(e).parent_node for e in rest["edges"]} == {"node-0"}
        with pytest.raises(StopIteration):
            reader.message()


def test_a_stream_of_a_job_that_has_ended(
    client: httpx.Client, url: str, token: str, cluster: FakeCluster
) -> None:
    cluster.at_once = True
    made = submit(client)
    until(lambda: client.get(f"/api/v1/distributions/{made['id']}").json()["state"] == "succeeded")
    with stream(f"{url}/api/v1/distributions/{made['id']}/live", token) as reader:
        assert heard(reader, "job")["state"] == "succeeded"
        assert {n["state"] for n in heard(reader, "nodes")} == {"done"}
        heard(reader, "end")


def test_rates_are_told_and_fall_to_nothing(
    client: httpx.Client, url: str, token: str, cluster: FakeCluster
) -> None:
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    with stream(f"{url}/api/v1/distributions/{made['id']}/live", token) as reader:
        heard(reader, "nodes")
        cluster.advance(made["id"], 0.1)
        heard(reader, "nodes", lambda ns: any(n["bytes_done"] for n in ns))
        cluster.advance(made["id"], 0.2)
        moving = heard(reader, "nodes", lambda ns: any(n["rate"] > 0 for n in ns))
        assert all(n["eta"] > 0 for n in moving if n["rate"])
        heard(reader, "nodes", lambda ns: all(n["rate"] == 0 for n in ns))


def test_a_revoked_token_ends_its_stream(
    app: FastAPI, client: httpx.Client, url: str, cluster: FakeCluster
) -> None:
    app.state.manager.streams.recheck = 0.2
    made = submit(client)
    viewer = token_of(app.state.manager.database, "viewer")
    with stream(f"{url}/api/v1/distributions/{made['id']}/live", viewer) as reader:
        heard(reader, "nodes")
        with app.state.manager.database.write() as session:
            session.query(Token).filter_by(prefix=viewer[:12]).update({"revoked_at": now()})
        with pytest.raises(StopIteration):
            while True:
                reader.message()


def test_what_was_done_stays_done_while_a_scheduler_is_told_again(
    client: httpx.Client, url: str, token: str, cluster: FakeCluster
) -> None:
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    one, other = sorted(cluster.views)[:2]
    with stream(f"{url}/api/v1/distributions/{made['id']}/live", token) as reader:
        heard(reader, "nodes")
        cluster.end(made["id"], nodes=[one])
        heard(reader, "nodes", lambda ns: any(n["state"] == "done" for n in ns))
        cluster.forget()
        until(lambda: cluster.submitted.count(made["id"]) == 2)
        cluster.advance(made["id"], 0.5)
        again = heard(reader, "nodes", lambda ns: any(n["node_id"] == other and n["bytes_done"] for n in ns))
        assert one not in {n["node_id"] for n in again}


def test_an_unknown_job_has_no_stream(client: httpx.Client) -> None:
    assert client.get("/api/v1/distributions/none/live").status_code == 404
    assert client.get("/api/v1/preheats/none/live").status_code == 404
