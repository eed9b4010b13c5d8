"""What is refused before any work begins, and what the same request twice is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError, SourceForbiddenError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.accounts.secrets import fill
from dragonfly_ray.serve.database.tables import (
    Audit,
    Event,
    IdempotencyKey,
    Job,
    JobNode,
    JobUrl,
    Secret,
    now,
)
from dragonfly_ray.serve.jobs import idempotency
from dragonfly_ray.serve.jobs.creation import check_placed, check_source
from dragonfly_ray.serve.jobs.orders import order_of
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from dragonfly_ray.source_identity import source_of
from tests.manager import people
from tests.manager.conftest import token_of
from tests.manager.jobs_help import URL, job_in, submit
from tests.waiting import until

SignIn = Callable[[str], httpx.Client]
SIGNED = "https://bucket.example.com/m.bin?X-Amz-Signature=topsecret&X-Amz-Date=20260101"
PATH = "/api/v1/distributions"


@pytest.fixture
def client(client: httpx.Client, sign_in: SignIn) -> httpx.Client:
    return sign_in("operator")


def refused(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The problem, which `check` finds as well."""
    request = {"urls": [URL]} | body
    answer = client.post(PATH, json=request)
    assert answer.status_code == 422, answer.text
    found: dict[str, Any] = answer.json()
    checked = client.post(f"{PATH}/check", json=request)
    if checked.status_code == 200:
        assert found["errors"] == checked.json()["problems"]
    assert client.get(PATH).json()["items"] == []
    return found


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "file:///etc/passwd",
        "/etc/passwd",
        "https://",
        "http://[::1",
        "http://example.com:99999/x",
        "http://localhost/x",
        "http://127.0.0.1/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/x",
        "s3://bucket/x::file:///etc/passwd",
        "simplecache::https://example.com/x",
        "https://exa mple.com/x",
        "https://example.com/x\n",
        "https://example.com/\u0000",
    ],
)
def test_urls_that_may_not_be_fetched(url: str) -> None:
    with pytest.raises((InvalidRequestError, SourceForbiddenError)):
        check_source(url, UrlPolicy())


def test_a_url_that_may_not_be_fetched_is_a_problem(client: httpx.Client) -> None:
    assert refused(client, urls=["http://127.0.0.1/x"])["type"] == "urn:dragonfly:problem:url-refused"


def test_a_password_in_a_url_is_refused_and_told_to_nobody(client: httpx.Client) -> None:
    problem = refused(client, urls=["https://me:hunter2@example.com/x"])
    assert "secret" in problem["detail"]
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    ("dest", "urls"),
    [
        ("/", [URL]),
        ("/data", [URL]),
        ("/data/", [URL]),
        ("/data/.", [URL]),
        ("/data/../etc/x", [URL]),
        ("/data/x/../../etc", [URL]),
        ("/database/x", [URL]),
        ("/etc/x", [URL]),
        ("data/x", [URL]),
        ("//data/x", [URL]),
        ("/data/{evil}", [URL]),
        ("/{name}/x", [URL]),
        ("/data/a\u0000b", [URL]),
        ("/data/a\nb", [URL]),
        ("/data/{name}", ["https://example.com/.."]),
        ("/data/{name}", ["https://example.com/%2e%2e"]),
        ("/data/{name}", ["https://example.com/a%2f..%2f..%2fetc%2fpasswd"]),
        ("/data/x", [URL, URL + "2"]),
        ("/data/{name}", ["https://example.com/a/f", "https://example.com/b/f"]),
    ],
)
def test_tricks_with_dest(dest: str, urls: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        check_placed(dest, urls, ("/data",))


def test_dest_outside_the_roots_is_a_problem(client: httpx.Client) -> None:
    assert refused(client, dest="/data/../etc/x")["type"] == "urn:dragonfly:problem:dest-refused"


def test_without_roots_there_is_no_dest() -> None:
    with pytest.raises(InvalidRequestError, match="DRAGONFLY_MANAGER_DEST_ROOTS"):
        check_placed("/data/x", [URL], ())


def test_dest_below_a_root(client: httpx.Client, cluster: FakeCluster) -> None:
    made = submit(client, dest="/data/models/{node}/{name}", urls=[URL, URL + "2"])
    until(lambda: made["id"] in cluster.orders)
    assert cluster.orders[made["id"]].dest == "/data/models/{node}/{name}"


@pytest.mark.parametrize("kind", ["distributions", "preheats"])
def test_links_are_asked_for(client: httpx.Client, cluster: FakeCluster, kind: str) -> None:
    assert submit(client, kind=kind)["links"] == "refuse"
    made = submit(client, kind=kind, links="follow")
    assert made["links"] == "follow"
    until(lambda: made["id"] in cluster.orders)
    assert cluster.orders[made["id"]].sources[0].links == "refuse", "a web server has none"


def test_links_reach_the_source(client: httpx.Client, app: FastAPI, settings: ManagerSettings) -> None:
    row = Job(id="j", urls=["sftp://h/d/"], options={"links": "keep"}, targets=[], dest="")
    (source,) = order_of(row, app.state.manager.vault, settings).sources
    assert source == source_of("sftp://h/d/", Credentials(), links="keep")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"digest": "sha256:zz"}, "invalid-request"),
        ({"digest": "nonsense:00"}, "invalid-request"),
        ({"digest": "sha256:" + "0" * 64, "urls": ["https://example.com/folder/"]}, "invalid-request"),
        ({"digest": "sha256:" + "0" * 64, "urls": [URL, URL + "2"]}, "invalid-request"),
        ({"urls": [URL, URL]}, "invalid-request"),
        ({"nodes": "no-such-node"}, "unknown-nodes"),
        ({"nodes": 5}, "unknown-nodes"),
        ({"nodes": "200%"}, "invalid-request"),
        ({"nodes": {"pool": "none"}}, "unknown-nodes"),
        ({"secret": "none"}, "unknown-secret"),
        ({"surprise": 1}, "invalid-request"),
        ({"links": "copy"}, "invalid-request"),
    ],
)
def test_what_is_refused_at_once(client: httpx.Client, body: dict[str, Any], kind: str) -> None:
    assert refused(client, **body)["type"] == f"urn:dragonfly:problem:{kind}"


