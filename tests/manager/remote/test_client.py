"""The client of a manager, against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi import FastAPI

import dragonfly_ray as d
from dragonfly_ray.distribution import Progress
from dragonfly_ray.errors import (
    AccessError,
    CancelledByUserError,
    DeadlineError,
    DistributionFailedError,
    InvalidRequestError,
    NotRunningError,
    SourceNotFoundError,
    UnknownNodesError,
)
from dragonfly_ray.figures import Bound, Figures, Measured
from dragonfly_ray.remote import Client, http
from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests.manager.conftest import token_of
from tests.manager.remote.conftest import URL, Line, served
from tests.waiting import until


def ended(cluster: FakeCluster, submission: Any, work: Callable[[str], None]) -> d.Distribution:
    """What became of it, after `work` was done with its order."""
    until(lambda: submission.id in cluster.orders)
    work(submission.id)
    found: d.Distribution = submission.result(60)
    submission.close()
    return found


# --- jobs ---------------------------------------------------------------------------------------


def test_a_distribution_ends_with_an_outcome_for_every_node(client: Client, cluster: FakeCluster) -> None:
    submission = client.submit(URL, dest="/data/{name}", name="weights")
    done = ended(cluster, submission, cluster.end)
    assert done.ok
    assert {o.node_id for o in done.outcomes} == set(cluster.views)
    assert {o.node for o in done.outcomes} == {f"node-{n}" for n in range(4)}
    assert all(o.size == o.bytes_peers == SIZE for o in done.outcomes)
    assert set(done.paths) == set(cluster.views)
    assert submission.progress().phase == "ended"
    assert client.attach(submission.id).result(60).ok


def test_its_figures_are_those_that_the_cluster_has_measured(client: Client, cluster: FakeCluster) -> None:
    slow = next(iter(cluster.views))
    bounds = (Bound("origin", 0.2), Bound("node", 0.8, slow))
    cluster.measured = Measured(bounds, bytes_origin=SIZE, bytes_peers=3 * SIZE, bytes_across=SIZE)

    def work(order: str) -> None:
        cluster.end(order, nodes=[slow], seconds=1.0)
        cluster.end(order, seconds=0.5)

    submission = client.submit(URL, dest="/data/measured")
    done = ended(cluster, submission, work)
    assert done.figures == Figures(
        floor=0.8,
        floor_ratio=1.25,
        p99_p50_ratio=2.0,
        origin_ratio=1.0,
        cross_zone_share=1 / 3,
        limited_by="node",
        limited_at=slow,
    )
    assert done.to_dict()["figures"] == client.attach(submission.id).job["figures"]
    cluster.measured = None
    silent = ended(cluster, client.submit(URL, dest="/data/silent"), cluster.end)
    assert (silent.figures.floor, silent.figures.limited_by, silent.figures.p99_p50_ratio) == (None, "", 1.0)


def test_progress_is_live(client: Client, cluster: FakeCluster) -> None:
    submission = client.submit(URL, dest="/data/x")
    until(lambda: submission.id in cluster.orders)
    cluster.advance(submission.id, 0.5)
    until(lambda: submission.progress().bytes_done == 4 * SIZE // 2, 60, submission.progress)
    found = submission.progress()
    assert found.phase == "running"
    assert [n.state for n in found.nodes] == ["running"] * 4
    assert not submission.done
    cluster.end(submission.id)
    assert submission.wait(60)


def test_progress_says_what_it_waits_for(client: Client, cluster: FakeCluster) -> None:
    submission = client.submit(URL, dest="/data/x")
    until(lambda: submission.id in cluster.orders)
    for why in (f"{URL}: HTTP 503, Retry-After 60 s", ""):
        cluster.wait_for_origin(submission.id, why)
        until(lambda why=why: submission.progress().waiting == why, 60, submission.progress)  # type: ignore[misc]
        assert client.attach(submission.id).job["progress"]["waiting"] == why
    cluster.end(submission.id)
    assert submission.result(60).ok


def test_a_failed_node_has_its_own_typed_error(client: Client, cluster: FakeCluster) -> None:
    first, *others = cluster.views

    def work(order: str) -> None:
        cluster.end(order, nodes=others)
        cluster.fail(order, "source-not-found", f"{URL}: not there", nodes=[first])

    submission = client.submit(URL)
    done = ended(cluster, submission, work)
    (failed,) = done.failures
    assert failed.node_id == first
    assert isinstance(failed.error, SourceNotFoundError)
    with pytest.raises(DistributionFailedError, match="1 of 4 nodes failed"):
        done.raise_for_failures()
    again = ended(cluster, client.retry(submission.id), cluster.end)
    assert [o.node_id for o in again.outcomes] == [first]
    assert again.ok
    assert {job["id"] for job in client.jobs()} >= {submission.id, again.id}
    assert client.jobs(state="partial")[0]["id"] == submission.id


def test_distribute_waits_and_raises_as_ever(client: Client, cluster: FakeCluster) -> None:
    cluster.at_once = True
    seen: list[Progress] = []
    assert client.distribute(URL, 2, progress=seen.append).ok
    assert seen
    cluster.at_once = False
    with pytest.raises(DeadlineError, match="cancelled after"):
        client.distribute(URL, timeout=0.3)
    until(lambda: len(cluster.cancelled) == 1)


def test_cancel_is_told_as_such(client: Client, cluster: FakeCluster) -> None:
    submission = client.submit(URL)
    until(lambda: submission.id in cluster.orders)
    submission.cancel()
    with pytest.raises(CancelledByUserError, match=submission.id) as caught:
        submission.result(60)
    done: d.Distribution = caught.value.distribution
    assert all(isinstance(o.error, CancelledByUserError) for o in done.outcomes)
    submission.cancel()  # it has ended: nothing happens

    async def wait() -> None:
        await submission

    for result in (lambda: asyncio.run(wait()), lambda: client.attach(submission.id).result(60)):
        with pytest.raises(CancelledByUserError):
            result()


def test_the_same_key_starts_nothing_twice(client: Client, cluster: FakeCluster) -> None:
    one, two = (client.submit(URL, id="nightly-2026-11-26") for _ in range(2))
    assert one.id == two.id
    until(lambda: one.id in cluster.orders)
    assert cluster.submitted == [one.id]
    with pytest.raises(InvalidRequestError, match="another request"):
        client.submit(URL, 1, id="nightly-2026-11-26")


def test_a_lost_answer_starts_nothing_twice(
    address: str, token: str, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request arrives, its answer does not: it is sent again, and one job is all that there is."""
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)
    lost: list[httpx.Request] = []

    class Loses(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.method == "POST" and len(lost) < 2:
                answer.read()
                lost.append(request)
                raise httpx.ReadError("connection reset")
            return answer

    client = d.connect(address, token, transport=Loses())
    submission = client.submit(URL)
    until(lambda: submission.id in cluster.orders)
    assert cluster.submitted == [submission.id]
    assert len(lost) == 2
    assert len({request.headers["Idempotency-Key"] for request in lost}) == 1


def test_preheats_go_to_the_seeds(client: Client, cluster: FakeCluster) -> None:
    submission = client.preheat(URL)
    done = ended(cluster, submission, cluster.end)
    assert [o.node for o in done.outcomes] == ["node-0"]
    assert client.attach(submission.id).job["kind"] == "preheat"


# --- nodes and tasks ----------------------------------------------------------------------------


def test_nodes_and_their_marks(client: Client, cluster: FakeCluster) -> None:
    until(lambda: len(client.nodes()) == 4)
    first = client.nodes()[0]
    assert first.alive
    assert first.labels
    assert client.cordon(first.address, note="disk") == [first.node_id]
    until(lambda: cluster.views[first.node_id].cordoned)
    until(lambda: next(m for m in client.nodes() if m.node_id == first.node_id).cordoned)
    assert client.uncordon(first.node_id) == [first.node_id]
    until(lambda: not cluster.views[first.node_id].cordoned)
    client.drain([first.node_id], wait=False)
    until(lambda: cluster.views[first.node_id].state == "draining")
    with pytest.raises(DeadlineError, match="1 nodes still draining"):
        client.drain([first.node_id], timeout=0.1)
    with pytest.raises(UnknownNodesError, match="nobody"):
        client.cordon("nobody")


def test_what_is_where(client: Client, cluster: FakeCluster) -> None:
    cluster.at_once = True
    client.distribute(URL)
    client.distribute(URL, 1, tag="other")
    until(lambda: len(client.where(URL)) == 4)
    assert len(client.where(URL, tag="other")) == 1
    assert client.where("https://models.example.org/other") == []
    until(lambda: len(client.cached()) == 5)
    assert {row["share"] for row in client.cached()} == {1.0}
    assert client.pin(URL, ttl=600) == 4
    with pytest.raises(InvalidRequestError, match="pinned"):
        client.evict(URL)
    client.unpin(URL)
    one = client.where(URL)[0]
    assert client.evict(URL, [one]) == SIZE
    until(lambda: one not in client.where(URL))
    found = client.status()
    assert len(found["hosts"]) == 4
    assert len(found["tasks"]) == 2
    assert found["distributions"] == []


def test_what_was_fetched_with_a_secret_is_found_again_by_its_name(
    client: Client, cluster: FakeCluster, line: Line, app: FastAPI
) -> None:
    """Its endpoint is part of the source: without it, another is meant."""
    cluster.at_once = True
    url = "s3://models/weights.bin"
    secret: dict[str, Any] = {
        "storage_options": {"key": "k", "secret": "hunter2", "endpoint_url": "https://store.example.org"}
    }
    client.http.post("/secrets", {"name": "store", "hosts": ["models", "store.example.org"], **secret})
    client.distribute(url, 2, secret="store")
    until(lambda: len(client.where(url, secret="store")) == 2)
    assert client.where(url) == []
    assert client.where(url, **secret) == client.where(url, secret="store")
    assert client.pin(url, secret="store") == 2
    client.unpin(url, secret="store")
    assert client.evict(url) == 0
    assert "freed" in line.run("rm", url, "--secret", "store")
    until(lambda: client.where(url, secret="store") == [])
    assert "hunter2" not in str(client.http.get("/secrets/store/server", scheme="s3"))


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "Transfer-Encoding", "Proxy-Authorization"])
def test_a_secret_routes_no_request_elsewhere(client: Client, name: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        client.http.post("/secrets", {"name": "x", "hosts": ["h"], "headers": {name: "evil.example.org"}})


def test_what_a_manager_refuses_comes_as_this_packages_error(client: Client) -> None:
    with pytest.raises(UnknownNodesError, match="nobody"):
        client.submit(URL, "nobody")
    with pytest.raises(InvalidRequestError, match="must be inside one of /data"):
        client.submit(URL, dest="/etc/passwd")
    with pytest.raises(InvalidRequestError, match="no distribution or preheat"):
        client.attach("nothing")


@pytest.mark.parametrize(
    "path", ["/home/me/model", "file:///home/me/model", "./model", "tar://::file:///a.tar"]
)
def test_paths_of_this_machine_are_refused_before_anything_is_sent(client: Client, path: str) -> None:
    with pytest.raises(InvalidRequestError, match="is a local path"):
        client.submit(path)


# --- who asks -----------------------------------------------------------------------------------


def test_a_viewer_may_look_and_do_nothing(app: FastAPI, address: str) -> None:
    client = d.connect(address, token_of(app.state.manager.database, "viewer"))
    assert client.jobs() == []
    with pytest.raises(AccessError, match="lacks permission jobs:write"):
        client.submit(URL)


def test_a_bad_token_is_refused_and_never_shown(address: str) -> None:
    with pytest.raises(AccessError) as caught:
        d.connect(address, "dfr_not-a-token-of-anybody")
    assert "not-a-token" not in f"{caught.value!r} {caught.value.to_dict()}"


def test_a_token_is_in_no_repr(client: Client, token: str) -> None:
    submission = client.submit(URL)
    for value in (client, client.http, submission, client.http.__dict__):
        assert token not in repr(value)


def test_a_token_of_others_is_not_read(
    address: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("DRAGONFLY_TOKEN", raising=False)
    with pytest.raises(InvalidRequestError, match="no token for the manager"):
        d.connect(address)
    file = tmp_path / "dragonfly" / "token"
    file.parent.mkdir()
    file.write_text(f"{token}\n")
    file.chmod(0o644)
    with pytest.raises(InvalidRequestError, match="readable by other users"):
        d.connect(address)
    file.chmod(0o600)
    assert d.connect(address).me["role"] == "operator"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of one's own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")])
    at = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(hours=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private


def test_a_certificate_is_checked(app: FastAPI, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with served(app, ssl_certfile=str(cert), ssl_keyfile=str(key)) as address:
        token = token_of(app.state.manager.database, "operator")
        with pytest.raises(NotRunningError, match="not trusted: pass its CA with --ca"):
            d.connect(address, token)
        assert d.connect(address, token, ca=cert).jobs() == []
        line = Line(address, token, tmp_path)
        assert "not trusted" in line.run("jobs", code=3)
        assert json.loads(line.run("--ca", str(cert), "jobs", "--json")) == []
    with pytest.raises(InvalidRequestError, match="no certificate"):
        d.connect("https://manager", token, ca=key)


# --- a manager that is away ---------------------------------------------------------------------


def test_nobody_listens() -> None:
    with pytest.raises(NotRunningError, match="cannot connect to the manager"):
        d.connect("http://127.0.0.1:9", "dfr_x")


@pytest.mark.parametrize(
    ("status", "headers"), [(200, {}), (404, {}), (302, {"location": "https://sso/login?secret=1"})]
)
def test_something_else_listens(status: int, headers: dict[str, str]) -> None:
    """A page of somebody's web server, a proxy that wants a sign-in: said at once, without what is secret."""
    page = httpx.MockTransport(lambda request: httpx.Response(status, headers=headers, html="<h1>Hi</h1>"))
    with pytest.raises(NotRunningError, match=f"HTTP {status}.*not a manager's response") as caught:
        d.connect("https://intranet", "dfr_x", transport=page)
    assert "secret=1" not in str(caught.value)


def test_a_client_that_was_closed_says_so(address: str, token: str) -> None:
    client = d.connect(address, token)
    submission = client.submit(URL)
    client.close()
    with pytest.raises(NotRunningError, match=r"closed|no response"):
        submission.result(60)


def test_a_stream_that_breaks_is_opened_again(
    address: str, token: str, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[str] = []

    class Breaks(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/live") and len(broken) < 3:
                broken.append(request.url.path)
                raise httpx.RemoteProtocolError("the other side went away")
            return super().handle_request(request)

    client = d.connect(address, token, transport=Breaks())
    done = ended(cluster, client.submit(URL), cluster.end)
    assert done.ok
    assert len(broken) == 3


def test_a_request_whose_replica_dies_is_sent_again(
    address: str, token: str, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Serve's proxy then answers 500, in plain text."""
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)
    died: list[str] = []

    class Dies(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST" and not died:
                died.append(request.url.path)
                return httpx.Response(500, text="Internal Server Error")
            return super().handle_request(request)

    submission = d.connect(address, token, transport=Dies()).submit(URL)
    until(lambda: cluster.submitted == [submission.id])
    assert died


@pytest.mark.parametrize("url", ["manager:8000", "ftp://manager", "https://me:secret@manager", "https://"])
def test_what_is_no_address_of_a_manager(url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        http.Http(url, "dfr_x")
    assert "secret" not in str(caught.value)
