"""REST representations of jobs: the database row, and live progress of the board while a job is active."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from dragonfly_ray.figures import Figures
from dragonfly_ray.outcome import NAMES, NodeOutcome
from dragonfly_ray.serve.database.tables import Job as JobRow
from dragonfly_ray.serve.database.tables import JobNode as NodeRow
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.jobs.board import Board, LiveNode, Totals
from dragonfly_ray.serve.jobs.orders import OPTIONS, job_options
from dragonfly_ray.serve.schemas.base import By, Failure, Provenance
from dragonfly_ray.serve.schemas.jobs import ENDED, Job, JobNode, Kind, Progress, State


def job(row: JobRow, board: Board) -> Job:
    totals = None if row.state in ENDED else board.totals(row.id)
    size = totals.size if totals else row.size
    until = row.ended_at or now()
    options = job_options(row)
    return Job.model_construct(
        id=row.id,
        kind=cast(Kind, row.kind),
        name=row.name,
        state=cast(State, row.state),
        urls=row.urls,
        nodes=row.nodes,
        dest=row.dest or None,
        secret=row.secret or None,
        **{name: options[name] for name in OPTIONS},
        created_by=By.model_construct(id=row.created_by, name=row.created_by_name),
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        seconds=(until - row.started_at).total_seconds() if row.started_at else None,
        size=size,
        progress=_progress(row, totals, size),
        bytes=_provenance(totals or row),
        bytes_audit=(totals or row).bytes_audit,
        figures=msgspec.convert(row.figures, Figures | None),
        error=Failure.model_construct(kind=row.error_kind, message=row.error) if row.error_kind else None,
        task_ids=list(totals.task_ids) if totals else row.task_ids,
        schedule_id=row.schedule_id,
        retry_of=row.retry_of,
    )


def _progress(row: JobRow, totals: Totals | None, size: int | None) -> Progress:
    return Progress.model_construct(
        # A scheduler that was told again begins to count anew; what was written down is not undone by that.
        bytes_done=max(totals.bytes_done if totals else 0, row.bytes_done),
        bytes_total=(size or 0) * row.nodes_total,
        rate=totals.rate if totals else 0.0,
        eta=totals.eta if totals else None,
        waiting=totals.waiting if totals else "",
        nodes_total=row.nodes_total,
        nodes_done=max(totals.nodes_done if totals else 0, row.nodes_done),
        nodes_failed=totals.nodes_failed if totals else row.nodes_failed,
    )


def _provenance(of: Totals | JobRow) -> Provenance:
    return Provenance.model_construct(
        origin=of.bytes_origin, peers=of.bytes_peers, cache=of.bytes_cache, object_store=of.bytes_object_store
    )


def node(row: NodeRow, of: JobRow, live: LiveNode | None) -> JobNode:
    """What is done in the row stays so, whatever a scheduler that was told again thinks of it."""
    if live is None or row.state == "done" or of.state in ENDED:
        return _from_row(row, of)
    return from_live(live, of, row.node_name)


def nodes(rows: Iterable[NodeRow], of: JobRow, board: Board) -> list[JobNode]:
    listed = list(rows)
    live = {} if of.state in ENDED else board.nodes(of.id, [(r.url_index, r.node_id) for r in listed])
    return [node(row, of, live.get((row.url_index, row.node_id))) for row in listed]


def _from_row(row: NodeRow, of: JobRow) -> JobNode:
    found = NodeOutcome(**{name: getattr(row, name) for name in NAMES})
    live = LiveNode(row.url_index, found, found.bytes_done, 0.0, None)
    return JobNode.model_validate(plain_live(live, of, row.node_name, row.seconds))


def from_live(live: LiveNode, of: JobRow, name: str) -> JobNode:
    return JobNode.model_validate(plain_live(live, of, name, elapsed(of)))


def plain(node: JobNode) -> dict[str, Any]:
    """Ready for JSON."""
    return node.model_dump(mode="json")


def elapsed(of: JobRow) -> float:
    """Seconds since its start."""
    return (now() - of.started_at).total_seconds() if of.started_at else 0.0


def plain_live(live: LiveNode, of: JobRow, name: str, since: float) -> dict[str, Any]:
    """A `JobNode`, without the cost of one: a thousand of them change several times a second."""
    o = live.outcome
    return {
        "node_id": o.node_id,
        "node": name,
        "url_index": live.url_index,
        "url": of.urls[live.url_index],
        "state": o.state,
        "path": o.path or None,
        "size": o.size,
        "bytes_done": live.bytes_done,
        "rate": live.rate,
        "eta": live.eta,
        "seconds": o.seconds if o.state in ("done", "failed") else since,
        "bytes": {
            "origin": o.bytes_origin,
            "peers": o.bytes_peers,
            "cache": o.bytes_cache,
            "object_store": o.bytes_object_store,
        },
        "bytes_audit": o.bytes_audit,
        "origin_pieces": o.origin_pieces,
        "merged": o.merged,
        "written_by": o.written_by or None,
        "error": {"kind": o.error_kind, "message": o.error} if o.error_kind else None,
    }
