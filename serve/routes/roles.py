"""`/api/v1/roles`: named sets of permissions. Those that came with the manager stay as they are."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.accounts import rights
from dragonfly_ray.serve.database.tables import Role, User, now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import DESCRIPTIONS, Access, Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import conflict, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas import accounts as wire

router = APIRouter(prefix="/roles", tags=["roles"])
SORTED = {"name": Role.name, "created_at": Role.created_at, "updated_at": Role.updated_at}


@router.get("")
@requires(Permission.ROLES_READ)
def list_roles(manager: Here, paging: Paged) -> Page[wire.Role]:
    with manager.database.read() as session:
        users = _users(session)
        return page(
            session, select(Role), paging, SORTED, Role.name, lambda row: _wire(row, users), default="name"
        )


@router.get("/permissions")
@requires(Access.SELF)
def list_permissions() -> list[wire.PermissionInfo]:
    """All that can be allowed."""
    return [wire.PermissionInfo(name=p, description=DESCRIPTIONS[p]) for p in Permission]


@router.post("", status_code=201)
@requires(Permission.ROLES_WRITE)
def create_role(
    body: wire.RoleCreate, caller: Caller, request: Request, response: Response, manager: Here
) -> wire.Role:
    with manager.database.write() as session:
        rights.alone(session)
        rights.within(caller, body.permissions, f"role {body.name!r}")
        if session.get(Role, body.name) is not None:
            raise conflict(f"role {body.name!r} already exists", "exists")
        row = Role(name=body.name, description=body.description, permissions=_sorted(body.permissions))
        session.add(row)
        session.flush()
        audit(session, request, "role.create", "role", row.name, permissions=row.permissions)
        response.headers["Location"] = f"/api/v1/roles/{row.name}"
        return _shown(session, row, response)


@router.get("/{name}")
@requires(Permission.ROLES_READ)
def get_role(name: str, response: Response, manager: Here) -> wire.Role:
    with manager.database.read() as session:
        return _shown(session, _found(session, name), response)


@router.put("/{name}")
@requires(Permission.ROLES_WRITE)
def replace_role(
    name: str,
    body: wire.RoleIn,
    caller: Caller,
    request: Request,
    response: Response,
    manager: Here,
    if_match: IfMatch,
) -> wire.Role:
    """Holds for everybody who has the role from their next request on."""
    with manager.database.write() as session:
        row = _mine_to_change(session, caller, name)
        if_match.check(row.version)
        rights.within(caller, body.permissions, f"role {name!r}")
        row.description, row.permissions = body.description, _sorted(body.permissions)
        row.version += 1
        row.updated_at = now()
        audit(session, request, "role.change", "role", name, permissions=row.permissions)
        return _shown(session, row, response)


@router.delete("/{name}", status_code=204)
@requires(Permission.ROLES_WRITE)
def delete_role(name: str, caller: Caller, request: Request, manager: Here) -> None:
    with manager.database.write() as session:
        row = _mine_to_change(session, caller, name)
        users = _users(session, name).get(name, 0)
        if users:
            raise conflict(
                f"role is assigned to {users} users; assign them another one first", "in-use", users=users
            )
        audit(session, request, "role.delete", "role", name)
        session.delete(row)


def _mine_to_change(session: Session, caller: Principal, name: str) -> Role:
    rights.alone(session)
    row = _found(session, name)
    if row.builtin:
        raise conflict(f"role {name!r} is built in; create a new one instead", "builtin-role")
    rights.within(caller, row.permissions, f"role {name!r}")
    return row


def _found(session: Session, name: str) -> Role:
    row = session.get(Role, name)
    if row is None:
        raise not_found("role", name)
    return row


def _users(session: Session, name: str | None = None) -> dict[str, int]:
    """How many have each role."""
    query = select(User.role, func.count()).group_by(User.role)
    if name is not None:
        query = query.where(User.role == name)
    return {row[0]: row[1] for row in session.execute(query)}


def _sorted(permissions: list[Permission]) -> list[str]:
    return sorted(set(permissions))


def _wire(row: Role, users: dict[str, int]) -> wire.Role:
    return wire.Role(
        name=row.name,
        description=row.description,
        permissions=sorted(rights.known(row.permissions)),
        builtin=row.builtin,
        version=row.version,
        users=users.get(row.name, 0),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _shown(session: Session, row: Role, response: Response) -> wire.Role:
    tag(response, row.version)
    return _wire(row, _users(session, row.name))
