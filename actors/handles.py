"""The actors' names, and how to reach them from any process of the cluster."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayError

from dragonfly_ray.actors.failures import failure
from dragonfly_ray.errors import NotRunningError

CONTROLLER = "controller"
STOP_TIMEOUT = 30.0


def peer_name(node_id: str) -> str:
    return f"peer:{node_id}"


def scheduler_name(index: int) -> str:
    return f"scheduler:{index}"


def as_actor(cls: type, **groups: int) -> Any:
    """`cls` as an actor class; `groups`: its concurrency groups and their threads.

    Ray records no events of its calls: nobody looks at those, and they cost every process of a call.
    """
    remote: Any = ray.remote
    options: dict[str, Any] = {"concurrency_groups": groups} if groups else {}
    return remote(enable_task_events=False, **options)(cls)


def find(name: str, namespace: str) -> Any | None:
    """The actor's handle, or None."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


def reach(name: str, namespace: str) -> Any:
    """The actor's handle. Raises `NotRunningError`."""
    found = find(name, namespace)
    if found is None:
        raise NotRunningError(f"{name} is not running in namespace {namespace!r}; start it with up()")
    return found


def get(reference: Any, timeout: float, what: str) -> Any:
    """`ray.get` whose failures are of this package: what the actor itself refused is raised as it is."""
    try:
        return ray.get(reference, timeout=timeout)
    except RayError as error:
        raise failure(error, what).error from None


def stop_all(namespace: str) -> bool:
    """Stops every actor, the controller last. False: there was none."""
    controller = find(CONTROLLER, namespace)
    if controller is None:
        return False
    with contextlib.suppress(RayError):
        ray.get(controller.stop.remote(), timeout=STOP_TIMEOUT)
    with contextlib.suppress(RayError, ValueError):
        ray.kill(controller, no_restart=True)
    deadline = time.monotonic() + STOP_TIMEOUT
    while find(CONTROLLER, namespace) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return True
