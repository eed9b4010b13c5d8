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
    """Create, cancel, retry and delete distributions and preheats."""
    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    """Pin, unpin, evict."""
    NODES_READ = "nodes:read"
    NODES_WRITE = "nodes:write"
    """Cordon, uncordon, drain."""
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    SECRETS_READ = "secrets:read"
    """Their names; values are shown to nobody."""
    SECRETS_WRITE = "secrets:write"
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
    "operator": ("Runs the cluster; no users and roles", frozenset(_OPERATOR)),
    "viewer": ("Looks, changes nothing", _VIEWER),
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
