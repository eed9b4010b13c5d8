"""What one scheduler knows: hosts, tasks, distributions and origins. Soft state only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dragonfly_ray.config import Settings
from dragonfly_ray.model import Host, Task
from dragonfly_ray.scheduling.budget import OriginBudget
from dragonfly_ray.scheduling.decisions import DecisionLog
from dragonfly_ray.scheduling.spec import SpecState
from dragonfly_ray.scheduling.task import TaskState, new_task
from dragonfly_ray.urls import origin


@dataclass(slots=True)
class HostState:
    host: Host
    last_seen: float
    alive: bool = True


@dataclass(slots=True)
class ClusterState:
    """`sign(task, host)` makes the grant of a holder."""

    settings: Settings
    sign: Callable[[Task, Host], bytes]
    hosts: dict[str, HostState] = field(default_factory=dict)
    by_node: dict[str, str] = field(default_factory=dict)
    """Ray node id -> host id."""
    tasks: dict[str, TaskState] = field(default_factory=dict)
    specs: dict[str, SpecState] = field(default_factory=dict)
    budgets: dict[str, OriginBudget] = field(default_factory=dict)
    decisions: DecisionLog = field(default_factory=DecisionLog)
    spread: Iterator[int] = field(default_factory=itertools.count)
    """Who resolves next: one after the other."""

    def task(self, task: Task, url: str, units: tuple[int, ...] = ()) -> TaskState:
        found = self.tasks.get(task.id)
        if found is None:
            s = self.settings
            found = self.tasks[task.id] = new_task(
                task,
                timeout=s.origin.lease_timeout,
                everybody=s.scheduler.everybody,
                degree=s.scheduler.neighbours,
                origin=origin(url) if url else "",
                units=units,
            )
        elif url and not found.origin:
            found.origin = origin(url)
        return found

    def usable(self, task: TaskState, host: str) -> bool:
        return host in self.hosts and self.hosts[host].alive and host not in task.banned

    def alive_node(self, node: str) -> bool:
        host = self.by_node.get(node)
        return host is not None and self.hosts[host].alive

    def specs_of(self, task: TaskState) -> list[SpecState]:
        return [s for s in self.specs.values() if s.task_id == task.task.id and s.phase == "running"]

    def touch(self, task: TaskState) -> None:
        for state in self.specs_of(task):
            state.version += 1

    def interval(self) -> float:
        s = self.settings.scheduler
        busy = sum(len(t.participants) for t in self.tasks.values())
        return max(s.report_interval, busy / s.max_reports)

    def budget(self, task: TaskState) -> OriginBudget:
        if task.origin not in self.budgets:
            self.budgets[task.origin] = OriginBudget(self.settings.origin.max_connections)
        return self.budgets[task.origin]

    def seeds_only(self, state: SpecState) -> bool:
        return self.settings.origin.policy == "seeds" or state.spec.seeds_only
