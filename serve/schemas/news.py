"""Events, webhooks, schedules, statistics."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, StringConstraints

from dragonfly_ray.serve.schemas.base import By, In, Name, Out, Provenance
from dragonfly_ray.serve.schemas.jobs import DistributionCreate, Kind, PreheatCreate

EventType = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z_]+(\.[a-z_]+)*(\.\*)?$")
]


class Event(Out):
    """`id` grows; give the last one as `Last-Event-ID` (or `after`) to go on from there."""

    id: int
    at: datetime
    type: str = Field(
        description="job.created, job.started, job.ended, job.node_failed, node.joined, node.left, …"
    )
    resource_type: str
    resource_id: str
    data: dict[str, Any]


class WebhookIn(In):
    url: Annotated[str, StringConstraints(min_length=8, max_length=2048, pattern=r"^https?://[!-~]+$")]
    types: Annotated[list[EventType], Field(max_length=50)] = Field(
        [], description="Event types such as `job.ended` or `node.*`; default: all."
    )
    enabled: bool = True


class WebhookCreate(WebhookIn):
    name: Name
    signing_key: Annotated[SecretStr, Field(min_length=24, max_length=256)] | None = Field(
        None, description="`whsec_…`; default: generated, and shown once."
    )


class WebhookPayload(Out):
    """The body of a delivery: an event."""

    type: str = Field(description="As of `Event`; `test`: a test delivery.")
    timestamp: datetime = Field(description="When it happened.")
    event_id: int
    resource_type: str
    resource_id: str
    data: dict[str, Any]


class Webhook(Out):
    id: str
    name: str
    url: str
    types: list[str]
    enabled: bool
    failing_since: datetime | None = Field(
        description="Since when all deliveries have failed, once one was given up."
    )
    last_success_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class WebhookCreated(Webhook):
    signing_key: str = Field(description="Shown this once.")


class Delivery(Out):
    id: str
    webhook_id: str
    event_id: int
    event_type: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str
    last_seconds: float | None
    created_at: datetime
    delivered_at: datetime | None


class _ScheduleIn(In):
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    cron: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        None, description="Cron expression of five fields."
    )
    interval_seconds: Annotated[int, Field(ge=10, le=366 * 86400)] | None = None
    timezone: Annotated[str, StringConstraints(max_length=64)] = "UTC"
    enabled: bool = True


class ScheduleIn(_ScheduleIn):
    """A distribution or a preheat, by cron expression or by interval: one of the two."""

    distribution: DistributionCreate | None = None
    preheat: PreheatCreate | None = None


class Schedule(Out):
    id: str
    name: str
    kind: Kind
    request: dict[str, Any] = Field(description="The body of the distribution or preheat.")
    cron: str | None
    interval_seconds: int | None
    timezone: str
    enabled: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: str | None
    last_error: str
    created_by: By
    version: int
    created_at: datetime
    updated_at: datetime


class Upcoming(Out):
    items: list[datetime] = Field(description="None while it is disabled.")


class TrafficPoint(Out):
    at: datetime
    seconds: int
    bytes: Provenance


class TrafficSeries(Out):
    """Bytes received, over time. `saved`: bytes that nodes got without the origin."""

    since: datetime
    until: datetime
    step: int
    points: list[TrafficPoint]
    total: Provenance
    saved: int


class TopTask(Out):
    task_id: str
    url: str
    size: int
    jobs: int
    bytes: Provenance
    last_at: datetime


class NodeTraffic(Out):
    node_id: str
    node: str
    bytes: Provenance
    bytes_sent: int


class Overview(Out):
    """One look at everything. Rates are bytes a second, now."""

    at: datetime
    rates: Provenance
    bytes_saved: int = Field(
        description="Bytes that nodes received from elsewhere than the origin, since statistics are kept."
    )
    bytes_origin: int
    jobs_active: int
    jobs_queued: int
    jobs_ended_24h: dict[str, int] = Field(description="State -> number of jobs.")
    nodes_alive: int
    nodes_healthy: int
    nodes_cordoned: int
    nodes_total: int
    store_used: int
    store_quota: int
    cluster_error: str | None = Field(
        None, description="Why the cluster is unavailable; its figures are 0 then."
    )
