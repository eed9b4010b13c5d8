"""Webhook deliveries in the database: created from events, due, retried, ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Delivery, Event, Webhook, now
from dragonfly_ray.serve.events.filters import is_of
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.schemas.news import WebhookPayload
from dragonfly_ray.serve.webhooks.backoff import Backoff
from dragonfly_ray.serve.webhooks.http_client import Outcome
from dragonfly_ray.urls import redacted

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
TEST = "test"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be tried now."""

    id: str
    webhook_id: str
    url: str
    sealed: bytes
    payload: dict[str, Any]

    @property
    def message_id(self) -> str:
        """The same at every attempt: receivers know by it what they have had."""
        return f"msg_{self.id}"


# --- from events to deliveries --------------------------------------------------------------------


def fan_out(database: Database, backoff: Backoff) -> bool:
    """Makes deliveries of new events, a page for each webhook. Returns whether there is more."""
    with database.read() as session:
        newest = session.scalar(select(func.max(Event.id))) or 0
        behind = session.scalars(select(Webhook.id).where(Webhook.enabled, Webhook.cursor < newest)).all()
    more = False
    for webhook_id in behind:
        with database.write() as session:
            more |= _fan_out(session, webhook_id, backoff)
    return more


def _fan_out(session: Session, webhook_id: str, backoff: Backoff) -> bool:
    # Locked: whoever else does this waits, and then sees that it is done.
    webhook = session.get(Webhook, webhook_id, with_for_update=True)
    if webhook is None or not webhook.enabled:
        return False
    query = select(Event).where(Event.id > webhook.cursor).order_by(Event.id).limit(_PAGE)
    events = list(session.scalars(query))
    at = now()
    for event in events:
        if wants(webhook, event):
            session.add(
                Delivery(
                    webhook_id=webhook.id,
                    event_id=event.id,
                    event_type=event.type,
                    payload=_payload(event),
                    next_attempt_at=at,
                    give_up_at=backoff.give_up_at(at),
                    created_at=at,
                )
            )
    if events:
        webhook.cursor = events[-1].id
    return len(events) == _PAGE


def wants(webhook: Webhook, event: Event) -> bool:
    """A test is for the webhook that it is a test of."""
    if event.type == TEST:
        return event.resource_id == webhook.id
    return is_of(event.type, webhook.types)


def _payload(event: Event) -> dict[str, Any]:
    return WebhookPayload(
        type=event.type,
        timestamp=event.at,
        event_id=event.id,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        data=event.data,
    ).model_dump(mode="json")


# --- what is to be done ---------------------------------------------------------------------------


def waiting(session: Session) -> list[str]:
    """The webhooks that something is due for."""
    query = (
        select(Webhook.id)
        .where(
            Webhook.enabled,
            select(Delivery.id)
            .where(
                Delivery.webhook_id == Webhook.id,
                Delivery.state == PENDING,
                Delivery.next_attempt_at <= now(),
            )
            .exists(),
        )
        .order_by(Webhook.id)
    )
    return list(session.scalars(query))


def due(session: Session, webhook_id: str, busy: Collection[str], limit: int) -> list[Due]:
    """Those that have waited longest; not those that are under way."""
    query = (
        select(Delivery, Webhook)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(
            Delivery.webhook_id == webhook_id,
            Delivery.state == PENDING,
            Delivery.next_attempt_at <= now(),
            Delivery.id.not_in(busy),
        )
        .order_by(Delivery.next_attempt_at)
        .limit(limit)
    )
    return [
        Due(delivery.id, webhook.id, webhook.url, webhook.sealed, delivery.payload)
        for delivery, webhook in session.execute(query)
    ]


# --- what became of it ----------------------------------------------------------------------------


def ended(session: Session, delivery_id: str, outcome: Outcome, backoff: Backoff, *, was_down: bool) -> None:
    """Writes down an attempt. `was_down`: nothing got through to this receiver just before."""
    delivery = session.get(Delivery, delivery_id)
    webhook = session.get(Webhook, delivery.webhook_id, with_for_update=True) if delivery else None
    if delivery is None or webhook is None:
        return
    at = now()
    delivery.attempts += 1
    delivery.last_status, delivery.last_error = outcome.status, outcome.error
    delivery.last_seconds = outcome.seconds
    if outcome.delivered:
        delivery.state, delivery.delivered_at, delivery.next_attempt_at = DELIVERED, at, None
        webhook.last_success_at = at
        if was_down or webhook.failing_since:
            _resume(session, webhook, at, backoff)
        return
    delivery.next_attempt_at = backoff.next_attempt(at, delivery.attempts, delivery.give_up_at, outcome.asked)
    if delivery.next_attempt_at is None:
        delivery.state = FAILED
        _given_up(session, webhook, delivery)


def _given_up(session: Session, webhook: Webhook, delivery: Delivery) -> None:
    """Where others get through it is this delivery that fails, not the receiver."""
    through = webhook.last_success_at
    if webhook.failing_since is None and (through is None or through < delivery.created_at):
        webhook.failing_since = delivery.created_at
        data = {"name": webhook.name, "url": redacted(webhook.url), "error": delivery.last_error}
        emit(session, "webhook.failing", "webhook", webhook.id, data)


def _resume(session: Session, webhook: Webhook, at: datetime, backoff: Backoff) -> None:
    """The receiver is back: what waits for its turn, or was given up meanwhile, follows at once."""
    mine = (Delivery.webhook_id == webhook.id,)
    session.execute(
        update(Delivery)
        .where(*mine, Delivery.state == PENDING, Delivery.attempts > 0)
        .values(next_attempt_at=at)
    )
    if webhook.failing_since is None:
        return
    again = session.execute(
        update(Delivery)
        .where(*mine, Delivery.state == FAILED, Delivery.created_at >= webhook.failing_since)
        .values(state=PENDING, attempts=0, next_attempt_at=at, give_up_at=backoff.give_up_at(at))
        .returning(Delivery.id)
    ).all()
    webhook.failing_since = None
    emit(session, "webhook.recovered", "webhook", webhook.id, {"name": webhook.name, "resumed": len(again)})


def again(delivery: Delivery, backoff: Backoff) -> None:
    """From the beginning, whatever became of it."""
    at = now()
    delivery.state, delivery.attempts, delivery.next_attempt_at = PENDING, 0, at
    delivery.give_up_at, delivery.delivered_at = backoff.give_up_at(at), None
