"""What people ask of jobs: to make, cancel, repeat and delete them. The runner sees to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import insert, select
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.accounts.secrets import sealed_credentials
from dragonfly_ray.serve.database.tables import Job, JobNode, JobUrl, new_id, now
from dragonfly_ray.serve.jobs import creation, idempotency
from dragonfly_ray.serve.jobs.creation import Plan
from dragonfly_ray.serve.jobs.idempotency import REUSED, Key
from dragonfly_ray.serve.jobs.links import opened, sealed, shown
from dragonfly_ray.serve.jobs.orders import SERVERS, job_options
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import conflict, not_found
from dragonfly_ray.serve.records import audit, emit
from dragonfly_ray.serve.schemas.jobs import ENDED, DistributionCreate, Kind, PreheatCreate, Retry
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.source_identity import servers_of

URL_START = 200


class Around(creation.Around, Protocol):
    @property
    def vault(self) -> Vault: ...


def create(
    around: Around,
    connection: HTTPConnection,
    principal: Principal,
    body: DistributionCreate | PreheatCreate,
    key: str | None,
) -> Job:
    """Exactly one job for one key, whichever replicas are asked, and however often."""
    kind: Kind = "distribution" if isinstance(body, DistributionCreate) else "preheat"
    once = Key.of(principal.user_id, key, f"{kind}s", body.model_dump(mode="json"))
    return create_once(around, connection, principal, body, once, action="job.create")


def create_once(
    around: Around,
    connection: HTTPConnection,
    principal: Principal,
    body: DistributionCreate | PreheatCreate,
    key: Key | None,
    *,
    action: str,
    schedule_id: str | None = None,
) -> Job:
    return _replayed(around, key) or _once(
        around,
        connection,
        principal,
        creation.plan(around, principal, body),
        key,
        action=action,
        schedule_id=schedule_id,
    )


def retry(
    around: Around,
    connection: HTTPConnection,
    principal: Principal,
    kind: Kind,
    job_id: str,
    body: Retry,
    key: str | None,
) -> Job:
    """A new job, for the nodes that failed or for those of them that are named."""
    once = Key.of(principal.user_id, key, f"retry:{job_id}", body.model_dump(mode="json"))
    found = _replayed(around, once)
    if found is not None:
        return found
    with around.database.read() as session:
        row = find(session, kind, job_id)
        if row.state not in ENDED:
            raise conflict("the job is still active; cancel it, or wait until it ends", "job-not-ended")
        nodes = _failed(session, job_id, body.node_ids)
    again = _request(row, opened(row.urls, row.sealed_urls, around.vault, row.id), nodes)
    plan = creation.plan(around, principal, again)
    return _once(around, connection, principal, plan, once, action="job.retry", retry_of=job_id)


def cancel(around: Around, connection: HTTPConnection, principal: Principal, kind: Kind, job_id: str) -> Job:
    """Written down at once; the leader stops the work. Again, or after the end: nothing happens."""
    with around.database.write() as session:
        row = find(session, kind, job_id, for_update=True)
        if row.state not in ENDED and not row.cancel_requested:
            row.cancel_requested, row.updated_at = True, now()
            audit(session, connection, "job.cancel", "job", job_id, principal=principal, name=row.name)
            emit(session, "job.cancel_requested", "job", job_id, {"by": principal.name, "kind": row.kind})
    return row


def delete(around: Around, connection: HTTPConnection, principal: Principal, kind: Kind, job_id: str) -> None:
    """The record of it goes; its audit and its events stay."""
    with around.database.write() as session:
        row = find(session, kind, job_id, for_update=True)
        if row.state not in ENDED:
            raise conflict("the job is still active; cancel it first", "job-not-ended")
        session.delete(row)
        session.flush()
        audit(session, connection, "job.delete", "job", job_id, principal=principal, kind=kind, name=row.name,
              state=row.state, urls=row.urls)  # fmt: skip
        emit(session, "job.deleted", "job", job_id, {"kind": kind, "name": row.name})


def find(session: Session, kind: Kind, job_id: str, *, for_update: bool = False) -> Job:
    """Raises `Problem` where there is none of this kind."""
    row = session.get(Job, job_id, with_for_update=for_update or None)
    if row is None or row.kind != kind:
        raise not_found(kind, job_id)
    return row


def insert_job(
    session: Session,
    vault: Vault,
    principal: Principal,
    plan: Plan,
    *,
    job_id: str,
    request_id: str = "",
    schedule_id: str | None = None,
    retry_of: str | None = None,
    at: datetime | None = None,
) -> Job:
    """The rows of a new job: itself, its URLs, and an outcome for each URL on each node."""
    urls = shown(plan.urls)
    options = dict(plan.options)
    if plan.secret:
        options[SERVERS] = servers_of(plan.urls, sealed_credentials(session, vault, plan.secret))
    row = Job(
        id=job_id,
        kind=plan.kind,
        name=plan.name,
        urls=urls,
        sealed_urls=sealed(plan.urls, vault, job_id),
        nodes=plan.nodes,
        targets=list(plan.targets),
        dest=plan.dest,
        options=options,
        secret=plan.secret,
        created_by=principal.user_id,
        created_by_name=principal.name,
        request_id=request_id,
        schedule_id=schedule_id,
        retry_of=retry_of,
        nodes_total=len(plan.targets),
        task_ids=[""] * len(urls),
        created_at=at or now(),
    )
    session.add(row)
    session.flush()
    session.execute(
        insert(JobUrl),
        [{"job_id": job_id, "url_index": i, "start": u[:URL_START]} for i, u in enumerate(urls)],
    )
    session.execute(
        insert(JobNode),
        [
            {"job_id": job_id, "url_index": i, "node_id": n, "node_name": plan.names[n], "state": "waiting"}
            for i in range(len(urls))
            for n in plan.targets
        ],
    )
    return row


def announce(session: Session, row: Job) -> None:
    data = {"kind": row.kind, "name": row.name, "nodes_total": row.nodes_total, "by": row.created_by_name}
    emit(session, "job.created", "job", row.id, data)


def _replayed(around: Around, key: Key | None) -> Job | None:
    """What the key made before; looked for first, since what it asks for may be refused by now."""
    if key is None:
        return None
    with around.database.read() as session:
        made = idempotency.held(session, key)
        return None if made is None else _made(session, made)


def _made(session: Session, job_id: str) -> Job:
    row = session.get(Job, job_id)
    if row is None:
        raise conflict("the job created with this Idempotency-Key has been deleted", REUSED)
    return row


def _once(
    around: Around,
    connection: HTTPConnection,
    principal: Principal,
    plan: Plan,
    key: Key | None,
    *,
    action: str,
    retry_of: str | None = None,
    schedule_id: str | None = None,
) -> Job:
    job_id = new_id()
    with around.database.write() as session:
        made = idempotency.claim(session, key, job_id)
        if made is not None:
            return _made(session, made)
        request_id = getattr(connection.state, "request_id", "")
        row = insert_job(session, around.vault, principal, plan, job_id=job_id, request_id=request_id,
                         retry_of=retry_of, schedule_id=schedule_id)  # fmt: skip
        audit(session, connection, action, "job", job_id, principal=principal, kind=row.kind, name=row.name,
              urls=row.urls, nodes_total=row.nodes_total, dest=row.dest, secret=row.secret,
              **({"retry_of": retry_of} if retry_of else {}))  # fmt: skip
        announce(session, row)
    return row


def _failed(session: Session, job_id: str, wanted: Sequence[str]) -> list[str]:
    query = select(JobNode.node_id).where(JobNode.job_id == job_id, JobNode.state == "failed").distinct()
    failed = sorted(session.scalars(query))
    strange = sorted(set(wanted) - set(failed))
    if strange:
        raise conflict(f"nodes that did not fail: {', '.join(strange[:5])}", "nothing-to-retry")
    if not failed:
        raise conflict("no failed node to retry", "nothing-to-retry")
    return sorted(set(wanted)) or failed


def _request(row: Job, urls: list[str], nodes: list[str]) -> DistributionCreate | PreheatCreate:
    kind = PreheatCreate if row.kind == "preheat" else DistributionCreate
    columns = {"name": row.name, "secret": row.secret or None, "dest": row.dest or None}
    known = {"urls": urls, "nodes": nodes} | columns | job_options(row)
    return kind.model_construct(**{name: known[name] for name in kind.model_fields})
