"""What is fetched on a user's behalf is opened with what was given, never with what the node itself may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dragonfly_ray.ambient_credentials import check_options, check_scheme, own_options
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceForbiddenError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import resolve
from dragonfly_ray.sources.fs import FsspecAdapter
from tests.local_server import ThreadedServer

SETTINGS = OriginSettings(connect_timeout=60.0, read_timeout=60.0, retries=1)
POLICY = UrlPolicy(networks=("127.0.0.0/8",))


class Recorder:
    """An HTTP server that refuses everything, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                recorder.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadedServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def store() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recorder]:
    """The metadata service of a node that has nothing else."""
    made = Recorder()
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{made.place}")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    monkeypatch.setenv("GCE_METADATA_HOST", made.place)
    monkeypatch.setenv("GCE_METADATA_IP", made.place)
    yield made
    made.close()


def look(url: str, policy: UrlPolicy | None, **options: Any) -> None:
    with pytest.raises(SourceError):
        resolve(Source(url), Credentials(storage_options=options), SETTINGS, policy=policy)


AMBIENT = UrlPolicy(networks=("127.0.0.0/8",), ambient_credentials=("s3", "gcs"))


@pytest.mark.parametrize(
    ("policy", "signed"),
    [(POLICY, False), (AMBIENT, True), (None, True)],
    ids=["policy", "named", "no policy"],
)
def test_the_nodes_keys_sign_nothing_of_a_users(
    store: Recorder,
    metadata: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    policy: UrlPolicy | None,
    signed: bool,
) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-nodes-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store.place}")
    look("s3://bucket/f", policy)
    assert store.asked
    assert {"authorization" in headers for _, headers in store.asked} == {signed}


@pytest.mark.parametrize("url", ["s3://bucket/f", "gs://bucket/f"])
@pytest.mark.parametrize(("policy", "asks"), [(POLICY, False), (AMBIENT, True)], ids=["policy", "named"])
def test_the_metadata_service_is_not_asked(
    store: Recorder,
    metadata: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    policy: UrlPolicy,
    asks: bool,
) -> None:
    pytest.importorskip("s3fs")
    pytest.importorskip("gcsfs")
    look(url, policy, endpoint_url=f"http://{store.place}")
    assert bool(metadata.asked) == asks
    if not asks:
        assert store.asked
        assert not [headers for _, headers in store.asked if "authorization" in headers]


def test_keys_that_were_given_are_used(store: Recorder, metadata: Recorder) -> None:
    pytest.importorskip("s3fs")
    look("s3://bucket/f", POLICY, key="given", secret="s", endpoint_url=f"http://{store.place}")
    assert {"given/" in headers["authorization"] for _, headers in store.asked} == {True}
    assert not metadata.asked


def test_azure_without_credentials_is_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adlfs")
    given = Credentials(storage_options={"account_name": "them"})
    adapter = FsspecAdapter(Source("az://box/f"), given, SETTINGS, POLICY)
    assert adapter._client.any_fs.service_client.credential is None
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm9kZQ==")
    with pytest.raises(SourceForbiddenError, match="environment variable AZURE_STORAGE_ACCOUNT_KEY"):
        FsspecAdapter(Source("az://box/f"), given, SETTINGS, POLICY)
    allowed = UrlPolicy(ambient_credentials=("abfs",))
    assert FsspecAdapter(
        Source("az://box/f"), given, SETTINGS, allowed
    )._client.any_fs.service_client.credential


