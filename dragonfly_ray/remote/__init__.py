"""A cluster through its manager: over HTTP, from any machine, without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragonfly_ray.remote.client import Client, connect
    from dragonfly_ray.remote.submission import RemoteSubmission

__all__ = ["Client", "RemoteSubmission", "connect"]


def __getattr__(name: str) -> Any:
    # On demand: the command line starts without an HTTP client where it asks the cluster itself.
    if name in __all__:
        from dragonfly_ray.remote import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
