"""What distributions and preheats have in common: the same machinery, the same routes."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute
from sse_starlette import EventSourceResponse

from dragonfly_ray.outcome import NodeState
from dragonfly_ray.serve.database.tables import Job as JobRow
from dragonfly_ray.serve.database.tables import JobNode as NodeRow
from dragonfly_ray.serve.jobs import creation, listing, presenters, requests
from dragonfly_ray.serve.jobs.idempotency import KeyHeader
from dragonfly_ray.serve.jobs.listing import Filtered
from dragonfly_ray.serve.jobs.live import Live
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller
from dragonfly_ray.serve.problems import invalid
from dragonfly_ray.serve.schemas.jobs import (
    Checked,
    DistributionCreate,
    Job,
    JobNode,
    Kind,
    PreheatCreate,
    Retry,
)

log = logging.getLogger(__name__)
API = "/api/v1"
SSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "A stream of server-sent events."}
}


def accepted(manager: Manager, row: JobRow, response: Response) -> Job:
    """202 with the place where it is seen."""
    log.info("job %s: accepted, %d nodes", row.id, row.nodes_total, extra={"job_id": row.id})
    manager.jobs.runner.wake()
    response.headers["Location"] = f"{API}/{row.kind}s/{row.id}"
    return presenters.job(row, manager.jobs.board)


def create(
    manager: Manager,
    request: Request,
    response: Response,
    caller: Caller,
    body: DistributionCreate | PreheatCreate,
    key: str | None,
) -> Job:
    return accepted(manager, requests.create(manager, request, caller, body, key), response)


def check(manager: Manager, caller: Caller, body: DistributionCreate | PreheatCreate) -> Checked:
    plan, wrong = creation.examined(manager, caller, body)
    return Checked(nodes=list(plan.targets), problems=wrong)


def add(router: APIRouter, kind: Kind) -> None:
    """The routes that do not depend on the kind's own body."""

    @router.get("", summary=f"List {kind}s")
    @requires(Permission.JOBS_READ)
    def listed(manager: Here, filters: Filtered, paging: Paged) -> Page[Job]:
        with manager.database.read() as session:
            return listing.listed(session, kind, filters, paging, manager.jobs.board)

    @router.get("/{job_id}", summary=f"Get a {kind}")
    @requires(Permission.JOBS_READ)
    def one(manager: Here, job_id: str) -> Job:
        with manager.database.read() as session:
            return presenters.job(requests.find(session, kind, job_id), manager.jobs.board)

    @router.get("/{job_id}/nodes", summary="List outcomes by URL and node")
    @requires(Permission.JOBS_READ)
    def nodes(
        manager: Here,
        job_id: str,
        paging: Paged,
        state: Annotated[list[NodeState] | None, Query(max_length=4, description="Any of these.")] = None,
        url_index: Annotated[int | None, Query(ge=0, le=1000, description="One URL only.")] = None,
    ) -> Page[JobNode]:
        with manager.database.read() as session:
            row = requests.find(session, kind, job_id)
            query = select(NodeRow).where(NodeRow.job_id == job_id)
            if state:
                query = query.where(NodeRow.state.in_(state))
            if url_index is not None:
                query = query.where(NodeRow.url_index == url_index)
            found = page(session, query, paging, _sorts(row, url_index, paging.sort), NodeRow.node_id, _same,
                         default="url_index")  # fmt: skip
        items = presenters.nodes(found.items, row, manager.jobs.board)
        return Page.model_construct(items=items, next_cursor=found.next_cursor)

    @router.get(
        "/{job_id}/live", response_class=EventSourceResponse, responses=SSE, summary="Stream live progress"
    )
    @requires(Permission.JOBS_READ)
    async def live(
        manager: Here,
        request: Request,
        job_id: str,
        cells: Annotated[int, Query(ge=1, le=4096, description="Maximum number of cells per node.")] = 256,
    ) -> EventSourceResponse:
        """Named messages: `job` (a job), `nodes` (outcomes: at first all, then those that changed), `cells`
        (which pieces are where, of nodes where that changed), `edges` (traffic between peers), and `end`, the last."""
        jobs = manager.jobs
        await jobs.looks.thread(lambda: _known(manager, kind, job_id))
        stream = Live(manager.database, jobs.board, jobs.looks, job_id, cells)
        return await manager.streams.sse(request, stream.events())

    @router.post("/{job_id}/cancel", status_code=202, summary=f"Cancel a {kind}")
    @requires(Permission.JOBS_WRITE)
    def cancel(manager: Here, request: Request, response: Response, caller: Caller, job_id: str) -> Job:
        """Stops the work on every node; nodes that have finished keep what they have."""
        return accepted(manager, requests.cancel(manager, request, caller, kind, job_id), response)

    @router.post("/{job_id}/retry", status_code=202, summary="Retry failed nodes")
    @requires(Permission.JOBS_WRITE)
    def retry(
        manager: Here,
        request: Request,
        response: Response,
        caller: Caller,
        job_id: str,
        body: Retry | None = None,
        key: KeyHeader = None,
    ) -> Job:
        """A new job; `retry_of` is the one that it repeats."""
        row = requests.retry(manager, request, caller, kind, job_id, body or Retry(), key)
        return accepted(manager, row, response)

    @router.delete("/{job_id}", status_code=204, summary=f"Delete a finished {kind}")
    @requires(Permission.JOBS_WRITE)
    def delete(manager: Here, request: Request, caller: Caller, job_id: str) -> None:
        """Its audit and its events stay."""
        requests.delete(manager, request, caller, kind, job_id)


def _known(manager: Manager, kind: Kind, job_id: str) -> None:
    with manager.database.read() as session:
        requests.find(session, kind, job_id)


def _same(row: NodeRow) -> NodeRow:
    return row


def _sorts(row: JobRow, url_index: int | None, sort: str | None) -> dict[str, InstrumentedAttribute[Any]]:
    """Node ids break ties, so other fields serve within one URL only."""
    if len(row.urls) == 1 or url_index is not None:
        return {
            "url_index": NodeRow.url_index,
            "node": NodeRow.node_name,
            "node_id": NodeRow.node_id,
            "state": NodeRow.state,
            "size": NodeRow.size,
            "seconds": NodeRow.seconds,
        }
    if sort not in (None, "url_index", "-url_index"):
        raise invalid(f"sort {sort!r}: set url_index too, the job has {len(row.urls)} URLs")
    return {"url_index": NodeRow.url_index}
