"""The way from a peer to its schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dragonfly_ray import messages as m


class SchedulerLink(Protocol):
    """The way to the scheduler of a task. Raises `ClusterError` while it cannot be reached."""

    def call(self, message: m.Message) -> m.Message | None: ...


class Links(Protocol):
    """The way to the schedulers."""

    def of(self, source_id: str) -> SchedulerLink: ...

    def every(self) -> Sequence[SchedulerLink]: ...
