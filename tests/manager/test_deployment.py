"""What is handed to Ray Serve, without Ray."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr, ValidationError
from ray import cloudpickle, serve

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError, StorageError
from dragonfly_ray.serve import background, deployment, launch, vault
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.deployment import Args, application, checked, handed_over, manager, name_of
from dragonfly_ray.serve.secret_files import given_secrets, has_password
from dragonfly_ray.serve.settings import ManagerSettings
from tests.waiting import until

PASSWORD = "correct horse battery"
POSTGRES = "postgresql://me:pw@db/dragonfly"


def test_several_replicas_need_postgresql(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="several replicas need PostgreSQL"):
        checked(ManagerSettings(replicas=2, state_dir=tmp_path))
    assert checked(ManagerSettings(replicas=2, database_url=POSTGRES)).replicas == 2
    with pytest.raises(InvalidRequestError, match="set both or neither"):
        checked(ManagerSettings(tls_cert_file=tmp_path / "cert"))


def test_a_password_is_handed_over_as_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGONFLY_ADMIN_PASSWORD", PASSWORD)
    given = handed_over(ManagerSettings(http_port=1))
    assert PASSWORD not in repr(given)
    assert passwords.verified(given["admin_password_hash"], PASSWORD)
    assert ManagerSettings(**given).admin_password_hash == SecretStr(given["admin_password_hash"])


def test_only_what_was_set_is_handed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rest is the replica's own node to say."""
    given = handed_over(ManagerSettings(state_dir=tmp_path, http_port=0))
    assert given == {"state_dir": str(tmp_path), "http_port": 0}
    monkeypatch.setenv("DRAGONFLY_MANAGER_PUBLIC_URL", "https://here")
    assert ManagerSettings(**given).public_url == "https://here"


def test_a_replica_is_where_its_database_is(tmp_path: Path) -> None:
    embedded = application(ManagerSettings(state_dir=tmp_path), Settings())._bound_deployment
    assert embedded.ray_actor_options is not None
    assert embedded.ray_actor_options["resources"] == {"node:__internal_head__": 0.001}
    assert embedded.num_replicas == 1
    many = application(ManagerSettings(database_url=POSTGRES, replicas=3), Settings())._bound_deployment
    assert many.ray_actor_options is not None
    assert many.ray_actor_options["resources"] == {}
    assert (many.num_replicas, many._replica_config.max_replicas_per_node) == (3, 1)
    assert many.max_ongoing_requests >= ManagerSettings().limits.streams + 100


def test_replicas_run_on_nodes_with_the_labels_that_are_asked_for(tmp_path: Path) -> None:
    """What is on no other node, such as the database's URL in a file, is not read while it is deployed."""
    from ray.serve.schema import RayActorOptionsSchema

    labels = {"dragonfly.io/manager": "true"}
    asked = ManagerSettings(database_url_file=tmp_path / "elsewhere", replicas=2, node_labels=labels)
    options = application(asked, Settings())._bound_deployment.ray_actor_options
    assert options is not None
    assert (options["label_selector"], options["resources"]) == (labels, {})
    assert RayActorOptionsSchema(**options).label_selector == labels


def test_the_databases_url_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    found = ManagerSettings(database_url_file=file)
    with pytest.raises(InvalidRequestError, match="cannot read the database URL"):
        _ = found.database
    file.write_text(POSTGRES + "\n")
    assert found.database == POSTGRES.replace("postgresql:", "postgresql+psycopg:")
    assert not found.embedded
    given = handed_over(found)
    assert given == {"database_url_file": str(file)}