def test_what_fsspec_is_configured_with_is_not_used(
    store: Recorder, metadata: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("adlfs")
    pytest.importorskip("s3fs")
    keys = {"key": "the-nodes-own", "secret": "s", "endpoint_url": f"http://{store.place}"}
    azure = {"account_key": "bm9kZQ==", "account_name": "them"}
    for protocol, options in (("s3", keys), ("abfs", azure), ("az", azure)):
        monkeypatch.setitem(fsspec.config.conf, protocol, options)
    look("s3://bucket/f", POLICY)
    assert store.asked
    assert not [headers for _, headers in store.asked if "authorization" in headers]
    adapter = FsspecAdapter(Source("az://box/f"), Credentials(), SETTINGS, POLICY)
    assert adapter._client.any_fs.service_client.credential is None
    allowed = UrlPolicy(ambient_credentials=("az",))
    assert FsspecAdapter(
        Source("az://box/f"), Credentials(), SETTINGS, allowed
    )._client.any_fs.service_client.credential


def test_what_only_the_nodes_own_user_opens_is_named_or_refused() -> None:
    with pytest.raises(SourceForbiddenError, match=r"urls\.ambient_credentials"):
        check_scheme("hdfs://name-node.example/x", UrlPolicy())
    check_scheme("hdfs://name-node.example/x", UrlPolicy(ambient_credentials=("hdfs",)))
    for url in ("https://example.com/x", "s3a://bucket/x", "gcs://bucket/x", "abfss://bucket/x", "ftp://h/x"):
        check_scheme(url, UrlPolicy())


@pytest.mark.parametrize("options", [
    {"profile": "prod"}, {"client_kwargs": {"verify": "/etc/ssl/private"}}, {"key_filename": "id_rsa"},
    {"config_kwargs": {"client_cert": "x.pem"}}, {"config_kwargs": {"proxies_config": {"proxy_ca_bundle": "x"}}},
    {"session_vars": {"x": 1}}, {"token": {"credential_source": {"file": "/var/run/token"}}}, {"kerb_ticket": "/tmp/krb5cc"},
    {"token": {"type": "external_account", "credential_source": {"executable": {"command": "id"}}}},
    {"ssl": "ca.pem"}, {"anything": "~/.aws/credentials"}, {"list": ["ok", "/etc/passwd"]}, {"service_file": "x"},
    {"cafile": "x"}, {"ssh_config_path": "x"}, {"PROFILE": "prod"}, {"anything": "file:///etc/passwd"},
])  # fmt: skip
def test_options_that_name_something_of_the_node_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SourceForbiddenError, match="storage option"):
        check_options(options)


@pytest.mark.parametrize("options", [
    {"key": "AKIA", "secret": "/begins/like/a/path", "endpoint_url": "https://minio.example"},
    {"client_kwargs": {"region_name": "eu-1", "verify": True, "aws_session_token": "/x"}},
    {"config_kwargs": {"s3": {"addressing_style": "path"}, "signature_version": "s3v4"}},
    {"token": {"type": "service_account", "private_key": "-----BEGIN", "client_email": "a@b",
               "token_uri": "https://oauth2.googleapis.com/token", "client_x509_cert_url": "https://www.googleapis.com/x"}},
    {"account_name": "a", "account_key": "/base64=="}, {"ssl": False, "user": "me"},
])  # fmt: skip
def test_options_that_are_credentials_are_taken(options: dict[str, object]) -> None:
    check_options(options)


@pytest.mark.parametrize(("url", "options"), [
    ("gs://b/x", {"token": "creds.json"}), ("gs://b/x", {"token": "google_default"}), ("gs://b/x", {"token": "cache"}),
    ("gs://b/x", {"token": "cloud"}), ("gs://b/x", {"token": "/etc/key.json"}),
    ("gs://b/x", {"token": {"type": "service_account", "token_uri": "http://169.254.169.254/"}}),
    ("gs://b/x", {"session_kwargs": {"trust_env": True}}), ("s3://b/x", {"key": "k"}), ("s3://b/x", {"foo": 1}),
    ("az://b/x", {"account_name": "a", "client_id": "c"}), ("hdfs://h/x", {}),
])  # fmt: skip
def test_ways_round_are_refused(url: str, options: dict[str, object]) -> None:
    with pytest.raises(SourceForbiddenError):
        own_options(url, options, UrlPolicy(), {})


def test_no_option_keeps_the_filesystem_from_being_anonymous() -> None:
    assert own_options("s3://b/x", {"anon": False}, UrlPolicy(), {}) == {"anon": True}
    assert own_options("gs://b/x", {"token": ""}, UrlPolicy(), {}) == {"token": "anon"}
    given = own_options("s3://b/x", {"key": "k", "secret": "s", "token": "t"}, UrlPolicy(), {})
    assert given == {"token": "t"}
    assert own_options("gs://b/x", {"token": "ya29.a-b_c"}, UrlPolicy(), {}) == {}
    found = own_options("az://b/x", {"account_name": "a", "anon": False, "sas_token": "s"}, UrlPolicy(), {})
    assert (found["anon"], found["sas_token"], found["account_key"]) == (True, "s", None)
    inner = {"client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"}}
    assert own_options("s3://b/x", inner, UrlPolicy(), {}) == {"token": None}
