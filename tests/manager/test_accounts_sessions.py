"""Signing in and out, cookies, CSRF, throttling."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, update
from starlette.testclient import WebSocketDenialResponse

from dragonfly_ray.serve.accounts import csrf, passwords
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database.tables import Attempt, Audit, SignIn, User, now
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager import people
from tests.manager.people import API, PASSWORD, browser, database_of, problem, sign_in, signed_in, sqlite_only

COOKIE = "dragonfly_session"
SOCKET = "ws://manager/api/v1/test-ws"
WRONG = "not the pass phrase"


@pytest.fixture
def anna(client: TestClient, app: FastAPI) -> str:
    """The id of an operator."""
    return people.user(database_of(app), "anna", "operator")


def tries(app: FastAPI, times: int, *, name: str = "anna", **more: Any) -> list[int]:
    return [sign_in(browser(app, **more), name, WRONG).status_code for _ in range(times)]


# --- in and out ---


def test_who_signs_in_is_known(app: FastAPI, anna: str) -> None:
    client = browser(app)
    answer = sign_in(client, "anna")
    assert answer.headers["location"] == f"{API}/session"
    me = client.get(f"{API}/session").json()
    assert me == answer.json()
    assert (me["user_id"], me["name"], me["role"], me["via"]) == (anna, "anna", "operator", "session")
    assert "jobs:write" in me["permissions"]
    assert "users:write" not in me["permissions"]


@sqlite_only
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(app: FastAPI, anna: str) -> None:
    header = sign_in(browser(app), "anna").headers.get_list("set-cookie")[0]
    assert header.startswith(f"{COOKIE}=")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in header.split(";")}
    assert "secure" not in header.lower()


@sqlite_only
def test_behind_https_the_cookie_is_for_https_and_this_host_only(settings: ManagerSettings) -> None:
    secure = settings.model_copy(update={"cookie_secure": True})
    app = create_app(secure, FakeCluster(1))
    with TestClient(app, base_url="https://manager") as client:
        people.user(database_of(app), "anna", "viewer")
        headers = sign_in(client, "anna").headers.get_list("set-cookie")
        assert client.get(f"{API}/session").status_code == 200
    assert headers[0].startswith("__Host-dragonfly_session=")
    assert all("; Secure" in header for header in headers)
    assert "; Domain" not in headers[0]


@sqlite_only
@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", WRONG), ("nobody", PASSWORD), ("anna", ""), ("disabled", PASSWORD), ("robot", "")],
)
def test_whoever_is_wrong_is_not_told_why(app: FastAPI, anna: str, name: str, password: str) -> None:
    database = database_of(app)
    people.user(database, "disabled", "viewer")
    with database.write() as session:
        session.execute(update(User).where(User.name == "disabled").values(disabled=True))
        session.add(User(name="robot", role="viewer", password_hash=""))
    answer = sign_in(browser(app), name, password or "-")
    assert answer.status_code == 401
    assert answer.json()["detail"] == "wrong name or password"
    assert problem(answer) == "wrong-credentials"
    assert "set-cookie" not in answer.headers


@sqlite_only
def test_an_unknown_name_costs_as_much_as_a_known_one(
    app: FastAPI, anna: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not timed: the same work is done, which is what takes the time."""
    hashes: list[str] = []

    class Hasher:
        def verify(self, hash: str, password: str) -> bool:
            hashes.append(hash)
            return PasswordHasher().verify(hash, password)

        hash = staticmethod(passwords.HASHER.hash)

    monkeypatch.setattr(passwords, "HASHER", Hasher())
    tries(app, 1, name="anna")
    tries(app, 1, name="nobody")
    known, unknown = (hash.split("$")[1:4] for hash in hashes)
    assert known == unknown
    assert known[0] == "argon2id"


