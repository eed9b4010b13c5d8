"""How a peer makes known what it has: to every scheduler at its start, again when one has forgotten it.

In pages, so that nobody waits for a long one: the work in hand first, then the store. No digest of a piece is told
here; a scheduler asks for those that its record lacks.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Protocol

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ClusterError, HostIdTakenError
from dragonfly_ray.model import DIGEST_SIZE, Host, root_digest
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.storage.task_store import TaskStore

log = logging.getLogger(__name__)

PAGE_TASKS = 128
PAGE_BYTES = 128 * 1024
"""Of bitmaps, on one page."""
JITTER = 1.0
"""Seconds after its first page within which a peer sends the others: a restarted scheduler hears from all at once."""
RETRY = 0.2
LONGEST_RETRY = 2.0
ATTEMPTS = 8
"""Of one page, before whoever wanted it told is told that the scheduler is away."""


class Store(Protocol):
    """What is told of."""

    def tasks(self) -> list[TaskStore]: ...

    def get(self, task_id: str) -> TaskStore | None: ...


class Registration:
    """Of one peer with one scheduler. Raises `ClusterError` while that cannot be reached."""

    def __init__(
        self,
        host: Host,
        store: Store,
        link: SchedulerLink,
        deliveries: Callable[[], list[m.Deliver]],
        work: Executor,
        stopping: threading.Event,
        on_taken: Callable[[str], None],
    ) -> None:
        self._host = host
        self._store = store
        self.link = link
        self._deliveries = deliveries
        self._work = work
        self._stopping = stopping
        self._on_taken = on_taken
        self._lock = threading.Lock()
        """One announcement at a time."""
        self._heard = False
        """Whether the scheduler may have told this process something."""
        self._resting = False
        """The pages after the first wait for their turn."""

    @property
    def under_way(self) -> bool:
        """Whether pages are being told."""
        return self._resting

    def all(self) -> None:
        """Everything, until the last page is heard."""
        with self._lock:
            self._resting = True
            try:
                if not self._alone():
                    self._rest(self._first())
            finally:
                self._resting = False

    def hurry(self) -> None:
        """The work in hand now, and what is stored soon: the scheduler has forgotten this peer."""
        if self._resting:
            return  # it is being told
        with self._lock:
            first = self._first()
            self._resting = True
        self._work.submit(self._later, first)

    def insist(self) -> None:
        """As `hurry`, and again until it is heard."""
        try:
            self.hurry()
        except ClusterError as error:
            log.info("not registered with the scheduler yet, retrying: %s", error)
            self._resting = True
            self._work.submit(self._later, None)

    # --- pages ------------------------------------------------------------------------------

    def _alone(self) -> bool:
        """A process that has nothing and was never heard of needs no other page; told whether that was so."""
        if self._heard or self._store.tasks() or self._deliveries():
            return False
        self._say(m.Announce(self._host, sequence=secrets.token_hex(8)))
        return True

    def _first(self) -> _Pages:
        in_hand = self._deliveries()
        wanted = list(dict.fromkeys(d.task.id for d in in_hand))
        stored = [t for t in map(self._store.get, wanted) if t is not None]
        pages = _Pages(secrets.token_hex(8), {t.task.id for t in stored})
        page = m.Announce(
            self._host, tuple(map(held, stored)), tuple(in_hand), sequence=pages.sequence, last=False
        )
        self._say(page)
        return pages

    def _rest(self, pages: _Pages) -> None:
        # What came into the store since the first page, the scheduler hears of in other ways.
        others = [t for t in self._store.tasks() if t.task.id not in pages.told]
        number = 0
        for number, page in enumerate(paged(others), 1):
            self._say(m.Announce(self._host, page, sequence=pages.sequence, page=number, last=False))
        self._say(m.Announce(self._host, sequence=pages.sequence, page=number + 1))

    def _later(self, pages: _Pages | None) -> None:
        """Until all is told, from the beginning where the scheduler restarts meanwhile."""
        pause = RETRY
        while not self._stopping.is_set():
            try:
                pages = pages or self._first()
                self._stopping.wait(random.uniform(0.0, JITTER))
                self._rest(pages)
                break
            except ClusterError as error:
                log.info("restarting the registration: %s", error)
                pages = None
                self._stopping.wait(pause)
                pause = min(LONGEST_RETRY, 2 * pause)
        self._resting = False

    def _say(self, page: m.Announce) -> None:
        pause = RETRY
        for attempt in range(ATTEMPTS):
            try:
                answer = self.link.call(page)
            except ClusterError:
                if not page.page or attempt == ATTEMPTS - 1 or self._stopping.is_set():
                    raise
                self._stopping.wait(pause)
                pause = min(LONGEST_RETRY, 2 * pause)
                continue
            if isinstance(answer, m.Announced) and answer.taken:
                self._on_taken(answer.taken)
                raise HostIdTakenError(
                    f"{self._host.name}: its host id is already used by node {answer.taken} (a copied store?); "
                    "restart this peer to get a new one"
                )
            if isinstance(answer, m.Announced) and not answer.known:
                raise ClusterError(f"registration page {page.page}: the scheduler was restarted")
            self._heard = True
            return


class _Pages:
    def __init__(self, sequence: str, told: set[str]) -> None:
        self.sequence = sequence
        self.told = told


def held(stored: TaskStore) -> m.Held:
    """Without digests; a whole task is one root."""
    digests = list(stored.digests)
    if all(digests) and stored.complete:
        return m.Held(stored.task, b"", root=root_digest([d or b"" for d in digests]))
    return m.Held(stored.task, stored.have())


def paged(tasks: Iterable[TaskStore]) -> Iterator[tuple[m.Held, ...]]:
    """In pages of a bounded size, each made when it is asked for; what was evicted meanwhile is left out."""
    page: list[m.Held] = []
    size = 0
    for stored in tasks:
        if stored.evicted:
            continue
        found = held(stored)
        page.append(found)
        size += len(found.have)
        if len(page) >= PAGE_TASKS or size >= PAGE_BYTES:
            yield tuple(page)
            page, size = [], 0
    if page:
        yield tuple(page)


def digests_of(host: str, task_id: str, stored: TaskStore | None) -> m.Digests:
    """The answer to a scheduler whose record lacks some."""
    if stored is None or stored.evicted:
        return m.Digests(host, task_id)
    blank = bytes(DIGEST_SIZE)
    return m.Digests(host, task_id, stored.have(), b"".join(d or blank for d in list(stored.digests)))
