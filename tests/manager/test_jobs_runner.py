"""From a request to its end, as the cluster moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.cluster import Order
from dragonfly_ray.serve.database.tables import Audit, Event, JobNode
from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests.manager.jobs_help import URL, job_in, nodes_of, submit
from tests.waiting import until

SignIn = Callable[[str], httpx.Client]


def test_a_job_from_its_start_to_its_end(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client, name="weights", dest="/data/m")
    assert made["state"] == "queued"
    running = job_in(client, made, "running")
    assert running["started_at"]
    until(lambda: made["id"] in cluster.orders)
    order = cluster.orders[made["id"]]
    assert [s.url for s in order.sources] == [URL]
    assert order.dest_roots == ("/data",)
    cluster.advance(made["id"], 0.5)
    until(
        lambda: client.get(f"/api/v1/distributions/{made['id']}").json()["progress"]["bytes_done"] == 2 * SIZE
    )
    cluster.end(made["id"])
    ended = job_in(client, made, "succeeded")
    assert ended["progress"]["nodes_done"] == ended["progress"]["nodes_total"] == 4
    assert ended["size"] == SIZE
    assert ended["bytes"]["peers"] == 4 * SIZE
    assert ended["progress"]["bytes_done"] == 4 * SIZE
    assert ended["error"] is None
    assert ended["task_ids"] == [order.sources[0].id]
    assert {n["state"] for n in nodes_of(client, made)} == {"done"}
    assert cluster.submitted == [made["id"]]


def test_who_read_what_at_the_origin_is_told_and_counted_apart(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    job = f"/api/v1/distributions/{made['id']}"
    told: dict[str, Any] = {
        "bytes_peers": SIZE - 100,
        "bytes_origin": 100,
        "bytes_audit": 7,
        "origin_pieces": "0-3,9",
    }
    first, *others = sorted(cluster.views)
    cluster.end(made["id"], nodes=[first], **told)
    until(lambda: client.get(job).json()["bytes_audit"] == 7)
    cluster.end(made["id"], nodes=others, **told)
    ended = job_in(client, made, "succeeded")
    assert sum(ended["bytes"].values()) == 4 * SIZE
    assert ended["bytes_audit"] == client.get(job).json()["bytes_audit"] == 4 * 7
    for node in nodes_of(client, made):
        assert (node["bytes_audit"], node["origin_pieces"]) == (7, "0-3,9")
        assert sum(node["bytes"].values()) == SIZE


def test_some_nodes_fail_and_are_tried_again(sign_in: SignIn, cluster: FakeCluster, app: FastAPI) -> None:
    client = sign_in("operator")
    made = submit(client, urls=[URL, URL + "2"], secret=None, tag="t", exclude=["*.tmp"], links="follow")
    until(lambda: made["id"] in cluster.orders)
    bad = sorted(cluster.views)[1:3]
    cluster.fail(made["id"], "storage-full", "disk full", nodes=bad[:1])
    cluster.fail(made["id"], "source-not-found", "404", nodes=bad, index=1)
    cluster.end(made["id"])
    cluster.end(made["id"], index=1)
    ended = job_in(client, made, "partial")
    assert (ended["progress"]["nodes_done"], ended["progress"]["nodes_failed"]) == (2, 2)
    assert ended["error"]["kind"] in ("storage-full", "source-not-found")
    assert "2 of 4 nodes failed (node-1, node-2)" in ended["error"]["message"]
    failed = nodes_of(client, made, state="failed")
    assert [(n["url_index"], n["node_id"]) for n in failed] == [(0, bad[0]), (1, bad[0]), (1, bad[1])]
    told = [e for e in events_of(app, "job.node_failed") if e.resource_id == made["id"]]
    assert sorted((e.data["node_id"], e.data["url"]) for e in told) == sorted(
        (n["node_id"], n["url"]) for n in failed
    )
    again = client.post(f"/api/v1/distributions/{made['id']}/retry")
    assert again.status_code == 202, again.text
    new = again.json()
    assert (new["retry_of"], new["nodes"], new["tag"], new["exclude"]) == (made["id"], bad, "t", ["*.tmp"])
    assert new["links"] == "follow"
    until(lambda: new["id"] in cluster.orders)
    assert cluster.orders[new["id"]].targets == tuple(bad)
    cluster.end(new["id"])
    cluster.end(new["id"], index=1)
    job_in(client, new, "succeeded")
    none = client.post(f"/api/v1/distributions/{new['id']}/retry")
    assert (none.status_code, none.json()["type"]) == (409, "urn:dragonfly:problem:nothing-to-retry")


def test_all_nodes_fail(sign_in: SignIn, cluster: FakeCluster, app: FastAPI) -> None:
    client = sign_in("operator")
    made = submit(client, kind="preheats")
    until(lambda: made["id"] in cluster.orders)
    cluster.fail(made["id"], "source-not-found", "https://example.com/model.bin: 404")
    ended = job_in(client, made, "failed")
    assert ended["error"]["kind"] == "source-not-found"
    assert ended["progress"]["nodes_done"] == 0
    (event,) = events_of(app, "job.ended")
    assert (event.data["state"], event.data["nodes_failed"]) == ("failed", 4)
    assert event.data["error"]["kind"] == "source-not-found"


def test_one_named_node_is_tried_again(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    path = f"/api/v1/distributions/{made['id']}/retry"
    assert client.post(path).json()["type"] == "urn:dragonfly:problem:job-not-ended"
    good, one, other, _ = sorted(cluster.views)
    cluster.end(made["id"], nodes=[good])
    cluster.fail(made["id"], "stalled", "no bytes")
    job_in(client, made, "partial")
    assert client.post(path, json={"node_ids": [good]}).status_code == 409
    new = client.post(path, json={"node_ids": [one]}, headers={"Idempotency-Key": "1"}).json()
    assert new["nodes"] == [one]
    assert (
        client.post(path, json={"node_ids": [one]}, headers={"Idempotency-Key": "1"}).json()["id"]
        == new["id"]
    )
    reused = client.post(path, json={"node_ids": [other]}, headers={"Idempotency-Key": "1"})
    assert (reused.status_code, reused.json()["type"]) == (
        409,
        "urn:dragonfly:problem:idempotency-key-reused",
    )


def test_cancel_stops_the_work(sign_in: SignIn, cluster: FakeCluster, app: FastAPI) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    done = min(cluster.views)
    cluster.end(made["id"], nodes=[done])
    answer = client.post(f"/api/v1/distributions/{made['id']}/cancel")
    assert answer.status_code == 202
    ended = job_in(client, made, "cancelled")
    assert cluster.cancelled == [made["id"]]
    assert ended["error"] == {"kind": "cancelled", "message": "cancelled; 1 of 4 nodes had succeeded"}
    assert {n["node_id"] for n in nodes_of(client, made, state="done")} == {done}
    assert {n["error"]["kind"] for n in nodes_of(client, made, state="failed")} == {"cancelled"}
    assert events_of(app, "job.node_failed") == []
    assert client.post(f"/api/v1/distributions/{made['id']}/cancel").json()["state"] == "cancelled"
    with app.state.manager.database.read() as session:
        actions = session.scalars(
            select(Audit.action).where(Audit.resource_id == made["id"]).order_by(Audit.id)
        )
        assert list(actions) == ["job.create", "job.cancel", "job.end"]


def test_cancel_of_what_has_everything_already_is_a_success(sign_in: SignIn, cluster: FakeCluster) -> None:
    """The record says what is there, not what was wished."""
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    with cluster._changed:  # nobody hears of it before the cancel is written
        cluster.end(made["id"])
        client.post(f"/api/v1/distributions/{made['id']}/cancel")
    job_in(client, made, "succeeded")


def test_cancel_reaches_a_scheduler_that_has_forgotten_the_job(sign_in: SignIn, cluster: FakeCluster) -> None:
    """Peers may be at it still: only a scheduler that knows the job can stop them."""
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    cluster.down = True
    cluster.forget()
    client.post(f"/api/v1/distributions/{made['id']}/cancel")
    cluster.down = False
    job_in(client, made, "cancelled")
    assert made["id"] in cluster.cancelled


def test_a_scheduler_that_has_restarted_is_told_again(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    first = cluster.orders[made["id"]]
    done = min(cluster.views)
    cluster.end(made["id"], nodes=[done])
    until(lambda: nodes_of(client, made, state="done"))
    cluster.forget()
    until(lambda: cluster.submitted.count(made["id"]) == 2)
    assert cluster.orders[made["id"]] == first
    assert [n["node_id"] for n in nodes_of(client, made, state="done")] == [done]
    # Of a node that had everything a second look tells nothing worse.
    cluster.fail(made["id"], "node-lost", "gone", nodes=[done])
    cluster.end(made["id"])
    assert job_in(client, made, "succeeded", "partial")["state"] == "succeeded"


def test_a_cluster_that_is_away_fails_no_job(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    cluster.down = True
    path = f"/api/v1/distributions/{made['id']}"
    until(lambda: (client.get(path).json()["error"] or {}).get("kind") == "waiting-for-cluster")
    assert client.get(path).json()["state"] == "running"
    refused = client.post("/api/v1/distributions", json={"urls": [URL]})
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:dragonfly:problem:not-running")
    cluster.down = False
    until(lambda: client.get(path).json()["error"] is None)
    cluster.end(made["id"])
    assert job_in(client, made, "succeeded")["error"] is None
    assert cluster.submitted == [made["id"]]


def test_a_node_that_left_for_good(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client)
    until(lambda: made["id"] in cluster.orders)
    lost = sorted(cluster.views)[3]
    cluster.set_node(lost, alive=False)
    cluster.fail(made["id"], "node-lost", "node-3 has left the cluster", nodes=[lost])
    cluster.end(made["id"])
    job_in(client, made, "partial")
    (row,) = nodes_of(client, made, state="failed")
    assert (row["node"], row["error"]["kind"]) == ("node-3", "node-lost")
    gone = client.post(f"/api/v1/distributions/{made['id']}/retry")
    assert (gone.status_code, gone.json()["type"]) == (422, "urn:dragonfly:problem:unknown-nodes")


def test_what_the_cluster_refuses_has_failed(
    sign_in: SignIn, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(order: Order, credentials: Credentials) -> None:
        raise InvalidRequestError("dest: not below a root of this node")

    monkeypatch.setattr(cluster, "submit", refuse)
    client = sign_in("operator")
    ended = job_in(client, submit(client), "failed")
    assert ended["error"]["kind"] == "invalid-request"
    assert {n["state"] for n in nodes_of(client, ended)} == {"failed"}


def test_deleting_a_job_loses_no_audit(sign_in: SignIn, cluster: FakeCluster, app: FastAPI) -> None:
    client = sign_in("operator")
    made = submit(client)
    path = f"/api/v1/distributions/{made['id']}"
    until(lambda: made["id"] in cluster.orders)
    early = client.delete(path)
    assert (early.status_code, early.json()["type"]) == (409, "urn:dragonfly:problem:job-not-ended")
    cluster.end(made["id"])
    job_in(client, made, "succeeded")
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    with app.state.manager.database.read() as session:
        audit = session.scalars(select(Audit).where(Audit.resource_id == made["id"]).order_by(Audit.id)).all()
        assert [a.action for a in audit] == ["job.create", "job.end", "job.delete"]
        assert audit[1].detail["state"] == "succeeded"
        assert list(session.scalars(select(JobNode).where(JobNode.job_id == made["id"]))) == []
    types = [e.type for e in events_of(app) if e.resource_id == made["id"]]
    assert types == ["job.created", "job.started", "job.ended", "job.deleted"]


def events_of(app: FastAPI, type: str = "") -> list[Event]:
    with app.state.manager.database.read() as session:
        query = select(Event).order_by(Event.id)
        return list(session.scalars(query.where(Event.type == type) if type else query))
