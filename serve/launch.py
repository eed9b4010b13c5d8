"""Starting the manager on a cluster's Ray Serve, and taking it away again."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass
from typing import Any

import ray
from pydantic import SecretStr
from ray import serve
from ray.exceptions import RayError
from ray.serve import RunTarget, context
from ray.serve.exceptions import RayServeException

from dragonfly_ray.actors.connect import connect
from dragonfly_ray.actors.handles import find
from dragonfly_ray.actors.nodes import current_node, table
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError, NotRunningError
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.deployment import application, checked, name_of
from dragonfly_ray.serve.secret_files import given_secrets, in_files, refuse_elsewhere
from dragonfly_ray.serve.settings import ManagerSettings

START_TIMEOUT = 120.0
CALL_TIMEOUT = 30.0
SHUTDOWN_TIMEOUT = 60.0
PAUSE = 0.1
READY = 200
ADMIN = "admin"
SERVE_CONTROLLER, SERVE_NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Deployed:
    """A manager that is ready. `password`: of the user `admin`, if one was made up at this very start."""

    url: str
    password: SecretStr | None = None


def deploy(
    manager: ManagerSettings | None = None,
    cluster: Settings | None = None,
    *,
    timeout: float = START_TIMEOUT,
) -> Deployed:
    """Starts the manager, or finds it running (its settings count at the first start only); waits until it is ready."""
    connect()
    found, settings = checked(manager or ManagerSettings()), cluster or Settings()
    name, deadline = name_of(settings.namespace), time.monotonic() + timeout
    _begin()
    made: str | None = None
    made_hash = ""
    if not _is_there(name):
        if not (found.admin_password or found.admin_password_file or found.admin_password_hash):
            made = passwords.random_password()
            made_hash = passwords.hashed(made)
            found = found.model_copy(update={"admin_password_hash": SecretStr(made_hash)})
        refuse_elsewhere(found, here=_on_head())
        given = in_files(found, name)
        _start_serve(given)
        _run(name, given, settings, on_head=bool(given_secrets(found)))
    _await(name, deadline)
    handle: Any = serve.get_app_handle(name)
    # There may have been an admin before: then what was made up here is nobody's password.
    used = made is not None and handle.has_password.remote(made_hash).result(timeout_s=CALL_TIMEOUT)
    _client().shutdown_cached_handles()
    return Deployed(address(), SecretStr(made) if used and made else None)


def remove(namespace: str) -> bool:
    """Stops the manager; its database stays. Serve itself goes too, unless it serves something else. False: nothing there."""
    if find(SERVE_CONTROLLER, SERVE_NAMESPACE) is None:
        return False
    _begin()
    name = name_of(namespace)
    there = name in serve.status().applications
    if there:
        serve.delete(name)
    if not serve.status().applications:
        _client().shutdown_cached_handles()
        # Elsewhere: what is said about calls that end with Serve's controller is of no use here.
        ray.get(ray.remote(num_cpus=0)(_shut_down).remote(), timeout=SHUTDOWN_TIMEOUT)
        _begin()
    return there


def _shut_down() -> None:
    serve.shutdown()  # type: ignore[no-untyped-call]


def address() -> str:
    """Where Ray Serve of this cluster answers, as seen from its head's network."""
    options = _client().http_config
    host = str(options.host or "")
    if host in EVERYWHERE:
        host = str(_head()["NodeManagerAddress"])
    scheme = "https" if options.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.port}"


def _client() -> Any:
    return context._get_global_client()


def _head() -> dict[str, Any]:
    return next(row for row in table() if row["Alive"] and "node:__internal_head__" in row["Resources"])


def _begin() -> None:
    """Another process may have stopped Serve, and started it again: what this one remembers of it is forgotten."""
    context._set_global_client(None)  # type: ignore[no-untyped-call]
    # It reports each of its own steps at INFO.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def _is_there(name: str) -> bool:
    """Running, or on its way there."""
    if find(SERVE_CONTROLLER, SERVE_NAMESPACE) is None:
        return False
    found = serve.status().applications.get(name)
    return found is not None and str(found.status.value) in ("RUNNING", "DEPLOYING", "UNHEALTHY")