def test_secrets_that_were_given_are_told_from_files(tmp_path: Path) -> None:
    both = ["secret_key", "database_url"]
    assert given_secrets(ManagerSettings(secret_key=SecretStr("x"), database_url=POSTGRES)) == both
    files = ManagerSettings(secret_key_file=tmp_path / "key", database_url_file=tmp_path / "url")
    assert given_secrets(files) == []


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("", False),
        ("sqlite:////var/lib/manager.db", False),
        ("postgresql://db/dragonfly", False),
        ("postgresql://me@db/dragonfly?sslmode=require", False),
        (POSTGRES, True),
        ("postgresql://me@db/dragonfly?password=pw", True),
        ("postgresql+psycopg://me@db/dragonfly?sslmode=require&sslpassword=pw", True),
        ("postgresql:me:pw@db", True),
    ],
)
def test_passwords_in_a_databases_url(url: str, *, secret: bool) -> None:
    assert has_password(url) is secret


def pickled(application: Any) -> bytes:
    """As Ray stores it."""
    found: bytes = cloudpickle.dumps(application)  # type: ignore[no-untyped-call]
    return found


class Handed(Exception):
    """Ray Serve has got it."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `deploy` gives to Ray Serve on the head node."""
    targets: list[Any] = []

    def run_many(given: list[Any], **_: object) -> None:
        targets.extend(target.target for target in given)

    def ready(*_: object) -> None:
        raise Handed

    for name in ("connect", "_begin", "_start_serve"):
        monkeypatch.setattr(launch, name, lambda *_: None)
    monkeypatch.setattr(launch, "_await", ready)
    monkeypatch.setattr(launch, "_is_there", lambda _: False)
    monkeypatch.setattr(launch, "_head", lambda: {"NodeID": "head", "NodeManagerAddress": "192.0.2.1"})
    monkeypatch.setattr(launch, "current_node", lambda: "head")
    monkeypatch.setattr(serve, "run_many", run_many)
    return targets


def test_ray_gets_paths_in_place_of_secrets(handed: list[Any], tmp_path: Path) -> None:
    """Whether they come from the environment or from a program; a replica on the head node works with them."""
    key = vault.new_key()
    state = tmp_path / "state"
    given = ManagerSettings(state_dir=state, database_url=POSTGRES, secret_key=SecretStr(key))
    with pytest.raises(Handed):
        launch.deploy(given, Settings())
    (application,) = handed
    stored = pickled(application)
    assert key.encode() not in stored
    assert POSTGRES.encode() not in stored
    bound = application._bound_deployment
    assert bound.ray_actor_options["resources"] == {"node:__internal_head__": 0.001}
    settings, _, withheld = bound.init_args
    assert withheld == []
    replica = ManagerSettings(**settings)
    assert replica.database == given.database
    assert vault.Vault.of(replica).key_id == vault.Vault.of(given).key_id
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    assert state.stat().st_mode & 0o777 == 0o700


def test_the_key_of_the_state_folder_is_not_replaced(handed: list[Any], tmp_path: Path) -> None:
    own = vault.Vault.of(ManagerSettings(state_dir=tmp_path)).key_id
    with pytest.raises(Handed):
        launch.deploy(ManagerSettings(state_dir=tmp_path, secret_key=SecretStr(vault.new_key())), Settings())
    assert vault.Vault.of(ManagerSettings(state_dir=tmp_path)).key_id == own
    assert handed


def test_secrets_are_not_written_to_a_folder_of_others(handed: list[Any], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    asked = ManagerSettings(state_dir=tmp_path / "link", secret_key=SecretStr(vault.new_key()))
    with pytest.raises(StorageError, match="state_dir"):
        launch.deploy(asked, Settings())
    assert handed == []
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "node"),
    [({"replicas": 2}, "head"), ({"node_labels": {"pool": "web"}}, "head"), ({}, "another")],
)
def test_where_replicas_could_not_read_them_secrets_are_refused(
    handed: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], node: str
) -> None:
    monkeypatch.setattr(launch, "current_node", lambda: node)
    key = SecretStr(vault.new_key())
    asked = ManagerSettings(state_dir=tmp_path, database_url=POSTGRES, secret_key=key, **changes)
    with pytest.raises(InvalidRequestError, match="secret_key_file, database_url_file") as refused:
        launch.deploy(asked, Settings())
    assert "pw" not in str(refused.value)
    assert handed == []
    assert list(tmp_path.iterdir()) == []
    files = asked.model_copy(
        update={"database_url": "", "secret_key": None, "database_url_file": tmp_path / "url"}
    )
    with pytest.raises(Handed):
        launch.deploy(files, Settings())


