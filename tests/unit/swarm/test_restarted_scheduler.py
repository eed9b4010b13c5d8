"""What peers say to a scheduler that has restarted, before they have made themselves known to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.storage.output import Published
from dragonfly_ray.storage.task_store import TaskStore
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere
from tests.waiting import until


def test_an_outcome_for_a_scheduler_that_does_not_know_the_host_is_said_again(
    origin: Nginx,
    swarm: Callable[..., Swarm],
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = swarm(2)
    scheduler, publish = built.scheduler, TaskStore.publish
    ready: list[str] = []

    def restarted(self: TaskStore, to: Path, **options: Any) -> Published:
        node = next(n for n, peer in built.peers.items() if peer.store.get(self.task.id) is self)
        ready.append(node)
        if node == "n0":
            until(lambda: scheduler.heard["Ended"])
        else:
            until(lambda: len(ready) == 2)
            with scheduler.changed:
                scheduler.core = type(scheduler.core)(scheduler.core.settings, scheduler.core.sign)
            built.peers["n0"].announce()
            until(lambda: scheduler.core.specs)
        return publish(self, to, **options)

    monkeypatch.setattr(TaskStore, "publish", restarted)
    view = built.distribute(f"{origin.url}/big", dest=str(tmp_path / "out" / "{node}"))
    assert_everywhere(view, content, 2)
    assert view["measured"] is None, "it has seen the end alone, and knows no rates"
