"""What one scheduler knows: hosts, tasks, distributions and origins. Soft state only."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from dragonfly_ray.config import Settings
from dragonfly_ray.logs import about_spec
from dragonfly_ray.messages import DistributionSpec
from dragonfly_ray.model import Host, Task
from dragonfly_ray.scheduling.access_proofs import AccessProofs
from dragonfly_ray.scheduling.budget import OriginBudget
from dragonfly_ray.scheduling.decisions import DecisionLog
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.edge_selection import NeighbourSelector
from dragonfly_ray.scheduling.evaluator import Evaluator, Facts
from dragonfly_ray.scheduling.origin_retry import Retry
from dragonfly_ray.scheduling.task import TaskState, new_task
from dragonfly_ray.scheduling.version_ttl import Generations, VersionTtl
from dragonfly_ray.scheduling.zones import worth_importing
from dragonfly_ray.urls import origin

log = logging.getLogger(__name__)


@dataclass(slots=True)
class HostState(Facts):
    last_seen: float = 0.0
    alive: bool = True
    gone: float = 0.0
    """When it was given up last."""
    heard: str = ""
    """The sequence of the last announcement that was heard to its end: its last page may come twice."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancel that is remembered for what is not known yet."""

    kind: str
    message: str
    since: float
    runs: frozenset[str] = frozenset()
    """The runs of the id that it was for; empty: any."""

    def applies(self, spec: DistributionSpec) -> bool:
        return not self.runs or spec.run in self.runs


@dataclass(slots=True)
class Announcement:
    """One that is on its way, in pages."""

    sequence: str
    fresh: bool
    """Its host was not known, or given up, or has restarted."""
    pages: int = 0
    """That have come."""
    told: set[str] = field(default_factory=set)
    """Tasks that were on them, or that something else was told of since."""


