"""Proxies of the node's environment, with a real one: only it knows where the origin is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceError, SourceForbiddenError, SourceUnreachableError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import open_reader, resolve
from dragonfly_ray.sources.proxies import Proxy, of_environment
from tests.certificates import certificate
from tests.forward_proxy import ForwardProxy
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.ports import free_port

CONTENT = os.urandom(600_000)
SMALL = {f"f{number:02}": os.urandom(2000) for number in range(20)}
SETTINGS = OriginSettings(answer_timeout=60.0, connect_timeout=60.0, retries=0)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ForwardProxy]:
    with ForwardProxy(tmp_path / "proxy") as made:
        yield made


def fetched(url: str, settings: OriginSettings = SETTINGS, policy: UrlPolicy | None = None) -> bytes:
    found = resolve(Source(url), Credentials(), settings, policy=policy).manifest
    return read(url, found, settings, policy)


def read(url: str, manifest: Manifest, settings: OriginSettings, policy: UrlPolicy | None = None) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, settings, policy)
    data = bytearray(table.size)
    try:
        for index, view in reader.read(
            0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda _: None
        ):
            data[table[index].offset : table[index].offset + len(view)] = view
    finally:
        reader.close()
    return bytes(data)


def at(port: int, path: str = "content.bin", scheme: str = "http", host: str = "origin.test") -> str:
    return f"{scheme}://{host}:{port}/{path}"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_file_comes_through_the_proxy_that_a_variable_names(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, proxy.url)
    with ScriptedOrigin(Behaviour(CONTENT)) as origin:
        assert fetched(at(origin.port)) == CONTENT
    assert "GET origin.test" in proxy.asked


def test_many_small_files_come_through_it(proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    with FolderOrigin(dict(SMALL)) as folder:
        port = int(folder.url.rsplit(":", 1)[1].strip("/"))
        assert fetched(at(port, "")) == b"".join(SMALL[name] for name in sorted(SMALL))
        assert set(folder.count("GET").values()) == {1}


def test_https_goes_through_a_tunnel_and_its_certificate_is_the_origins(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    certificate_file, key = certificate(tmp_path, "origin.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_file))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    port = free_port()
    extra = f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate_file}; ssl_certificate_key {key};"
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True) as nginx:
        (nginx.root / "d").mkdir()
        for name, data in {**SMALL, "big": CONTENT}.items():
            (nginx.root / "d" / name).write_bytes(data)
        assert fetched(at(port, "d/big", "https")) == CONTENT
        assert fetched(at(port, "d/", "https")) == b"".join(
            {**SMALL, "big": CONTENT}[name] for name in sorted({**SMALL, "big": CONTENT})
        )
    assert set(proxy.asked) == {"CONNECT origin.test"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxys_credentials_go_to_it_alone_and_are_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with ForwardProxy(tmp_path / "proxy", "me:s3cret") as proxy, ScriptedOrigin(Behaviour(CONTENT)) as origin:
        right = proxy.url.replace("s3cret", "s3cr%65t")
        monkeypatch.setenv("http_proxy", right)
        assert fetched(at(origin.port)) == CONTENT
        assert not any("proxy-authorization" in headers for headers in origin.headers)
        for wrong in (right.replace("s3cr", "s3cr3t-wr0ng"), right.replace("me:s3cr%65t@", "")):
            monkeypatch.setenv("http_proxy", wrong)
            monkeypatch.setenv("https_proxy", wrong)
            with pytest.raises(SourceAuthError, match="HTTP 407, proxy authentication required") as error:
                resolve(Source(at(origin.port, scheme=scheme)), Credentials(), SETTINGS)
            assert "s3cr" not in f"{error.value!r} {error.value.details}"
    assert "s3cr" not in caplog.text
    assert "s3cr" not in repr(of_environment("http://origin.test/"))


def test_a_proxy_that_is_not_there_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{free_port()}")
    with pytest.raises(SourceUnreachableError, match="proxy is unreachable; check HTTP_PROXY") as error:
        resolve(Source("http://origin.test/x"), Credentials(), SETTINGS)
    assert "s3cret" not in str(error.value)


def test_a_redirect_is_led_as_what_it_leads_to(proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the proxy to what is reached without, and back."""
    monkeypatch.setenv("http_proxy", proxy.url)
    with ScriptedOrigin(Behaviour(CONTENT)) as last, ScriptedOrigin(Behaviour(CONTENT)) as middle:
        middle.behaviour.redirect = at(last.port, "moved/x", host="last.test")
        with ScriptedOrigin(Behaviour(CONTENT)) as first:
            # This proxy sends whatever comes on one connection to the first host that was asked for on it.
            first.behaviour.headers = {"Connection": "close"}
            first.behaviour.redirect = f"http://127.0.0.1:{middle.port}/x"
            assert fetched(at(first.port)) == CONTENT
        assert {h["host"] for h in last.headers} == {f"last.test:{last.port}"}
        assert {h["host"] for h in middle.headers} == {f"127.0.0.1:{middle.port}"}
    assert set(proxy.asked) == {"GET origin.test", "GET last.test"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_this_machine_is_never_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ScriptedOrigin(Behaviour(CONTENT), "127.0.0.2" if host.endswith("2") else "127.0.0.1") as origin:
        assert fetched(at(origin.port, host=host)) == CONTENT


def test_it_can_be_switched_off(proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(SourceError):
        fetched(at(free_port()), SETTINGS.model_copy(update={"environment_proxies": False}))
    assert proxy.asked == []


def test_under_a_policy_of_urls_no_proxy_is_asked(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would connect where the policy does not see it."""
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, proxy.url)
    with ScriptedOrigin(Behaviour(CONTENT)) as origin:
        with pytest.raises(SourceError):
            resolve(Source(at(origin.port)), Credentials(), SETTINGS, policy=UrlPolicy(allow_private=True))
        with pytest.raises(SourceForbiddenError):
            resolve(Source(f"http://127.0.0.1:{origin.port}/x"), Credentials(), SETTINGS, policy=UrlPolicy())
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("no_proxy", "url", "through"),
    [
        ("", "http://a.example/x", True),
        ("a.example", "http://a.example/x", False),
        ("example", "http://a.example/x", False),
        (".example", "http://a.example/x", False),
        ("b.example, a.example", "http://a.example/x", False),
        ("b.example", "http://a.example/x", True),
        ("a.example:8080", "http://a.example:8080/x", False),
        ("a.example:8080", "http://a.example:8081/x", True),
        ("10.1.0.0/16", "http://10.1.2.3/x", False),
        ("10.1.0.0/16", "http://10.2.2.3/x", True),
        ("10.1.2.3", "http://10.1.2.3:81/x", False),
        ("*", "http://a.example/x", False),
        ("", "http://[::1]/x", False),
        ("", "http://[2001:db8::1]/x", True),
        ("2001:db8::1", "http://[2001:db8::1]:81/x", False),
        ("fd00::/8", "http://[fd00::1]/x", False),
        ("fd00::/8", "http://[2001:db8::1]/x", True),
        ("10.1.0.0/x, a.example", "http://10.1.2.3/x", True),
    ],
)
@pytest.mark.parametrize("small", [False, True])
def test_no_proxy_is_read_as_usual(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, through: bool, small: bool
) -> None:
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy" if small else "NO_PROXY", no_proxy)
    assert of_environment(url) == (Proxy("http://proxy.example:3128") if through else None)


@pytest.mark.parametrize("wrong", ["socks5://me:s3cret@proxy.example:1080", "http://"])
def test_a_proxy_of_another_kind_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("ALL_PROXY", wrong)
    with pytest.raises(SourceError, match="ALL_PROXY is not an http or https URL") as error:
        resolve(Source("http://origin.test/x"), Credentials(), SETTINGS)
    assert "s3cret" not in str(error.value)
