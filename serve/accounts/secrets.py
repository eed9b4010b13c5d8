"""Credentials of sources: sealed at rest, opened for whoever fetches, shown to nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.errors import InvalidRequestError, VaultError
from dragonfly_ray.identity import server_of
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Secret, Webhook, now
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.urls import redacted

_ODD = re.compile(r"[\\\s\x00-\x1f\x7f]")


def fill(
    row: Secret,
    vault: Vault,
    headers: Mapping[str, str],
    storage_options: Mapping[str, Any],
    hosts: Sequence[str],
) -> None:
    """Seals all of it into the row, in place of what was there."""
    check_secret(headers, storage_options)
    plain = json.dumps({"headers": dict(headers), "storage_options": dict(storage_options)})
    row.sealed = vault.seal(plain.encode(), _context(row.name))
    row.key_id = vault.key_id
    row.fields = sorted(
        [f"headers.{name}" for name in headers] + [f"storage_options.{name}" for name in storage_options]
    )
    row.hosts = sorted({host.lower() for host in hosts})


def credentials_for(session: Session, vault: Vault, name: str, url: str) -> Credentials:
    """What opens `url`, for a transaction that writes: the use is noted. Raises `InvalidRequestError`, `VaultError`."""
    row = session.get(Secret, name)
    if row is None:
        raise InvalidRequestError(f"secret {name!r}: there is none")
    if not allowed(row.hosts, url):
        raise InvalidRequestError(f"secret {name!r}: it is not for {redacted(url)}")
    row.last_used_at = now()
    return sealed_credentials(session, vault, name)


def sealed_credentials(session: Session, vault: Vault, name: str) -> Credentials:
    """What is in it, for whoever must know which server it chooses. Raises `InvalidRequestError`, `VaultError`."""
    row = session.get(Secret, name)
    if row is None:
        raise InvalidRequestError(f"secret {name!r}: there is none")
    found = json.loads(vault.open(row.sealed, _context(name)))
    return Credentials(storage_options=found["storage_options"], headers=found["headers"])


def check_secret(headers: Mapping[str, str], storage_options: Mapping[str, Any]) -> None:
    """Raises `InvalidRequestError` for what no source may be opened with."""
    server_of("https://", Credentials(headers=dict(headers)))
    server_of("any://", Credentials(storage_options=dict(storage_options)))


def allowed(hosts: Sequence[str], url: str) -> bool:
    """Whether one of the patterns is of the URL's host, host and port, or bucket; none: any."""
    if not hosts:
        return True
    if _ODD.search(url) or "://" not in url:
        return False
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2].lower()
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    return bool(host) and any(fnmatchcase(host, p) or fnmatchcase(netloc, p) for p in hosts)


def check_key(database: Database, vault: Vault) -> None:
    """Raises `VaultError` if what the database holds was sealed with another key."""
    with database.read() as session:
        sealed = [*session.scalars(select(Secret.sealed)), *session.scalars(select(Webhook.sealed))]
    for other in {key for key in map(Vault.key_of, sealed) if key != vault.key_id}:
        raise VaultError(
            f"the database has secrets sealed with key {other}, this manager has key {vault.key_id}: start "
            "it with the key that they were made with (secret_key, secret_key_file)"
        )


def _context(name: str) -> bytes:
    return f"secret {name}".encode()
