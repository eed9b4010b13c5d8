"""Personal access tokens: made once, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "dfr_"
SHOWN = 12


def make() -> str:
    """A new token; 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
