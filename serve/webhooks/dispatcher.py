"""Deliveries on their way: the leader's work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import threading
from collections import Counter
from concurrent.futures import Future

from dragonfly_ray.errors import VaultError
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.background import STOP_TIMEOUT, Loop
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import EVENTS
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.serve.webhooks import delivery_store
from dragonfly_ray.serve.webhooks.backoff import Backoff
from dragonfly_ray.serve.webhooks.http_client import Outcome, WebhookClient
from dragonfly_ray.serve.webhooks.keys import Keys

log = logging.getLogger(__name__)
LOOK = 1.0
"""Seconds between looks for what is due again."""
AT_ONCE = 64
AT_ONCE_OF_ONE = 4
"""A receiver that hangs holds up its own deliveries only."""
DOWN = 3
"""So many failures one after the other: the receiver is away, rather than unhappy with one delivery."""


class Webhooks:
    """A service. One thread decides and writes, an event loop in another one posts.

    An attempt that nobody wrote down, since its replica died, is made again: at least once, with the same id.
    """

    def __init__(
        self,
        database: Database,
        leadership: Leadership,
        vault: Vault,
        policy: UrlPolicy,
        *,
        backoff: Backoff | None = None,
        look: float = LOOK,
    ) -> None:
        self.backoff = backoff or Backoff()
        self.attempts: Counter[str] = Counter()
        """Of this replica: delivered and failed."""
        self._database = database
        self._leadership = leadership
        self._vault = vault
        self._policy = policy
        self._under_way: dict[str, str] = {}
        """Delivery -> its webhook."""
        self._failures: dict[str, int] = {}
        """Webhook -> failures since something got through; who was never heard of may have been away."""
        self._outcomes: queue.SimpleQueue[tuple[delivery_store.Due, Outcome]] = queue.SimpleQueue()
        self._posting = asyncio.new_event_loop()
        self._poster = threading.Thread(target=self._post_all, name="webhooks-post", daemon=True)
        self._client: WebhookClient | None = None
        self._loop = Loop("webhooks", look, self._round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        self._poster.start()
        self._database.signals.add(EVENTS, self._loop.wake)
        self._loop.start()

    def stop(self) -> None:
        """What is under way is broken off, and made again by whoever leads next."""
        self._database.signals.remove(EVENTS, self._loop.wake)
        self._loop.stop()
        self._posting.call_soon_threadsafe(self._posting.stop)
        self._poster.join(STOP_TIMEOUT)

    def wake(self) -> None:
        self._loop.wake()

    def _round(self, stopping: threading.Event) -> None:
        self._write_down()
        if not self._leadership.leading:
            return
        while delivery_store.fan_out(self._database, self.backoff) and not stopping.is_set():
            pass
        with self._database.read() as session:
            for webhook_id in delivery_store.waiting(session):
                of_it = sum(webhook == webhook_id for webhook in self._under_way.values())
                room = min(AT_ONCE_OF_ONE - of_it, AT_ONCE - len(self._under_way))
                if room > 0:
                    for due in delivery_store.due(session, webhook_id, list(self._under_way), room):
                        self._send(due)

    def _send(self, due: delivery_store.Due) -> None:
        body = json.dumps(due.payload, separators=(",", ":"), ensure_ascii=False)
        try:
            keys = Keys.opened(self._vault, due.webhook_id, due.sealed)
        except VaultError as error:
            self._under_way[due.id] = due.webhook_id
            self._outcomes.put((due, Outcome(None, str(error), 0.0)))
            self._loop.wake()
            return
        headers = keys.headers(due.message_id, now(), body)
        self._under_way[due.id] = due.webhook_id
        posted = asyncio.run_coroutine_threadsafe(self._post(due, headers, body), self._posting)
        posted.add_done_callback(lambda done: self._come_back(due, done))

    async def _post(self, due: delivery_store.Due, headers: dict[str, str], body: str) -> Outcome:
        if self._client is None:
            self._client = WebhookClient(self._policy)
        return await self._client.post(due.url, headers, body.encode())

    def _come_back(self, due: delivery_store.Due, done: Future[Outcome]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            log.error("delivery %s failed", due.id, exc_info=error)
        outcome = Outcome(None, "internal error", 0.0) if error else done.result()
        self._outcomes.put((due, outcome))
        self._loop.wake()

    def _write_down(self) -> None:
        """All that have come back meanwhile, in one transaction."""
        back: list[tuple[delivery_store.Due, Outcome]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                back.append(self._outcomes.get_nowait())
        if not back:
            return
        # Webhooks are locked in one order, so that two replicas never wait for each other.
        back.sort(key=lambda each: each[0].webhook_id)
        failures = dict(self._failures)
        try:
            with self._database.write() as session:
                for due, outcome in back:
                    before = failures.get(due.webhook_id)
                    down = before is None or before >= DOWN
                    delivery_store.ended(session, due.id, outcome, self.backoff, was_down=down)
                    failures[due.webhook_id] = 0 if outcome.delivered else (before or 0) + 1
        except Exception:
            for each in back:
                self._outcomes.put(each)
            raise
        self._failures = failures
        for due, outcome in back:
            del self._under_way[due.id]
            self.attempts["delivered" if outcome.delivered else "failed"] += 1

    def _post_all(self) -> None:
        try:
            self._posting.run_forever()
        finally:
            for task in asyncio.all_tasks(self._posting):
                task.cancel()
            self._posting.run_until_complete(self._ended())
            self._posting.close()

    async def _ended(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        if self._client is not None:
            await self._client.close()
