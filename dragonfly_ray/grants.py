"""Signed permissions to read a task from its holders: short-lived, for one task, one host and one key.

A scheduler issues them with the cluster's private key; peers know the public key only. A grant alone opens
nothing: it names the public key of the peer's process, which proves with each connection that it has the
private one, by signing the nonce of the parent that it speaks to.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dragonfly_ray.errors import GrantError, StorageError
from dragonfly_ray.model import digest
from dragonfly_ray.private_folders import private_folder, read_private

"""Bytes of a public key."""
SIGNATURE_SIZE = 64
NONCE_SIZE = 32
MAX_TOKEN = 1024
SKEW = 60.0
"""Seconds that the clocks of two hosts may differ."""


Role = Literal["child", "parent"]


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    key: bytes
    task_id: str
    holder: str
    tenant: str
    expires: float
    holder_key: bytes


def _key_id(public: bytes) -> bytes:
    return digest(public)[:8]


class SigningKey:
    """An Ed25519 private key. Its repr shows nothing of it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SigningKey({_key_id(self.public_bytes()).hex()})"

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, data: bytes) -> SigningKey:
        return cls(Ed25519PrivateKey.from_private_bytes(data))

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """The key in `path`, made if it is missing. Raises `StorageError` where others could have put it there."""
        private_folder(path.parent)
        key = cls.generate()
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(key.private_bytes())
            os.link(draft, path)
        except FileExistsError:
            return cls._read(path)
        finally:
            draft.unlink(missing_ok=True)
        return key

    @classmethod
    def _read(cls, path: Path) -> SigningKey:
        try:
            return cls.from_private_bytes(read_private(path))
        except ValueError:
            raise StorageError(
                f"{path}: not a valid signing key; delete it, a new one will be generated"
            ) from None

    def private_bytes(self) -> bytes:
        return self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def public_bytes(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class GrantIssuer:
    """Signs grants."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._id = _key_id(key.public_bytes())

    def issue(self, task_id: str, holder: str, holder_key: bytes, tenant: str, ttl: float) -> bytes:
        """A grant for the host `holder`, whose process has the public key `holder_key`; good for `ttl` seconds."""
        claims = _Claims(self._id, task_id, holder, tenant, time.time() + ttl, holder_key)
        data = msgspec.msgpack.encode(claims)
        return self._key.sign(data) + data


class GrantVerifier:
    """Knows the public keys, of which there are several while one replaces another."""

    def __init__(self, public_keys: Iterable[bytes]) -> None:
        self._keys: dict[bytes, Ed25519PublicKey] = {}
        self.trust(public_keys)

    def trust(self, public_keys: Iterable[bytes]) -> None:
        """From now on these, and no others."""
        self._keys = {_key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in public_keys}

    def verify(self, token: bytes, task_id: str, holder: str, now: float | None = None) -> bytes:
        """The public key that `holder` must prove to have.

        Raises `GrantError` unless `token` lets `holder` read `task_id` at `now` (Unix time).
        """
        if not SIGNATURE_SIZE < len(token) <= MAX_TOKEN:
            raise GrantError("no grant presented")
        signature, data = token[:SIGNATURE_SIZE], token[SIGNATURE_SIZE:]
        try:
            claims = msgspec.msgpack.decode(data, type=_Claims)
            key = self._keys[claims.key]
        except (msgspec.DecodeError, KeyError):
            raise GrantError("grant is not signed by this cluster's key") from None
        # What costs nothing comes first: anybody may send anything.
        if claims.task_id != task_id or claims.holder != holder:
            raise GrantError("grant was issued for another task or host")
        if (time.time() if now is None else now) > claims.expires + SKEW:
            raise GrantError("grant has expired")
        try:
            key.verify(signature, data)
        except InvalidSignature:
            raise GrantError("grant is not signed by this cluster's key") from None
        return claims.holder_key


class Handshake(msgspec.Struct, frozen=True, array_like=True):
    """What both ends of a new connection sign, each with its own key: who speaks to whom about what, just now.

    The child's signature names the parent, so that whoever it speaks to cannot pass it on to another; the
    parent's proves that the child reached the host which the scheduler named, and nobody at its old address.
    """

    task_id: str
    child: str
    """Host id."""
    parent: str
    """Host id."""
    parent_nonce: bytes
    child_nonce: bytes
    parent_capabilities: tuple[int, int, int]
    child_capabilities: tuple[int, int, int]
    """Highest and least version, features. As each end says them in clear: nobody on the way can take some away."""

    def _data(self, role: str) -> bytes:
        return msgspec.msgpack.encode(("dragonfly-ray handshake 3", role, self))

    def sign(self, role: Role, key: SigningKey) -> bytes:
        return key.sign(self._data(role))

    def verify(self, role: Role, public_key: bytes, proof: bytes) -> None:
        """Raises `GrantError` unless the other end has the private key to `public_key`."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(proof, self._data(role))
        except (InvalidSignature, ValueError):
            raise GrantError(
                f"bad handshake signature: the {role} does not hold its host's private key"
            ) from None
