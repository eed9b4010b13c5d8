"""Signals between transactions: whoever waits for rows hears of them at their commit, on every replica.

A hint only. Whoever listens looks at the database, and looks now and then without a hint.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from dragonfly_ray.serve.background import Loop

log = logging.getLogger(__name__)
CHANNEL = "dragonfly"
KEY = "signals"
LOOK = 0.5
"""Seconds after which a listener sees that it is to stop."""
AGAIN = 1.0
"""Seconds between attempts to listen."""


def tell(session: Session, name: str) -> None:
    """Once this transaction is committed, `name` is heard."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("select pg_notify(:channel, :name)"), {"channel": CHANNEL, "name": name})
    else:
        session.info.setdefault(KEY, set()).add(name)


class Signals:
    """Who wants to hear what, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, list[Callable[[], None]]] = {}

    def add(self, name: str, callback: Callable[[], None]) -> None:
        """From now on `callback` is called, from any thread and at once: it must not block."""
        with self._lock:
            self._heard.setdefault(name, []).append(callback)

    def remove(self, name: str, callback: Callable[[], None]) -> None:
        with self._lock:
            self._heard[name].remove(callback)

    def fire(self, name: str) -> None:
        with self._lock:
            callbacks = list(self._heard.get(name, ()))
        for callback in callbacks:
            callback()

    def fire_all(self) -> None:
        with self._lock:
            names = list(self._heard)
        for name in names:
            self.fire(name)

    def committed(self, session: Session) -> None:
        """What `tell` left in a session of SQLite."""
        for name in session.info.pop(KEY, ()):
            self.fire(name)


class Listener:
    """A service: what other replicas have told PostgreSQL. A connection of its own, and a new one when it breaks.

    `parameters`: psycopg's; None: there is nobody to listen to.
    """

    def __init__(self, parameters: dict[str, Any] | None, signals: Signals) -> None:
        self._parameters = parameters
        self._signals = signals
        self._loop = Loop("database-signals", AGAIN, self._listen)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        if self._parameters is not None:
            self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def _listen(self, stopping: threading.Event) -> None:
        try:
            with self._connected() as connection:
                connection.execute(f"listen {CHANNEL}")
                # What was told before is lost on us.
                self._signals.fire_all()
                while not stopping.is_set():
                    for told in connection.notifies(timeout=LOOK):
                        self._signals.fire(told.payload)
        except psycopg.OperationalError as error:
            log.warning("database unavailable: %s", str(error).strip().partition("\n")[0])

    def _connected(self) -> psycopg.Connection:
        return psycopg.connect(
            **(self._parameters or {}),
            autocommit=True,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
