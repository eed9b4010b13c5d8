"""What a scheduler has to tell its hosts, each message kept until its host has acknowledged it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TypeVar

from dragonfly_ray import messages as m

T = TypeVar("T")

MAX_QUEUED = 4096
"""Messages for one host. One that takes nothing for so long is brought up to date by new deliveries."""


@dataclass(frozen=True, slots=True)
class Queued:
    """`number` grows over all hosts; a message that is sent again has the number that it had."""

    number: int
    message: m.Message


@dataclass(slots=True)
class _Queue:
    incarnation: str
    messages: dict[int, m.Message] = field(default_factory=dict)
    """In order, the oldest first."""
    news: dict[str, int] = field(default_factory=dict)
    """Task id -> the queued TaskUpdate that the next one can be added to."""
    sent: int = 0
    """Up to this one they are on their way, and are not changed any more."""


class Outbox:
    """Queues by host, in order for each. A host that has restarted has forgotten what it was told, and whoever
    lets it in again says what is true now: older messages are dropped.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._queues)

    def pending(self, host: str) -> bool:
        """Whether something has not been acknowledged."""
        return host in self._queues

    def push(self, host: str, incarnation: str, message: m.Message) -> bool:
        """False: there was too much, and all of it was dropped; say to the host what it must know."""
        queue = self._queues.get(host)
        if queue is None or queue.incarnation != incarnation:
            queue = self._queues[host] = _Queue(incarnation)
        if isinstance(message, m.TaskUpdate):
            earlier = queue.news.get(message.task_id, 0)
            if earlier > queue.sent:
                known = queue.messages[earlier]
                assert isinstance(known, m.TaskUpdate)
                queue.messages[earlier] = merged(known, message)
                return True
        if len(queue.messages) >= MAX_QUEUED:
            del self._queues[host]
            return False
        number = next(self._numbers)
        queue.messages[number] = message
        if isinstance(message, m.TaskUpdate):
            queue.news[message.task_id] = number
        else:
            queue.news.clear()  # what comes after it must not overtake it
        return True

    def head(self, host: str) -> Queued | None:
        """What the host must hear next; the same one until it is acknowledged."""
        queue = self._queues.get(host)
        if queue is None:
            return None
        number, message = next(iter(queue.messages.items()))
        queue.sent = number
        return Queued(number, message)

    def acknowledged(self, host: str, number: int) -> None:
        queue = self._queues.get(host)
        if queue is None or number not in queue.messages:
            return
        message = queue.messages.pop(number)
        if isinstance(message, m.TaskUpdate) and queue.news.get(message.task_id) == number:
            del queue.news[message.task_id]
        if not queue.messages:
            del self._queues[host]

    def drop(self, host: str) -> None:
        """The host is given up."""
        self._queues.pop(host, None)


def merged(first: m.TaskUpdate, then: m.TaskUpdate) -> m.TaskUpdate:
    """One message for two. A peer takes leave first, then it meets; so does this."""
    gone = {*then.left, *then.banned}
    joined = {n.host.id: n for n in first.joined if n.host.id not in gone}
    joined |= {n.host.id: n for n in then.joined}
    discard = set(then.discard)
    record = {p: d for p, d in first.record if p not in discard} | dict(then.record)
    return m.TaskUpdate(
        first.task_id,
        joined=tuple(joined.values()),
        left=_union(first.left, then.left),
        banned=_union(first.banned, then.banned),
        revoked=_union(first.revoked, then.revoked),
        not_before=max(first.not_before, then.not_before),
        may_claim=first.may_claim if then.may_claim is None else then.may_claim,
        discard=_union(first.discard, then.discard),
        record=tuple(record.items()),
        connections=then.connections or first.connections,
        settled=first.settled or then.settled,
        grant=then.grant or first.grant,
    )


def _union(first: tuple[T, ...], then: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*first, *then)))
