"""What can be allowed, the roles that come with the manager, and how a route says what it demands.

Every endpoint is marked with `requires(…)`. One dependency of the whole application reads the mark;
what has none is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__dragonfly_permission__"


class Permission(enum.StrEnum):
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    NODES_READ = "nodes:read"
    NODES_WRITE = "nodes:write"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    SECRETS_ADMIN = "secrets:admin"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    ROLES_READ = "roles:read"
    ROLES_WRITE = "roles:write"
    CONFIG_READ = "config:read"
    CONFIG_WRITE = "config:write"
    AUDIT_READ = "audit:read"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    STATS_READ = "stats:read"
    METRICS_READ = "metrics:read"


DESCRIPTIONS: dict[Permission, str] = {
    Permission.JOBS_READ: "See distributions and preheats",
    Permission.JOBS_WRITE: "Start, cancel, retry and delete distributions and preheats",
    Permission.TASKS_READ: "See cached content of every node",
    Permission.TASKS_WRITE: "Pin, unpin and evict content",
    Permission.NODES_READ: "See the nodes",
    Permission.NODES_WRITE: "Cordon, drain and forget nodes",
    Permission.SCHEDULES_READ: "See schedules",
    Permission.SCHEDULES_WRITE: "Create, change, run and delete schedules",
    Permission.SECRETS_READ: "See the names of secrets; values are never shown",
    Permission.SECRETS_WRITE: "Create secrets; replace, grant and delete one's own",
    Permission.SECRETS_ADMIN: "Use, replace, grant and delete everybody's secrets",
    Permission.USERS_READ: "See users and their tokens",
    Permission.USERS_WRITE: "Create, change and delete users, and tokens for them",
    Permission.ROLES_READ: "See roles",
    Permission.ROLES_WRITE: "Create, change and delete roles",
    Permission.CONFIG_READ: "See the settings of the cluster and their history",
    Permission.CONFIG_WRITE: "Change the settings of the cluster",
    Permission.AUDIT_READ: "See the audit log",
    Permission.EVENTS_READ: "See and stream events",
    Permission.WEBHOOKS_READ: "See webhooks and their deliveries",
    Permission.WEBHOOKS_WRITE: "Create, change, test and delete webhooks",
    Permission.STATS_READ: "See statistics",
    Permission.METRICS_READ: "Read the manager's own metrics",
}


class Access(enum.StrEnum):
    """Of routes that demand no permission."""

    PUBLIC = "public"
    """Anybody."""
    SELF = "self"
    """Whoever is signed in, about themselves."""


Demand = Permission | Access
EVERYTHING = frozenset(Permission)
_VIEWER = frozenset(
    {
        Permission.JOBS_READ,
        Permission.TASKS_READ,
        Permission.NODES_READ,
        Permission.SCHEDULES_READ,
        Permission.CONFIG_READ,
        Permission.EVENTS_READ,
        Permission.STATS_READ,
    }
)
_OPERATOR = _VIEWER | {
    Permission.JOBS_WRITE,
    Permission.TASKS_WRITE,
    Permission.NODES_WRITE,
    Permission.SCHEDULES_WRITE,
    Permission.SECRETS_READ,
    Permission.SECRETS_WRITE,
    Permission.CONFIG_WRITE,
    Permission.AUDIT_READ,
    Permission.WEBHOOKS_READ,
    Permission.WEBHOOKS_WRITE,
    Permission.METRICS_READ,
}
BUILTIN_ROLES: dict[str, tuple[str, frozenset[Permission]]] = {
    "admin": ("Everything", EVERYTHING),
    "operator": ("Operates the cluster; no access to users and roles", frozenset(_OPERATOR)),
    "viewer": ("Read-only access", _VIEWER),
}


def requires(demand: Demand) -> Callable[[F], F]:
    """Marks an endpoint. Write it below the route's own decorator."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, MARK, demand)
        return endpoint

    return mark


def demanded(endpoint: object) -> Demand | None:
    """What `requires` said of it; None: nothing, so it is refused."""
    found: Demand | None = getattr(endpoint, MARK, None)
    return found