@dataclass(slots=True)
class ClusterState:
    """`sign(task, host)` makes the grant of a holder."""

    settings: Settings
    sign: Callable[[Task, Host], bytes]
    evaluator: Evaluator
    hosts: dict[str, HostState] = field(default_factory=dict)
    by_node: dict[str, str] = field(default_factory=dict)
    """Ray node id -> host id."""
    tasks: dict[str, TaskState] = field(default_factory=dict)
    specs: dict[str, DistributionState] = field(default_factory=dict)
    budgets: dict[str, OriginBudget] = field(default_factory=dict)
    decisions: DecisionLog = field(default_factory=DecisionLog)
    spread: Iterator[int] = field(default_factory=itertools.count)
    """Who resolves next: one after the other."""
    announcing: dict[str, Announcement] = field(default_factory=dict)
    """By host."""
    cancelled: dict[str, Cancelled] = field(default_factory=dict)
    """By spec id: of late. A peer may still be at what this scheduler does not know."""
    busy: int = 0
    """Participants of all tasks."""
    active: dict[str, dict[str, TaskState]] = field(default_factory=dict)
    """Origin -> the tasks of it that some distribution is running, by id."""
    complaints: int = 0
    """How often an origin has answered HTTP 429 or 503."""
    renewal_due: float = 0.0
    """When to look for grants that are to be renewed."""
    nonces: VersionTtl = field(default_factory=lambda: VersionTtl(0.0))
    generations: Generations = field(default_factory=Generations)
    cordoned: frozenset[str] = frozenset()
    """Nodes that are chosen for nothing unless they are named."""
    draining: frozenset[str] = frozenset()
    """Nodes that shall be nobody's parent, as long as there is another."""
    access: AccessProofs = field(default_factory=AccessProofs)
    aloof: int = 0
    """Draining hosts in all tasks that are not asked any more."""

    def __post_init__(self) -> None:
        self.nonces = VersionTtl(self.settings.origin.unversioned_ttl)

    def configured(self) -> None:
        """Settings have changed, in place: what was made with them follows."""
        origins, known = self.settings.origin, self.settings.scheduler
        self.nonces.ttl = origins.unversioned_ttl
        for budget in self.budgets.values():
            budget.change(self.most_connections, self.most_requests)
        for task in self.tasks.values():
            task.leases.timeout = task.audits.timeout = origins.lease_timeout
            task.leases.waits.most = origins.answer_timeout
            task.graph.everybody, task.graph.degree = known.everybody, known.neighbours

    def task(self, task: Task, url: str, units: tuple[int, ...] = ()) -> TaskState:
        found = self.tasks.get(task.id)
        if found is None:
            s = self.settings
            found = self.tasks[task.id] = new_task(
                task,
                timeout=s.origin.lease_timeout,
                answer_timeout=s.origin.answer_timeout,
                everybody=s.scheduler.everybody,
                degree=s.scheduler.neighbours,
                importers=0 if s.scheduler.zones == "off" else s.scheduler.importers,
                import_up_to=worth_importing(task.pieces) if s.scheduler.zones == "auto" else None,
                origin=origin(url) if url else "",
                units=units,
                audit=s.origin.audit,
            )
            found.graph.choice = NeighbourSelector(self.evaluator, self.hosts, self.decisions, found)
            found.graph.may_import = partial(self.may_import, found)
        elif url and not found.origin:
            found.origin = origin(url)
        return found

    def told(self, host: str, task_id: str) -> None:
        """What a host has of a task was said, by other means than an announcement."""
        if found := self.announcing.get(host):
            found.told.add(task_id)

    def untold(self, host: str, task_id: str) -> bool:
        """Whether what a host has of a task may still come with its announcement."""
        found = self.announcing.get(host)
        return found is not None and task_id not in found.told

    def cancel_of(self, spec: DistributionSpec) -> Cancelled | None:
        """The cancel that was for this run, if there was one."""
        found = self.cancelled.get(spec.id)
        return found if found and found.applies(spec) else None

    def alive(self, host: str) -> bool:
        return host in self.hosts and self.hosts[host].alive

    def usable(self, task: TaskState, host: str) -> bool:
        """Whether others may be sent to it."""
        return self.alive(host) and host not in task.banned

    def drains(self, host: str) -> bool:
        return bool(self.draining) and host in self.hosts and self.hosts[host].host.node_id in self.draining

    def may_import(self, task: TaskState, host: str) -> bool:
        """Whether it gets on with importing: it fetches the task, and others may ask it. Seeds have enough to do
        at the origin."""
        if host not in task.able or self.hosts[host].host.seed or self.drains(host) or task.is_complete(host):
            return False
        node = self.hosts[host].host.node_id
        return any(node in s.nodes and not s.nodes[node].terminal for s in task.specs.values())

    def seeds(self) -> list[str]:
        """Those that live and may be chosen."""
        shut = self.cordoned | self.draining
        return [
            h.host.id for h in self.hosts.values() if h.alive and h.host.seed and h.host.node_id not in shut
        ]

    def alive_node(self, node: str) -> bool:
        host = self.by_node.get(node)
        return host is not None and self.hosts[host].alive

    def enlist(self, task: TaskState, host: str, *, helper: bool) -> None:
        """A host takes part; as a helper only if it is nothing else."""
        self.busy += host not in task.participants
        task.participants[host] = task.participants.get(host, True) and helper
        self.recount(task, host)

    def discharge(self, task: TaskState, hosts: Iterable[str]) -> None:
        for host in hosts:
            self.busy -= task.participants.pop(host, None) is not None
            task.confirmed.pop(host, None)
            task.granted.pop(host, None)
            self.recount(task, host)

    def recount(self, task: TaskState, host: str) -> None:
        """To be called when a host joins, lives, dies or is banned."""
        if host in task.participants and self.usable(task, host):
            task.enable(host, seed=self.hosts[host].host.seed)
        else:
            task.disable(host)

    def running(self, state: DistributionState, task: TaskState) -> None:
        """A distribution has its task."""
        log.info(
            "distribution %s: task %.12s, %d bytes, %d nodes",
            state.spec.id, task.task.id, task.task.size, len(state.nodes),
            extra=about_spec(state.spec.id, task.task.id),
        )  # fmt: skip
        state.phase, state.task_id = "running", task.task.id
        state.patience = Retry()
        state.version += 1
        task.specs[state.spec.id] = state
        self.active.setdefault(task.origin, {})[task.task.id] = task

    def settled(self, state: DistributionState) -> None:
        """A distribution has ended, or looks for its task again."""
        task = self.tasks.get(state.task_id)
        if task is None:
            return
        task.specs.pop(state.spec.id, None)
        if not task.specs:
            here = self.active.get(task.origin, {})
            here.pop(task.task.id, None)
            if not here:
                self.active.pop(task.origin, None)

    def touch(self, task: TaskState) -> None:
        for state in task.specs.values():
            state.version += 1

    def interval(self) -> float:
        s = self.settings.scheduler
        return max(s.report_interval, self.busy / s.max_reports)

    def at(self, key: str) -> list[TaskState]:
        """The tasks under way whose origin it is."""
        return list(self.active.get(key, {}).values())

    def budget(self, task: TaskState) -> OriginBudget:
        return self.budget_of(task.origin)

    def budget_of(self, key: str) -> OriginBudget:
        if key not in self.budgets:
            self.budgets[key] = OriginBudget(self.most_connections, requests=self.most_requests)
        return self.budgets[key]

    @property
    def most_connections(self) -> int:
        """Schedulers do not ask each other: each has its part."""
        return max(1, self.settings.origin.max_connections // self.settings.scheduler.shards)

    @property
    def most_requests(self) -> float | None:
        rate = self.settings.origin.max_requests
        return None if rate is None else rate / self.settings.scheduler.shards

    def seeds_only(self, state: DistributionState) -> bool:
        return self.settings.origin.policy == "seeds" or state.spec.seeds_only
