"""How many streams each user has open, over all replicas: rows of the database, renewed while the stream is open."""

from __future__ import annotations

import threading
from datetime import timedelta

from sqlalchemy import delete, func, select, update

from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import OpenStream, new_id, now
from dragonfly_ray.serve.problems import Problem

TTL = 30.0
"""Seconds after which the streams of a replica that died count no more."""
RENEW = 8.0


class StreamQuota:
    """A service. Safe from any thread; `open` and `close` wait for the database."""

    def __init__(self, database: Database, most: int, *, ttl: float = TTL, renew: float = RENEW) -> None:
        self._database = database
        self._most = most
        self._ttl = timedelta(seconds=ttl)
        self._replica = new_id()
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._loop = Loop("streams", renew, self._renew)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()
        with self._database.write() as session:
            session.execute(delete(OpenStream).where(OpenStream.replica == self._replica))

    def open(self, user_id: str) -> str:
        """The id of a new stream, counted for a while, and with `keep` until `close`. Raises `Problem` 429 where the
        user has too many."""
        at = now()
        row = OpenStream(id=new_id(), user_id=user_id, replica=self._replica, expires_at=at + self._ttl)
        with self._database.write() as session:
            serialise(session, f"streams {user_id}")
            session.execute(delete(OpenStream).where(OpenStream.expires_at < at))
            count = select(func.count()).select_from(OpenStream).where(OpenStream.user_id == user_id)
            if (session.scalar(count) or 0) >= self._most:
                raise Problem(
                    429,
                    "too-many-streams",
                    "Too many streams",
                    f"at most {self._most} streams per user over all replicas; close one",
                    headers={"Retry-After": "5"},
                )
            session.add(row)
        return row.id

    def keep(self, stream_id: str) -> None:
        """Somebody is there who will close it."""
        with self._lock:
            self._held.add(stream_id)

    def close(self, stream_id: str) -> None:
        """It counts no more; again, nothing happens."""
        with self._lock:
            self._held.discard(stream_id)
        with self._database.write() as session:
            session.execute(delete(OpenStream).where(OpenStream.id == stream_id))

    def _renew(self, stopping: threading.Event) -> None:
        with self._lock:
            held = set(self._held)
        if not held:
            return
        with self._database.write() as session:
            found = update(OpenStream).where(OpenStream.replica == self._replica, OpenStream.id.in_(held))
            session.execute(found.values(expires_at=now() + self._ttl))
