"""`/api/v1/secrets`: credentials of sources, by name. No route gives their values out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.identity import server_of
from dragonfly_ray.serve.accounts import secrets
from dragonfly_ray.serve.accounts.permissions import Permission, requires
from dragonfly_ray.serve.accounts.principal import Caller
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Secret, now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.problems import conflict, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas import accounts as wire

router = APIRouter(prefix="/secrets", tags=["secrets"])
SORTED = {"name": Secret.name, "created_at": Secret.created_at, "updated_at": Secret.updated_at}
LOCK = "secrets"


@router.get("")
@requires(Permission.SECRETS_READ)
def list_secrets(manager: Here, paging: Paged) -> Page[wire.Secret]:
    with manager.database.read() as session:
        return page(
            session, select(Secret), paging, SORTED, Secret.name, wire.Secret.model_validate, default="name"
        )


@router.post("", status_code=201)
@requires(Permission.SECRETS_WRITE)
def create_secret(
    body: wire.SecretCreate, caller: Caller, request: Request, response: Response, manager: Here
) -> wire.Secret:
    with manager.database.write() as session:
        serialise(session, LOCK)
        if session.get(Secret, body.name) is not None:
            raise conflict(f"there is a secret {body.name!r} already", "exists")
        row = Secret(name=body.name, created_by=caller.name)
        _fill(manager, row, body)
        session.add(row)
        session.flush()
        audit(session, request, "secret.create", "secret", row.name, fields=row.fields, hosts=row.hosts)
        response.headers["Location"] = f"/api/v1/secrets/{row.name}"
        return _shown(row, response)


@router.get("/{name}")
@requires(Permission.SECRETS_READ)
def get_secret(name: str, response: Response, manager: Here) -> wire.Secret:
    with manager.database.read() as session:
        return _shown(_found(session, name), response)


@router.get("/{name}/server")
@requires(Permission.SECRETS_READ)
def get_server(
    name: str,
    manager: Here,
    scheme: Annotated[str, Query(max_length=64, pattern=r"^[A-Za-z0-9+.:-]+$")],
) -> wire.SecretServer:
    """What the secret adds to the identity of sources of this scheme: by it, tasks are found again."""
    with manager.database.read() as session:
        _found(session, name)
        opened = secrets.sealed_credentials(session, manager.vault, name)
    return wire.SecretServer(server=server_of(f"{scheme}://", opened))


@router.put("/{name}")
@requires(Permission.SECRETS_WRITE)
def replace_secret(
    name: str, body: wire.SecretIn, request: Request, response: Response, manager: Here, if_match: IfMatch
) -> wire.Secret:
    """All of it: values are given again, so that nobody can point kept ones at a host of their own."""
    with manager.database.write() as session:
        serialise(session, LOCK)
        row = _found(session, name)
        if_match.check(row.version)
        _fill(manager, row, body)
        row.version += 1
        row.updated_at = now()
        audit(session, request, "secret.change", "secret", name, fields=row.fields, hosts=row.hosts)
        return _shown(row, response)


@router.delete("/{name}", status_code=204)
@requires(Permission.SECRETS_WRITE)
def delete_secret(name: str, request: Request, manager: Here) -> None:
    """Jobs that name it fail from now on."""
    with manager.database.write() as session:
        serialise(session, LOCK)
        session.delete(_found(session, name))
        audit(session, request, "secret.delete", "secret", name)


def _fill(manager: Manager, row: Secret, body: wire.SecretIn) -> None:
    row.description = body.description
    headers = {name: value.get_secret_value() for name, value in body.headers.items()}
    secrets.fill(row, manager.vault, headers, body.storage_options, body.hosts)


def _found(session: Session, name: str) -> Secret:
    row = session.get(Secret, name)
    if row is None:
        raise not_found("secret", name)
    return row


def _shown(row: Secret, response: Response) -> wire.Secret:
    tag(response, row.version)
    return wire.Secret.model_validate(row)
