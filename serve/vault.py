"""Encryption of what the manager keeps secret at rest: credentials of sources, signing keys of webhooks.

AES-256-GCM. The key comes from the settings or from a file, never from the database. What is sealed
begins with the id of its key, so that a wrong key is told as such.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import logging
import os
import secrets
import stat
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dragonfly_ray.errors import VaultError
from dragonfly_ray.private_folders import private_folder
from dragonfly_ray.serve.settings import ManagerSettings

log = logging.getLogger(__name__)
KEY_BYTES = 32
FILE = "secret-key"
_NONCE = 12
_ID = 8


class Vault:
    """Seals and opens. `context` binds what is sealed to its place: it opens with the same one only."""

    def __init__(self, key: bytes, origin: str = "the key") -> None:
        if len(key) != KEY_BYTES:
            raise VaultError(f"{origin}: key has {len(key)} bytes, expected {KEY_BYTES}")
        self._cipher = AESGCM(key)
        self._id = hashlib.sha256(b"dragonfly vault key id\0" + key).digest()[:_ID]
        self._signing = hashlib.sha256(b"dragonfly vault signing\0" + key).digest()

    def __repr__(self) -> str:
        return f"Vault(key {self.key_id})"

    @property
    def key_id(self) -> str:
        """Names the key, and tells nothing of it."""
        return self._id.hex()

    def seal(self, plain: bytes, context: bytes = b"") -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return self._id + nonce + self._cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        key_id, nonce, rest = sealed[:_ID], sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :]
        if key_id != self._id:
            raise VaultError(
                f"encrypted with key {self.key_of(sealed)}, this manager has key {self.key_id}: start every replica "
                "with the key that encrypted the secrets (secret_key, secret_key_file)"
            )
        try:
            return self._cipher.decrypt(nonce, rest, context)
        except (InvalidTag, ValueError):
            raise VaultError("encrypted value is corrupted, or belongs to another record") from None

    @staticmethod
    def key_of(sealed: bytes) -> str:
        """The id of the key that something was sealed with."""
        return sealed[:_ID].hex()

    def sign(self, message: bytes) -> bytes:
        """A MAC under a key of its own; the same on every replica."""
        return hashlib.blake2b(message, key=self._signing, digest_size=32).digest()

    @classmethod
    def of(cls, settings: ManagerSettings) -> Vault:
        """With the key of the settings, or of the key file, which is made if it is missing.

        Raises `StorageError` where others could have put something into `state_dir`.
        """
        if settings.secret_key is not None:
            return cls(_decoded(settings.secret_key.get_secret_value(), "secret_key"), "secret_key")
        path = settings.secret_key_file
        if path is None:
            path = private_folder(settings.state_dir, "state_dir") / FILE
        return cls(_decoded(_read(path), str(path)), str(path))


def new_key() -> str:
    """As the settings and the file want it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _decoded(text: str, origin: str) -> bytes:
    try:
        padded = text.strip() + "=" * (-len(text.strip()) % 4)
        return base64.b64decode(padded.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise VaultError(f"{origin}: not URL-safe Base64 of {KEY_BYTES} bytes") from None


def _read(path: Path) -> str:
    try:
        _make(path)
        found = path.stat()
        # Another's file, such as one that Kubernetes mounts, is read through its group.
        if stat.S_IMODE(found.st_mode) & (0o077 if found.st_uid == os.getuid() else 0o037):
            log.warning("%s: key is readable by other users; chmod 600 it", path)
        return path.read_text()
    except OSError as error:
        raise VaultError(f"{path}: cannot read or create the key: {error.strerror}") from None


def _make(path: Path) -> None:
    """Of several processes that make it at once, all end up with the same one."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
