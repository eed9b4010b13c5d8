"""A cluster through its manager: over HTTP, from any machine, without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dragonfly_ray.errors import InvalidRequestError

if TYPE_CHECKING:
    from dragonfly_ray.remote.client import Client, connect
    from dragonfly_ray.remote.submission import RemoteSubmission

__all__ = ["Client", "RemoteSubmission", "connect"]


def __getattr__(name: str) -> Any:
    # On demand: the command line starts without an HTTP client where it asks the cluster itself.
    if name in __all__:
        try:
            from dragonfly_ray.remote import client
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("dragonfly_ray"):
                raise
            raise InvalidRequestError(
                f"a manager is reached with the extra `remote` ({error.name} is missing): "
                "pip install 'dragonfly-ray[remote]'"
            ) from None
        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
