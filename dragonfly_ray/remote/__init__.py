"""A cluster through its manager: over HTTP, from any machine, without Ray."""

from __future__ import annotations

from dragonfly_ray.remote.client import Client, connect
from dragonfly_ray.remote.submission import RemoteSubmission

__all__ = ["Client", "RemoteSubmission", "connect"]
