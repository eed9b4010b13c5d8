"""What a new database begins with."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve.accounts import setup
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Audit, Role, User
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager import people
from tests.manager.people import browser, sign_in


@pytest.fixture
def bare(settings: ManagerSettings) -> ManagerSettings:
    """Without a password."""
    return settings.model_copy(update={"admin_password": None})


def made_up(settings: ManagerSettings) -> str | None:
    """The password in the file that nobody else may read."""
    path = settings.state_dir / setup.FIRST_PASSWORD
    if not path.exists():
        return None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text().strip()


def test_a_password_that_nobody_gave_is_in_a_file_and_in_no_output(
    bare: ManagerSettings, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Ray keeps what its processes say with its logs."""
    caplog.set_level(0)
    app = create_app(bare, FakeCluster(1))
    with TestClient(app):
        password = made_up(bare)
        assert password is not None
        assert len(password) >= 20
        client = browser(app)
        assert sign_in(client, "admin", password).status_code == 201
        assert str(bare.state_dir / setup.FIRST_PASSWORD) in caplog.text
        with TestClient(create_app(bare, FakeCluster(1))):
            assert made_up(bare) == password
        changed = client.post(
            f"{people.API}/session/password", json={"old": password, "new": people.PASSWORD}
        )
        assert changed.status_code in (200, 204)
    assert password not in caplog.text + "".join(capfd.readouterr())
    written = [f for f in bare.state_dir.rglob("*") if f.is_file() and password.encode() in f.read_bytes()]
    assert written == [], "it is of no use any more"


def test_a_password_that_cannot_be_written_makes_no_user(
    database: Database, bare: ManagerSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    setup.builtin_roles(database)
    with pytest.raises(InvalidRequestError, match="ADMIN_PASSWORD_FILE"):
        setup.first_admin(database, bare.model_copy(update={"state_dir": tmp_path / "file" / "state"}))
    with database.read() as session:
        assert session.scalars(select(User)).all() == []


def test_a_given_password_is_never_shown(
    settings: ManagerSettings, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings, FakeCluster(1))
    with TestClient(app):
        assert sign_in(browser(app), "admin", "correct horse battery").status_code == 201
    found = "".join(capsys.readouterr()) + caplog.text
    assert "correct horse battery" not in found
    assert made_up(settings) is None


def test_a_password_from_a_file(bare: ManagerSettings, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from a file, with spaces\n")
    app = create_app(bare.model_copy(update={"admin_password_file": file}), FakeCluster(1))
    with TestClient(app):
        assert sign_in(browser(app), "admin", "from a file, with spaces").status_code == 201
    assert made_up(bare) is None


@pytest.mark.parametrize("content", [None, b"short", b"\xff" * 20])
def test_a_password_that_cannot_be_used_is_told_at_the_start(
    database: Database, bare: ManagerSettings, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    setup.builtin_roles(database)
    with pytest.raises(InvalidRequestError, match=str(file)) as refused:
        setup.first_admin(database, bare.model_copy(update={"admin_password_file": file}))
    assert "short" not in str(refused.value).replace(str(file), "")


def test_a_later_start_changes_no_password(settings: ManagerSettings) -> None:
    with TestClient(create_app(settings, FakeCluster(1))):
        pass
    other = settings.model_copy(update={"admin_password": SecretStr("a different password")})
    app = create_app(other, FakeCluster(1))
    with TestClient(app):
        assert sign_in(browser(app), "admin", "a different password").status_code == 401
        assert sign_in(browser(app), "admin", "correct horse battery").status_code == 201


def test_replicas_that_start_at_once_make_one_admin(database_url: str, bare: ManagerSettings) -> None:
    each = [Database(bare.database) for _ in range(4)]

    def start(database: Database) -> None:
        database.migrate()
        setup.builtin_roles(database)
        setup.first_admin(database, bare)

    with ThreadPoolExecutor(len(each)) as pool:
        list(pool.map(start, each))
    with each[0].read() as session:
        assert [u.name for u in session.scalars(select(User))] == ["admin"]
        assert {r.name for r in session.scalars(select(Role))} == {"admin", "operator", "viewer"}
        assert [a.action for a in session.scalars(select(Audit))] == ["user.create"]
    for database in each:
        database.close()
    password = made_up(bare)
    assert password is not None
    app = create_app(bare, FakeCluster(1))
    with TestClient(app):
        assert sign_in(browser(app), "admin", password).status_code == 201


def test_a_deleted_first_admin_does_not_come_back(settings: ManagerSettings) -> None:
    app = create_app(settings, FakeCluster(1))
    with TestClient(app):
        people.user(people.database_of(app), "boss", "admin")
        with people.database_of(app).write() as session:
            session.delete(session.scalars(select(User).where(User.name == "admin")).one())
    app = create_app(settings, FakeCluster(1))
    with TestClient(app):
        assert sign_in(browser(app), "admin", "correct horse battery").status_code == 401
