"""The real `SchedulerCore` in a simulation: what it is told, what it wants done, what it costs."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, SchedulerSettings, Settings
from dragonfly_ray.model import Credentials, Host, Source, Task
from dragonfly_ray.scheduling.dispatch import dispatch
from dragonfly_ray.scheduling.scheduler import Action, Ask, Compare, Probe, SchedulerCore, Send
from dragonfly_ray.scheduling.simulation.scenario import Scenario

T = TypeVar("T")
SPEC = "simulated.0"
MANIFEST = b"manifest"


class Recipients(Protocol):
    """Where the scheduler's messages go."""

    def deliver(self, host: str, message: m.Message, now: float) -> None: ...

    def alive(self, host: str) -> bool: ...


def digest_of(piece: int) -> bytes:
    """What stands for a piece's digest."""
    return piece.to_bytes(32, "little")


class Scheduler:
    """Calls the core's public methods, carries its actions out at once, and keeps the time spent in it."""

    def __init__(self, scenario: Scenario, recipients: Recipients) -> None:
        self.core = SchedulerCore(_settings(scenario), lambda task, host: b"")
        self.seconds = 0.0
        self.leases = 0
        self.reports = 0
        self.failed = 0
        self._recipients = recipients
        self._pieces = scenario.pieces
        self._source = Source(f"http://origin/{scenario.seed}")
        identity = hashlib.sha256(repr(scenario).encode()).hexdigest()
        self.task = Task(
            identity, self._source.id, self._source.url, self._source.tenant, b"", len(MANIFEST),
            scenario.size, scenario.pieces, 1, False, True,
        )  # fmt: skip

    @property
    def decisions(self) -> int:
        """Leases granted, and reports absorbed."""
        return self.leases + self.reports

    # --- from submitter and peers -----------------------------------------------------------

    def announce(self, host: Host, now: float) -> None:
        self._tell(m.Announce(host), now)

    def submit(self, targets: Iterable[str], now: float, *, seeds_only: bool) -> None:
        spec = m.DistributionSpec(
            SPEC, self._source, tuple(targets), detached=True, seeds_only=seeds_only, small=False
        )
        self._act(self._timed(self.core.submit, spec, Credentials(), now), now)

    def report(self, report: m.Report, now: float) -> m.ReportReply:
        reply = self._tell(report, now)
        assert isinstance(reply, m.ReportReply)
        self.reports += 1
        self.leases += bool(reply.lease)
        return reply

    def verify(self, host: str, root: bytes, now: float) -> m.Verified:
        answer = self._tell(m.Verify(host, self.task.id, root), now)
        assert isinstance(answer, m.Verified)
        return answer

    def ended(self, host: str, now: float) -> None:
        self._tell(m.Ended(host, SPEC, self.task.id, True, size=self.task.size, seconds=now), now)

    def _tell(self, message: m.Message, now: float) -> m.Message | None:
        answer, actions = self._timed(dispatch, self.core, message, now)
        self._act(actions, now)
        return answer

    def origin_failed(self, host: str, pieces: tuple[int, ...], now: float) -> None:
        message = m.OriginFailed(
            host, self.task.id, "source", "the origin is down", pieces, final=False, spec_id=SPEC
        )
        self._act(self._timed(self.core.origin_failed, message, now), now)

    def tick(self, now: float) -> None:
        self._act(self._timed(self.core.tick, now), now)

    def view(self) -> dict[str, Any]:
        found = self.core.view(SPEC)
        assert found is not None
        return found

    # --- what it wants ----------------------------------------------------------------------

    def _timed(self, call: Callable[..., T], *arguments: Any) -> T:
        started = time.thread_time()
        try:
            return call(*arguments)
        finally:
            self.seconds += time.thread_time() - started

    def _act(self, actions: Iterable[Action], now: float) -> None:
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            match action:
                case Send():
                    if isinstance(action.message, m.Deliver):
                        self.leases += bool(action.message.lease)
                    self._recipients.deliver(action.host, action.message, now)
                case Ask():
                    answer = m.Resolved(task=self.task, manifest=MANIFEST)
                    waiting.extend(self._timed(self.core.answered, action, answer, now))
                case Probe():
                    verdict = "alive" if self._recipients.alive(action.host) else "gone"
                    waiting.extend(self._timed(self.core.probed, action.host, verdict, now))
                case Compare():
                    pass  # nothing is lost on the way here
                case _:
                    raise AssertionError(action)

    # --- what it takes ----------------------------------------------------------------------

    def bytes_per_peer(self) -> float:
        """Memory of the task's and the distribution's state, by each host that takes part.

        Left out is what is there once for all tasks: the hosts, and the ring of logged decisions.
        """
        task = self.core.tasks[self.task.id]
        hosts = [*self.core.hosts.values(), *(h.host for h in self.core.hosts.values())]
        seen = {id(each) for each in (self.core.settings, self.core.decisions, self.task, *hosts)}
        for host in self.core.hosts.values():
            seen |= {id(getattr(host.host, name)) for name in Host.__struct_fields__}
        total = _footprint([task, self.core.specs[SPEC]], seen)
        return total / max(1, len(task.participants))


def _footprint(roots: list[object], seen: set[int]) -> int:
    """Bytes of all that can be reached, each object once, but what `seen` names."""
    total, waiting = 0, list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type) or callable(found):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        if isinstance(found, dict):
            waiting += found.keys()
            waiting += found.values()
        elif isinstance(found, (list, tuple, set, frozenset, deque)):
            waiting += found
        elif is_dataclass(found):
            waiting += [getattr(found, each.name) for each in fields(found)]
        elif isinstance(found, msgspec.Struct):
            waiting += [getattr(found, name) for name in found.__struct_fields__]
        elif hasattr(found, "__dict__"):
            waiting += vars(found).values()
        elif hasattr(found, "__slots__"):
            waiting += [getattr(found, name) for name in found.__slots__ if hasattr(found, name)]
    return total


def _settings(scenario: Scenario) -> Settings:
    """The defaults, so that what is simulated is what runs; nothing from the environment."""
    return Settings.model_construct(
        **{
            name: field.get_default(call_default_factory=True)
            for name, field in Settings.model_fields.items()
        }
        | {
            "origin": OriginSettings(policy=scenario.policy, audit=0),
            "scheduler": SchedulerSettings(zones=scenario.zone_policy),
        }
    )