def test_secrets_in_the_environment_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `serve deploy` each node has its own; one that lacks them does not begin with an empty database."""
    key = vault.new_key()
    with monkeypatch.context() as environment:
        environment.setenv("DRAGONFLY_MANAGER_DATABASE_URL", POSTGRES)
        environment.setenv("DRAGONFLY_MANAGER_SECRET_KEY", key)
        made = manager(Args(manager={"http_port": 1}))
    stored = pickled(made)
    assert key.encode() not in stored
    assert POSTGRES.encode() not in stored
    bound: Any = made._bound_deployment
    settings, _, withheld = bound.init_args
    with pytest.raises(InvalidRequestError, match=r"set DRAGONFLY_MANAGER_SECRET_KEY or .*KEY_FILE there"):
        deployment._need(ManagerSettings(**settings), withheld)
    monkeypatch.setenv("DRAGONFLY_MANAGER_DATABASE_URL", POSTGRES)
    monkeypatch.setenv("DRAGONFLY_MANAGER_SECRET_KEY_FILE", "/etc/key")
    deployment._need(ManagerSettings(**settings), withheld)
    assert ManagerSettings(**settings).database == ManagerSettings(database_url=POSTGRES).database


def test_names_of_applications() -> None:
    assert name_of("dragonfly") == "dragonfly"
    assert name_of("other") == "dragonfly-other"


def test_arguments_are_typed() -> None:
    assert Args(manager={"replicas": 1}).manager == {"replicas": 1}
    with pytest.raises(ValidationError, match="unknown settings: replica"):
        Args(manager={"replica": 1})
    with pytest.raises(ValidationError, match="pass secrets in the environment"):
        Args(manager={"secret_key": "x"})
    with pytest.raises(ValidationError, match="database_url: pass secrets in the environment"):
        Args(manager={"database_url": POSTGRES})
    with pytest.raises(ValidationError, match="unknown settings: stores"):
        Args(cluster={"stores": {}})


def test_the_file_for_serve_deploy() -> None:
    from ray._common.utils import import_attr
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve.schema import ServeDeploySchema

    file = Path(__file__).parents[2] / "configs" / "serve.yaml"
    found = ServeDeploySchema(**yaml.safe_load(file.read_text()))
    (app,) = found.applications
    assert app.name == name_of("dragonfly")
    made = call_user_app_builder_with_args_if_necessary(import_attr(app.import_path), app.args)
    assert made._bound_deployment.name == "manager"
    with pytest.raises(ValidationError, match="unknown settings"):
        call_user_app_builder_with_args_if_necessary(import_attr(app.import_path), {"manager": {"x": 1}})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_replica_whose_work_has_died_is_not_healthy() -> None:
    def die(stopping: threading.Event) -> None:
        raise SystemExit

    broken, stopped = background.Loop("broken", 60, die), background.Loop("stopped", 60, lambda _: None)
    broken.start()
    stopped.start()
    stopped.stop()
    until(lambda: background.dead() == ["broken"])
    broken.stop()
    assert background.dead() == []


def test_a_port_that_is_taken_is_said_before_serve_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve itself would share it with whoever has it, and half of the requests would go there."""
    monkeypatch.setattr(launch, "_head", lambda: {"NodeID": "head", "NodeManagerAddress": "127.0.0.1"})
    monkeypatch.setattr(launch, "current_node", lambda: "head")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequestError, match=f"cannot listen on 127.0.0.1:{port} .*--manager-port"):
            launch._port(ManagerSettings(http_port=port))
        assert launch._port(ManagerSettings(http_port=0)) not in (0, port)
    assert launch._port(ManagerSettings(http_port=port)) == port
