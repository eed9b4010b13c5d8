"""What is asked of the manager's lists: each order, each filter, from the start and from deep inside."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database import tables as t
from dragonfly_ray.serve.pagination import MOST, cursor_at
from tests.benchmarks import manager_rows as rows

Query = Mapping[str, Any]
DEPTHS = 20
"""So many places in the middle of a list."""


@dataclass(frozen=True)
class Listing:
    """One list: the orders that it has, and what it can be filtered by."""

    path: str
    sorts: Mapping[str, InstrumentedAttribute[Any] | None]
    """None: not in the database."""
    key: InstrumentedAttribute[Any] | None
    filters: Sequence[Query] = ()
    only: Mapping[str, Query] = field(default_factory=dict)
    """Orders that need a filter."""
    plain: Sequence[Query] = ()
    """Of what has no pages."""

    def cases(self, database: Database) -> Iterator[Case]:
        for name, column in self.sorts.items():
            needed = self.only.get(name, {})
            for sort, found in itertools.product((name, f"-{name}"), ({}, *self.filters)):
                query = {"sort": sort, **needed, **found}
                yield Case(self.path, (query,))
                if column is not None and self.key is not None:
                    cursors = [cursor_at(sort, *at) for at in places(database, column, self.key)]
                    yield Case(self.path, tuple(query | {"cursor": c} for c in cursors), deep=True)
        if self.sorts:
            yield Case(self.path, ({"limit": MOST},))
        for found in self.plain:
            yield Case(self.path, (found,))


@dataclass(frozen=True, eq=False)
class Case:
    path: str
    queries: tuple[Query, ...]
    deep: bool = False

    def __str__(self) -> str:
        query = "&".join(f"{k}={str(v)[:24]}" for k, v in self.queries[0].items() if k != "cursor")
        return f"{query or 'as it is'}{', deep inside' if self.deep else ''}"


_PLACES: dict[tuple[str, str], list[tuple[Any, Any]]] = {}


def places(
    database: Database, column: InstrumentedAttribute[Any], key: InstrumentedAttribute[Any]
) -> list[tuple[Any, Any]]:
    """Where pages in the middle begin."""
    name = str(database.url), str(column)
    if name not in _PLACES:
        with database.read() as session:
            query = select(column, key).where(column.is_not(None)).order_by(func.random()).limit(DEPTHS)
            _PLACES[name] = [(a, b) for a, b in session.execute(query)]
    return _PLACES[name]


def listings(ids: Sequence[str]) -> list[Listing]:
    """`ids`: of the nodes. A long-gone and a busy one of each kind of filter."""
    now = t.now()
    day, long_ago = (now - timedelta(days=1)).isoformat(), (now - timedelta(days=80)).isoformat()
    week = (now - timedelta(days=7)).isoformat()
    busy, rare = rows.user_id(1), rows.user_id(500)
    jobs = _jobs(ids, day, long_ago, busy, rare)
    return [
        *jobs,
        Listing(
            "/nodes",
            {
                "name": t.Node.name,
                "node_id": t.Node.node_id,
                "address": t.Node.address,
                "state": t.Node.state,
                "first_seen_at": t.Node.first_seen_at,
                "last_seen_at": t.Node.last_seen_at,
            },
            t.Node.node_id,
            ({"alive": True}, {"alive": False}, {"role": "seed"}, {"cordoned": True}, {"name": "99"}),
        ),
        Listing(
            "/tasks",
            dict.fromkeys(("task_id", "url", "size", "active", "whole")),
            None,
            ({"url": "models"}, {"url": "nothing"}, {"node_id": ids[5]}),
        ),
        Listing(
            "/schedules",
            {"created_at": t.Schedule.created_at, "name": t.Schedule.name, "kind": t.Schedule.kind},
            t.Schedule.id,
            ({"kind": "preheat"}, {"enabled": True}),
        ),
        Listing(
            "/users",
            {"name": t.User.name, "created_at": t.User.created_at, "role": t.User.role},
            t.User.id,
            ({"role": "viewer"}, {"name": "user-09"}, {"disabled": True}),
        ),
        Listing(
            "/tokens",
            {"created_at": t.Token.created_at},
            t.Token.id,
            ({"user_id": "all"}, {"user_id": "all", "active": False}, {"user_id": rows.user_id(3)}),
        ),
        Listing("/roles", {"name": t.Role.name}, t.Role.name),
        Listing("/secrets", {"name": t.Secret.name, "created_at": t.Secret.created_at}, t.Secret.name),
        Listing("/config/versions", {"version": t.ConfigVersion.version}, t.ConfigVersion.version),
        Listing(
            "/audit",
            {"at": t.Audit.at},
            t.Audit.id,
            (
                {"actor": "user-0003"},
                {"actor": "user-0700"},
                {"actor": rare},
                {"actor": "nobody"},
                {"action": "node.cordon"},
                {"action": "role.delete"},
                {"action": "role.*"},
                {"action": "j*"},
                {"resource_type": "job"},
                {"resource_id": rows.job_id(77)},
                {"resource_type": "job", "resource_id": rows.job_id(77)},
                {"outcome": "refused"},
                {"since": day},
                {"until": long_ago},
                {"actor": "user-0700", "action": "node.cordon", "until": long_ago},
            ),
        ),
        Listing(
            "/events",
            {"id": t.Event.id},
            t.Event.id,
            (
                {"types": "job.ended"},
                {"types": "job.*"},
                {"types": "config.*"},
                {"types": "config.changed"},
                {"types": "webhook.*"},
                {"resource_type": "config"},
                {"resource_id": rows.job_id(77)},
                {"resource_type": "job", "resource_id": rows.job_id(99_999)},
                {"after": 50_000, "types": "config.changed"},
            ),
        ),
        Listing("/webhooks", {"created_at": t.Webhook.created_at, "name": t.Webhook.name}, t.Webhook.id),
        Listing(
            f"/webhooks/{rows.webhook_id(0)}/deliveries",
            {"created_at": t.Delivery.created_at},
            t.Delivery.id,
            ({"state": "failed"}, {"state": "pending"}),
        ),
        Listing("/stats/overview", {}, None, plain=({},)),
        Listing("/stats/nodes", {}, None, plain=({}, {"since": week})),
        Listing("/stats/tasks", {}, None, plain=({}, {"limit": 500})),
        Listing(
            "/stats/traffic",
            {},
            None,
            plain=({}, {"node_id": ids[5]}, {"since": day}, {"since": long_ago}, {"since": day, "step": 60}),
        ),
    ]


def _jobs(ids: Sequence[str], day: str, long_ago: str, busy: str, rare: str) -> list[Listing]:
    filters: tuple[Query, ...] = (
        {"state": "succeeded"},
        {"state": "cancelled"},
        {"state": "running"},
        {"state": ["partial", "failed"]},
        {"name": "nightly"},
        {"name": "release-4321"},
        {"name": "nothing"},
        {"url": "https://host"},
        {"url": "https://host3.example/sets/4"},
        {"url": "https://nowhere"},
        {"created_by": busy},
        {"created_by": rare},
        {"created_by": "nobody"},
        {"node_id": ids[17]},
        {"node_id": "none"},
        {"schedule_id": rows.hex_id("schedule", 7)},
        {"retry_of": rows.job_id(2)},
        {"since": day},
        {"until": long_ago},
        {"state": "failed", "created_by": busy, "name": "nightly"},
        {"state": "failed", "until": long_ago},
        {"node_id": ids[17], "state": "failed", "url": "https://host3"},
    )
    ended = {"ended_at": {"state": ["succeeded", "failed"]}}
    sorts = {
        "created_at": t.Job.created_at,
        "name": t.Job.name,
        "state": t.Job.state,
        "ended_at": t.Job.ended_at,
    }
    found = []
    for kind, big in (("distributions", 1_001), ("preheats", 99_000)):
        allowed = [f for f in filters if f.get("state") != "running"]
        found.append(
            Listing(f"/{kind}", {k: v for k, v in sorts.items() if k != "ended_at"}, t.Job.id, filters)
        )
        found.append(Listing(f"/{kind}", {"ended_at": t.Job.ended_at}, t.Job.id, allowed, ended))
        found.append(
            Listing(
                f"/{kind}/{rows.job_id(big)}/nodes",
                {
                    "url_index": t.JobNode.url_index,
                    "node": t.JobNode.node_name,
                    "state": t.JobNode.state,
                    "seconds": t.JobNode.seconds,
                },
                t.JobNode.node_id,
                ({"state": "failed"}, {"state": "waiting"}),
            )
        )
    return found


def pick(case: Case, dice: random.Random) -> Query:
    return dice.choice(case.queries)
