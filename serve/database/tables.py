"""The tables. Times are UTC; ids are hex; what is secret is hashed or encrypted."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    return uuid.uuid4().hex


class UtcTime(TypeDecorator[datetime]):
    """Aware, in UTC; SQLite keeps it without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a timezone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Id = String(64)
Serial = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column that is an INTEGER."""


ByBytes = String(256, collation="C").with_variant(String(256), "sqlite")
"""Text in the order of its bytes: what it begins with is a range of the index, whatever the locale."""
Word = String(64, collation="C").with_variant(String(64), "sqlite")
"""The same for names of kinds, such as `job.ended`."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        int: BigInteger,
    }


# --- who may do what ----------------------------------------------------------------------------


class Role(Base):
    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    description: Mapped[str] = mapped_column(Text, default="")
    permissions: Mapped[list[Any]] = mapped_column(default=list)
    builtin: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class User(Base):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    role: Mapped[str] = mapped_column(ForeignKey("roles.name"), index=True)
    password_hash: Mapped[str] = mapped_column(Text, default="")
    """argon2; empty: no sign-in by password."""
    disabled: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime | None]


class Token(Base):
    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(128))
    prefix: Mapped[str] = mapped_column(String(16))
    """What it begins with, to tell one from another."""
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256: it is long and random, so nothing slower is needed."""
    permissions: Mapped[list[Any]] = mapped_column(default=list)
    """What it is for; counts only as far as its owner may do it now."""
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_from: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class SignIn(Base):
    """A session of the console."""

    __tablename__ = "sign_ins"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of what the cookie holds."""
    id: Mapped[str] = mapped_column(Id, unique=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(String(64), default="")
    agent: Mapped[str] = mapped_column(String(256), default="")


class Attempt(Base):
    """Failed sign-ins of late, by account and by address: what throttling counts."""

    __tablename__ = "attempts"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(192), index=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)


