"""The manager on Ray Serve: one application of a cluster, whose FastAPI app is built on the replica."""

# Annotations are real here, not text: Serve looks at that of `manager`.
import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from ray import serve
from ray.serve import Application
from sqlalchemy.exc import SQLAlchemyError

from dragonfly_ray import logs
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError, NotRunningError
from dragonfly_ray.serve import background
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database.tables import User
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.secret_files import given_secrets, has_password
from dragonfly_ray.serve.settings import ManagerSettings

DEPLOYMENT = "manager"
SPARE_REQUESTS = 200
"""Requests at once of one replica, beside its open streams."""
HEAD = {"node:__internal_head__": 0.001}
READY_TIMEOUT = 10.0


def name_of(namespace: str) -> str:
    """The Serve application of a cluster: each Ray namespace has its own."""
    return "dragonfly" if namespace == "dragonfly" else f"dragonfly-{namespace}"


@serve.ingress()
class ManagerReplica:
    """`manager`, `cluster`: settings by name; what is missing comes from the environment of the replica's node.

    `withheld`: names of settings that hold secrets; the node must have them itself.
    """

    def __init__(
        self, manager: Mapping[str, Any], cluster: Mapping[str, Any], withheld: Sequence[str] = ()
    ) -> None:
        self._settings = ManagerSettings(**manager)
        self._cluster = Settings(**cluster)
        logs.setup(f"manager:{uuid.uuid4().hex[:8]}", form=self._cluster.log_format)
        _need(self._settings, withheld)
        checked(self._settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from dragonfly_ray.serve.ray_cluster import RayCluster

        cluster = RayCluster(self._cluster)
        _try(self._settings, cluster)
        self._app = create_app(self._settings, cluster)
        return self._app

    async def check_health(self) -> None:
        """Ray Serve starts this replica again when it raises, or does not answer."""
        gone = background.dead()
        if gone:
            raise RuntimeError(f"background services stopped: {', '.join(gone)}")

    async def ready(self) -> int:
        """The status that `/readyz` answers with, whatever this replica's address is."""
        import httpx

        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return (await client.get("/readyz", timeout=READY_TIMEOUT)).status_code

    async def has_password(self, password_hash: str) -> bool:
        """Whether some user's password is kept as this very hash: whether it was taken for the first admin."""
        return await asyncio.to_thread(self._has_password, password_hash)

    def _has_password(self, password_hash: str) -> bool:
        with self._app.state.manager.database.read() as session:
            return session.query(User).filter_by(password_hash=password_hash).first() is not None


def _try(settings: ManagerSettings, cluster: Cluster) -> None:
    """What may be wrong is said here: of an application that does not start, Serve says no more than that."""
    try:
        Manager.build(settings, cluster).database.close()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise NotRunningError(f"the manager's database is not usable ({type(cause).__name__})") from None


def checked(settings: ManagerSettings) -> ManagerSettings:
    """Raises `InvalidRequestError` for what cannot work."""
    if settings.replicas > 1 and settings.embedded:
        raise InvalidRequestError(
            f"replicas={settings.replicas}: several replicas need PostgreSQL (DRAGONFLY_MANAGER_DATABASE_URL=postgresql://…); "
            "SQLite is one file on the head node"
        )
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        raise InvalidRequestError("tls_cert_file and tls_key_file: set both or neither")
    return settings


def _need(settings: ManagerSettings, names: Sequence[str]) -> None:
    for name in names:
        if settings.model_fields_set.isdisjoint((name, f"{name}_file")):
            raise InvalidRequestError(
                f"{name}: a secret that is missing in the environment of this node; set {_variable(name)} or "
                f"{_variable(name)}_FILE there"
            )


def _variable(name: str) -> str:
    return f"{ManagerSettings.model_config['env_prefix']}{name.upper()}"


def application(manager: ManagerSettings, cluster: Settings, *, on_head: bool = False) -> Application:
    """What `serve.run` takes. What was set explicitly goes with it, without secrets; the rest is read on the
    replica's node. `on_head`: nowhere else, though the database might be reached from everywhere.
    """
    checked(manager)
    embedded = manager.embedded
    options: dict[str, Any] = {} if embedded else {"max_replicas_per_node": 1}
    actor: dict[str, Any] = {"num_cpus": 0, "resources": HEAD if embedded or on_head else {}}
    if manager.node_labels:
        actor["label_selector"] = dict(manager.node_labels)
    deployed: Any = serve.deployment(
        ManagerReplica,
        name=DEPLOYMENT,
        num_replicas=manager.replicas,
        max_ongoing_requests=manager.limits.streams + SPARE_REQUESTS,
        # The database's file is on the head's disk.
        ray_actor_options=actor,
        health_check_period_s=5,
        health_check_timeout_s=20,
        # Open streams never end by themselves, so waiting for them is in vain.
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=5,
        **options,
    )
    given = handed_over(manager)
    bound: Application = deployed.bind(
        given, cluster.model_dump(mode="json", exclude_unset=True), given_secrets(manager)
    )
    return bound


def handed_over(manager: ManagerSettings) -> dict[str, Any]:
    """The explicitly set ones, by the names under which `ManagerSettings` takes them; the password as its hash.

    Ray keeps them in its control store, so secrets are left out: `given_secrets`.
    """
    withheld = given_secrets(manager)
    given = {name: getattr(manager, name) for name in manager.model_fields_set if name not in withheld}
    if manager.database_url_file is not None:
        given.pop("database_url", None)
    password: SecretStr | None = given.pop("admin_password", None)
    if password is not None:
        given["admin_password_hash"] = SecretStr(passwords.hashed(password.get_secret_value()))
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else _plain(value)
        for name, value in given.items()
    }


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


# --- for `serve deploy` -----------------------------------------------------------------------------


class Args(BaseModel):
    """`args` of the application in `configs/serve.yaml`: settings by name, without secrets.

    Those, and whatever is left out, come from the environment of the nodes (`DRAGONFLY_MANAGER_…`).
    """

    model_config = ConfigDict(extra="forbid")

    manager: dict[str, Any] = Field(default_factory=dict)
    cluster: dict[str, Any] = Field(default_factory=dict)

    @field_validator("manager")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _checked_names(given, ManagerSettings)

    @field_validator("cluster")
    @classmethod
    def _known_too(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _checked_names(given, Settings)


def _checked_names(given: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(model.model_fields))
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    secret = [n for n in given if model.model_fields[n].annotation == SecretStr | None]
    if model is ManagerSettings and has_password(str(given.get("database_url") or "")):
        secret.append("database_url")
    if secret:
        raise ValueError(f"{', '.join(secret)}: pass secrets in the environment of the nodes, or in a file")
    return given


def manager(args: Args) -> Application:
    """`import_path: dragonfly_ray.serve.deployment:manager`."""
    return application(ManagerSettings(**args.manager), Settings(**args.cluster))
