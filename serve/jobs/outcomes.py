"""What is written down of a job as it goes on. Each function is one transaction's work.

The job's row is locked first, and looked at again: whatever a replica believed before (that it leads,
that a node is still at work), each start, each node's failure and each end is told exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.orm import Session

from dragonfly_ray.figures import Figures
from dragonfly_ray.outcome import NAMES, NodeOutcome
from dragonfly_ray.serve.database.tables import Job, JobNode, now
from dragonfly_ray.serve.jobs.board import Totals
from dragonfly_ray.serve.jobs.outcome_rules import CANCELLED, Ended, JobOutcome, verdict
from dragonfly_ray.serve.records import TaskUpdate, audit, emit, emit_all

OutcomeKey = tuple[int, str]
"""Which URL, and which node."""
CHUNK = 300
UNTOLD = "unknown-outcome"
_FIELDS = tuple(name for name in NAMES if name not in ("node_id", "state"))


_SUMS = ("bytes_origin", "bytes_peers", "bytes_cache", "bytes_object_store", "bytes_audit")


def locked(session: Session, job_id: str, *states: str) -> Job | None:
    """The job, if it is there in one of these states; nobody else changes it until the commit."""
    row = session.get(Job, job_id, with_for_update=True)
    return row if row is not None and row.state in states else None


def start(session: Session, job_id: str) -> bool:
    """Queued no more: from here on the cluster may have been told."""
    row = locked(session, job_id, "queued")
    if row is None or row.cancel_requested:
        return False
    row.state, row.started_at, row.updated_at = "running", now(), now()
    emit(
        session,
        "job.started",
        "job",
        job_id,
        {"kind": row.kind, "name": row.name, "nodes_total": row.nodes_total},
    )
    return True


def record(
    session: Session, job_id: str, changed: Mapping[OutcomeKey, NodeOutcome], totals: Totals | None
) -> bool:
    """Writes what changed on nodes, and the sums. Whether the job is (still) running."""
    row = locked(session, job_id, "running")
    if row is None:
        return False
    failures = _write(session, job_id, changed)
    if totals is not None:
        _sum_up(row, totals)
    _tell(session, row, failures)
    return True


def note(session: Session, job_id: str, kind: str, message: str) -> None:
    """Of a job that goes on: what it waits for; empty: nothing any more."""
    row = locked(session, job_id, "queued", "running")
    if row is not None and (row.error_kind, row.error) != (kind, message):
        row.error_kind, row.error, row.updated_at = kind, message, now()


def end(session: Session, job_id: str, figures: Figures | None = None) -> JobOutcome | None:
    """The cluster has ended all of it. A node of which it told nothing has failed."""
    row = locked(session, job_id, "running")
    if row is None:
        return None
    row.figures = asdict(figures) if figures else None
    missing = _fail_open(session, job_id, UNTOLD, "the cluster reported no outcome for this node")
    return _close(session, row, missing)


def stop(session: Session, job_id: str, kind: str, message: str) -> JobOutcome | None:
    """Ends it without the cluster: it was never begun there, or cannot be."""
    row = locked(session, job_id, "queued", "running")
    if row is None:
        return None
    failed = _fail_open(session, job_id, kind, message)
    return _close(session, row, failed if kind != CANCELLED else [])


def _write(
    session: Session, job_id: str, changed: Mapping[OutcomeKey, NodeOutcome]
) -> list[tuple[OutcomeKey, NodeOutcome]]:
    """Returns those that failed just now. What is done stays done; what failed may be done after all."""
    known = _states(session, job_id, changed.keys())
    ended, moved, failures = [], [], []
    for key, outcome in changed.items():
        before = known.get(key)
        if before is None or before == outcome.state or before == "done":
            continue
        at = {"at_index": key[0], "at_node": key[1], "state": outcome.state}
        if outcome.state in ("done", "failed"):
            ended.append(at | {name: getattr(outcome, name) for name in _FIELDS})
            if outcome.state == "failed":
                failures.append((key, outcome))
        elif before != "failed":
            moved.append(at)
    _update(session, job_id, ended)
    _update(session, job_id, moved)
    return failures


def _states(session: Session, job_id: str, keys: Iterable[OutcomeKey]) -> dict[OutcomeKey, str]:
    wanted = list(keys)
    found: dict[OutcomeKey, str] = {}
    at = (JobNode.url_index, JobNode.node_id)
    for begin in range(0, len(wanted), CHUNK):
        some = wanted[begin : begin + CHUNK]
        query = select(*at, JobNode.state).where(JobNode.job_id == job_id, tuple_(*at).in_(some))
        found |= {(index, node): state for index, node, state in session.execute(query)}
    return found


def _update(session: Session, job_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """What else is in a row besides its key, is set."""
    if not rows:
        return
    statement = update(JobNode.__table__).where(  # type: ignore[arg-type]
        JobNode.job_id == job_id,
        JobNode.url_index == bindparam("at_index"),
        JobNode.node_id == bindparam("at_node"),
    )
    session.flush()
    session.connection().execute(statement, list(rows))


def _sum_up(row: Job, totals: Totals) -> None:
    row.size = totals.size if totals.size is not None else row.size
    row.bytes_done = max(row.bytes_done, totals.bytes_done)
    for name in _SUMS:
        setattr(row, name, max(getattr(row, name), getattr(totals, name)))
    row.nodes_done = max(row.nodes_done, totals.nodes_done)
    row.nodes_failed = min(totals.nodes_failed, row.nodes_total - row.nodes_done)
    row.task_ids = [new or old for new, old in zip(totals.task_ids, row.task_ids, strict=True)]
    row.updated_at = now()


def _fail_open(
    session: Session, job_id: str, kind: str, message: str
) -> list[tuple[OutcomeKey, NodeOutcome]]:
    """All that is neither done nor failed, fails for this reason."""
    open_ = JobNode.state.in_(("waiting", "running"))
    query = select(JobNode.url_index, JobNode.node_id).where(JobNode.job_id == job_id, open_)
    keys = [(index, node) for index, node in session.execute(query)]
    if keys:
        session.execute(
            update(JobNode)
            .where(JobNode.job_id == job_id, open_)
            .values(state="failed", error_kind=kind, error=message)
            .execution_options(synchronize_session=False)
        )
    return [(key, NodeOutcome(key[1], "failed", error_kind=kind, error=message)) for key in keys]


def _close(session: Session, row: Job, failures: Sequence[tuple[OutcomeKey, NodeOutcome]]) -> JobOutcome:
    """Sums up from the rows: they are what is shown ever after."""
    query = select(JobNode.node_id, JobNode.node_name, JobNode.state, JobNode.error_kind, JobNode.error)
    found = verdict(
        (
            Ended(node, name, state == "done", kind, message)
            for node, name, state, kind, message in session.execute(query.where(JobNode.job_id == row.id))
        ),
        cancel_requested=row.cancel_requested,
    )
    sums = [func.coalesce(func.sum(getattr(JobNode, name)), 0) for name in _SUMS]
    totals: list[Any] = list(session.execute(select(*sums).where(JobNode.job_id == row.id)).one())
    done = session.scalar(
        select(func.coalesce(func.sum(JobNode.size), 0)).where(
            JobNode.job_id == row.id, JobNode.state == "done"
        )
    )
    for name, bytes_ in zip(_SUMS, totals, strict=True):
        setattr(row, name, int(bytes_))
    row.bytes_done = max(row.bytes_done if found.nodes_failed else 0, int(done or 0))
    row.state, row.error_kind, row.error = found.state, found.kind, found.message
    row.nodes_done, row.nodes_failed = found.nodes_done, found.nodes_failed
    row.ended_at = row.updated_at = now()
    audit(session, None, "job.end", "job", row.id, state=found.state, kind=row.kind, name=row.name,
          nodes_total=row.nodes_total, nodes_done=found.nodes_done, nodes_failed=found.nodes_failed)  # fmt: skip
    _tell(session, row, failures)
    data = {"state": found.state, "kind": row.kind, "name": row.name, "nodes_total": row.nodes_total,
            "nodes_done": found.nodes_done, "nodes_failed": found.nodes_failed,
            "error": {"kind": found.kind, "message": found.message} if found.kind else None}  # fmt: skip
    emit(session, "job.ended", "job", row.id, data)
    return found


def _tell(session: Session, row: Job, failures: Sequence[tuple[OutcomeKey, NodeOutcome]]) -> None:
    failures = [f for f in failures if f[1].error_kind != CANCELLED]
    if not failures:
        return
    query = select(JobNode.node_id, JobNode.node_name).where(JobNode.job_id == row.id)
    names: dict[str, str] = {row[0]: row[1] for row in session.execute(query)}
    emit_all(
        session,
        [
            TaskUpdate("job.node_failed", "job", row.id,
                 {"node_id": node, "node": names.get(node, ""), "url": row.urls[index],
                  "kind": outcome.error_kind, "message": outcome.error})
            for (index, node), outcome in failures
        ],
    )  # fmt: skip