def test_after_signing_out_the_cookie_is_worth_nothing(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    kept = client.cookies[COOKIE]
    assert client.delete(f"{API}/session").status_code == 204
    assert COOKIE not in client.cookies
    assert client.get(f"{API}/session").status_code == 401
    again = browser(app, cookies={COOKIE: kept})
    assert again.get(f"{API}/session").status_code == 401


def test_a_planted_session_is_not_taken_over(app: FastAPI, anna: str) -> None:
    people.user(database_of(app), "mallory", "viewer")
    mallory = signed_in(app, "mallory")
    planted = mallory.cookies[COOKIE]
    victim = browser(app, cookies={COOKIE: planted})
    assert sign_in(victim, "anna").status_code == 201
    fresh = [c.value for c in victim.cookies.jar if c.name == COOKIE and c.value != planted]
    assert len(fresh) == 1
    # What was planted has ended, and is not anna.
    assert browser(app, cookies={COOKIE: planted}).get(f"{API}/session").status_code == 401
    found = browser(app, cookies={COOKIE: fresh[0] or ""}).get(f"{API}/session")
    assert found.json()["name"] == "anna"
    made_up = browser(app, cookies={COOKIE: "chosen-by-an-attacker"})
    assert made_up.get(f"{API}/session").status_code == 401


def test_the_database_holds_no_cookie(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    with database_of(app).read() as session:
        row = session.scalars(select(SignIn)).one()
    assert client.cookies[COOKIE] not in (row.hash, row.id, row.csrf)
    assert (row.address, row.agent) == ("192.0.2.1", "testclient")


def test_a_session_ends_when_it_is_idle_and_in_any_case_at_its_end(
    app: FastAPI, anna: str, settings: ManagerSettings
) -> None:
    database = database_of(app)
    client = signed_in(app, "anna")

    def set_row(**values: Any) -> None:
        with database.write() as session:
            session.execute(update(SignIn).values(**values))

    almost = now() - timedelta(hours=settings.session_idle_hours) + timedelta(minutes=5)
    set_row(last_seen_at=almost)
    assert client.get(f"{API}/session").status_code == 200
    with database.read() as session:
        assert session.scalars(select(SignIn.last_seen_at)).one() > almost + timedelta(minutes=5)
    set_row(last_seen_at=now() - timedelta(hours=settings.session_idle_hours))
    assert client.get(f"{API}/session").status_code == 401
    set_row(last_seen_at=now())
    assert client.get(f"{API}/session").status_code == 200
    set_row(expires_at=now())
    assert client.get(f"{API}/session").status_code == 401


def test_not_every_request_is_written_down(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    with database_of(app).read() as session:
        first = session.scalars(select(SignIn.last_seen_at)).one()
    for _ in range(3):
        client.get(f"{API}/session")
    with database_of(app).read() as session:
        assert session.scalars(select(SignIn.last_seen_at)).one() == first


def test_what_one_replica_ends_is_ended_on_all(app: FastAPI, anna: str, settings: ManagerSettings) -> None:
    with people.replica(settings) as other:
        here = signed_in(app, "anna")
        there = browser(other, cookies={COOKIE: here.cookies[COOKIE]})
        assert there.get(f"{API}/session").json()["name"] == "anna"
        here.delete(f"{API}/session")
        assert there.get(f"{API}/session").status_code == 401


# --- passwords ---


def test_a_new_password_ends_all_other_sessions(app: FastAPI, anna: str, settings: ManagerSettings) -> None:
    with people.replica(settings) as other:
        here, there = signed_in(app, "anna"), signed_in(other, "anna")
        answer = here.post(f"{API}/session/password", json={"old": PASSWORD, "new": "another pass phrase"})
        assert answer.status_code == 204
        assert there.get(f"{API}/session").status_code == 401
        assert here.get(f"{API}/session").status_code == 200
        assert sign_in(browser(other), "anna").status_code == 401
        assert sign_in(browser(other), "anna", "another pass phrase").status_code == 201


def test_the_old_password_is_needed_and_cannot_be_guessed(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    body = {"old": WRONG, "new": "another pass phrase"}
    found = [client.post(f"{API}/session/password", json=body) for _ in range(11)]
    assert [a.status_code for a in found] == [403] * 10 + [429]
    assert int(found[-1].headers["retry-after"]) > 0
    assert sign_in(browser(app), "anna").status_code == 201


@sqlite_only
def test_a_short_password_is_refused(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    answer = client.post(f"{API}/session/password", json={"old": PASSWORD, "new": "eleven char"})
    assert answer.status_code == 422
    assert "eleven char" not in answer.text


@sqlite_only
def test_a_hash_of_old_parameters_is_renewed(app: FastAPI, anna: str) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=512, parallelism=1).hash(PASSWORD)
    with database_of(app).write() as session:
        session.execute(update(User).where(User.id == anna).values(password_hash=weak))
    assert sign_in(browser(app), "anna").status_code == 201
    with database_of(app).read() as session:
        found = session.get_one(User, anna).password_hash
    assert found != weak
    assert not passwords.outdated(found)
    assert sign_in(browser(app), "anna").status_code == 201


# --- throttling ---


def test_an_account_is_tried_only_so_often(app: FastAPI, anna: str, settings: ManagerSettings) -> None:
    """From any address, on any replica; and not by whether the password is right."""
    with people.replica(settings) as other:
        each = [(app if n % 2 else other, f"192.0.2.{n}") for n in range(12)]
        found = [sign_in(browser(a, ip), "anna", WRONG).status_code for a, ip in each]
        assert found == [401] * 10 + [429] * 2
        answer = sign_in(browser(other, "192.0.2.99"), "anna")
    assert answer.status_code == 429
    assert problem(answer) == "too-many-attempts"
    assert 0 < int(answer.headers["retry-after"]) <= 60


@sqlite_only
def test_an_address_tries_only_so_often(app: FastAPI, anna: str) -> None:
    found = [tries(app, 1, name=f"user-{n}", address="198.51.100.7")[0] for n in range(11)]
    assert found == [401] * 10 + [429]
    assert sign_in(browser(app, "198.51.100.8"), "anna").status_code == 201


@sqlite_only
def test_an_ipv6_network_counts_as_one_address(app: FastAPI, anna: str) -> None:
    found = [tries(app, 1, name=f"user-{n}", address=f"2001:db8::{n:x}")[0] for n in range(11)]
    assert found[-1] == 429
    assert sign_in(browser(app, "2001:db8:0:1::1"), "anna").status_code == 201


def test_who_tries_from_elsewhere_does_not_lock_the_owner_out(app: FastAPI, anna: str) -> None:
    owner = signed_in(app, "anna", address="192.0.2.7")
    for n in range(10):
        tries(app, 1, address=f"198.51.100.{n}")
    assert tries(app, 1, address="198.51.100.99") == [429]
    # The session goes on, and this browser may sign in again, from another address too.
    assert owner.get(f"{API}/session").status_code == 200
    owner.delete(f"{API}/session")
    assert sign_in(owner, "anna").status_code == 201
    mark = {c.name: c.value or "" for c in owner.cookies.jar if c.name == "dragonfly_device"}
    assert sign_in(browser(app, "192.0.2.250", cookies=mark), "anna").status_code == 201
    # The mark is of this account only, and is counted as well.
    assert sign_in(browser(app, "198.51.100.1", cookies=mark), "anna", WRONG).status_code == 401
    forged = {"dragonfly_device": mark["dragonfly_device"][:-1] + "0g"}
    assert tries(app, 1, address="198.51.100.200", cookies=forged) == [429]
    assert tries(app, 11, cookies=mark, address="198.51.100.2")[-1] == 429


def test_a_throttle_ends(app: FastAPI, anna: str) -> None:
    tries(app, 10, address="198.51.100.7")
    assert sign_in(browser(app, "198.51.100.8"), "anna").status_code == 429
    with database_of(app).write() as session:
        session.execute(update(Attempt).values(at=now() - timedelta(minutes=1)))
    assert sign_in(browser(app, "198.51.100.8"), "anna").status_code == 201


def test_what_succeeds_does_not_count(app: FastAPI, anna: str) -> None:
    for _ in range(12):
        assert sign_in(browser(app), "anna").status_code == 201
    with database_of(app).read() as session:
        assert list(session.scalars(select(Attempt))) == []


# --- forged requests ---


@sqlite_only
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"X-CSRF-Token": ""}, "csrf"),
        ({"X-CSRF-Token": "x" * 43}, "csrf"),
        ({"X-CSRF-Token": "ä"}, "csrf"),
        ({"Origin": "http://evil.example"}, "cross-site"),
        ({"Origin": "null"}, "cross-site"),
        ({"Origin": "http://manager.evil.example"}, "cross-site"),
        ({"Origin": "http://manager:81"}, "cross-site"),
        ({"Sec-Fetch-Site": "cross-site"}, "cross-site"),
        ({"Sec-Fetch-Site": "same-site"}, "cross-site"),
        ({"Origin": "http://manager", "Sec-Fetch-Site": "same-origin"}, None),
        ({"Origin": "https://manager"}, None),
        ({}, None),
    ],
)
def test_a_cookie_alone_changes_nothing(
    app: FastAPI, anna: str, headers: dict[str, str], kind: str | None
) -> None:
    client = signed_in(app, "anna")
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    if "X-CSRF-Token" in headers:
        del client.headers["X-CSRF-Token"]
    answer = client.post(f"{API}/tokens", json={"name": "t"}, headers=raw)
    assert answer.status_code == (403 if kind else 201)
    if kind:
        assert problem(answer) == kind


