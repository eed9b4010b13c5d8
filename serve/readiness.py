"""Whether a replica can work: its database, its schema, its cluster."""

from __future__ import annotations

import logging
import threading
import time
from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import migrations

log = logging.getLogger(__name__)
OK = "ok"
FRESH = 1.0
"""Seconds that an outcome counts, however many ask: anybody may."""


class Readiness:
    """Safe from any thread."""

    def __init__(self, database: Database, cluster: Cluster) -> None:
        self._database = database
        self._cluster = cluster
        self._lock = threading.Lock()
        self._looked = 0.0
        self._found: dict[str, str] = {}

    def checks(self) -> dict[str, str]:
        """Part -> `ok`, or what is wrong with it in a few words."""
        with self._lock:
            if not self._found or time.monotonic() - self._looked > FRESH:
                self._found = self._database_checks() | {"cluster": self._cluster_check()}
                self._looked = time.monotonic()
            return dict(self._found)

    def _database_checks(self) -> dict[str, str]:
        try:
            with self._database.engine.connect() as connection:
                there = set(MigrationContext.configure(connection).get_current_heads())
        except SQLAlchemyError as error:
            log.warning("not ready: the database: %s", type(error).__name__)
            return {"database": "does not answer", "migrations": "unknown"}
        return {"database": OK, "migrations": OK if there == _heads() else "another version's schema"}

    def _cluster_check(self) -> str:
        try:
            self._cluster.nodes()
        except DragonflyError as error:
            log.warning("not ready: %s", error)
            return "does not answer"
        return OK


@cache
def _heads() -> frozenset[str]:
    return frozenset(ScriptDirectory.from_config(migrations()).get_heads())
