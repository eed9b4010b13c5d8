"""A manager's database after a long time: what the lists are measured on. The same rows at every run."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select, text, update

from dragonfly_ray.serve.accounts import setup
from dragonfly_ray.serve.cluster import NodeView, TaskView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database import tables as t
from dragonfly_ray.serve.permissions import BUILTIN_ROLES, EVERYTHING
from dragonfly_ray.serve.stats.tasks import CURSOR
from dragonfly_ray.serve.testing import FakeCluster
from dragonfly_ray.serve.vault import Vault

JOBS = 100_000
NODES = 1_000
HISTORY = 100_000
"""Audit entries, events, deliveries."""
USERS, TOKENS, SECRETS, SCHEDULES, VERSIONS, WEBHOOKS, TASKS = 1_000, 5_000, 500, 2_000, 500, 20, 10_000
GONE = 500
"""Dead nodes that nobody has forgotten."""
BATCH = 5_000
DAYS = 90
STATES = ("succeeded", "partial", "failed", "cancelled")
ACTIONS = ("job.create", "job.cancel", "session.create", "node.cordon", "config.change", "token.create")
EVENTS = ("job.created", "job.started", "job.ended", "job.node_failed", "node.changed", "schedule.fired")
Rows = Iterator[dict[str, Any]]


def cluster() -> FakeCluster:
    """With as many tasks as a busy one has."""
    found = FakeCluster(NODES)
    ids, dice = list(found.views), random.Random(3)
    for n in range(TASKS):
        holders = dict.fromkeys(dice.sample(ids, 8), 1.0)
        task_id = hex_id("task", n)
        found.contents[task_id] = TaskView(
            task_id, task_id, url(n), 1 << 30, 256, 1, False, 0, len(holders), 0, holders
        )
    for number, node_id in enumerate(ids):
        found.set_node(node_id, receive_rate=float(number), store_used=number << 30, bytes_peers=number << 20)
    return found


def hex_id(kind: str, number: int) -> str:
    """Scattered, as real ones are."""
    return f"{random.Random(f'{kind}{number}').getrandbits(128):032x}"


def url(number: int) -> str:
    return f"https://host{number % 7}.example/{'models' if number % 3 else 'sets'}/{number % 9_000}/part.bin"


def fill(database: Database, views: Iterable[NodeView], vault: Vault) -> None:
    """Nothing, if it has its jobs already. `vault`: of the manager that will open it."""
    with database.read() as session:
        if session.scalar(select(func.count()).select_from(t.Job)) == JOBS:
            return
    setup.builtin_roles(database)
    end = t.now()
    nodes = list(views)
    ids = [n.node_id for n in nodes]
    _put(database, t.User, _users(end))
    _put(database, t.Role, _roles(end))
    _put(database, t.Token, _tokens(end))
    _put(database, t.Secret, _secrets(end, vault))
    _put(database, t.Node, _nodes(nodes, end))
    _put(database, t.Schedule, _schedules(end))
    _put(database, t.Job, _jobs(ids, end))
    _put(database, t.JobUrl, _job_urls())
    _put(database, t.JobNode, _outcomes(ids))
    _put(database, t.ConfigVersion, _versions(end))
    _put(database, t.Audit, _audit(end))
    _put(database, t.Event, _events(end))
    _put(database, t.Webhook, _webhooks(end, vault))
    _put(database, t.Delivery, _deliveries(end))
    _put(database, t.TaskTraffic, _task_traffic(end))
    _put(database, t.Traffic, _traffic(ids, end))
    with database.write() as session:
        # Every event is told already, so that what tells them has nothing to do.
        last = session.scalar(select(func.max(t.Event.id)))
        session.execute(update(t.Webhook).values(cursor=last))
        session.add(t.Cursor(name=CURSOR, event_id=last or 0))
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # As the server does by itself after a while.
            connection.execute(text("vacuum analyze"))


def _put(database: Database, table: type[t.Base], rows: Rows) -> None:
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == BATCH:
            _write(database, table, some)
            some = []
    _write(database, table, some)


def _write(database: Database, table: type[t.Base], rows: list[dict[str, Any]]) -> None:
    if rows:
        with database.write() as session:
            session.execute(insert(table), rows)


def _at(number: int, of: int, end: datetime) -> datetime:
    """Evenly over the time, the last one just now."""
    return end - timedelta(days=DAYS) * ((of - number) / of)


def user_id(number: int) -> str:
    return hex_id("user", number)


def _users(end: datetime) -> Rows:
    roles = [*BUILTIN_ROLES]
    for n in range(USERS):
        at = _at(n, USERS, end)
        yield {"id": user_id(n), "name": f"user-{n:04d}", "role": roles[n % 3], "created_at": at}


def _roles(end: datetime) -> Rows:
    for n in range(50):
        yield {"name": f"team-{n}", "permissions": ["jobs:read"], "created_at": _at(n, 50, end)}


def _tokens(end: datetime) -> Rows:
    for n in range(TOKENS):
        yield {
            "id": hex_id("token", n),
            "user_id": user_id(n % 50),
            "name": f"ci-{n}",
            "prefix": f"dfr_{n:08d}",
            "hash": hex_id("hash", n),
            "permissions": sorted(EVERYTHING)[: n % 20],
            "revoked_at": end if n % 3 == 0 else None,
            "created_at": _at(n, TOKENS, end),
        }


def _secrets(end: datetime, vault: Vault) -> Rows:
    for n in range(SECRETS):
        at = _at(n, SECRETS, end)
        yield {
            "name": f"bucket-{n}",
            "sealed": vault.seal(b"{}"),
            "key_id": vault.key_id,
            "fields": ["key"],
            "created_at": at,
        }


def _nodes(views: list[NodeView], end: datetime) -> Rows:
    for view in views:
        yield {
            "node_id": view.node_id,
            "name": view.name,
            "address": view.address,
            "labels": dict(view.labels),
            "seed": view.seed,
            "alive": True,
            "state": view.state,
            "first_seen_at": end - timedelta(days=DAYS),
            "last_seen_at": end,
        }
    for n in range(GONE):
        at = _at(n, GONE, end)
        yield {
            "node_id": f"{hex_id('node', n)}000000",
            "name": f"node-{n}",
            "alive": False,
            "state": "dead",
            "last_seen_at": at,
        }


def _schedules(end: datetime) -> Rows:
    for n in range(SCHEDULES):
        yield {
            "id": hex_id("schedule", n),
            "name": f"nightly-{n}",
            "kind": "preheat" if n % 2 else "distribution",
            "request": {"urls": [url(n)], "nodes": "all"},
            "cron": "0 3 * * *",
            "enabled": False,
            "created_at": _at(n, SCHEDULES, end),
        }


def job_id(number: int) -> str:
    return hex_id("job", number)


def state_of(number: int) -> str:
    """One in fifty is partial, one in a hundred failed, one in two hundred cancelled."""
    if number % 50 == 1:
        return "partial"
    if number % 100 == 2:
        return "failed"
    return "cancelled" if number % 200 == 3 else "succeeded"


def targets_of(number: int, ids: list[str]) -> list[str]:
    """Every hundredth job is for all nodes, the others for up to twelve."""
    if number % 100 == 0:
        return ids
    return random.Random(number).sample(ids, 1 + number % 12)


def _jobs(ids: list[str], end: datetime) -> Rows:
    for n in range(JOBS):
        at, targets, state = _at(n, JOBS, end), targets_of(n, ids), state_of(n)
        failed = {"succeeded": 0, "partial": 1}.get(state, len(targets))
        yield {
            "id": job_id(n),
            "kind": "preheat" if n % 4 == 0 else "distribution",
            "name": "" if n % 5 == 0 else f"{('nightly', 'release', 'adhoc')[n % 3]}-{n % 10_000}",
            "state": state,
            "urls": [url(n)],
            "nodes": "all" if n % 100 == 0 else len(targets),
            "targets": targets,
            "dest": "/data/{name}",
            "options": {"tag": "night", "include": ["*.bin"]},
            "created_by": user_id(n % 20 if n % 100 else 500),
            "created_by_name": f"user-{n % 20:04d}",
            "schedule_id": hex_id("schedule", n % SCHEDULES) if n % 2 else None,
            "retry_of": job_id(n - 1) if state_of(n - 1) == "failed" else None,
            "error_kind": "source-not-found" if state == "failed" else "",
            "error": f"{url(n)}: 404" if state == "failed" else "",
            "size": 1 << 30,
            "nodes_total": len(targets),
            "nodes_done": len(targets) - failed,
            "nodes_failed": failed,
            "bytes_peers": len(targets) << 30,
            "task_ids": [hex_id("task", n % TASKS)],
            "created_at": at,
            "started_at": at,
            "ended_at": at + timedelta(seconds=30),
            "updated_at": at + timedelta(seconds=30),
        }


def _job_urls() -> Rows:
    for n in range(JOBS):
        yield {"job_id": job_id(n), "url_index": 0, "start": url(n)}


def _outcomes(ids: list[str]) -> Rows:
    """Of the last fifth of the jobs, and of every hundredth of the others."""
    for n in range(JOBS):
        if n < JOBS * 4 // 5 and n % 10_000 != 0 and n % 100 != 1:
            continue
        if n >= JOBS * 4 // 5 and n % 100 == 0 and n % 1000 != 0:
            continue
        state = state_of(n)
        for number, node in enumerate(targets_of(n, ids)):
            bad = state in ("failed", "cancelled") or (state == "partial" and number == 0)
            yield {
                "job_id": job_id(n),
                "url_index": 0,
                "node_id": node,
                "node_name": f"node-{int(node, 16)}",
                "state": "failed" if bad else "done",
                "path": "/data/part.bin",
                "size": 1 << 30,
                "seconds": 1.0 + number % 13,
                "bytes_peers": 1 << 30,
                "error_kind": "node-lost" if bad else "",
                "error": "it went away" if bad else "",
            }


def _versions(end: datetime) -> Rows:
    for n in range(VERSIONS):
        yield {
            "version": n + 1,
            "values": {"origin.connections": 1 + n % 8, "transport.upload_rate": 1_000_000 + n},
            "comment": "tuned",
            "rollback_of": None,
            "created_by_name": "user-0001",
            "created_at": _at(n, VERSIONS, end),
            "applied_at": end,
        }


def _audit(end: datetime) -> Rows:
    for n in range(HISTORY):
        yield {
            "at": _at(n, HISTORY, end),
            "actor_id": user_id(n % 20 if n % 1000 else 700),
            "actor": f"user-{n % 20 if n % 1000 else 700:04d}",
            "via": "token",
            "address": "10.0.0.7",
            "request_id": hex_id("request", n),
            "action": "role.delete" if n % 10_000 == 0 else ACTIONS[n % len(ACTIONS)],
            "resource_type": "job",
            "resource_id": job_id(n),
            "outcome": "refused" if n % 500 == 0 else "ok",
            "detail": {"name": f"nightly-{n}", "urls": [url(n)]},
        }


def _events(end: datetime) -> Rows:
    for n in range(HISTORY):
        yield {
            "at": _at(n, HISTORY, end),
            "type": "config.changed" if n % 10_000 == 0 else EVENTS[n % len(EVENTS)],
            "resource_type": "config" if n % 10_000 == 0 else "job",
            "resource_id": job_id(n % JOBS),
            "data": {"state": "succeeded", "name": f"nightly-{n}", "nodes_total": 12, "nodes_done": 12},
        }


def webhook_id(number: int) -> str:
    return hex_id("webhook", number)


def _webhooks(end: datetime, vault: Vault) -> Rows:
    for n in range(WEBHOOKS):
        yield {
            "id": webhook_id(n),
            "name": f"hook-{n}",
            "url": f"https://receiver.example/{n}",
            "types": ["job.*"],
            "sealed": vault.seal(b"[]"),
            "enabled": False,
            "created_at": _at(n, WEBHOOKS, end),
        }


def _deliveries(end: datetime) -> Rows:
    """Half of them of one webhook."""
    for n in range(HISTORY):
        state = "failed" if n % 100 == 0 else "delivered"
        at = _at(n, HISTORY, end)
        yield {
            "id": hex_id("delivery", n),
            "webhook_id": webhook_id(0 if n % 2 else n // 2 % WEBHOOKS),
            "event_id": n + 1,
            "event_type": EVENTS[n % len(EVENTS)],
            "payload": {"type": "job.ended", "data": {"name": f"nightly-{n}"}},
            "state": state,
            "attempts": 1,
            "give_up_at": at + timedelta(days=1),
            "last_status": 200,
            "created_at": at,
            "delivered_at": at,
        }


def _task_traffic(end: datetime) -> Rows:
    for n in range(TASKS):
        yield {
            "task_id": hex_id("task", n),
            "url": url(n),
            "size": 1 << 30,
            "jobs": n % 100,
            "bytes_origin": 1 << 30,
            "bytes_peers": (n % 1000) << 30,
            "last_at": _at(n, TASKS, end),
        }


def _traffic(ids: list[str], end: datetime) -> Rows:
    """By the minute for two days and by the hour for all of the time; of each node, a week's hours."""
    hour = end.replace(minute=0, second=0, microsecond=0)
    minute = end.replace(second=0, microsecond=0)
    moved = {"bytes_origin": 1 << 30, "bytes_peers": 9 << 30}
    for n in range(48 * 60):
        yield {"at": minute - timedelta(minutes=n), "seconds": 60, "node_id": "", **moved}
    for n in range(DAYS * 24):
        yield {"at": hour - timedelta(hours=n), "seconds": 3600, "node_id": "", **moved}
    for n in range(7 * 24):
        for node_id in ids:
            yield {"at": hour - timedelta(hours=n), "seconds": 3600, "node_id": node_id, **moved}


def counts(database: Database) -> Mapping[str, int]:
    with database.read() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (t.Job, t.JobNode, t.Node, t.Audit, t.Event, t.Delivery)
        }
