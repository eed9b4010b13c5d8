"""Credentials of sources: sealed at rest, opened for whoever fetches, shown to nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.errors import InvalidRequestError, VaultError
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.accounts.hosts import allowed, insecure, named
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Secret, Webhook, now
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.source_identity import server_of
from dragonfly_ray.urls import redacted

REASONS = {"no-hosts": "it lists no hosts; replace it and list the hosts that it may be sent to"}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a secret does not open a URL."""

    kind: str
    message: str


def fill(
    row: Secret,
    vault: Vault,
    headers: Mapping[str, str],
    storage_options: Mapping[str, Any],
    hosts: Sequence[str],
    *,
    allow_http: bool = False,
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
    row.allow_http = allow_http
    row.disabled = "" if any(map(named, row.hosts)) else "no-hosts"


def refused(row: Secret, url: str) -> Refused | None:
    """Whether it may be sent to `url`; None: it may."""
    if row.disabled:
        why = REASONS.get(row.disabled, row.disabled)
        return Refused("secret-disabled", f"secret {row.name!r} is disabled: {why}")
    if not allowed(row.hosts, url):
        return Refused(
            "secret-host",
            f"secret {row.name!r} may not be sent to {redacted(url)}; allowed hosts: {', '.join(row.hosts)}",
        )
    if insecure(url) and not row.allow_http and any(f.startswith("headers.") for f in row.fields):
        return Refused(
            "secret-insecure",
            f"secret {row.name!r}: its headers are sent over https only; set allow_http to permit http",
        )
    return None


def credentials_for(session: Session, vault: Vault, name: str, url: str) -> Credentials:
    """What opens `url`, for a transaction that writes: the use is noted. Raises `InvalidRequestError`, `VaultError`."""
    row = session.get(Secret, name)
    if row is None:
        raise InvalidRequestError(f"secret {name!r} not found")
    why = refused(row, url)
    if why is not None:
        raise InvalidRequestError(why.message)
    row.last_used_at = now()
    return sealed_credentials(session, vault, name)


def sealed_credentials(session: Session, vault: Vault, name: str) -> Credentials:
    """What is in it, for whoever must know which server it chooses. Raises `InvalidRequestError`, `VaultError`."""
    row = session.get(Secret, name)
    if row is None:
        raise InvalidRequestError(f"secret {name!r} not found")
    found = json.loads(vault.open(row.sealed, _context(name)))
    return Credentials(storage_options=found["storage_options"], headers=found["headers"])


def check_secret(headers: Mapping[str, str], storage_options: Mapping[str, Any]) -> None:
    """Raises `InvalidRequestError` for what no source may be opened with."""
    server_of("https://", Credentials(headers=dict(headers)))
    server_of("any://", Credentials(storage_options=dict(storage_options)))


def check_key(database: Database, vault: Vault) -> None:
    """Raises `VaultError` if what the database holds was sealed with another key."""
    with database.read() as session:
        sealed = [*session.scalars(select(Secret.sealed)), *session.scalars(select(Webhook.sealed))]
    for other in {key for key in map(Vault.key_of, sealed) if key != vault.key_id}:
        raise VaultError(
            f"secrets in the database are encrypted with key {other}, this manager has key {vault.key_id}: start "
            "it with the key that encrypted them (secret_key, secret_key_file)"
        )


def _context(name: str) -> bytes:
    return f"secret {name}".encode()
