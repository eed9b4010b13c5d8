"""What is handed to Ray Serve, without Ray."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve import background, launch
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.deployment import Args, application, checked, exposed, handed_over, name_of
from dragonfly_ray.serve.settings import ManagerSettings
from tests.waiting import until

PASSWORD = "correct horse battery"
POSTGRES = "postgresql://me:pw@db/dragonfly"


def test_several_replicas_need_postgresql(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="several need PostgreSQL"):
        checked(ManagerSettings(replicas=2, state_dir=tmp_path))
    assert checked(ManagerSettings(replicas=2, database_url=POSTGRES)).replicas == 2
    with pytest.raises(InvalidRequestError, match="both or none"):
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
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        _ = found.database
    file.write_text(POSTGRES + "\n")
    assert found.database == POSTGRES.replace("postgresql:", "postgresql+psycopg:")
    assert not found.embedded
    given = handed_over(found)
    assert given == {"database_url_file": str(file)}


def test_secrets_that_ray_would_keep_are_named(tmp_path: Path) -> None:
    assert exposed(ManagerSettings(secret_key=SecretStr("x"), database_url=POSTGRES)) == [
        "secret_key",
        "database_url",
    ]
    files = ManagerSettings(secret_key_file=tmp_path / "key", database_url_file=tmp_path / "url")
    assert exposed(files) == []
    assert exposed(ManagerSettings(database_url="postgresql://db/dragonfly")) == []


def test_names_of_applications() -> None:
    assert name_of("dragonfly") == "dragonfly"
    assert name_of("other") == "dragonfly-other"


def test_arguments_are_typed() -> None:
    assert Args(manager={"replicas": 1}).manager == {"replicas": 1}
    with pytest.raises(ValidationError, match="no such settings: replica"):
        Args(manager={"replica": 1})
    with pytest.raises(ValidationError, match="secrets belong into the environment"):
        Args(manager={"secret_key": "x"})
    with pytest.raises(ValidationError, match="no such settings: stores"):
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
    with pytest.raises(ValidationError, match="no such settings"):
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
