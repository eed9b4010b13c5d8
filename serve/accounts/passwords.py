"""Passwords, as argon2 hashes."""

from __future__ import annotations

import functools
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

HASHER = PasswordHasher()
SHORTEST = 12
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each one takes 64 MiB: a crowd that signs in must not take all memory."""


def hashed(password: str) -> str:
    with _AT_ONCE:
        return HASHER.hash(password)


def verified(hash: str, password: str) -> bool:
    """In the same time whether or not there is a hash, so that names cannot be guessed by it."""
    try:
        with _AT_ONCE:
            HASHER.verify(hash or _nobodys(), password)
            return bool(hash)
    except (VerificationError, InvalidHashError):
        return False


def outdated(hash: str) -> bool:
    """Made with weaker parameters than today's."""
    return HASHER.check_needs_rehash(hash)


def random_password() -> str:
    return secrets.token_urlsafe(18)


@functools.cache
def _nobodys() -> str:
    return HASHER.hash(secrets.token_urlsafe(32))
