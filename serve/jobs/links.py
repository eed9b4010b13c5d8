"""URLs at rest: plain where nothing in them is a secret, else encrypted, and without it for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from dragonfly_ray.urls import redacted


class Vault(Protocol):
    """Encrypts with the manager's key."""

    def seal(self, data: bytes) -> bytes: ...

    def open(self, sealed: bytes) -> bytes: ...


def shown(urls: Sequence[str]) -> list[str]:
    """For rows, answers, logs: no query values, no fragments."""
    return [redacted(url) for url in urls]


def sealed(urls: Sequence[str], vault: Vault) -> bytes | None:
    """What must be kept besides `shown` to ask for them again; None: nothing."""
    if shown(urls) == list(urls):
        return None
    return vault.seal(json.dumps(list(urls)).encode())


def opened(urls: Sequence[str], kept: bytes | None, vault: Vault) -> list[str]:
    """As they were asked for."""
    if kept is None:
        return list(urls)
    found: list[str] = json.loads(vault.open(kept))
    return found
