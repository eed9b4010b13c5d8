"""URLs at rest: plain where nothing in them is a secret, else encrypted, and without it for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.urls import redacted


def shown(urls: Sequence[str]) -> list[str]:
    """For rows, answers, logs: no query values, no fragments."""
    return [redacted(url) for url in urls]


def sealed(urls: Sequence[str], vault: Vault, owner: str) -> bytes | None:
    """What the row `owner` must keep besides `shown` to ask for them again; None: nothing."""
    if shown(urls) == list(urls):
        return None
    return vault.seal(json.dumps(list(urls)).encode(), _context(owner))


def opened(urls: Sequence[str], kept: bytes | None, vault: Vault, owner: str) -> list[str]:
    """As they were asked for."""
    if kept is None:
        return list(urls)
    found: list[str] = json.loads(vault.open(kept, _context(owner)))
    return found


def _context(owner: str) -> bytes:
    return f"urls {owner}".encode()
