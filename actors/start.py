"""The cluster's first actor, started by whoever misses it."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError

from dragonfly_ray.actors.handles import CONTROLLER, as_actor, find
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import NotRunningError

START_TIMEOUT = 60.0


def start_controller(settings: Settings) -> Any:
    """The cluster's controller, started if it is missing. Safe to call from many processes at once."""
    # Most callers find it running, and need none of what it needs.
    from dragonfly_ray.actors.controller import ControllerActor

    deadline = time.monotonic() + START_TIMEOUT
    while True:
        found = find(CONTROLLER, settings.namespace)
        if found is None:
            try:
                found = (
                    as_actor(ControllerActor, health=1)
                    .options(
                        name=CONTROLLER,
                        namespace=settings.namespace,
                        lifetime="detached",
                        max_restarts=-1,
                        max_task_retries=-1,
                        num_cpus=0,
                        resources={"node:__internal_head__": 0.001},
                        max_concurrency=1000,
                    )
                    .remote(settings)
                )
            except ValueError:
                continue  # somebody else was faster
        try:
            ray.get(found.ready.remote(), timeout=max(1.0, deadline - time.monotonic()))
            return found
        except RayError as error:
            if time.monotonic() > deadline:
                raise NotRunningError(
                    f"the controller did not start within {START_TIMEOUT:g} s: {type(error).__name__}; "
                    "is dragonfly-ray installed on the head node?"
                ) from None
            time.sleep(0.2)
