"""What surrounds every request, on applications of one route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.testclient import WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send

from dragonfly_ray.serve import web
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.principal import Principal, unauthenticated
from dragonfly_ray.serve.problems import MEDIA_TYPE
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from dragonfly_ray.serve.web import answers
from dragonfly_ray.serve.web.body_limit import BodyLimit

BODY = 1000


class Sent(BaseModel):
    text: str


def application(limits: Limits | None = None, **changes: Any) -> FastAPI:
    app = FastAPI()
    answers.install(app)
    web.surround(app, ManagerSettings(limits=limits or Limits(body=BODY), **changes))

    @app.get("/api/seen")
    def seen(request: Request) -> dict[str, str]:
        return {"id": request.state.request_id, "address": request.state.address}

    @app.post("/api/echo")
    def echo(message: Sent) -> str:
        return message.text

    @app.post("/api/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.get("/api/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            for n in range(3):
                yield b"%d\n" % n

        return StreamingResponse(lines(), media_type="text/plain")

    @app.get("/broken")
    def broken() -> None:
        raise ValueError("hunter2")

    @app.patch("/thing")
    def change(if_match: IfMatch, response: Response) -> None:
        if_match.check(3)
        tag(response, 4)

    @app.get("/api/me")
    def me(request: Request) -> None:
        token = request.headers.get("authorization", "")
        if not token.startswith("good"):
            raise unauthenticated()
        request.state.principal = Principal(
            token.partition(" ")[2], "somebody", "viewer", frozenset(), "token"
        )

    @app.websocket("/api/ws")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_json({"id": connection.state.request_id})
        await connection.close()

    return app


def client_of(app: FastAPI, address: str = "192.0.2.1") -> TestClient:
    return TestClient(app, base_url="http://manager", client=(address, 1), raise_server_exceptions=False)


@pytest.fixture
def client() -> TestClient:
    return client_of(application())


# --- request ids ---


def test_a_request_has_an_id(client: TestClient) -> None:
    one, two = (client.get("/api/seen") for _ in range(2))
    assert one.headers["x-request-id"] == one.json()["id"] != two.json()["id"]


def test_a_sane_id_of_the_caller_is_kept(client: TestClient) -> None:
    answer = client.get("/api/seen", headers={"X-Request-ID": "build-17.retry_2"})
    assert answer.headers["x-request-id"] == answer.json()["id"] == "build-17.retry_2"


@pytest.mark.parametrize("id", ["", "a" * 65, "a b", "<script>", "ä", '"', "a\tb"])
def test_another_id_is_replaced(client: TestClient, id: str) -> None:
    answer = client.get("/api/seen", headers={"X-Request-ID": id.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_problem_names_its_request(client: TestClient) -> None:
    answer = client.get("/api/nothing")
    assert answer.json()["instance"] == answer.headers["x-request-id"]


# --- where it comes from ---

PROXIES = ("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.1.1.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.1.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("10.1.1.1", ["6.6.6.6", "198.51.100.7, 10.2.2.2"], "198.51.100.7"),
        ("10.1.1.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.1.1.1", ["6.6.6.6, nonsense"], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("2001:db8::1", ["[2001:470::9]:4711"], "2001:470::9"),
        ("::ffff:10.1.1.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.1.1", [], "10.1.1.1"),
    ],
)
def test_only_proxies_are_believed(peer: str, forwarded: Sequence[str], address: str) -> None:
    client = client_of(application(trusted_proxies=PROXIES), peer)
    answer = client.get("/api/seen", headers=[("X-Forwarded-For", value) for value in forwarded])
    assert answer.json()["address"] == address


# --- headers ---


@pytest.mark.parametrize("path", ["/api/seen", "/api/nothing", "/broken", "/"])
def test_security_headers_are_on_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers
    assert headers.get("cache-control") == ("no-store" if path.startswith("/api/") else None)
    assert headers["x-request-id"]


def test_https_is_insisted_on_where_it_is_there() -> None:
    headers = client_of(application(cookie_secure=True)).get("/api/seen").headers
    assert int(headers["strict-transport-security"].partition("max-age=")[2]) >= 180 * 86400


def test_what_nobody_expected_is_a_problem_without_its_text(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/broken", headers={"X-Request-ID": "lost-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "hunter2" not in answer.text
    assert "lost-1" in answer.json()["detail"]
    assert "request lost-1 failed" in caplog.text


# --- bodies ---


def test_a_body_within_the_limit(client: TestClient) -> None:
    assert client.post("/api/read", content=b"x" * BODY).json() == BODY


@pytest.mark.parametrize("path", ["/api/read", "/api/echo"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit(client: TestClient, path: str, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(20):
            yield b"x" * (BODY // 10)
        yield b'"}'

    answer = client.post(
        path,
        content=pieces() if chunked else b"".join(pieces()),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:dragonfly:problem:body-too-large"
    assert answer.json()["most"] == BODY


def test_who_goes_on_sending_is_not_listened_to() -> None:
    asked = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            assert asked < 1000

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(BodyLimit(read_all, most=BODY)(scope, receive, send))
    assert asked == BODY // 100 + 1
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 5000])
def test_a_length_that_is_none(client: TestClient, length: str) -> None:
    answer = client.post("/api/read", content=b"x", headers={"Content-Length": length})
    assert answer.status_code in (400, 413)
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_a_stream_stays_a_stream(client: TestClient) -> None:
    with client.stream("GET", "/api/stream") as answer:
        assert "content-length" not in answer.headers
        assert answer.read() == b"0\n1\n2\n"


# --- rates ---


def limited() -> FastAPI:
    return application(limits=Limits(requests="5/hour", anonymous="3/hour"))


def statuses(client: httpx.Client, path: str, times: int, **more: Any) -> list[int]:
    return [client.get(path, **more).status_code for _ in range(times)]


def test_requests_of_nobody_are_limited_by_address() -> None:
    app = limited()
    client = client_of(app)
    assert statuses(client, "/api/seen", 4) == [200, 200, 200, 429]
    assert statuses(client_of(app, "192.0.2.2"), "/api/seen", 1) == [200]


def test_the_headers_tell_how_much_is_left() -> None:
    client = client_of(limited())
    for left in (2, 1, 0):
        answer = client.get("/api/seen")
        assert answer.headers["ratelimit-limit"] == "3"
        assert answer.headers["ratelimit-remaining"] == str(left)
        assert 0 < int(answer.headers["ratelimit-reset"]) <= 3600
    answer = client.get("/api/seen")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["type"] == "urn:dragonfly:problem:rate-limited"
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert answer.headers["x-request-id"]


def test_a_user_has_one_limit_from_everywhere_and_with_every_credential() -> None:
    app = limited()
    # The first request with a credential counts for its address: nobody knows yet whose it is.
    first, second = client_of(app), client_of(app, "192.0.2.2")
    assert statuses(first, "/api/me", 4, headers={"Authorization": "good anna"}) == [200] * 4
    assert statuses(second, "/api/me", 2, headers={"Authorization": "good anna"}) == [200] * 2
    assert statuses(second, "/api/me", 1, headers={"Authorization": "good anna"}) == [429]
    assert statuses(second, "/api/me", 1, headers={"Authorization": "good bert"}) == [200]


def test_made_up_credentials_win_nothing() -> None:
    client = client_of(limited())
    found = [client.get("/api/me", headers={"Authorization": f"bad {n}"}).status_code for n in range(5)]
    assert found == [401, 401, 401, 429, 429]


def test_what_is_not_the_api_is_not_limited() -> None:
    client = client_of(limited())
    assert statuses(client, "/nothing", 10) == [404] * 10


def test_a_web_socket_has_an_id_and_is_limited_too() -> None:
    client = client_of(limited())
    for _ in range(3):
        with client.websocket_connect("/api/ws", headers={"X-Request-ID": "ws-1"}) as socket:
            assert socket.receive_json() == {"id": "ws-1"}
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/api/ws"):
        pass
    assert refused.value.status_code == 429


# --- versions ---


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ('"3"', 200),
        ('"2", "3"', 200),
        ("*", 200),
        ('"4"', 412),
        ("3", 412),
        ('W/"3"', 412),
        (None, 428),
        ("", 428),
    ],
)
def test_changes_are_based_on_a_version(client: TestClient, if_match: str | None, status: int) -> None:
    answer = client.patch("/thing", headers={} if if_match is None else {"If-Match": if_match})
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["etag"] == '"4"'
    else:
        kind = {412: "precondition-failed", 428: "precondition-required"}[status]
        assert answer.json()["type"] == f"urn:dragonfly:problem:{kind}"
    if status == 412:
        assert answer.headers["etag"] == '"3"'
