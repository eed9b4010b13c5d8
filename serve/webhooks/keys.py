"""Signing keys of webhooks, and signatures as the Standard Webhooks specification has them."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from standardwebhooks import Webhook as Signer

from dragonfly_ray.serve.problems import invalid
from dragonfly_ray.serve.vault import Vault

PREFIX = "whsec_"
BYTES = 32
LEAST, MOST = 24, 64
OVERLAP = timedelta(hours=24)
"""After a rotation deliveries are signed with the key before it, too: receivers need not change at once."""


@dataclass(frozen=True, slots=True)
class Keys:
    """`previous`: counts until `until`."""

    key: str
    previous: str = ""
    until: datetime | None = None

    def __repr__(self) -> str:
        return "Keys(…)"

    def rotated(self, at: datetime) -> Keys:
        return Keys(made(), self.key, at + OVERLAP)

    def headers(self, message_id: str, at: datetime, body: str) -> dict[str, str]:
        """The three that a receiver checks."""
        keys = [self.key]
        if self.previous and self.until and at < self.until:
            keys.append(self.previous)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(Signer(key).sign(message_id, at, body) for key in keys),
        }

    def sealed(self, vault: Vault, webhook_id: str) -> bytes:
        until = self.until.isoformat() if self.until else ""
        plain = json.dumps({"key": self.key, "previous": self.previous, "until": until})
        return vault.seal(plain.encode(), _context(webhook_id))

    @classmethod
    def opened(cls, vault: Vault, webhook_id: str, sealed: bytes) -> Keys:
        """Raises `VaultError`."""
        found = json.loads(vault.open(sealed, _context(webhook_id)))
        until = datetime.fromisoformat(found["until"]) if found["until"] else None
        return cls(found["key"], found["previous"], until)


def made() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()


def checked(given: str) -> str:
    """A key that somebody brings. Raises `Problem`, which does not repeat it."""
    try:
        found = base64.b64decode(given.removeprefix(PREFIX).encode(), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not given.startswith(PREFIX) or not LEAST <= len(found) <= MOST:
        raise invalid(
            f"signing_key: must be `{PREFIX}` and Base64 of {LEAST} to {MOST} bytes", "bad-signing-key"
        )
    return given


def _context(webhook_id: str) -> bytes:
    return f"webhook:{webhook_id}".encode()