def test_all_that_is_wrong_is_told_together(client: httpx.Client) -> None:
    problem = refused(client, dest="/etc/x", nodes="nobody", secret="none")
    assert [each["kind"] for each in problem["errors"]] == ["dest-refused", "unknown-secret", "unknown-nodes"]


@pytest.mark.parametrize(
    ("nodes", "count"),
    [("all", 4), ("seeds", 1), (2, 2), ("50%", 2), ({"pool": "gpu"}, 2), (["node-0", {"pool": "gpu"}], 3)],
)
def test_the_nodes_that_are_meant(client: httpx.Client, nodes: Any, count: int) -> None:
    checked = client.post("/api/v1/preheats/check", json={"urls": [URL], "nodes": nodes}).json()
    made = submit(client, kind="preheats", nodes=nodes)
    assert len(checked["nodes"]) == made["progress"]["nodes_total"] == count
    assert (checked["problems"], made["nodes"], made["dest"]) == ([], nodes, None)
    assert client.post("/api/v1/preheats", json={"urls": [URL], "dest": "/data/x"}).status_code == 422


def test_a_signed_url_is_shown_to_nobody_and_asked_for_whole(
    client: httpx.Client, app: FastAPI, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    made = submit(client, urls=[SIGNED, URL])
    assert made["urls"] == ["https://bucket.example.com/m.bin?X-Amz-Signature=***&X-Amz-Date=***", URL]
    until(lambda: made["id"] in cluster.orders)
    assert [s.url for s in cluster.orders[made["id"]].sources] == [SIGNED, URL]
    path = f"{PATH}/{made['id']}"
    assert "topsecret" not in client.get(path).text + client.get(f"{path}/nodes").text + caplog.text
    cluster.fail(made["id"], "source-auth", "403")
    cluster.end(made["id"], index=1)
    job_in(client, made, "failed")
    again = client.post(f"{path}/retry").json()
    until(lambda: again["id"] in cluster.orders)
    assert cluster.orders[again["id"]].sources[0].url == SIGNED
    with app.state.manager.database.read() as session:
        for kind in (Audit, Event, Job, JobNode, JobUrl, IdempotencyKey):
            assert not [row for row in session.scalars(select(kind)) if "topsecret" in str(vars(row))]


def test_a_secret_goes_where_it_may(client: httpx.Client, app: FastAPI, cluster: FakeCluster) -> None:
    create_secret(client, "topsecret", "hub.example.com")
    problem = refused(client, secret="hub")
    assert problem["type"] == "urn:dragonfly:problem:secret-host"
    made = submit(client, secret="hub", urls=["https://hub.example.com/x"])
    assert (made["secret"], "topsecret" in str(made)) == ("hub", False)
    until(lambda: made["id"] in cluster.orders)
    assert cluster.credentials[made["id"]].headers == {"Authorization": "Bearer topsecret"}


def test_a_secret_is_for_those_who_may_see_that_it_is_there(app: FastAPI, client: httpx.Client) -> None:
    database = app.state.manager.database
    writer = people.role(database, "writer", {Permission.JOBS_WRITE, Permission.JOBS_READ})
    create_secret(client, "x", "example.com")
    without = people.bearer(app, token_of(database, writer))
    assert refused(without, secret="hub")["type"] == "urn:dragonfly:problem:secret-forbidden"
    assert refused(without, secret="none")["type"] == "urn:dragonfly:problem:secret-forbidden"
    assert submit(client, secret="hub")["secret"] == "hub"


def test_a_secret_that_is_gone_when_the_job_begins(
    client: httpx.Client, app: FastAPI, cluster: FakeCluster
) -> None:
    create_secret(client, "x", "example.com")
    made = submit(client, secret="hub")
    until(lambda: made["id"] in cluster.orders)
    assert client.delete("/api/v1/secrets/hub").status_code == 204
    cluster.forget()
    assert job_in(client, made, "failed")["error"]["kind"] == "invalid-request"


def test_a_secret_that_chooses_another_server_by_now_opens_no_older_job(
    client: httpx.Client, app: FastAPI, cluster: FakeCluster
) -> None:
    """Others share what the job's source is filed under: it must come from there."""
    manager = app.state.manager
    body = {"name": "store", "headers": {"Accept": "text/plain"}, "hosts": ["example.com"]}
    assert client.post("/api/v1/secrets", json=body).status_code == 201
    made = submit(client, secret="store")
    until(lambda: made["id"] in cluster.orders)
    assert cluster.orders[made["id"]].sources[0].id != Source(URL).id
    with manager.database.write() as session:
        fill(session.get_one(Secret, "store"), manager.vault, {"Accept": "text/html"}, {}, ["example.com"])
    cluster.forget()
    error = job_in(client, made, "failed")["error"]
    assert error["kind"] == "invalid-request"
    assert "changed since" in error["message"]


def test_a_secret_that_was_taken_away_when_the_job_begins(
    client: httpx.Client, sign_in: SignIn, app: FastAPI, cluster: FakeCluster
) -> None:
    create_secret(client, "x", "example.com")
    other = sign_in("operator")
    grant(client, other)
    made = submit(other, secret="hub")
    until(lambda: made["id"] in cluster.orders)
    grant(client)
    cluster.forget()
    error = job_in(client, made, "failed")["error"]
    assert (error["kind"], "no longer granted" in error["message"]) == ("invalid-request", True)


def grant(owner: httpx.Client, *to: httpx.Client) -> None:
    names = [client.get("/api/v1/session").json()["name"] for client in to]
    answer = owner.put("/api/v1/secrets/hub/grants", json={"users": names}, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text


def create_secret(client: httpx.Client, value: str, host: str) -> None:
    """`hub`, of whoever asks."""
    body = {"name": "hub", "headers": {"Authorization": f"Bearer {value}"}, "hosts": [host]}
    answer = client.post("/api/v1/secrets", json=body)
    assert answer.status_code == 201, answer.text


# --- the same request twice ---------------------------------------------------------------------


def test_the_same_key_is_the_same_job(client: httpx.Client, cluster: FakeCluster, app: FastAPI) -> None:
    headers = {"Idempotency-Key": "a-key"}
    first = client.post(PATH, json={"urls": [URL]}, headers=headers)
    cluster.set_node(min(cluster.views), alive=False)
    second = client.post(PATH, json={"urls": [URL]}, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["location"] == first.headers["location"]
    other = client.post(PATH, json={"urls": [URL + "2"]}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (409, "urn:dragonfly:problem:idempotency-key-reused")
    preheat = client.post("/api/v1/preheats", json={"urls": [URL]}, headers=headers)
    assert preheat.status_code == 409
    assert len(client.get(PATH).json()["items"]) == 1


def test_keys_belong_to_their_users(client: httpx.Client, sign_in: SignIn) -> None:
    ids = {c.post(PATH, json={"urls": [URL]}, headers={"Idempotency-Key": "k"}).json()["id"]
           for c in (client, sign_in("operator"))}  # fmt: skip
    assert len(ids) == 2


def test_a_refused_request_uses_no_key(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    assert client.post(PATH, json={"urls": [URL], "nodes": "nobody"}, headers=headers).status_code == 422
    assert client.post(PATH, json={"urls": [URL]}, headers=headers).status_code == 202


def test_keys_are_kept_for_a_week(client: httpx.Client, app: FastAPI) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post(PATH, json={"urls": [URL]}, headers=headers).json()
    database = app.state.manager.database
    with database.write() as session:
        session.query(IdempotencyKey).update({"created_at": now() - idempotency.KEPT - timedelta(seconds=1)})
    second = client.post(PATH, json={"urls": [URL + "2"]}, headers=headers)
    assert (second.status_code, second.json()["id"] != first["id"]) == (202, True)
    with database.write() as session:
        idempotency.forget_old(session, now() + idempotency.KEPT + timedelta(seconds=1))
    with database.read() as session:
        assert session.query(IdempotencyKey).count() == 0


def test_many_at_once_with_one_key(client: httpx.Client, app: FastAPI, cluster: FakeCluster) -> None:
    def post(_: int) -> httpx.Response:
        return client.post(PATH, json={"urls": [URL]}, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {a.status_code for a in answers} == {202}
    (id,) = {a.json()["id"] for a in answers}
    with app.state.manager.database.read() as session:
        assert session.query(Job).count() == 1
        assert session.query(Audit).filter_by(action="job.create").count() == 1
    until(lambda: cluster.submitted)
    assert cluster.submitted == [id]


@pytest.mark.parametrize("key", ["", "x" * 129, "with blank", "\x7f"])
def test_a_strange_key_is_refused(client: httpx.Client, key: str) -> None:
    assert client.post(PATH, json={"urls": [URL]}, headers={"Idempotency-Key": key}).status_code == 422


# --- lists --------------------------------------------------------------------------------------


def test_lists_are_filtered(client: httpx.Client, sign_in: SignIn, cluster: FakeCluster) -> None:
    one = submit(client, name="alpha", nodes="node-1")
    two = submit(client, name="alps", urls=["s3://bucket/weights/"], nodes="node-2")
    three = submit(sign_in("operator"), name="beta", urls=[URL + "?token=x", URL + "2"])
    submit(client, kind="preheats", name="alpha")
    for each in (one, two, three):
        until(lambda each=each: each["id"] in cluster.orders)  # type: ignore[misc]
    cluster.end(two["id"])
    job_in(client, two, "succeeded")
    node_2 = sorted(cluster.views)[2]

    def ids(**query: Any) -> list[str]:
        answer = client.get(PATH, params=query)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["items"]]

    assert ids() == [three["id"], two["id"], one["id"]]
    assert ids(sort="name") == [one["id"], two["id"], three["id"]]
    assert ids(name="alp") == [two["id"], one["id"]]
    assert ids(name="alph") == [one["id"]]
    assert ids(state="succeeded") == [two["id"]]
    assert ids(state=["running", "queued"], sort="created_at") == [one["id"], three["id"]]
    assert ids(url="s3://bucket") == [two["id"]]
    assert ids(url=URL + "2") == [three["id"]]
    assert ids(url=URL) == [three["id"], one["id"]]
    assert ids(created_by=three["created_by"]["id"]) == [three["id"]]
    assert ids(node_id=node_2) == [three["id"], two["id"]]
    assert ids(since=two["created_at"], until=three["created_at"]) == [two["id"]]
    assert ids(state="succeeded", sort="-ended_at") == [two["id"]]
    assert client.get(PATH, params={"sort": "ended_at"}).status_code == 422
    assert client.get(PATH, params={"since": "2026-01-01T00:00:00"}).status_code == 422


def test_pages_of_outcomes(client: httpx.Client) -> None:
    made = submit(client, urls=[URL, URL + "2", URL + "3"])
    seen: list[tuple[int, str]] = []
    cursor = None
    while True:
        query = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        answer = client.get(f"{PATH}/{made['id']}/nodes", params=query).json()
        seen += [(n["url_index"], n["node"]) for n in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert seen == [(i, f"node-{n}") for i in range(3) for n in range(4)]
    assert client.get(f"{PATH}/{made['id']}/nodes", params={"sort": "node"}).status_code == 422
    one = client.get(f"{PATH}/{made['id']}/nodes", params={"sort": "-node", "url_index": 1}).json()["items"]
    assert [n["node"] for n in one] == ["node-3", "node-2", "node-1", "node-0"]


def test_a_viewer_looks_only(client: httpx.Client, sign_in: SignIn) -> None:
    made, viewer = submit(client), sign_in("viewer")
    path = f"{PATH}/{made['id']}"
    assert viewer.get(path).status_code == viewer.get(f"{path}/nodes").status_code == 200
    for answer in (
        viewer.post(PATH, json={"urls": [URL]}),
        viewer.post(f"{PATH}/check", json={"urls": [URL]}),
        viewer.post(f"{path}/cancel"),
        viewer.post(f"{path}/retry"),
        viewer.delete(path),
    ):
        assert answer.status_code == 403


def test_text_that_cannot_be_stored_is_no_failure_of_the_manager(client: httpx.Client) -> None:
    for answer in (
        client.get(f"{PATH}/%00"),
        client.get(PATH, params={"name": "a\u0000"}),
        client.post(PATH, json={"urls": [URL], "name": "a\u0000b"}),
        client.post(PATH, json={"urls": [URL], "tag": "\u0000"}),
        client.post(PATH, json={"urls": [URL], "nodes": "\u0000"}),
        client.post(
            "/api/v1/schedules", json={"name": "\u0000", "cron": "* * * * *", "preheat": {"urls": [URL]}}
        ),
    ):
        assert answer.status_code < 500, answer.text
