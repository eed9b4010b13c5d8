"""Webhooks with real receivers on loopback: signed, at least once, to nobody who may not be asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks.webhooks import WebhookVerificationError

from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve import manager as manager_module
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Audit, Delivery, Event, Webhook, now
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.serve.webhooks import dispatcher
from dragonfly_ray.serve.webhooks.backoff import Backoff
from dragonfly_ray.serve.webhooks.http_client import Outcome, WebhookClient
from dragonfly_ray.serve.webhooks.keys import OVERLAP, Keys, made
from tests.manager.conftest import token_of
from tests.manager.people import sqlite_only
from tests.manager.receivers import Receiver, receiving
from tests.manager.serving import serving
from tests.ports import free_port
from tests.waiting import HANG

API = "/api/v1/webhooks"
FAST = Backoff(first=0.05, factor=2.0, most=0.2, over=3600.0)
LOOPBACK = UrlPolicy(schemes=("http", "https"), networks=("127.0.0.0/8", "::1/128"))


@pytest.fixture
def settings(settings: ManagerSettings) -> ManagerSettings:
    return settings.model_copy(update={"webhook_urls": LOOPBACK})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "Webhooks", partial(dispatcher.Webhooks, backoff=FAST, look=0.05))


@pytest.fixture
def manager(app: FastAPI) -> Iterator[httpx.Client]:
    """An admin of a running manager."""
    with serving(app) as url:
        token = token_of(app.state.manager.database, "admin")
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=HANG) as client:
            yield client


def write(app: FastAPI, *ids: str, type: str = "job.ended") -> None:
    for id in ids:
        with app.state.manager.database.write() as session:
            emit(session, type, type.partition(".")[0], id, {"name": "ü"})


def create(client: httpx.Client, url: str, **more: Any) -> dict[str, Any]:
    answer = client.post(API, json={"name": "hook", "url": url, "types": ["job.*"]} | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + HANG
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def deliveries(client: httpx.Client, webhook: dict[str, Any], **filters: Any) -> list[dict[str, Any]]:
    answer = client.get(f"{API}/{webhook['id']}/deliveries", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def ended(
    client: httpx.Client, webhook: dict[str, Any], count: int, state: str = "delivered"
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = until(
        lambda: len(those := deliveries(client, webhook, state=state)) >= count and those
    )
    return found


# --- what arrives ---------------------------------------------------------------------------------


def test_an_event_arrives_signed(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        write(app, "x", type="node.left")
        write(app, "a")
        received = receiver.next()
        payload = received.verified(webhook["signing_key"])
        assert payload["type"] == "job.ended"
        assert payload["resource_id"] == "a"
        assert payload["data"] == {"name": "ü"}
        assert datetime.fromisoformat(payload["timestamp"]).tzinfo is not None
        with pytest.raises(WebhookVerificationError):
            received.verified(made())
        (delivery,) = ended(manager, webhook, 1)
        assert (delivery["attempts"], delivery["last_status"], delivery["last_error"]) == (1, 200, "")
        assert delivery["event_id"] == payload["event_id"]
        assert received.headers["webhook-id"] == f"msg_{delivery['id']}"
        assert receiver.requests.empty()


def test_what_was_before_it_is_not_delivered(app: FastAPI, manager: httpx.Client) -> None:
    write(app, "before")
    with receiving() as receiver:
        create(manager, receiver.url)
        write(app, "after")
        assert b'"after"' in receiver.next().body
        assert receiver.requests.empty()


def test_a_failed_attempt_is_made_again_with_the_same_id(app: FastAPI, manager: httpx.Client) -> None:
    answers = iter([(500, {}), (404, {}), (302, {"location": "http://127.0.0.1:1/"}), (204, {})])
    with receiving(Receiver(lambda received: next(answers))) as receiver:
        webhook = create(manager, receiver.url)
        write(app, "a")
        received = [receiver.next() for _ in range(4)]
        assert len({r.headers["webhook-id"] for r in received}) == 1
        for each in received:
            each.verified(webhook["signing_key"])
        (delivery,) = ended(manager, webhook, 1)
        assert (delivery["attempts"], delivery["last_status"]) == (4, 204)


def test_a_receiver_that_was_away_gets_everything(app: FastAPI, manager: httpx.Client) -> None:
    port = free_port()
    webhook = create(manager, f"http://127.0.0.1:{port}/hook")
    names = [f"e{n}" for n in range(30)]
    write(app, *names)
    until(lambda: sum(d["attempts"] for d in deliveries(manager, webhook)) > 10)
    assert deliveries(manager, webhook, state="delivered") == []
    with receiving(port=port) as receiver:
        got = {receiver.next().verified(webhook["signing_key"])["resource_id"] for _ in names}
        assert got == set(names)
        assert any(d["attempts"] > 1 for d in ended(manager, webhook, len(names)))


def test_what_was_under_way_is_delivered_after_a_restart(settings: ManagerSettings) -> None:
    port = free_port()
    first = create_app(settings, FakeCluster(1))
    with serving(first) as url:
        token = token_of(first.state.manager.database, "admin")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
            webhook = create(client, f"http://127.0.0.1:{port}/hook")
            write(first, "a", "b")
            until(lambda: sum(d["attempts"] for d in deliveries(client, webhook)) > 2)
    database = Database(settings.database)
    with database.write() as session:  # written while nobody delivers
        emit(session, "job.ended", "job", "c")
    database.close()
    second = create_app(settings, FakeCluster(1))
    with receiving(port=port) as receiver, serving(second):
        got = [receiver.next().verified(webhook["signing_key"])["resource_id"] for _ in range(3)]
    assert sorted(got) == ["a", "b", "c"]


@pytest.fixture
def _no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "WebhookClient", partial(WebhookClient, timeout=10 * HANG))


@pytest.mark.usefixtures("_no_timeout")
def test_one_that_hangs_holds_up_no_other(app: FastAPI, manager: httpx.Client) -> None:
    with receiving(Receiver(lambda received: None)) as hanging, receiving() as receiver:
        create(manager, hanging.url, name="hangs")
        create(manager, receiver.url, name="works")
        names = [f"e{n}" for n in range(20)]
        write(app, *names)
        assert len({receiver.next().body for _ in names}) == len(names)
        assert hanging.requests.qsize() <= dispatcher.AT_ONCE_OF_ONE


def test_many_events_arrive_once_each(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        with app.state.manager.database.write() as session:
            for n in range(700):
                emit(session, "job.created", "job", f"e{n}")
        got = [receiver.next().headers["webhook-id"] for _ in range(700)]
        assert len(set(got)) == 700
        until(lambda: not deliveries(manager, webhook, state="pending"))
        assert receiver.requests.empty()


# --- given up, and back ---------------------------------------------------------------------------


def test_one_that_fails_for_long_is_marked_and_loses_nothing(
    app: FastAPI, manager: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = app.state.manager.webhooks
    monkeypatch.setattr(webhooks, "backoff", Backoff(first=0.05, most=0.1, over=0.3))
    port = free_port()
    webhook = create(manager, f"http://127.0.0.1:{port}/hook", types=["job.*", "webhook.*"])
    write(app, "a", "b")
    failed = ended(manager, webhook, 2, "failed")
    assert all(d["next_attempt_at"] is None and d["last_error"] for d in failed)
    shown = manager.get(f"{API}/{webhook['id']}").json()
    assert shown["failing_since"] is not None
    with app.state.manager.database.read() as session:
        (told,) = session.query(Event).filter_by(type="webhook.failing").all()
    assert told.resource_id == webhook["id"]
    monkeypatch.setattr(webhooks, "backoff", FAST)
    with receiving(port=port) as receiver:
        assert manager.post(f"{API}/{webhook['id']}/test").status_code == 202
        wanted = {"a", "b", "job.ended", "test", "webhook.failing", "webhook.recovered"}
        while wanted:
            payload = receiver.next().verified(webhook["signing_key"])
            wanted -= {payload["type"], payload["resource_id"]}
    assert manager.get(f"{API}/{webhook['id']}").json()["failing_since"] is None


def test_one_delivery_that_nobody_wants_does_not_mark_its_webhook(
    app: FastAPI, manager: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.manager.webhooks, "backoff", Backoff(first=0.05, most=0.1, over=0.5))
    bad = Receiver(lambda received: (400, {}) if b'"bad"' in received.body else (200, {}))
    with receiving(bad) as receiver:
        webhook = create(manager, receiver.url)
        write(app, "bad", "good")
        assert ended(manager, webhook, 1)[0]["last_status"] == 200
        (failed,) = ended(manager, webhook, 1, "failed")
        assert failed["last_error"] == "HTTP 400"
        assert manager.get(f"{API}/{webhook['id']}").json()["failing_since"] is None


def test_waits_grow_and_end() -> None:
    backoff = Backoff(random=random.Random(1))
    at = begin = datetime(2026, 1, 1, tzinfo=UTC)
    give_up = backoff.give_up_at(begin)
    waits: list[float] = []
    while (following := backoff.next_attempt(at, len(waits) + 1, give_up)) is not None:
        waits.append((following - at).total_seconds())
        at = following
    assert 10 <= len(waits) <= 20
    assert waits[0] < 7
    assert waits[:7] == sorted(waits[:7])
    assert max(waits) <= backoff.most * 1.2
    assert abs((at - begin).total_seconds() - 86_400) < 10
    assert backoff.next_attempt(begin, 10_000, give_up) is not None


def test_waits_differ_and_heed_what_the_receiver_asks() -> None:
    backoff = Backoff()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    give_up = backoff.give_up_at(at)
    assert len({backoff.next_attempt(at, 3, give_up) for _ in range(20)}) > 1
    asked = backoff.next_attempt(at, 1, give_up, asked=600)
    assert asked == at + timedelta(seconds=600)
    greedy = backoff.next_attempt(at, 1, give_up, asked=10**9)
    assert greedy == at + timedelta(seconds=backoff.most)


# --- what people do -------------------------------------------------------------------------------


def test_a_test_arrives_whatever_types_are_wanted_and_nowhere_else(manager: httpx.Client) -> None:
    with receiving() as one, receiving() as other:
        webhook = create(manager, one.url, types=["node.left"])
        create(manager, other.url, name="other", types=["job.*"])
        everything = create(manager, other.url, name="everything", types=[])
        assert manager.post(f"{API}/{webhook['id']}/test").status_code == 202
        assert one.next().verified(webhook["signing_key"])["type"] == "test"
        assert manager.post(f"{API}/{everything['id']}/test").status_code == 202
        received = [other.next().verified(everything["signing_key"])]
        while received[-1]["type"] != "test":
            received.append(other.next().verified(everything["signing_key"]))
        assert [r["resource_id"] for r in received if r["type"] == "test"] == [everything["id"]]


def test_a_delivery_again(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        write(app, "a")
        (delivery,) = ended(manager, webhook, 1)
        answer = manager.post(f"{API}/{webhook['id']}/deliveries/{delivery['id']}/redeliver")
        assert answer.status_code == 202
        first, second = receiver.next(), receiver.next()
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert manager.post(f"{API}/{webhook['id']}/deliveries/none/redeliver").status_code == 404


def test_a_key_is_rotated_and_the_one_before_counts_for_a_day(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        rotated = manager.post(f"{API}/{webhook['id']}/rotate").json()
        assert rotated["signing_key"] != webhook["signing_key"]
        write(app, "a")
        received = receiver.next()
        received.verified(webhook["signing_key"])
        received.verified(rotated["signing_key"])
    keys = Keys(rotated["signing_key"], webhook["signing_key"], now() + OVERLAP)
    late = now() + OVERLAP + timedelta(seconds=1)
    assert len(keys.headers("m", late, "{}")["webhook-signature"].split()) == 1


def test_keys_are_shown_once_and_lie_sealed(app: FastAPI, manager: httpx.Client) -> None:
    own = made()
    webhook = create(manager, "http://127.0.0.1:9/x?token=hidden", signing_key=own)
    assert webhook["signing_key"] == own
    for path in (API, f"{API}/{webhook['id']}", "/api/v1/events?limit=500", "/api/v1/audit?limit=500"):
        assert own not in manager.get(path).text
    assert "hidden" not in manager.get("/api/v1/audit?limit=500").text
    found = app.state.manager
    with found.database.read() as session:
        sealed = session.get_one(Webhook, webhook["id"]).sealed
    assert own.encode() not in sealed
    assert Keys.opened(found.vault, webhook["id"], sealed).key == own
    assert own not in repr(Keys(own))
    bad = manager.post(
        API, json={"name": "b", "url": "http://127.0.0.1/", "signing_key": "whsec_" + "x" * 30}
    )
    assert bad.status_code == 422
    assert "xxx" not in bad.text


def test_changes_are_based_on_what_was_seen(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, "http://127.0.0.1:9/")
        path = f"{API}/{webhook['id']}"
        etag = manager.get(path).headers["etag"]
        body = {"url": receiver.url, "types": [], "enabled": False}
        assert manager.put(path, json=body).status_code == 428
        changed = manager.put(path, json=body, headers={"If-Match": etag})
        assert changed.status_code == 200
        assert manager.put(path, json=body, headers={"If-Match": etag}).status_code == 412
        write(app, "unheard")
        assert manager.post(f"{path}/test").status_code == 409
        again = manager.put(
            path,
            json=body | {"enabled": True, "types": ["job.*"]},
            headers={"If-Match": changed.headers["etag"]},
        )
        assert again.status_code == 200
        write(app, "heard")
        assert b'"heard"' in receiver.next().body
        assert manager.post(API, json={"name": "hook", "url": receiver.url}).status_code == 409
        assert manager.delete(path).status_code == 204
        assert manager.get(path).status_code == 404
    with app.state.manager.database.read() as session:
        done = [
            a.action for a in session.query(Audit).filter_by(resource_id=webhook["id"]).order_by(Audit.id)
        ]
    assert done == ["webhook.create", "webhook.change", "webhook.change", "webhook.delete"]


def test_pages_of_deliveries(app: FastAPI, manager: httpx.Client) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        write(app, *"abcde")
        ended(manager, webhook, 5)
        path = f"{API}/{webhook['id']}/deliveries"
        first = manager.get(path, params={"limit": 3}).json()
        second = manager.get(path, params={"limit": 3, "cursor": first["next_cursor"]}).json()
        ids = [d["id"] for d in first["items"] + second["items"]]
        assert len(set(ids)) == 5
        assert manager.get(f"{API}/none/deliveries").status_code == 404


def test_a_key_that_the_vault_does_not_open_fails_the_delivery_only(
    app: FastAPI, manager: httpx.Client
) -> None:
    with receiving() as receiver:
        webhook = create(manager, receiver.url)
        other = Vault(bytes(32))
        with app.state.manager.database.write() as session:
            session.get_one(Webhook, webhook["id"]).sealed = Keys(made()).sealed(other, webhook["id"])
        write(app, "a")
        (delivery,) = until(lambda: [d for d in deliveries(manager, webhook) if d["last_error"]])
        assert "key" in delivery["last_error"]
        assert receiver.requests.empty()


def test_the_document_tells_what_arrives(manager: httpx.Client) -> None:
    document = manager.get("/api/v1/openapi.json").json()
    (told,) = document["webhooks"].values()
    body = told["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("/WebhookPayload")
    assert {p["name"] for p in told["post"]["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }


# --- who may not be asked -------------------------------------------------------------------------


@sqlite_only
def test_urls_that_are_refused_at_once(settings: ManagerSettings) -> None:
    strict = settings.model_copy(update={"webhook_urls": UrlPolicy(schemes=("http", "https"))})
    app = create_app(strict, FakeCluster(1))
    with serving(app) as at:
        headers = {"Authorization": f"Bearer {token_of(app.state.manager.database, 'admin')}"}
        for url in (
            "http://127.0.0.1/",
            "http://localhost:8000/",
            "http://[::1]/",
            "http://2130706433/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://[::ffff:10.0.0.1]/",
            "http://user:pazzword@example.com/",
            "ftp://example.com/",
            "http://",
            "http://[/",
            "http://exa mple.com/",
            "http://a@127.0.0.1\\@example.com/",
        ):
            answer = httpx.post(at + API, json={"name": "n", "url": url}, headers=headers, timeout=60.0)
            assert answer.status_code == 422, url
            assert "pazzword" not in answer.text


def posted(courier: Callable[[], WebhookClient], url: str) -> Outcome:
    async def post() -> Outcome:
        made = courier()
        try:
            return await made.post(url, {}, b"{}")
        finally:
            await made.close()

    return asyncio.run(post())


def names(*addresses: str) -> Callable[[str, int], Any]:
    """A resolver that answers so, one address after the other."""
    left = list(addresses)

    async def resolve(host: str, port: int) -> list[str]:
        return [left.pop(0)] if len(left) > 1 else left[:]

    return resolve


STRICT = UrlPolicy(schemes=("http", "https"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1"])
def test_a_name_that_points_inside_is_refused(address: str) -> None:
    with receiving() as receiver:
        url = f"http://public.example:{receiver.port}/"
        outcome = posted(lambda: WebhookClient(STRICT, resolve=names(address)), url)
        assert outcome.status is None
        assert "private address" in outcome.error
        assert receiver.requests.empty()


def test_a_name_that_really_resolves_to_loopback_is_refused() -> None:
    with receiving() as receiver:
        outcome = posted(lambda: WebhookClient(STRICT), f"http://localhost:{receiver.port}/")
        assert outcome.status is None
        assert receiver.requests.empty()


def test_what_was_checked_is_what_is_connected_to() -> None:
    """A name that changes its mind after the check changes nothing."""
    allowed = UrlPolicy(schemes=("http",), networks=("127.0.0.1/32",))
    with receiving() as receiver:
        url = f"http://public.example:{receiver.port}/hook"
        outcome = posted(lambda: WebhookClient(allowed, resolve=names("127.0.0.1", "127.0.0.2")), url)
        assert outcome.delivered
        assert receiver.next().headers["Host"] == f"public.example:{receiver.port}"


def test_of_several_addresses_only_allowed_ones_are_asked() -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["10.0.0.1", "127.0.0.2", "127.0.0.1"]

    allowed = UrlPolicy(schemes=("http",), networks=("127.0.0.0/8",))
    with receiving() as receiver:
        url = f"http://public.example:{receiver.port}/hook"
        assert posted(lambda: WebhookClient(allowed, resolve=both), url).delivered


def test_a_redirect_inside_is_not_followed() -> None:
    with receiving() as inside:
        redirect = Receiver(lambda received: (307, {"location": inside.url}))
        with receiving(redirect) as receiver:
            outcome = posted(lambda: WebhookClient(LOOPBACK), receiver.url)
            assert outcome.status == 307
            assert "redirects are not followed" in outcome.error
            assert not outcome.delivered
            assert inside.requests.empty()


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert posted(lambda: WebhookClient(LOOPBACK), receiver.url).delivered
        assert proxy.requests.empty()


def test_one_that_does_not_answer_is_let_go() -> None:
    with receiving(Receiver(lambda received: None)) as receiver:
        outcome = posted(lambda: WebhookClient(LOOPBACK, timeout=0.3), receiver.url)
        assert outcome.status is None
        assert outcome.error


def test_what_a_receiver_asks_for_is_heard() -> None:
    date = "Fri, 31 Dec 2100 23:59:59 GMT"
    for given, least in (("120", 120), (date, 10**6), ("soon", 0), ("", 0)):
        slow = Receiver(lambda received, given=given: (503, {"retry-after": given}))  # type: ignore[misc]
        with receiving(slow) as receiver:
            assert posted(lambda: WebhookClient(LOOPBACK), receiver.url).asked >= least


def test_a_webhook_that_goes_while_its_delivery_is_under_way(app: FastAPI, manager: httpx.Client) -> None:
    with receiving(Receiver(lambda received: None)) as receiver:
        webhook = create(manager, receiver.url)
        write(app, "a")
        receiver.next()
        assert manager.delete(f"{API}/{webhook['id']}").status_code == 204
        receiver.release.set()
        until(lambda: app.state.manager.webhooks.attempts["failed"] == 1)
    with app.state.manager.database.read() as session:
        assert session.query(Delivery).count() == 0
