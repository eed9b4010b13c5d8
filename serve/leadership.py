"""Which replica does what only one may do: a lease in the database, renewed while its holder lives."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from sqlalchemy import delete

from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Lease, new_id, now

log = logging.getLogger(__name__)
TTL = 6.0
"""Seconds after which another replica takes over from one that is silent."""
RENEW = 1.5
MARGIN = 1.0
"""Seconds before its end from which the holder does not count on its lease any more."""


class Leadership:
    """A service. `leading` is true for at most one replica at a time, as far as their clocks agree within a second."""

    def __init__(
        self, database: Database, name: str = "leader", *, ttl: float = TTL, renew: float = RENEW
    ) -> None:
        self.holder = new_id()
        self._database = database
        self._name = name
        self._ttl = ttl
        self._until = 0.0
        self._gained = threading.Event()
        self._loop = Loop(f"lease-{name}", renew, self._renew)

    @property
    def leading(self) -> bool:
        return time.monotonic() < self._until

    def wait(self, timeout: float) -> bool:
        """Whether this replica leads, within `timeout` seconds."""
        return self.leading or (self._gained.wait(timeout) and self.leading)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        """Lets go, so that another need not wait for the end of the lease."""
        self._loop.stop()
        self._until = 0.0
        with self._database.write() as session:
            session.execute(delete(Lease).where(Lease.name == self._name, Lease.holder == self.holder))

    def _renew(self, stopping: threading.Event) -> None:
        begun = time.monotonic()
        with self._database.write() as session:
            serialise(session, f"lease-{self._name}")
            row = session.get(Lease, self._name)
            at = now()
            if row is None:
                row = Lease(name=self._name, holder=self.holder, expires_at=at)
                session.add(row)
            elif row.holder != self.holder and row.expires_at > at:
                self._gained.clear()
                return
            if row.holder != self.holder:
                log.warning("%s: took over the lease of an unresponsive replica", self._name)
            row.holder, row.expires_at = self.holder, at + timedelta(seconds=self._ttl)
        # Counted from before the database was asked: the lease ends here no later than there.
        self._until = begun + self._ttl - MARGIN
        self._gained.set()
