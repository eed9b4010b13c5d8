"""Object stores that think before they answer, and the proxies on the way to them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceForbiddenError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import resolve
from dragonfly_ray.sources.fs_defaults import with_defaults
from tests.forward_proxy import ForwardProxy
from tests.ftp import Ftp
from tests.nginx import Nginx
from tests.ports import free_port
from tests.swarm import Swarm
from tests.waiting import until

CONTENT = b"as it is stored" * 100
SLOW = 1.2


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str) -> str:
    client: Any = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    name = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="f", Body=CONTENT)
    return name


class Slowly:
    """A door to a server that is opened for each connection after a while."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        made = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(lambda r, w: self._serve(port, r, w), "127.0.0.1", 0), self._loop
        )
        self._server = made.result(20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(65536)
        await asyncio.sleep(SLOW)
        behind, to = await asyncio.open_connection("127.0.0.1", port)
        to.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        while data := await behind.read(65536):
            writer.write(data)
        writer.close()
        to.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


def content(bucket: str, endpoint: str, settings: OriginSettings, policy: UrlPolicy | None = None) -> bytes:
    options: dict[str, object] = {
        "key": "k",
        "secret": "s",
        "endpoint_url": endpoint,
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    found = resolve(
        Source(f"s3://{bucket}/f"), Credentials(options, {}), settings, small_limit=1 << 20, policy=policy
    )
    assert found.content is not None
    return found.content


def test_an_object_store_has_as_long_for_an_answer_as_others(moto: str, bucket: str) -> None:
    slowly = Slowly(int(moto.rsplit(":", 1)[1]))
    try:
        patient = OriginSettings(answer_timeout=20 * SLOW, read_timeout=SLOW / 1.2)
        assert content(bucket, slowly.url, patient) == CONTENT
        with pytest.raises(SourceError, match="could not be read"):
            content(bucket, slowly.url, OriginSettings(answer_timeout=SLOW / 4))
    finally:
        slowly.close()


@pytest.mark.parametrize("away", ["location / { return 503; }", "location / { return 502; }", ""])
def test_an_object_store_that_is_away_at_the_first_look_is_waited_for(
    moto: str, bucket: str, tmp_path: Path, away: str
) -> None:
    """A gateway in front of it says so, or nobody listens there."""
    tmp_path.chmod(0o755)
    door = Nginx(tmp_path / "www", tmp_path / "nginx", extra=away, real=True)
    if away:
        door.start()
    built = Swarm(tmp_path / "swarm", 2)
    try:
        options: dict[str, object] = {
            "key": "k",
            "secret": "s",
            "endpoint_url": door.url,
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
        built.submit(f"s3://{bucket}/f", credentials=Credentials(options, {}))
        until(lambda: (built.scheduler.core.view("s.0") or {}).get("waiting"), 100.0)
        door.restart(f"location / {{ proxy_pass {moto}; proxy_set_header Host $http_host; }}")
        view = built.wait(timeout=100.0)
        assert [node["state"] for node in view["nodes"].values()] == ["done"] * 2, view
    finally:
        built.close()
        door.stop()


def test_an_ftp_server_that_is_away_at_the_first_look_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "f").write_bytes(CONTENT)
    built, port = Swarm(tmp_path / "swarm", 2), free_port()
    try:
        built.submit(f"ftp://reader:secret@127.0.0.1:{port}/f")
        until(lambda: (built.scheduler.core.view("s.0") or {}).get("waiting"), 100.0)
        with Ftp(tmp_path / "www", port=port):
            view = built.wait(timeout=100.0)
        assert [node["state"] for node in view["nodes"].values()] == ["done"] * 2, view
    finally:
        built.close()


def test_what_the_caller_says_of_it_counts() -> None:
    given = {"config_kwargs": {"read_timeout": 3}, "requests_timeout": 7}
    settings = OriginSettings()
    assert with_defaults("s3://b/f", given, settings, guarded=False)["config_kwargs"]["read_timeout"] == 3
    assert with_defaults("gs://b/f", given, settings, guarded=False)["requests_timeout"] == 7


def test_s3_goes_through_the_nodes_proxy_and_under_a_policy_of_urls_past_it(
    moto: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(tmp_path / "proxy") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        settings = OriginSettings(retries=0)
        assert content(bucket, moto, settings, UrlPolicy(allow_private=True)) == CONTENT
        assert content(bucket, moto, settings.model_copy(update={"environment_proxies": False})) == CONTENT
        assert proxy.asked == []
        assert content(bucket, moto, settings) == CONTENT
        assert set(proxy.asked) <= {"GET 127.0.0.1", "HEAD 127.0.0.1"}
        assert proxy.asked


def test_googles_store_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxy knows where it is; a file server stands for it."""
    with ForwardProxy(tmp_path / "proxy") as proxy, Nginx(tmp_path / "www", tmp_path / "nginx") as nginx:
        monkeypatch.setenv("http_proxy", proxy.url)
        options: dict[str, object] = {"endpoint_url": f"http://store.test:{nginx.port}", "token": "anon"}
        with pytest.raises(SourceError):
            resolve(Source("gs://bucket/f"), Credentials(options, {}), OriginSettings())
        assert nginx.hits()
        assert proxy.asked
    guarded = with_defaults("gs://bucket/f", options, OriginSettings(), guarded=True)
    assert guarded["session_kwargs"] == {}


def test_azures_client_would_ask_the_proxy_and_is_refused_under_a_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cret@proxy.example:3128")
    options = {"account_name": "mine", "account_key": "eA=="}
    with pytest.raises(SourceForbiddenError, match="node's HTTP_PROXY or HTTPS_PROXY") as error:
        with_defaults("az://c/f", options, OriginSettings(), guarded=True)
    assert "s3cret" not in str(error.value)
    assert with_defaults("az://c/f", options, OriginSettings(), guarded=False) == options
    monkeypatch.setenv("NO_PROXY", ".windows.net")
    assert with_defaults("az://c/f", options, OriginSettings(), guarded=True) == options
