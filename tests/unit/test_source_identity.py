"""What belongs to a source besides its URL: whatever chooses the server or the representation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.source_identity import check_headers, server_of, servers_of, source_of
from dragonfly_ray.sources import look, resolve

S3 = "s3://bucket/key"


def options(**found: Any) -> Credentials:
    return Credentials(storage_options=found)


def headers(**found: str) -> Credentials:
    return Credentials(headers={name.replace("_", "-"): value for name, value in found.items()})


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        (S3, Credentials()),
        (S3, options(key="k", secret="s", token="t", anon=False)),
        (S3, options(key="other", client_kwargs={"aws_secret_access_key": "s"})),
        (S3, options(default_block_size=1 << 20, config_kwargs={"read_timeout": 3, "retries": {"max_attempts": 2}})),
        (S3, options(endpoint_url=None, client_kwargs={})),
        ("gs://bucket/key", options(token={"private_key": "s"}, project="mine")),
        ("az://bucket/key", options(account_key="s", sas_token="s", credential=object())),
        ("hdfs://name/key", options(user="u", kerb_ticket="/tmp/t")),
        ("https://host/key", headers(Authorization="Bearer s", Cookie="s", X_Api_Key="s", Private_Token="s")),
        ("https://host/key", headers(traceparent="00-1", X_Request_ID="r", Cache_Control="no-cache")),
        ("https://host/key", options(endpoint_url="http://unused")),
        ("file:///data/key", options(auto_mkdir=True)),
    ],
)  # fmt: skip
def test_what_only_opens_or_tunes_is_no_part_of_it(url: str, credentials: Credentials) -> None:
    assert source_of(url, credentials).id == Source(url).id


DIFFERENT: dict[str, list[Credentials]] = {
    S3: [
        Credentials(),
        options(endpoint_url="http://evil"),
        options(endpoint_url="http://other"),
        options(client_kwargs={"endpoint_url": "http://evil"}),
        options(client_kwargs={"verify": False}),
        options(client_kwargs={"region_name": "eu-1"}),
        options(config_kwargs={"proxies": {"https": "http://evil"}}),
        options(use_ssl=False),
        options(profile="other"),
        options(never_heard_of="x"),
    ],
    "gs://bucket/key": [
        Credentials(),
        options(endpoint_url="http://evil"),
        options(session_kwargs={"headers": {"Host": "evil"}}),
    ],
    "az://bucket/key": [
        Credentials(),
        options(account_name="one"),
        options(account_name="two"),
        options(account_name="one", account_host="evil.example"),
        options(account_name="one", location_mode="secondary"),
        options(connection_string="AccountName=one;AccountKey=s"),
        options(connection_string="AccountName=two;AccountKey=s"),
        options(connection_string="AccountName=two;AccountKey=s;BlobEndpoint=http://evil"),
    ],
    "hdfs:///key": [Credentials(), options(host="one"), options(host="two"), options(extra_conf={"fs.x": "y"})],
    "dropbox://key": [Credentials(), options(token="one"), options(token="two")],
    "simplecache::s3://bucket/key": [
        Credentials(),
        options(s3={"endpoint_url": "http://evil"}),
        options(s3={"key": "k"}),
    ],
    "https://host/key": [
        Credentials(),
        headers(Accept="application/json"),
        headers(Accept="text/html"),
        headers(Accept_Language="de"),
        headers(User_Agent="other"),
        headers(X_Variant="beta"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("url", DIFFERENT)
def test_whatever_chooses_the_server_or_the_representation_makes_another_source(url: str) -> None:
    ids = [source_of(url, credentials).id for credentials in DIFFERENT[url]]
    assert len(set(ids)) == len(ids)
    assert ids[0] == Source(url).id, "the plain case is the URL alone"


def test_it_is_the_same_for_whoever_gives_the_same_again() -> None:
    one = options(endpoint_url="http://h", client_kwargs={"region_name": "r", "verify": False}, key="k")
    other = options(client_kwargs={"verify": False, "region_name": "r"}, endpoint_url="http://h", key="z")
    assert source_of(S3, one) == source_of(S3, other)
    text = "AccountName=one;AccountKey={};BlobEndpoint=http://b"
    a, b = (options(connection_string=text.format(key)) for key in ("k1", "k2"))
    assert source_of("az://c/k", a).id == source_of("az://c/k", b).id
    assert servers_of([S3, "https://h/x", "s3://b/2"], one) == [server_of(S3, one), "", server_of(S3, one)]


def test_it_tells_nothing_of_what_it_is_made_of() -> None:
    made = source_of("dropbox://key", options(token="hunter2", endpoint_url="http://internal"))
    assert "hunter2" not in repr(made)
    assert "internal" not in repr(made)


def test_a_parameter_that_is_left_out_is_left_out_for_those_alone_who_say_so() -> None:
    plain = source_of("https://h/open", Credentials())
    evil = source_of("https://h/open?url=http://evil", Credentials(), filtered_query_params=["url"])
    assert plain.id != evil.id


def test_no_field_can_be_spelled_so_that_it_is_another() -> None:
    texts = ["", "a", "a\0b", "\0", "b"]
    for tag, application in itertools.product(texts, texts):
        if "\0" in tag + application:
            with pytest.raises(InvalidRequestError):
                source_of(S3, Credentials(), tag=tag, application=application)


@pytest.mark.parametrize(
    "given",
    [{"endpoint": object()}, {"client_kwargs": {"session": object()}}, {"x": [[[object()]]]}],
)
def test_an_object_that_may_choose_the_server_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="storage option"):
        source_of(S3, Credentials(storage_options=given))


def test_options_without_end_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InvalidRequestError, match="too deeply"):
        source_of(S3, Credentials(storage_options=loop))


@pytest.mark.parametrize("url", ["https://h:port/x", "https://[::1/x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        source_of(url, Credentials())


ROUTING = [
    "Host", "Connection", "TE", "Transfer-Encoding", "Content-Length", "Forwarded", "Via", "Upgrade", "Trailer",
    "X-Forwarded-Host", "x-forwarded-for", "X-FORWARDED-PROTO", "Proxy-Authorization", "Proxy-Connection", "Keep-Alive",
    "X-Original-URL", "X-Rewrite-URL", "X-Host", "X-HTTP-Method-Override", "Expect", "Range", "If-Range", "If-None-Match",
    "Bad Name", "Na\nme", "Host:", "", "ümlaut",
]  # fmt: skip


@pytest.mark.parametrize("name", ROUTING)
def test_hop_and_routing_headers_are_refused_before_any_work(name: str, tmp_path: Path) -> None:
    given = {name: "hunter2"}
    with pytest.raises(InvalidRequestError, match="header") as caught:
        check_headers(given)
    assert "hunter2" not in str(caught.value)
    for ask in (
        lambda: source_of("https://127.0.0.1:1/x", Credentials(headers=given)),
        lambda: resolve(Source("https://127.0.0.1:1/x"), Credentials(headers=given), OriginSettings()),
        lambda: look(Source("https://127.0.0.1:1/"), Credentials(headers=given), OriginSettings(), ["x"]),
    ):
        with pytest.raises(InvalidRequestError):
            ask()


@pytest.mark.parametrize(
    "given", [{"X-A": "b\r\nHost: evil"}, {"X-A": "b\0"}, {"Accept": "a", "accept": "b"}, {"X-A": "b\n"}]
)
def test_headers_that_smuggle_others_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        check_headers(given)
