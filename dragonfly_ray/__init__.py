"""Put one file or one directory on every node of a Ray cluster, peer to peer, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from dragonfly_ray.api import (
        attach,
        cordon,
        distribute,
        down,
        drain,
        evict,
        fetch,
        load,
        nodes,
        open,
        pin,
        rotate_keys,
        status,
        submit,
        uncordon,
        unpin,
        up,
        where,
    )
    from dragonfly_ray.config import Settings
    from dragonfly_ray.distribution import Distribution, Progress
    from dragonfly_ray.outcome import Outcome
    from dragonfly_ray.remote import Client, RemoteSubmission, connect
    from dragonfly_ray.submission import Submission

_FROM = {
    **dict.fromkeys(
        (
            "attach",
            "cordon",
            "distribute",
            "down",
            "drain",
            "evict",
            "fetch",
            "load",
            "nodes",
            "open",
            "pin",
            "rotate_keys",
            "status",
            "submit",
            "uncordon",
            "unpin",
            "up",
            "where",
        ),
        "api",
    ),
    "Settings": "config",
    "Distribution": "distribution",
    "Outcome": "outcome",
    "Progress": "distribution",
    "Submission": "submission",
    "Client": "remote",
    "RemoteSubmission": "remote",
    "connect": "remote",
}
__all__ = [  # noqa: RUF022, the order of the README
    "distribute", "submit", "attach", "fetch", "open", "load", "where", "pin", "unpin", "evict",
    "up", "down", "nodes", "cordon", "uncordon", "drain", "rotate_keys", "status", "connect",
    "Client", "Distribution", "Outcome", "Progress", "RemoteSubmission", "Settings", "Submission",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # On demand, so that `import dragonfly_ray.model` does not import Ray.
    if name in _FROM:
        from importlib import import_module

        return getattr(import_module(f"dragonfly_ray.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
