"""What a task's graph asks when it draws: the evaluator, with what is known of the hosts. The log hears of it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from dragonfly_ray.scheduling.decisions import MOST, DecisionLog
from dragonfly_ray.scheduling.evaluator import Evaluator, Facts, Features
from dragonfly_ray.scheduling.task import TaskState


class NeighbourSelector:
    """`Choice` of one task's graph."""

    def __init__(
        self, evaluator: Evaluator, hosts: Mapping[str, Facts], log: DecisionLog, task: TaskState
    ) -> None:
        self._evaluator = evaluator
        self._hosts = hosts
        self._log = log
        self._task = task

    def quota(self, count: int, near: int, far: int) -> tuple[int, int]:
        return self._evaluator.quota(count, near, far)

    def best(self, host: str, candidates: list[str], edges: list[int], count: int, now: float) -> list[int]:
        hosts = self._hosts
        return self._evaluator.rank(hosts[host], [hosts[c] for c in candidates], edges, count, now)

    def drew(
        self,
        host: str,
        candidates: list[str],
        edges: list[int],
        chosen: list[str],
        now: float,
        *,
        pool: int,
        repair: bool,
    ) -> None:
        task, log = self._task, self._log
        every = log.wants(len(task.drawn) + len(task.repaired))
        if every:
            child, shown = self._hosts[host], candidates[:MOST]
            values = array("f")
            for name, count in zip(shown, edges, strict=False):
                values.extend(self._evaluator.features(child, self._hosts[name], count, now))
            number = log.neighbours(
                task.task.id,
                host,
                chosen,
                now,
                candidates=shown,
                features={"names": Features._fields, "values": values},
                policy=self._evaluator.policy,
                arm=task.arm,
                probability=min(1.0, len(candidates) / pool) if pool and candidates else 1.0,
                every=every,
            )
        else:
            number = log.number()
        if repair:
            for other in chosen:
                task.repaired[host, other] = task.repaired[other, host] = number
        else:
            task.drawn[host] = number