@sqlite_only
def test_the_token_of_another_session_does_not_do(app: FastAPI, anna: str) -> None:
    client, other = signed_in(app, "anna"), signed_in(app, "anna")
    client.headers["X-CSRF-Token"] = other.headers["X-CSRF-Token"]
    assert problem(client.post(f"{API}/tokens", json={"name": "t"})) == "csrf"


@sqlite_only
def test_a_read_needs_no_csrf_token(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    del client.headers["X-CSRF-Token"]
    assert client.get(f"{API}/tokens").status_code == 200


@sqlite_only
def test_a_bearer_token_needs_no_csrf_token(app: FastAPI, anna: str) -> None:
    token = signed_in(app, "anna").post(f"{API}/tokens", json={"name": "t"}).json()["token"]
    assert people.bearer(app, token).post(f"{API}/tokens", json={"name": "u"}).status_code == 201


@sqlite_only
def test_a_header_that_is_wrong_is_not_mended_by_a_cookie(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    for header in ("Bearer dfr_wrong", "Bearer", "Basic YTpi"):
        assert client.get(f"{API}/session", headers={"Authorization": header}).status_code == 401


@sqlite_only
def test_nobody_is_signed_in_from_another_site(app: FastAPI, anna: str) -> None:
    body = {"name": "anna", "password": PASSWORD}
    answer = browser(app).post(f"{API}/session", json=body, headers={"Origin": "http://evil.example"})
    assert problem(answer) == "cross-site"
    form = browser(app).post(
        f"{API}/session", content=b'{"name":"anna","password":"x"}', headers={"Content-Type": "text/plain"}
    )
    assert form.status_code in (415, 422)


@sqlite_only
def test_the_public_url_is_an_origin_too(settings: ManagerSettings) -> None:
    app = create_app(settings.model_copy(update={"public_url": "https://files.example/"}), FakeCluster(1))
    with TestClient(app):
        people.user(database_of(app), "anna", "operator")
        client = signed_in(app, "anna")
        for origin, status in (("https://files.example", 201), ("https://other.example", 403)):
            answer = client.post(f"{API}/tokens", json={"name": "t"}, headers={"Origin": origin})
            assert answer.status_code == status


@sqlite_only
def test_tokens_are_compared_in_constant_time(
    app: FastAPI, anna: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Hmac:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return a == b

    client = signed_in(app, "anna")
    monkeypatch.setattr(csrf, "hmac", Hmac)
    client.post(f"{API}/tokens", json={"name": "t"}, headers={"X-CSRF-Token": "guess"})
    assert [given for given, _ in compared] == [b"guess"]


# --- web sockets ---


def with_socket(app: FastAPI) -> None:
    @app.websocket("/api/v1/test-ws")
    @requires(Permission.JOBS_WRITE)
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text(connection.state.principal.name)
        await connection.close()


def refused(client: TestClient, **headers: str) -> int:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(SOCKET, headers=headers),
    ):
        pass
    return int(denied.value.status_code)


def test_a_web_socket_is_behind_the_same_gate(app: FastAPI, anna: str) -> None:
    with_socket(app)
    people.user(database_of(app), "vera", "viewer")
    client = signed_in(app, "anna")
    with client.websocket_connect(SOCKET, headers={"Origin": "http://manager"}) as socket:
        assert socket.receive_text() == "anna"
    assert refused(client) == 403
    assert refused(client, Origin="http://evil.example") == 403
    assert refused(browser(app), Origin="http://manager") == 401
    assert refused(signed_in(app, "vera"), Origin="http://manager") == 403
    token = client.post(f"{API}/tokens", json={"name": "t"}).json()["token"]
    with people.bearer(app, token).websocket_connect(SOCKET) as socket:
        assert socket.receive_text() == "anna"


# --- what is written down ---


def test_signing_in_and_failing_to_are_audited(app: FastAPI, anna: str) -> None:
    signed_in(app, "anna")
    tries(app, 1)
    tries(app, 1, name=PASSWORD)
    with database_of(app).read() as session:
        rows = list(session.scalars(select(Audit).where(Audit.action == "session.create").order_by(Audit.id)))
    assert [(r.outcome, r.resource_id, r.address) for r in rows] == [
        ("ok", anna, "192.0.2.1"),
        ("refused", anna, "192.0.2.1"),
        ("refused", "", "192.0.2.1"),
    ]
    assert rows[0].actor == "anna"
    # A password typed into the field of the name is not kept.
    assert PASSWORD not in str([r.detail for r in rows])


def test_refused_requests_are_audited_once_a_minute(app: FastAPI, anna: str) -> None:
    client = signed_in(app, "anna")
    for _ in range(5):
        assert client.get(f"{API}/users").status_code == 403
        assert client.get(f"{API}/roles").status_code == 403
    with database_of(app).read() as session:
        rows = list(
            session.scalars(select(Audit).where(Audit.action == "request.refused").order_by(Audit.id))
        )
    assert [(r.actor, r.resource_id, r.outcome) for r in rows] == [
        ("anna", f"GET {API}/users", "refused"),
        ("anna", f"GET {API}/roles", "refused"),
    ]
    assert rows[0].detail["needed"] == "users:read"


def test_expired_sessions_are_cleared_away(app: FastAPI, anna: str) -> None:
    for _ in range(3):
        signed_in(app, "anna")
    with database_of(app).write() as session:
        session.execute(update(SignIn).values(expires_at=now()))
    signed_in(app, "anna")
    with database_of(app).read() as session:
        assert len(list(session.scalars(select(SignIn)))) == 1


def test_a_user_that_is_gone_is_signed_in_nowhere(app: FastAPI, anna: str) -> None:
    client: httpx.Client = signed_in(app, "anna")
    with database_of(app).write() as session:
        session.execute(delete(User).where(User.id == anna))
    assert client.get(f"{API}/session").status_code == 401
