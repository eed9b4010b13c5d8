"""How often a password may be tried, counted in the database, so over all replicas.

Counted are an account and an address. A browser that signed in before shows it with a signed cookie,
and is counted by itself: whoever tries an account's passwords from elsewhere does not lock its owner
out. What is counted is a stretch of time that slides on, so nothing stays locked.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from limits import parse
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Attempt, now
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.serve.web.address import network


@dataclass(frozen=True, slots=True)
class Ticket:
    """One try that was let through; it counts as failed until `succeeded`."""

    ids: tuple[int, ...]


class Throttle:
    """`limit`: in the notation of the `limits` library."""

    def __init__(self, database: Database, limit: str) -> None:
        parsed = parse(limit)
        self._database = database
        self._most = parsed.amount
        self._window = timedelta(seconds=parsed.get_expiry())

    def enter(self, keys: Sequence[str]) -> Ticket:
        """Counts a try before it is made: many at once are not more than one after the other. Raises
        `Problem` 429."""
        at = now()
        with self._database.write() as session:
            for key in sorted(keys):
                serialise(session, f"attempts {key}")
            session.execute(delete(Attempt).where(Attempt.at < at - self._window))
            wait = max((self._wait(session, key, at) for key in keys), default=0.0)
            if wait > 0:
                raise _too_many(wait)
            rows = [Attempt(key=key, at=at) for key in keys]
            session.add_all(rows)
            session.flush()
            return Ticket(tuple(row.id for row in rows))

    def _wait(self, session: Session, key: str, at: datetime) -> float:
        """Seconds until one more is allowed."""
        recent = select(Attempt.at).where(Attempt.key == key, Attempt.at >= at - self._window)
        tries = list(session.scalars(recent.order_by(Attempt.at.desc()).limit(self._most)))
        if len(tries) < self._most:
            return 0.0
        return max(1.0, (tries[-1] + self._window - at).total_seconds())

    @staticmethod
    def succeeded(session: Session, ticket: Ticket) -> None:
        session.execute(delete(Attempt).where(Attempt.id.in_(ticket.ids)))


def keys(name: str, address: str, device: str) -> tuple[str, ...]:
    """What a try counts for. `device`: of a browser that has signed in to this account before."""
    if device:
        return (f"device {device}",)
    # Anything can be a name here, and names may be passwords by mistake.
    account = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return (f"account {account}", f"address {network(address)}")


class Devices:
    """Signed marks of browsers that have signed in to an account."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def mark(self, name: str) -> str:
        device = secrets.token_urlsafe(16)
        return f"{device}.{self._mac(device, name)}"

    def known(self, cookie: str, name: str) -> str:
        """The device; empty: this is no mark for that account."""
        device, _, mac = cookie.partition(".")
        good = hmac.compare_digest(mac.encode(), self._mac(device, name).encode())
        return device if good else ""

    def _mac(self, device: str, name: str) -> str:
        return self._vault.sign(f"device\0{device}\0{name}".encode("utf-8", "surrogatepass")).hex()


def _too_many(seconds: float) -> Problem:
    wait = math.ceil(seconds)
    return Problem(
        429,
        "too-many-attempts",
        "Too many sign-in attempts",
        f"too many failed sign-ins; try again in {wait} s",
        headers={"Retry-After": str(wait)},
    )
