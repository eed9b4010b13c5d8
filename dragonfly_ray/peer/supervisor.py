"""The threads of one task: one lock, one end, and no error that passes unseen."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dragonfly_ray import logs
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.model import Task

log = logging.getLogger(__name__)

THREADS = "task-"
"""Names of a task's threads begin so."""
JOIN_TIMEOUT_S = 15.0


class Supervisor:
    """No thread ends for a reason that nobody expected without the task failing for it: else it hangs."""

    def __init__(self, task: Task, node: str) -> None:
        self.task = task
        self._node = node
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Anything that the main thread or a reader waits for."""
        self.stopping = threading.Event()
        self.error: DragonflyError | None = None
        """The first that the task has failed for."""
        self._started = time.monotonic()
        self._threads: list[threading.Thread] = []

    @property
    def over(self) -> bool:
        """What is missing still will not come."""
        return self.stopping.is_set() or self.error is not None

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(
            target=self._supervised, args=(target,), name=self._thread_name(name), daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return thread

    def _thread_name(self, name: str) -> str:
        """Log lines are prefixed with it, so that each tells its task."""
        return f"{THREADS}{self.task.id[:12]}-{name}"

    def _supervised(self, work: Callable[[], None]) -> None:
        with logs.about(task_id=self.task.id):
            if error := self.attempt(work):
                self.fail(error)

    def attempt(self, work: Callable[[], None]) -> DragonflyError | None:
        """What it ended with, if not well. What nobody expected comes without its text, which may hold anything: the
        log has it."""
        try:
            work()
        except DragonflyError as error:
            return error
        except Exception as error:
            where = threading.current_thread().name.removeprefix(self._thread_name(""))
            log.exception("task %.12s: %s ended unexpectedly", self.task.id, where)
            return DragonflyError(
                f"{self._node}: {self.task.url}: {where} ended unexpectedly"
                f" ({type(error).__name__}); see the peer's log"
            )
        return None

    def fail(self, error: DragonflyError) -> None:
        """The task cannot go on here."""
        with self.lock:
            if self.error is None:
                self.error = error
            self.changed.notify_all()

    def end(self) -> None:
        self.stopping.set()
        with self.lock:
            self.changed.notify_all()

    def join(self) -> None:
        """Waits for all threads but the one that calls."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=JOIN_TIMEOUT_S)