def _start_serve(manager: ManagerSettings) -> None:
    """Ray Serve with our address. One that runs keeps its own, which must be ours if ours was asked for."""
    if find(SERVE_CONTROLLER, SERVE_NAMESPACE) is not None:
        options = _client().http_config
        asked = {"http_host": str(options.host), "http_port": options.port}
        for name, theirs in asked.items():
            ours = getattr(manager, name)
            if name in manager.model_fields_set and ours not in (theirs, 0):
                raise InvalidRequestError(
                    f"{name}={ours}: Ray Serve already runs on this cluster with {theirs}; omit the option, or "
                    "`serve shutdown` first"
                )
        return
    serve.start(
        proxy_location="EveryNode",
        http_options={
            "host": manager.http_host,
            "port": _port(manager),
            "ssl_certfile": None if manager.tls_cert_file is None else str(manager.tls_cert_file),
            "ssl_keyfile": None if manager.tls_key_file is None else str(manager.tls_key_file),
        },
    )


def _on_head() -> bool:
    """Also of a driver beside the head that is connected to another node's raylet."""
    head = _head()
    return bool(head["NodeID"] == current_node()) or _is_here(str(head["NodeManagerAddress"]))


def _port(manager: ManagerSettings) -> int:
    """Raises `InvalidRequestError` where it is taken, as far as that can be seen from here.

    Serve's own sockets share their port with whoever else of the same user asks for it, and so would
    two clusters of one machine.
    """
    host = manager.http_host if manager.http_host not in EVERYWHERE else ""
    if not _on_head():
        return manager.http_port or 8000
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, manager.http_port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InvalidRequestError(
            f"the manager cannot listen on {host or '*'}:{manager.http_port} ({error.strerror}); choose another "
            "with --manager-host, --manager-port (0: any free one)"
        ) from None


def _is_here(host: str) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _run(name: str, manager: ManagerSettings, cluster: Settings, *, on_head: bool) -> None:
    target = RunTarget(application(manager, cluster, on_head=on_head), name=name, route_prefix="/")
    try:
        serve.run_many(
            [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
    except (RayServeException, RayError) as error:
        cause = getattr(error, "cause", None) or error
        raise InvalidRequestError(
            f"Ray Serve refuses the manager: {_last_line(cause)}; `dragonfly up --no-manager` starts without it"
        ) from None


def _await(name: str, deadline: float) -> None:
    """Until a replica answers that it is ready. Raises `NotRunningError`."""
    said = "no response"
    while time.monotonic() < deadline:
        found = serve.status()
        app = found.applications.get(name)
        state = "NOT_STARTED" if app is None else str(app.status.value)
        if state == "DEPLOY_FAILED":
            assert app is not None
            why = "; ".join(d.message for d in app.deployments.values() if d.message) or app.message
            serve.delete(name)
            raise NotRunningError(f"the manager failed to start: {_last_line(why)}")
        healthy = any(str(p.value) == "HEALTHY" for p in found.proxies.values())
        if state == "RUNNING" and healthy:
            try:
                handle: Any = serve.get_app_handle(name)
                status = handle.ready.remote().result(timeout_s=CALL_TIMEOUT)
            except (RayError, RayServeException, TimeoutError) as error:
                said = type(error).__name__
            else:
                if status == READY:
                    return
                said = f"/readyz answers {status}"
        else:
            said = f"Ray Serve says {state}"
        time.sleep(PAUSE)
    raise NotRunningError(f"timed out waiting for the manager ({said}); see its log, dragonfly-manager-*.log")


def _last_line(error: object) -> str:
    """Of what Ray tells with whole stack traces."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


__all__ = ["ADMIN", "Deployed", "address", "deploy", "remove"]
