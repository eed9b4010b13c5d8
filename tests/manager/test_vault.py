"""The vault, and the credentials in it."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError, StorageError, VaultError
from dragonfly_ray.serve import vault as vaults
from dragonfly_ray.serve.accounts import secrets
from dragonfly_ray.serve.accounts.hosts import allowed
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database.tables import Audit, Secret
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from dragonfly_ray.serve.vault import Vault
from tests.manager.people import API, database_of, problem, signed_in, sqlite_only

KEY = bytes(range(32))


# --- sealing ---


def test_what_is_sealed_opens() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(b"hunter2", b"here")
    assert b"hunter2" not in sealed
    assert vault.open(sealed, b"here") == b"hunter2"
    assert vault.seal(b"hunter2", b"here") != sealed
    assert Vault.key_of(sealed) == vault.key_id


def test_it_opens_only_where_it_belongs_and_as_it_was() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(b"hunter2", b"here")
    damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for data, context in (
        (sealed, b"there"),
        (damaged, b"here"),
        (sealed[:10], b"here"),
        (sealed[:25], b"here"),
    ):
        with pytest.raises(VaultError, match="corrupted"):
            vault.open(data, context)


def test_a_wrong_key_is_told_as_such() -> None:
    right, wrong = Vault(KEY), Vault(bytes(32))
    with pytest.raises(VaultError, match=f"key {right.key_id}, this manager has key {wrong.key_id}"):
        wrong.open(right.seal(b"hunter2"))


def test_a_vault_shows_nothing_of_its_key() -> None:
    vault = Vault(KEY)
    for text in (repr(vault), vault.key_id):
        assert KEY.hex()[:8] not in text
    assert vault.sign(b"a") == Vault(KEY).sign(b"a") != Vault(bytes(32)).sign(b"a")


# --- keys ---


def settings_with(tmp_path: Path, **changes: Any) -> ManagerSettings:
    return ManagerSettings(state_dir=tmp_path / "state", **changes)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    first = Vault.of(settings)
    file = settings.state_dir / vaults.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Vault.of(settings).key_id == first.key_id
    assert [f.name for f in settings.state_dir.iterdir()] == [vaults.FILE]


def test_a_key_that_others_could_have_planted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / vaults.FILE).write_text(vaults.new_key())
    (tmp_path / "state").symlink_to(tmp_path / "theirs")
    with pytest.raises(StorageError, match="state: is a symlink; remove it, or set state_dir"):
        Vault.of(settings_with(tmp_path))


def test_a_key_from_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "mine"
    made = Vault.of(settings_with(tmp_path, secret_key_file=file))
    given = Vault.of(settings_with(tmp_path, secret_key=SecretStr(file.read_text().strip())))
    assert made.key_id == given.key_id
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("key", ["", "short", "!" * 44, "A" * 60, "ä" * 44])
def test_a_key_that_is_none(tmp_path: Path, key: str) -> None:
    with pytest.raises(VaultError, match="secret_key: ") as refused:
        Vault.of(settings_with(tmp_path, secret_key=SecretStr(key)))
    assert not key or key not in str(refused.value)


def test_a_key_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultError, match="cannot read or create the key"):
        Vault.of(settings_with(tmp_path, secret_key_file=tmp_path / "file" / "key"))


def test_a_key_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text(vaults.new_key())
    file.chmod(0o644)
    Vault.of(settings_with(tmp_path, secret_key_file=file))
    assert f"{file}: key is readable by other users" in caplog.text
    assert file.read_text() not in caplog.text


def test_replicas_that_start_at_once_have_the_same_key(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def key_id(_: int) -> str:
        together.wait(30)
        return Vault.of(settings_with(tmp_path)).key_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(key_id, range(8)))) == 1


# --- secrets ---


@pytest.fixture
def admin(client: TestClient, app: FastAPI) -> TestClient:
    return signed_in(app, "admin", "correct horse battery")


BODY = {
    "name": "models",
    "headers": {"Authorization": "Bearer planted-header"},
    "storage_options": {
        "key": "planted-key",
        "secret": "planted-secret",
        "client_kwargs": {"x": "planted-deep"},
    },
    "hosts": ["models.example", "*.CDN.example", "localhost:9000"],
}


def create(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post(f"{API}/secrets", json=BODY | changes)


def test_a_secret_from_its_start_to_its_end(admin: TestClient, app: FastAPI) -> None:
    answer = create(admin)
    assert (answer.status_code, answer.headers["location"]) == (201, f"{API}/secrets/models")
    found = answer.json()
    assert found["fields"] == [
        "headers.Authorization", "storage_options.client_kwargs", "storage_options.key", "storage_options.secret",
    ]  # fmt: skip
    assert (found["created_by"], found["last_used_at"]) == ("admin", None)
    assert admin.get(f"{API}/secrets/models").json() == found
    assert admin.get(f"{API}/secrets").json()["items"] == [found]
    assert problem(create(admin)) == "exists"
    body = {"headers": {"X-Key": "planted-again"}, "hosts": ["new.example"]}
    changed = admin.put(f"{API}/secrets/models", json=body, headers={"If-Match": answer.headers["etag"]})
    assert (changed.json()["fields"], changed.json()["hosts"]) == (["headers.X-Key"], ["new.example"])
    assert changed.headers["etag"] == '"2"'
    assert admin.put(f"{API}/secrets/models", json=body, headers={"If-Match": '"1"'}).status_code == 412
    assert admin.put(f"{API}/secrets/models", json=body).status_code == 428
    assert admin.delete(f"{API}/secrets/models").status_code == 204
    assert admin.get(f"{API}/secrets/models").status_code == 404
    with database_of(app).read() as session:
        rows = session.scalars(select(Audit).where(Audit.resource_type == "secret").order_by(Audit.id))
        assert [r.action for r in rows] == ["secret.create", "secret.change", "secret.delete"]


def test_credentials_are_opened_for_whoever_fetches(admin: TestClient, app: FastAPI) -> None:
    create(admin)
    manager = app.state.manager
    with manager.database.write() as session:
        found = secrets.credentials_for(session, manager.vault, "models", "https://models.example/m.bin")
    assert found.headers == BODY["headers"]
    assert found.storage_options == BODY["storage_options"]
    assert repr(found) == "Credentials(***)"
    assert admin.get(f"{API}/secrets/models").json()["last_used_at"]


@sqlite_only
def test_credentials_go_to_their_hosts_only(admin: TestClient, app: FastAPI) -> None:
    create(admin)
    manager = app.state.manager
    with manager.database.write() as session:
        for url in ("https://evil.example/?a=planted-query", "file:///etc/passwd", "/etc/passwd"):
            with pytest.raises(InvalidRequestError, match="may not be sent to") as refused:
                secrets.credentials_for(session, manager.vault, "models", url)
            assert "planted" not in str(refused.value)
        with pytest.raises(InvalidRequestError, match="not found"):
            secrets.credentials_for(session, manager.vault, "other", "https://models.example/")
    assert admin.get(f"{API}/secrets/models").json()["last_used_at"] is None


@pytest.mark.parametrize(
    ("hosts", "url", "may"),
    [
        ([], "https://anything.example/", False),
        (["a.example"], "https://a.example/x", True),
        (["a.example"], "https://A.EXAMPLE:8443/x", True),
        (["a.example:443"], "https://a.example/x", False),
        (["a.example:8443"], "https://a.example:8443/x", True),
        (["*.example"], "https://a.b.example/x", True),
        (["*.example"], "https://example/x", False),
        (["a.example"], "https://a.example.evil/x", False),
        (["a.example"], "https://a.example@evil.example/x", False),
        (["evil.example"], "https://a.example@evil.example/x", True),
        (["a.example"], "https://a.example\\@evil.example/x", False),
        (["a.example"], "https://evil.example\\.a.example/x", False),
        (["a.example"], "https://a.example\t.evil/x", False),
        (["a.example"], "https://[a.example/x", False),
        (["models"], "s3://models/x", True),
        (["models"], "s3://other/models", False),
        (["*"], "https://anything.example/", False),
        (["*.*"], "https://anything.example/", False),
        (["team-*"], "s3://team-models/x", True),
        (["team-*"], "https://team-models.evil.example/x", False),
        (["team-*.example"], "https://team-1.example/x", True),
        (["a.example:*"], "https://a.example:8443/x", True),
        (["a?example"], "https://a.example/x", False),
        (["[ab].example"], "https://a.example/x", False),
        (["[::1]"], "https://[::1]/x", True),
        (["*"], "/etc/passwd", False),
        (["*"], "file:///etc/passwd", False),
    ],
)
def test_which_host_a_url_is_of(hosts: list[str], url: str, may: bool) -> None:
    assert allowed(hosts, url) is may


@sqlite_only
@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {}, "storage_options": {}},
        {"headers": {"A": "planted\r\nX: y"}},
        {"headers": {"A: b": "planted"}},
        {"headers": {"A": {"planted": 1}}},
        {"hosts": ["https://planted.example/"]},
        {"hosts": []},
        {"hosts": ["*"]},
        {"hosts": ["*.*:*"]},
        {"storage_options": {"key": "planted", "endpoint_url": "https://minio.example"}},
        {"storage_options": {"client_kwargs": {"endpoint_url": "https://planted.example"}}},
        {
            "storage_options": {
                "connection_string": "AccountName=a;AccountKey=planted;EndpointSuffix=evil.example"
            }
        },
        {"storage_options": {"connection_string": "BlobEndpoint=https://evil.example/a;AccountKey=planted"}},
        {"storage_options": {"key": "planted", "endpoint_url": "http://models.example"}},
        {"storage_options": {"key": "planted", "use_ssl": False}},
        {"storage_options": {"profile": "planted"}},
        {"storage_options": {"token": {"credential_source": {"file": "planted"}}}},
        {"value": "planted"},
        {"name": "planted/../x"},
    ],
)
def test_what_is_refused_is_not_repeated(admin: TestClient, changes: dict[str, Any]) -> None:
    answer = create(admin, **changes)
    assert answer.status_code == 422
    assert "planted" not in answer.text.replace("planted/../x", "")


def test_the_manager_does_not_start_with_another_key(admin: TestClient, settings: ManagerSettings) -> None:
    create(admin)
    other = settings.model_copy(update={"secret_key": SecretStr(vaults.new_key())})
    with (
        pytest.raises(VaultError, match="start it with the key"),
        TestClient(create_app(other, FakeCluster(1))),
    ):
        pass


@sqlite_only
def test_a_secret_that_does_not_open_is_an_error_of_the_manager(admin: TestClient, app: FastAPI) -> None:
    create(admin)
    manager = app.state.manager
    with manager.database.write() as session:
        session.get_one(Secret, "models").sealed = Vault(bytes(32)).seal(b"{}", b"secret models")
    with manager.database.write() as session, pytest.raises(VaultError, match="this manager has key"):
        secrets.credentials_for(session, manager.vault, "models", "https://models.example/")
