"""Who has shown of late that their own credentials read a task at its origin."""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from dragonfly_ray.messages import DistributionSpec
from dragonfly_ray.model import Credentials
from dragonfly_ray.urls import scheme

MAX_PROOFS = 100_000
"""Kept at once; the oldest goes first."""


class AccessProofs:
    """(task, credentials) -> when the origin last gave that content to these credentials.

    Credentials are known here by a fingerprint alone: a hash under a key that lives as long as this
    object, so that it cannot be compared with anything outside of it.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._proved: dict[tuple[str, str], float] = {}
        """In order of their times."""

    def __len__(self) -> int:
        return len(self._proved)

    def fingerprint(self, spec: DistributionSpec, credentials: Credentials) -> str:
        """Equal for distributions that ask the origin in the same way, down to the URL's query and the policy."""
        asked = (spec.source.url, credentials, spec.policy)
        data = msgspec.msgpack.encode(asked, order="deterministic")
        return hashlib.blake2b(data, key=self._key, digest_size=16).hexdigest()

    def prove(self, task_id: str, fingerprint: str, now: float) -> None:
        self._proved.pop((task_id, fingerprint), None)
        self._proved[task_id, fingerprint] = now
        while len(self._proved) > MAX_PROOFS:
            del self._proved[next(iter(self._proved))]

    def fresh(self, task_id: str, fingerprint: str, now: float, ttl: float) -> bool:
        """Whether there is a proof that is not older than `ttl` seconds."""
        at = self._proved.get((task_id, fingerprint))
        return at is not None and now - at < ttl

    def forget(self, task_id: str, fingerprint: str) -> None:
        """The origin has refused these credentials."""
        self._proved.pop((task_id, fingerprint), None)

    def expire(self, now: float, ttl: float) -> None:
        while self._proved:
            oldest = next(iter(self._proved))
            if now - self._proved[oldest] < ttl:
                return
            del self._proved[oldest]


def needs_proof(spec: DistributionSpec, pieces: int) -> bool:
    """Whether callers differ in what the origin lets them read.

    A path is read by a node's own user, whoever asks: there is nothing that one caller could show and
    another could not. Content without bytes has been seen with the listing.
    """
    return bool(pieces) and not spec.source.node and scheme(spec.source.url) not in ("file", "local")
