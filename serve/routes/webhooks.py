"""`/api/v1/webhooks`: who is told of events, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.errors import InvalidRequestError, SourceForbiddenError
from dragonfly_ray.policy import check_url
from dragonfly_ray.serve.database import tables
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import new_id, now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller
from dragonfly_ray.serve.problems import conflict, invalid, not_found
from dragonfly_ray.serve.records import audit, emit
from dragonfly_ray.serve.schemas import news as wire
from dragonfly_ray.serve.webhooks import delivery_store, keys
from dragonfly_ray.serve.webhooks.keys import Keys
from dragonfly_ray.urls import redacted

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
SORTED = {"name": tables.Webhook.name, "created_at": tables.Webhook.created_at}
LOCK = "webhooks"


@router.get("")
@requires(Permission.WEBHOOKS_READ)
def list_webhooks(manager: Here, paging: Paged) -> Page[wire.Webhook]:
    with manager.database.read() as session:
        return page(
            session,
            select(tables.Webhook),
            paging,
            SORTED,
            tables.Webhook.id,
            wire.Webhook.model_validate,
            default="-created_at",
        )


@router.post("", status_code=201)
@requires(Permission.WEBHOOKS_WRITE)
def create_webhook(
    body: wire.WebhookCreate, caller: Caller, request: Request, response: Response, manager: Here
) -> wire.WebhookCreated:
    """It is told of what happens from now on. The signing key is shown this once."""
    _check(manager, body.url)
    key = keys.checked(body.signing_key.get_secret_value()) if body.signing_key else keys.made()
    with manager.database.write() as session:
        serialise(session, LOCK)
        if session.scalar(select(tables.Webhook.id).where(tables.Webhook.name == body.name)):
            raise conflict(f"webhook {body.name!r} already exists", "exists")
        row = tables.Webhook(id=new_id(), name=body.name, created_by=caller.name, cursor=_newest(session))
        row.url, row.types, row.enabled = body.url, list(body.types), body.enabled
        row.sealed = Keys(key).sealed(manager.vault, row.id)
        session.add(row)
        session.flush()
        _changed(session, request, "create", row)
        response.headers["Location"] = f"/api/v1/webhooks/{row.id}"
        tag(response, row.version)
        return wire.WebhookCreated(**_shown(row).model_dump(), signing_key=key)


@router.get("/{webhook_id}")
@requires(Permission.WEBHOOKS_READ)
def get_webhook(webhook_id: str, response: Response, manager: Here) -> wire.Webhook:
    with manager.database.read() as session:
        row = _found(session, webhook_id)
        tag(response, row.version)
        return _shown(row)


@router.put("/{webhook_id}")
@requires(Permission.WEBHOOKS_WRITE)
def replace_webhook(
    webhook_id: str,
    body: wire.WebhookIn,
    request: Request,
    response: Response,
    manager: Here,
    if_match: IfMatch,
) -> wire.Webhook:
    """What happens while it is not enabled is not delivered later; what was due before that is."""
    _check(manager, body.url)
    with manager.database.write() as session:
        row = _found(session, webhook_id, change=True)
        if_match.check(row.version)
        if body.enabled and not row.enabled:
            row.cursor = _newest(session)
        row.url, row.types, row.enabled = body.url, list(body.types), body.enabled
        _touched(row)
        _changed(session, request, "change", row)
        tag(response, row.version)
        return _shown(row)


@router.delete("/{webhook_id}", status_code=204)
@requires(Permission.WEBHOOKS_WRITE)
def delete_webhook(webhook_id: str, request: Request, manager: Here) -> None:
    """With its log of deliveries."""
    with manager.database.write() as session:
        row = _found(session, webhook_id, change=True)
        _changed(session, request, "delete", row)
        session.delete(row)


@router.post("/{webhook_id}/rotate")
@requires(Permission.WEBHOOKS_WRITE)
def rotate_key(webhook_id: str, request: Request, response: Response, manager: Here) -> wire.WebhookCreated:
    """A new signing key. For a day deliveries are signed with the one before it, too."""
    with manager.database.write() as session:
        row = _found(session, webhook_id, change=True)
        found = Keys.opened(manager.vault, row.id, row.sealed).rotated(now())
        row.sealed = found.sealed(manager.vault, row.id)
        _touched(row)
        _changed(session, request, "rotate", row)
        tag(response, row.version)
        return wire.WebhookCreated(**_shown(row).model_dump(), signing_key=found.key)


@router.post("/{webhook_id}/test", status_code=202)
@requires(Permission.WEBHOOKS_WRITE)
def test_webhook(webhook_id: str, request: Request, response: Response, manager: Here) -> None:
    """An event `test` is delivered to this webhook; the log of deliveries shows what becomes of it."""
    with manager.database.write() as session:
        row = _found(session, webhook_id)
        if not row.enabled:
            raise conflict("webhook is disabled", "not-enabled")
        audit(session, request, "webhook.test", "webhook", row.id)
        emit(session, delivery_store.TEST, "webhook", row.id, {"name": row.name})
    response.headers["Location"] = f"/api/v1/webhooks/{webhook_id}/deliveries"


@router.get("/{webhook_id}/deliveries")
@requires(Permission.WEBHOOKS_READ)
def list_deliveries(
    webhook_id: str,
    manager: Here,
    paging: Paged,
    state: Annotated[Literal["pending", "delivered", "failed"] | None, Query()] = None,
) -> Page[wire.Delivery]:
    with manager.database.read() as session:
        _found(session, webhook_id)
        query = select(tables.Delivery).where(tables.Delivery.webhook_id == webhook_id)
        if state:
            query = query.where(tables.Delivery.state == state)
        return page(
            session,
            query,
            paging,
            {"created_at": tables.Delivery.created_at},
            tables.Delivery.id,
            wire.Delivery.model_validate,
            default="-created_at",
        )


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
@requires(Permission.WEBHOOKS_WRITE)
def redeliver(
    webhook_id: str, delivery_id: str, request: Request, response: Response, manager: Here
) -> wire.Delivery:
    """Once more, with the same `webhook-id`."""
    with manager.database.write() as session:
        row = session.get(tables.Delivery, delivery_id)
        if row is None or row.webhook_id != webhook_id:
            raise not_found("delivery", delivery_id)
        delivery_store.again(row, manager.webhooks.backoff)
        audit(session, request, "webhook.redeliver", "webhook", webhook_id, delivery=delivery_id)
        found = wire.Delivery.model_validate(row)
    manager.webhooks.wake()
    response.headers["Location"] = f"/api/v1/webhooks/{webhook_id}/deliveries"
    return found


def document(app: FastAPI) -> None:
    """What receivers get, as the OpenAPI document tells it."""

    @app.webhooks.post("event", tags=["webhooks"], name="event")
    def event(
        body: wire.WebhookPayload,
        webhook_id: Annotated[
            str, Header(description="The same for every attempt of a delivery; use it to deduplicate.")
        ],
        webhook_timestamp: Annotated[int, Header(description="Time of this attempt, in seconds since 1970.")],
        webhook_signature: Annotated[
            str, Header(description="`v1,…`; several while a key is rotated, with spaces between.")
        ],
    ) -> None:
        """Signed as the Standard Webhooks specification says. Any 2xx within 15 seconds means that it has come;
        everything else is tried again for about a day."""


def _check(manager: Manager, url: str) -> None:
    try:
        if urlsplit(url).username is not None or urlsplit(url).password is not None:
            raise invalid("url: user and password are not allowed in it, others can read it", "forbidden-url")
        check_url(url, manager.settings.webhook_urls)
    except (SourceForbiddenError, InvalidRequestError) as error:
        raise invalid(f"url: {error}", "forbidden-url") from None
    except ValueError:
        raise invalid("url: not a valid URL", "forbidden-url") from None


def _found(session: Session, webhook_id: str, *, change: bool = False) -> tables.Webhook:
    row = session.get(tables.Webhook, webhook_id, with_for_update=True if change else None)
    if row is None:
        raise not_found("webhook", webhook_id)
    return row


def _newest(session: Session) -> int:
    return session.scalar(select(func.max(tables.Event.id))) or 0


def _touched(row: tables.Webhook) -> None:
    row.version += 1
    row.updated_at = now()


def _changed(session: Session, request: Request, what: str, row: tables.Webhook) -> None:
    """The signing key is in neither."""
    told: dict[str, Any] = {
        "name": row.name,
        "url": redacted(row.url),
        "types": row.types,
        "enabled": row.enabled,
    }
    audit(session, request, f"webhook.{what}", "webhook", row.id, **told)
    if what != "rotate":
        emit(session, f"webhook.{what}d", "webhook", row.id, {"name": row.name})


def _shown(row: tables.Webhook) -> wire.Webhook:
    return wire.Webhook.model_validate(row)
