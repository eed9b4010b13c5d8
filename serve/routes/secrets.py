"""`/api/v1/secrets`: credentials of sources, by name. No route gives their values out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.accounts import grants, secrets
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Secret, now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import conflict, forbidden, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas import accounts as wire
from dragonfly_ray.source_identity import server_of

router = APIRouter(prefix="/secrets", tags=["secrets"])
SORTED = {"name": Secret.name, "created_at": Secret.created_at, "updated_at": Secret.updated_at}
LOCK = "secrets"


@router.get("")
@requires(Permission.SECRETS_READ)
def list_secrets(
    caller: Caller,
    manager: Here,
    paging: Paged,
    usable: Annotated[bool, Query(description="Only secrets that the caller may use in a job.")] = False,
) -> Page[wire.Secret]:
    query = select(Secret)
    if usable:
        query = query.where(grants.usable(caller), Secret.disabled == "")
    with manager.database.read() as session:
        names = set(session.scalars(select(Secret.name).where(grants.usable(caller))))
        return page(
            session, query, paging, SORTED, Secret.name, lambda row: _told(row, caller, row.name in names),
            default="name",
        )  # fmt: skip


@router.post("", status_code=201)
@requires(Permission.SECRETS_WRITE)
def create_secret(
    body: wire.SecretCreate, caller: Caller, request: Request, response: Response, manager: Here
) -> wire.Secret:
    with manager.database.write() as session:
        serialise(session, LOCK)
        if session.get(Secret, body.name) is not None:
            raise conflict(f"secret {body.name!r} already exists", "exists")
        row = Secret(name=body.name, created_by=caller.name, owner_id=caller.user_id)
        _fill(manager, row, body)
        session.add(row)
        session.flush()
        audit(session, request, "secret.create", "secret", row.name, **_content(row))
        response.headers["Location"] = f"/api/v1/secrets/{row.name}"
        return _shown(session, row, caller, response)


@router.get("/{name}")
@requires(Permission.SECRETS_READ)
def get_secret(name: str, caller: Caller, response: Response, manager: Here) -> wire.Secret:
    with manager.database.read() as session:
        return _shown(session, _found(session, name), caller, response)


@router.get("/{name}/server")
@requires(Permission.SECRETS_READ)
def get_server(
    name: str,
    caller: Caller,
    manager: Here,
    scheme: Annotated[str, Query(max_length=64, pattern=r"^[A-Za-z0-9+.:-]+$")],
) -> wire.SecretServer:
    """What the secret adds to the identity of sources of this scheme: by it, tasks are found again."""
    with manager.database.read() as session:
        _found(session, name)
        if not grants.may_use(session, name, caller):
            raise forbidden(f"{caller.name} may not use secret {name!r}", "secret-forbidden")
        opened = secrets.sealed_credentials(session, manager.vault, name)
    return wire.SecretServer(server=server_of(f"{scheme}://", opened))


@router.put("/{name}")
@requires(Permission.SECRETS_WRITE)
def replace_secret(
    name: str,
    body: wire.SecretIn,
    caller: Caller,
    request: Request,
    response: Response,
    manager: Here,
    if_match: IfMatch,
) -> wire.Secret:
    """All of it: values are given again, so that nobody can point kept ones at a host of their own. Its owner,
    and whoever has `secrets:admin`."""
    with manager.database.write() as session:
        serialise(session, LOCK)
        row = _found(session, name)
        grants.kept_by(row, caller)
        if_match.check(row.version)
        _fill(manager, row, body)
        row.version += 1
        row.updated_at = now()
        audit(session, request, "secret.change", "secret", name, **_content(row))
        return _shown(session, row, caller, response)


@router.delete("/{name}", status_code=204)
@requires(Permission.SECRETS_WRITE)
def delete_secret(name: str, caller: Caller, request: Request, manager: Here) -> None:
    """Jobs that name it fail from now on. Its owner, and whoever has `secrets:admin`."""
    with manager.database.write() as session:
        serialise(session, LOCK)
        row = _found(session, name)
        grants.kept_by(row, caller)
        session.delete(row)
        audit(session, request, "secret.delete", "secret", name)


@router.get("/{name}/grants")
@requires(Permission.SECRETS_READ)
def get_grants(name: str, caller: Caller, response: Response, manager: Here) -> wire.SecretGrants:
    """Its owner, and whoever has `secrets:admin`."""
    with manager.database.read() as session:
        row = _found(session, name)
        grants.kept_by(row, caller)
        return _granted(session, row, response)


@router.put("/{name}/grants")
@requires(Permission.SECRETS_WRITE)
def replace_grants(
    name: str,
    body: wire.SecretGrants,
    caller: Caller,
    request: Request,
    response: Response,
    manager: Here,
    if_match: IfMatch,
) -> wire.SecretGrants:
    """Its owner, and whoever has `secrets:admin`. Jobs of whoever loses it do not begin any more."""
    with manager.database.write() as session:
        serialise(session, LOCK)
        row = _found(session, name)
        grants.kept_by(row, caller)
        if_match.check(row.version)
        grants.grant(session, name, body.users, body.roles)
        row.version += 1
        row.updated_at = now()
        audit(
            session,
            request,
            "secret.grant",
            "secret",
            name,
            users=sorted(body.users),
            roles=sorted(body.roles),
        )
        return _granted(session, row, response)


def _fill(manager: Manager, row: Secret, body: wire.SecretIn) -> None:
    row.description = body.description
    headers = {name: value.get_secret_value() for name, value in body.headers.items()}
    secrets.fill(row, manager.vault, headers, body.storage_options, body.hosts, allow_http=body.allow_http)


def _content(row: Secret) -> dict[str, Any]:
    """For the audit: no values."""
    return {"fields": row.fields, "hosts": row.hosts, "allow_http": row.allow_http}


def _found(session: Session, name: str) -> Secret:
    row = session.get(Secret, name)
    if row is None:
        raise not_found("secret", name)
    return row


def _shown(session: Session, row: Secret, caller: Principal, response: Response) -> wire.Secret:
    tag(response, row.version)
    return _told(row, caller, grants.may_use(session, row.name, caller))


def _told(row: Secret, caller: Principal, may_use: bool) -> wire.Secret:
    return wire.Secret(
        name=row.name,
        description=row.description,
        fields=row.fields,
        hosts=row.hosts,
        allow_http=row.allow_http,
        disabled=secrets.REASONS.get(row.disabled, row.disabled) or None,
        may_use=may_use,
        may_keep=grants.may_keep(row, caller),
        created_by=row.created_by,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_used_at=row.last_used_at,
    )


def _granted(session: Session, row: Secret, response: Response) -> wire.SecretGrants:
    tag(response, row.version)
    users, roles = grants.granted(session, row.name)
    return wire.SecretGrants(users=users, roles=roles)
