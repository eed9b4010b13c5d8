"""`/api/v1/config`: settings of the cluster that change while it runs, with their history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.errors import ClusterError, InvalidRequestError
from dragonfly_ray.live_settings import live_schema
from dragonfly_ray.serve.database import tables
from dragonfly_ray.serve.etags import IfMatch, Precondition, tag
from dragonfly_ray.serve.fleet import config, presenters
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import invalid, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas.cluster import Config, ConfigChange, ConfigVersion

router = APIRouter(prefix="/config", tags=["config"])
Number = Annotated[int, Path(ge=0, le=1 << 62)]


@router.get("")
@requires(Permission.CONFIG_READ)
def get_config(manager: Here, response: Response) -> Config:
    """What the newest version says, and how far it has come.

    `X-Dragonfly-Cluster: away` says that the cluster does not answer: `effective` is empty then.
    """
    with manager.database.read() as session:
        row = config.newest(session)
    version = config.version_of(row)
    try:
        _, effective = manager.fleet.settings.get()
        nodes = config.followers(manager.fleet.nodes.get())
        cluster = presenters.OK
    except ClusterError:
        effective, nodes, cluster = {}, [], presenters.AWAY
    response.headers[presenters.CLUSTER_HEADER] = cluster
    tag(response, version)
    return Config(
        version=version,
        values=row.values if row else {},
        effective=effective,
        applied=sum(n.settings_version >= version for n in nodes),
        nodes=len(nodes),
        json_schema=live_schema(),
    )


@router.put("", status_code=201)
@requires(Permission.CONFIG_WRITE)
def change(
    body: ConfigChange, if_match: IfMatch, manager: Here, caller: Caller, request: Request, response: Response
) -> ConfigVersion:
    """A new version, which is on all nodes within seconds. `values` are all that differ from the start's."""
    return _store(manager, caller, request, response, body.values, body.comment, if_match)


@router.get("/versions")
@requires(Permission.CONFIG_READ)
def list_versions(manager: Here, paging: Paged) -> Page[ConfigVersion]:
    """The history, newest first."""
    row = tables.ConfigVersion
    with manager.database.read() as session:
        return page(
            session,
            select(row),
            paging,
            {"version": row.version, "created_at": row.created_at},
            row.version,
            presenters.config_version,
            default="-version",
        )


@router.get("/versions/{version}")
@requires(Permission.CONFIG_READ)
def get_version(version: Number, manager: Here) -> ConfigVersion:
    with manager.database.read() as session:
        return presenters.config_version(_version(session, version))


@router.post("/rollback/{version}", status_code=201)
@requires(Permission.CONFIG_WRITE)
def roll_back(
    version: Number,
    manager: Here,
    caller: Caller,
    request: Request,
    response: Response,
    if_match: Annotated[str | None, Header(max_length=256, description="As for a change; optional.")] = None,
) -> ConfigVersion:
    """A new version with the values of an old one; 0: those that the cluster was started with."""
    values: dict[str, Any] = {}
    if version:
        with manager.database.read() as session:
            values = _version(session, version).values
    precondition = Precondition(if_match or "*")
    comment = f"back to version {version}"
    return _store(manager, caller, request, response, values, comment, precondition, rollback_of=version)


def _store(
    manager: Manager,
    caller: Principal,
    request: Request,
    response: Response,
    values: Mapping[str, Any],
    comment: str,
    precondition: Precondition,
    rollback_of: int | None = None,
) -> ConfigVersion:
    try:
        there, effective = manager.fleet.settings.get()
    except ClusterError:
        there, effective = 0, {}
    with manager.database.write() as session:
        config.only_one(session)
        before = config.newest(session)
        precondition.check(config.version_of(before))
        try:
            config.check(values, effective, before.values if before else {})
        except InvalidRequestError as error:
            raise invalid(str(error), "invalid-settings") from error
        # A cluster that has seen another manager's versions would ignore a lower number.
        after = max(config.version_of(before), there)
        row = config.store(session, caller, values, comment, after=after, rollback_of=rollback_of)
        audit(
            session,
            request,
            "config.change" if rollback_of is None else "config.rollback",
            config.CONFIG,
            str(row.version),
            values=dict(values),
            before=before.values if before else {},
            comment=comment,
        )
    manager.fleet.config_keeper.wake()
    manager.fleet.settings.forget()
    tag(response, row.version)
    response.headers["Location"] = request.url_for("get_version", version=str(row.version)).path
    return presenters.config_version(row)


def _version(session: Session, version: int) -> tables.ConfigVersion:
    found = session.get(tables.ConfigVersion, version)
    if found is None:
        raise not_found("version of the settings", version)
    return found