class Secret(Base):
    """Credentials of sources, by name. `sealed`: encrypted with the manager's key."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    description: Mapped[str] = mapped_column(Text, default="")
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    key_id: Mapped[str] = mapped_column(String(32))
    fields: Mapped[list[Any]] = mapped_column(default=list)
    """The names of what is in it, without values."""
    hosts: Mapped[list[Any]] = mapped_column(default=list)
    """Patterns of the hosts or buckets that it may be sent to."""
    allow_http: Mapped[bool] = mapped_column(default=False)
    """Whether its headers may be sent without TLS."""
    disabled: Mapped[str] = mapped_column(String(64), default="")
    """Why it opens nothing, as a kind; empty: it does."""
    owner_id: Mapped[str] = mapped_column(Id, default="", index=True)
    """Of the user who made it; empty: that user is not known any more."""
    created_by: Mapped[str] = mapped_column(String(128), default="")
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]


class SecretGrant(Base):
    """One user, or all of one role, may name a secret in jobs."""

    __tablename__ = "secret_grants"
    __table_args__ = (UniqueConstraint("secret", "user_id"), UniqueConstraint("secret", "role"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    secret: Mapped[str] = mapped_column(ForeignKey("secrets.name", ondelete="CASCADE"))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    role: Mapped[str | None] = mapped_column(ForeignKey("roles.name", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


# --- work ---------------------------------------------------------------------------------------


class Job(Base):
    """A distribution or a preheat."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_kind_created_at", "kind", "created_at", "id"),
        Index("ix_jobs_kind_name", "kind", "name", "id"),
        Index("ix_jobs_kind_state", "kind", "state", "id"),
        Index("ix_jobs_kind_state_created_at", "kind", "state", "created_at", "id"),
        Index("ix_jobs_kind_state_ended_at", "kind", "state", "ended_at", "id"),
        Index("ix_jobs_state_created_at", "state", "created_at", "id"),
        Index("ix_jobs_kind_created_by_created_at", "kind", "created_by", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16))
    """distribution or preheat."""
    name: Mapped[str] = mapped_column(ByBytes, default="")
    state: Mapped[str] = mapped_column(String(16), default="queued")
    """queued, running, succeeded, partial, failed or cancelled."""
    urls: Mapped[list[Any]] = mapped_column(default=list)
    """Without secrets; a URL with a user or password in it is refused."""
    sealed_urls: Mapped[bytes | None] = mapped_column(LargeBinary)
    """As they were asked for, encrypted, where a query or a fragment may be secret."""
    nodes: Mapped[Any] = mapped_column(JSON, default="all")
    """The selector."""
    targets: Mapped[list[Any] | None] = mapped_column(JSON)
    """The node ids that were meant, once it is known."""
    dest: Mapped[str] = mapped_column(Text, default="")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """digest, include, exclude, tag, application, filtered_query_params, link."""
    secret: Mapped[str] = mapped_column(String(128), default="")
    """The name of the source's credentials."""
    created_by: Mapped[str] = mapped_column(Id, default="")
    created_by_name: Mapped[str] = mapped_column(String(128), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    schedule_id: Mapped[str | None] = mapped_column(Id, index=True)
    retry_of: Mapped[str | None] = mapped_column(Id, index=True)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    error_kind: Mapped[str] = mapped_column(String(64), default="")
    error: Mapped[str] = mapped_column(Text, default="")
    size: Mapped[int | None]
    nodes_total: Mapped[int] = mapped_column(default=0)
    nodes_done: Mapped[int] = mapped_column(default=0)
    nodes_failed: Mapped[int] = mapped_column(default=0)
    bytes_done: Mapped[int] = mapped_column(default=0)
    """On all nodes together, as far as it was written down."""
    bytes_origin: Mapped[int] = mapped_column(default=0)
    bytes_peers: Mapped[int] = mapped_column(default=0)
    bytes_cache: Mapped[int] = mapped_column(default=0)
    bytes_object_store: Mapped[int] = mapped_column(default=0)
    bytes_audit: Mapped[int] = mapped_column(default=0)
    task_ids: Mapped[list[Any]] = mapped_column(default=list)
    figures: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """How near it came to the least time: `figures.Figures`, once it has ended."""
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class JobUrl(Base):
    """How the URLs of jobs begin, without secrets: what is searched."""

    __tablename__ = "job_urls"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    url_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    start: Mapped[str] = mapped_column(ByBytes, index=True)


class JobNode(Base):
    """What became of one URL of a job on one node."""

    __tablename__ = "job_nodes"
    __table_args__ = (Index("ix_job_nodes_node_id", "node_id", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    url_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    node_id: Mapped[str] = mapped_column(Id, primary_key=True)
    node_name: Mapped[str] = mapped_column(String(256), default="")
    state: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(Text, default="")
    size: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(Float, default=0.0)
    bytes_origin: Mapped[int] = mapped_column(default=0)
    bytes_peers: Mapped[int] = mapped_column(default=0)
    bytes_cache: Mapped[int] = mapped_column(default=0)
    bytes_object_store: Mapped[int] = mapped_column(default=0)
    bytes_audit: Mapped[int] = mapped_column(default=0)
    """Read at the origin only to be compared with what another node had read."""
    origin_pieces: Mapped[str] = mapped_column(Text, default="")
    merged: Mapped[bool] = mapped_column(default=False)
    written_by: Mapped[str] = mapped_column(String(64), default="")
    error_kind: Mapped[str] = mapped_column(String(64), default="")
    error: Mapped[str] = mapped_column(Text, default="")


class IdempotencyKey(Base):
    """An answer that was given once, for whoever asks again with the same key."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    operation: Mapped[str] = mapped_column(String(128))
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the request: the same key with another body is refused."""
    resource_id: Mapped[str] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class Schedule(Base):
    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(256), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The body of the distribution or preheat, without secrets."""
    sealed_urls: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Its URLs, encrypted, where a query or a fragment may be secret."""
    cron: Mapped[str] = mapped_column(String(128), default="")
    interval_seconds: Mapped[int | None] = mapped_column(Integer)
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    enabled: Mapped[bool] = mapped_column(default=True)
    next_run_at: Mapped[datetime | None] = mapped_column(index=True)
    last_run_at: Mapped[datetime | None]
    last_job_id: Mapped[str | None] = mapped_column(Id)
    last_error: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str] = mapped_column(Id, default="")
    created_by_name: Mapped[str] = mapped_column(String(128), default="")
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)


# --- the cluster --------------------------------------------------------------------------------


class Node(Base):
    """A node that was seen. What is decided about it outlives the actors."""

    __tablename__ = "nodes"

    node_id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(256), default="", index=True)
    address: Mapped[str] = mapped_column(String(64), default="")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seed: Mapped[bool] = mapped_column(default=False)
    alive: Mapped[bool] = mapped_column(default=True, index=True)
    state: Mapped[str] = mapped_column(String(16), default="")
    cordoned: Mapped[bool] = mapped_column(default=False)
    draining: Mapped[bool] = mapped_column(default=False)
    note: Mapped[str] = mapped_column(Text, default="")
    """Why it is cordoned."""
    version: Mapped[int] = mapped_column(default=1)
    first_seen_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now, index=True)


class ConfigVersion(Base):
    """All live settings that differ from what the cluster was started with, as of one version."""

    __tablename__ = "config_versions"

    version: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Dotted names -> values."""
    comment: Mapped[str] = mapped_column(Text, default="")
    rollback_of: Mapped[int | None]
    created_by: Mapped[str] = mapped_column(Id, default="")
    created_by_name: Mapped[str] = mapped_column(String(128), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    applied_at: Mapped[datetime | None]
    """When all nodes worked with it for the first time."""


class Lease(Base):
    """Which replica does what only one may do."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(Id)
    expires_at: Mapped[datetime]


class OpenStream(Base):
    """One event stream, while its replica says that it is open."""

    __tablename__ = "open_streams"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    replica: Mapped[str] = mapped_column(Id)
    expires_at: Mapped[datetime] = mapped_column(index=True)


# --- what happened ------------------------------------------------------------------------------


