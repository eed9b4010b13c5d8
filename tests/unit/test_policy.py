"""What may be fetched on a user's behalf: texts, and real connections on loopback.

127.0.0.2 stands for the Internet here: it is allowed. 127.0.0.1 is inside.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import InvalidRequestError, SourceForbiddenError
from dragonfly_ray.model import Credentials, PieceTable, Source
from dragonfly_ray.policy import Rules, UrlPolicy, check_url, is_public
from dragonfly_ray.sources import open_reader, resolve
from dragonfly_ray.sources.base import Resolution
from dragonfly_ray.sources.batch_requests import Wanted
from dragonfly_ray.sources.curl import ManyFiles
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin

OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"
POLICY = UrlPolicy(networks=(f"{OUTSIDE}/32",))
CONTENT = os.urandom(100_000)
SETTINGS = OriginSettings(connect_timeout=60.0, read_timeout=60.0, retries=1)
Answers = Callable[[dict[str, list[str]]], None]


@pytest.fixture
def outside() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT), OUTSIDE) as made:
        yield made


@pytest.fixture
def inside() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT), INSIDE) as made:
        yield made


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Names of this test's own: each answer in turn, the last one for ever."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def answer(host: Any, *rest: Any, **more: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text not in known:
            return real(host, *rest, **more)
        turn = known[text]
        return [
            each
            for a in (turn.pop(0) if len(turn) > 1 else turn[0]).split()
            for each in real(a, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known.update


def look(url: str, policy: UrlPolicy | None = POLICY, **credentials: Any) -> Resolution:
    return resolve(Source(url), Credentials(**credentials), SETTINGS, policy=policy)


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0x7f.1", "127.0.0.1.",
    "localhost", "LOCALHOST", "localhost.", "x.localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "0", "10.0.0.1", "172.16.0.1",
    "192.168.1.1", "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "[fe80::1]", "[fc00::1]", "[ff02::1]",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "198.18.0.1", "[2001:db8::1]", "[fec0::1]", "[::]", "①②⑦.0.0.1", "127。0。0。1", "１27.0.0.1",
    "user@127.0.0.1", "example.com@127.0.0.1", "user:pass@localhost",
])  # fmt: skip
def test_private_hosts_are_refused_in_every_spelling(host: str) -> None:
    for port in ("", ":80"):
        with pytest.raises(SourceForbiddenError):
            check_url(f"http://{host}{port}/f", UrlPolicy())
    if host.isascii():
        check_url(f"http://{host}/f", UrlPolicy(allow_private=True))


@pytest.mark.parametrize("url", [
    "http://example.com\\@127.0.0.1/", "http://exa mple.com/", "http://example.com%2f@127.0.0.1/", "http://", "http:///f",
    "http://127%2e0.0.1/", "http://example.com\t/", "http://[::1", "file:///etc/passwd", "/etc/passwd", "FILE:///etc/passwd",
    "ftp://example.com/f", "gopher://example.com/", "zip://a::http://example.com/a.zip", "simplecache::http://example.com/f",
    "s3://bucket/x::file:///etc/passwd", "memory://x", "http://a*.example.com/",
])  # fmt: skip
def test_what_is_no_plain_url_of_an_allowed_scheme_is_refused(url: str) -> None:
    with pytest.raises(SourceForbiddenError):
        check_url(url, UrlPolicy())


@pytest.mark.parametrize("url", [
    "http://example.com/f", "https://example.com:8443/f?x=1#y", "http://8.8.8.8/", "http://[2606:4700::1111]/", "s3://bucket/key",
    "https://user:pass@example.com/f", "gs://bucket/a", "abfs://container@account.dfs.core.windows.net/x", "HTTP://Example.Com./f",
    "https://bücher.example/f", "hdfs://user@name-node.example:8020/x",
])  # fmt: skip
def test_public_hosts_may_be_asked(url: str) -> None:
    check_url(url, UrlPolicy())


def test_names_are_compared_with_patterns() -> None:
    policy = UrlPolicy(
        allow_hosts=("example.com", "*.Data.example.", "10.1.2.3"),
        deny_hosts=("bad.data.example",),
        networks=("10.0.0.0/8",),
    )
    for host in ("example.com", "EXAMPLE.com.", "a.data.example", "a.b.data.example", "10.1.2.3"):
        check_url(f"https://{host}/f", policy)
    for host in (
        "www.example.com",
        "data.example",
        "xdata.example",
        "bad.data.example",
        "BAD.data.example.",
        "10.1.2.4",
    ):
        with pytest.raises(SourceForbiddenError):
            check_url(f"https://{host}/f", policy)
    with pytest.raises(SourceForbiddenError):
        check_url("http://0x7f000001/", UrlPolicy(allow_private=True, deny_hosts=("127.0.0.1",)))


@pytest.mark.parametrize("options", [
    {"endpoint_url": "http://127.0.0.1:9000"}, {"client_kwargs": {"endpoint_url": "http://169.254.169.254"}},
    {"host": "localhost"}, {"config_kwargs": {"proxies": {"http": "http://10.0.0.1:3128"}}}, {"endpoint": "127.1:80"},
    {"fo": "file:///etc/passwd"}, {"target_protocol": "file"}, {"endpoint_url": "file:///etc"}, {"account_host": "0x7f.1"},
])  # fmt: skip
def test_options_that_lead_inside_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SourceForbiddenError):
        check_url("s3://bucket/x", UrlPolicy(), options)
    check_url(
        "s3://bucket/x", UrlPolicy(), {"anon": True, "key": "k", "client_kwargs": {"region_name": "eu-1"}}
    )


def test_errors_say_what_and_hold_no_secret() -> None:
    with pytest.raises(SourceForbiddenError) as caught:
        check_url("http://me:secret@127.0.0.1/f?token=secret", UrlPolicy())
    assert caught.value.kind == "source-forbidden"
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidRequestError):
        Rules(UrlPolicy(networks=("10.0.0.0/99",)))


def test_public_addresses_are_public() -> None:
    for text in ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"):
        assert is_public(ipaddress.ip_address(text)), text


# --- connections --------------------------------------------------------------------------------


def test_an_address_that_is_allowed_is_read(outside: ScriptedOrigin) -> None:
    found = look(outside.url)
    assert found.manifest.size == len(CONTENT)
    table = PieceTable.of(found.manifest)
    reader = open_reader(Source(outside.url), Credentials(), found.manifest, table, SETTINGS, POLICY)
    buffer = memoryview(bytearray(len(CONTENT)))
    ((_, view),) = reader.read(0, 1, lambda index: buffer, lambda count: None)
    reader.close()
    assert bytes(view) == CONTENT


def test_without_a_policy_anything_may_be_asked(inside: ScriptedOrigin) -> None:
    assert look(inside.url, None).manifest.size == len(CONTENT)


@pytest.mark.parametrize("host", [INSIDE, "localhost", "2130706433", "inside.example"])
def test_a_redirect_inside_is_not_followed(
    outside: ScriptedOrigin, inside: ScriptedOrigin, names: Answers, host: str
) -> None:
    names({"inside.example": [INSIDE]})
    outside.behaviour.redirect = f"http://{host}:{inside.port}/moved"
    with pytest.raises(SourceForbiddenError):
        look(outside.url)
    assert inside.requests == []
    assert len(outside.requests) == 1


def test_a_redirect_to_another_scheme_is_not_followed(outside: ScriptedOrigin) -> None:
    outside.behaviour.redirect = "file:///etc/passwd"
    with pytest.raises(SourceForbiddenError):
        look(outside.url)


def test_a_redirect_to_a_host_that_may_not_be_asked(outside: ScriptedOrigin, names: Answers) -> None:
    names({"bad.example": [OUTSIDE]})
    outside.behaviour.redirect = f"http://bad.example:{outside.port}/moved"
    policy = UrlPolicy(networks=POLICY.networks, deny_hosts=("*.example",))
    with pytest.raises(SourceForbiddenError):
        look(outside.url, policy)
    assert len(outside.requests) == 1


def test_a_name_that_points_inside_is_not_connected_to(inside: ScriptedOrigin, names: Answers) -> None:
    names({"files.example": [INSIDE]})
    check_url(f"http://files.example:{inside.port}/f", POLICY)
    with pytest.raises(SourceForbiddenError):
        look(f"http://files.example:{inside.port}/f")
    assert inside.requests == []


def test_a_name_that_answers_differently_later_does_not_get_inside(
    outside: ScriptedOrigin, inside: ScriptedOrigin, names: Answers
) -> None:
    names({"files.example": [OUTSIDE, INSIDE]})
    url = f"http://files.example:{outside.port}/f"
    assert look(url).manifest.size == len(CONTENT)
    with pytest.raises(SourceForbiddenError):
        look(url)
    assert inside.requests == []


def test_of_several_addresses_only_those_that_may_be_asked_are(
    outside: ScriptedOrigin, inside: ScriptedOrigin, names: Answers
) -> None:
    names({"both.example": [f"{INSIDE} {OUTSIDE}"]})
    assert look(f"http://both.example:{outside.port}/f").manifest.size == len(CONTENT)
    with pytest.raises(SourceForbiddenError, match="private"):
        names({"none.example": [INSIDE]})
        look(f"http://none.example:{inside.port}/f")
    assert inside.requests == []


def test_many_small_files_are_not_fetched_from_inside() -> None:
    files = {f"f{i}": os.urandom(100) for i in range(5)}
    for address, fetched in ((OUTSIDE, True), (INSIDE, False)):
        with FolderOrigin(files, address) as origin:
            views = {name: memoryview(bytearray(100)) for name in files}
            wanted = [
                Wanted(number, origin.url + name, view, lambda etag, time: True)
                for number, (name, view) in enumerate(views.items())
            ]
            many = ManyFiles({}, SETTINGS, Rules(POLICY))
            bad = many.fetch(wanted, 2, lambda count: None)
            many.close()
            assert bool(origin.asked) == fetched
            assert (not bad) == fetched
            assert {name: bytes(v) for name, v in views.items()} == (
                files if fetched else dict.fromkeys(files, bytes(100))
            )


def test_a_folder_is_listed_and_read_within_the_policy() -> None:
    files = {f"f{i:02}": os.urandom(1000 + i) for i in range(20)}
    with FolderOrigin(files, OUTSIDE) as origin:
        found = look(origin.url)
        assert found.manifest.size == sum(map(len, files.values()))
        table = PieceTable.of(found.manifest)
        reader = open_reader(Source(origin.url), Credentials(), found.manifest, table, SETTINGS, POLICY)
        buffer = memoryview(bytearray(table.size))
        list(reader.read(0, 1, lambda index: buffer, lambda count: None))
        reader.close()
        assert bytes(buffer) == b"".join(files.values())


@pytest.mark.parametrize("policy", [None, UrlPolicy(networks=("127.0.0.0/8",))])
def test_what_opens_one_host_is_not_shown_to_another(
    outside: ScriptedOrigin, inside: ScriptedOrigin, policy: UrlPolicy | None
) -> None:
    secrets = {"Authorization": "Bearer x", "Cookie": "c", "X-Key": "k"}
    outside.behaviour.redirect = f"http://{INSIDE}:{inside.port}/moved"
    look(outside.url.replace("http://", "http://me:secret@"), policy, headers=secrets)
    assert {"authorization", "cookie", "x-key"} <= set(outside.headers[0])
    (seen,) = inside.headers
    assert not {"authorization", "cookie", "x-key"} & set(seen)


# --- other filesystems --------------------------------------------------------------------------


def test_a_filesystem_that_cannot_ask_is_looked_up_before(names: Answers) -> None:
    names({"files.example": [INSIDE]})
    policy = UrlPolicy(schemes=("ftp",), networks=POLICY.networks)
    with pytest.raises(SourceForbiddenError, match="private address"):
        look("ftp://files.example/f", policy)
    with pytest.raises(SourceForbiddenError, match="set the host in the URL"):
        look("ftp://files.example/f", policy, storage_options={"host": "8.8.8.8"})


def test_object_storage_asks_for_every_address(names: Answers) -> None:
    s3 = pytest.importorskip("moto.server")
    server = s3.ThreadedMotoServer(ip_address=INSIDE, port=0, verbose=False)
    server.start()
    try:
        import boto3

        _, port = server.get_host_and_port()
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://{INSIDE}:{port}", **keys)
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="f", Body=CONTENT)
        names({"objects": [INSIDE]})
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://objects:{port}"}
        with pytest.raises(SourceForbiddenError, match="private address"):
            look("s3://bucket/f", storage_options=options)
        allowed = UrlPolicy(networks=(f"{INSIDE}/32",))
        found = look("s3://bucket/f", allowed, storage_options=options)
        assert found.manifest.size == len(CONTENT)
        with pytest.raises(SourceForbiddenError, match="private address"):
            look("s3://bucket/f", storage_options=options)
    finally:
        server.stop()
