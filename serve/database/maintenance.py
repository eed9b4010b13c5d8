"""Periodic maintenance of the database: statistics of the query planner."""

from __future__ import annotations

import threading

from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database.engine import Database

INTERVAL = 3600.0


class DatabaseMaintenance:
    """A service. SQLite learns how its rows are distributed, and so which index to take; PostgreSQL does by itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = Loop("database-maintenance", INTERVAL, self._round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        if self._database.is_sqlite:
            self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def _round(self, stopping: threading.Event) -> None:
        self._database.analyze()