class Audit(Base):
    """Who did what, when, from where. Never changed, never tied to what it is about."""

    __tablename__ = "audit"
    # Whatever it is filtered by, the newest are found in the order of an index.
    __table_args__ = (
        Index("ix_audit_at", "at", "id"),
        Index("ix_audit_actor", "actor", "at", "id"),
        Index("ix_audit_actor_id", "actor_id", "at", "id"),
        Index("ix_audit_action", "action", "at", "id"),
        Index("ix_audit_resource_type", "resource_type", "at", "id"),
        Index("ix_audit_resource_id", "resource_id", "resource_type", "at", "id"),
        Index("ix_audit_outcome", "outcome", "at", "id"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now)
    actor_id: Mapped[str] = mapped_column(Id, default="")
    actor: Mapped[str] = mapped_column(String(128), default="")
    via: Mapped[str] = mapped_column(String(16), default="")
    """session, token, schedule or system."""
    token_id: Mapped[str] = mapped_column(Id, default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    action: Mapped[str] = mapped_column(Word)
    resource_type: Mapped[str] = mapped_column(String(32), default="")
    resource_id: Mapped[str] = mapped_column(String(256), default="")
    outcome: Mapped[str] = mapped_column(String(16), default="ok")
    """ok or refused."""
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Event(Base):
    """News, in the order of their ids: what streams and webhooks tell."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_type", "type", "id"),
        Index("ix_events_resource_type", "resource_type", "id"),
        Index("ix_events_resource_id", "resource_id", "resource_type", "id"),
        # Without it SQLite gives the ids of rows that are gone out again, and who has seen them would miss the new.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    type: Mapped[str] = mapped_column(Word)
    resource_type: Mapped[str] = mapped_column(String(32), default="")
    resource_id: Mapped[str] = mapped_column(String(256), default="")
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Cursor(Base):
    """How far something has come, in the order of events."""

    __tablename__ = "cursors"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    event_id: Mapped[int] = mapped_column(default=0)


class Webhook(Base):
    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    url: Mapped[str] = mapped_column(Text)
    types: Mapped[list[Any]] = mapped_column(default=list)
    """Event types, or prefixes such as `job.*`; none: all."""
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    """The signing keys, encrypted: the one that counts, and for a while the one before it."""
    enabled: Mapped[bool] = mapped_column(default=True)
    cursor: Mapped[int] = mapped_column(default=0)
    """The last event that deliveries were made of."""
    last_success_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    """Since when all deliveries have failed, once one was given up."""
    version: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str] = mapped_column(Id, default="")
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Delivery(Base):
    """One event to one webhook."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_deliveries_due", "webhook_id", "state", "next_attempt_at"),
        Index("ix_deliveries_webhook_id_created_at", "webhook_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[int]
    event_type: Mapped[str] = mapped_column(String(64), default="")
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16), default="pending")
    """pending, delivered or failed."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime | None]
    give_up_at: Mapped[datetime]
    """What fails after that is not tried again."""
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str] = mapped_column(Text, default="")
    last_seconds: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    delivered_at: Mapped[datetime | None]


class Traffic(Base):
    """Bytes that a node received in one stretch of time, by where they came from; no id: all nodes together."""

    __tablename__ = "traffic"
    __table_args__ = (Index("ix_traffic_series", "node_id", "seconds", "at"),)

    at: Mapped[datetime] = mapped_column(primary_key=True)
    """When the stretch begins."""
    seconds: Mapped[int] = mapped_column(Integer, primary_key=True)
    """How long it is."""
    node_id: Mapped[str] = mapped_column(Id, primary_key=True)
    bytes_origin: Mapped[int] = mapped_column(default=0)
    bytes_peers: Mapped[int] = mapped_column(default=0)
    bytes_cache: Mapped[int] = mapped_column(default=0)
    bytes_object_store: Mapped[int] = mapped_column(default=0)
    bytes_sent: Mapped[int] = mapped_column(default=0)


class TrafficMark(Base):
    """The totals that a node's peer told last, all of which is counted; and what was counted over all its lives."""

    __tablename__ = "traffic_marks"

    node_id: Mapped[str] = mapped_column(Id, primary_key=True)
    incarnation: Mapped[str] = mapped_column(String(128), default="")
    seen: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """As told."""
    bytes_origin: Mapped[int] = mapped_column(default=0)
    bytes_peers: Mapped[int] = mapped_column(default=0)
    bytes_cache: Mapped[int] = mapped_column(default=0)
    bytes_object_store: Mapped[int] = mapped_column(default=0)
    bytes_sent: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class TaskTraffic(Base):
    """What all jobs moved of one task."""

    __tablename__ = "task_traffic"

    task_id: Mapped[str] = mapped_column(Id, primary_key=True)
    url: Mapped[str] = mapped_column(Text, default="")
    size: Mapped[int] = mapped_column(default=0)
    jobs: Mapped[int] = mapped_column(default=0)
    bytes_origin: Mapped[int] = mapped_column(default=0)
    bytes_peers: Mapped[int] = mapped_column(default=0)
    bytes_cache: Mapped[int] = mapped_column(default=0)
    bytes_object_store: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[datetime] = mapped_column(default=now, index=True)
