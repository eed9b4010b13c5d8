"""A client that is generated from the OpenAPI document does what a person would do with it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.manager.test_openapi import Served, operations, served

__all__ = ["served"]
PACKAGE = "generated_dragonfly_client"


@pytest.fixture(scope="module")
def generated(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the client's package."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(served.document))
    (folder / "config.yml").write_text(f"package_name_override: {PACKAGE}\npost_hooks: []\n")
    command = ["generate", "--path", "openapi.json", "--meta", "none", "--config", "config.yml"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "openapi_python_client",
            *command,
            "--output-path",
            PACKAGE,
            "--fail-on-warning",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / PACKAGE


@pytest.fixture
def client(generated: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(generated.parent))
    return importlib.import_module(PACKAGE)


def part(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_every_operation_is_in_it(served: Served, generated: Path) -> None:
    there = {file.stem for file in (generated / "api").rglob("*.py")}
    missing = [o["operationId"] for _, _, o in operations(served.document) if o["operationId"] not in there]
    assert missing == []


def test_it_works(served: Served, client: Any) -> None:
    models = part("models")
    caller = client.AuthenticatedClient(base_url=served.url, token=served.token)
    body = models.UserCreate(name="generated", role="viewer", password="a long pass phrase")
    user = part("api.users.create_user").sync(client=caller, body=body)
    assert (user.name, user.role, user.disabled) == ("generated", "viewer", False)
    shown = part("api.users.get_user").sync_detailed(user.id, client=caller)
    assert shown.parsed == user
    changed = part("api.users.change_user").sync(
        user.id, client=caller, body=models.UserChange(role="operator"), if_match=shown.headers["ETag"]
    )
    assert changed.role == "operator"
    stale = part("api.users.change_user").sync_detailed(
        user.id, client=caller, body=models.UserChange(role="viewer"), if_match=shown.headers["ETag"]
    )
    assert stale.status_code == 412
    assert stale.parsed.type_ == "urn:dragonfly:problem:precondition-failed"
    listed = part("api.users.list_users").sync(client=caller, limit=1, name="generated")
    assert [u.id for u in listed.items] == [user.id]
    signed_in = part("api.session.session_sign_in").sync(
        client=client.Client(base_url=served.url),
        body=models.SignIn(name="generated", password="a long pass phrase"),
    )
    assert signed_in.role == "operator"
    nobody = part("api.users.list_users").sync_detailed(
        client=client.AuthenticatedClient(base_url=served.url, token="dfr_wrong")
    )
    assert (nobody.status_code, nobody.parsed.status) == (401, 401)
