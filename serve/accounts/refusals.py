"""What was refused is audited too; of the same thing again and again, once a minute."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from starlette.requests import HTTPConnection

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.records import audit

SECONDS = 60.0
MOST = 10_000


class Refusals:
    """Safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, connection: HTTPConnection, problem: Problem) -> None:
        """That a request was refused: 403, or a sign-in that failed."""
        scope = connection.scope
        method = scope.get("method", "GET")
        endpoint = scope.get("endpoint")
        route = f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', '')}"
        principal = getattr(connection.state, "principal", None)
        who = principal.user_id if isinstance(principal, Principal) else connection.state.address
        key = (who, method, route, problem.kind)
        if not self._first(key):
            return
        detail = {"why": problem.kind} | {k: v for k, v in problem.more.items() if k in ("needed", "beyond")}
        try:
            with self._database.write() as session:
                audit(
                    session,
                    connection,
                    "request.refused",
                    "route",
                    f"{method} {scope['path']}"[:256],
                    outcome="refused",
                    **detail,
                )
        except DB_UNAVAILABLE:
            # The refusal stands, also while the database is unavailable.
            self._forget(key)

    def _first(self, key: tuple[str, ...]) -> bool:
        at = time.monotonic()
        with self._lock:
            if at - self._noted.get(key, -SECONDS) < SECONDS:
                return False
            self._noted[key] = at
            self._noted.move_to_end(key)
            if len(self._noted) > MOST:
                self._noted.popitem(last=False)
            return True

    def _forget(self, key: tuple[str, ...]) -> None:
        with self._lock:
            self._noted.pop(key, None)
