"""The cluster's signing keys over time: one replaces another without a grant being refused in between.

The next key is known to every peer before it signs, and a former one is good for as long as any grant of it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from dragonfly_ray.errors import StorageError
from dragonfly_ray.grants import SKEW, SigningKey
from dragonfly_ray.private_folders import private_folder, read_private

LEARNT = 120.0
"""Seconds within which schedulers sign with a new key: they ask for it twice as often."""
WAIT_AT_MOST = 600.0
"""Seconds for which a peer that is not heard of may hold up the next key: it learns of it when it is back."""


class KeyRing(msgspec.Struct, frozen=True):
    """Private keys, and since or until when (Unix time). Its repr shows nothing of them."""

    active: bytes
    """Schedulers sign with it."""
    since: float
    following: bytes = b""
    """Peers take it already; it becomes active when all of them do."""
    made: float = 0.0
    former: bytes = b""
    """The public key before: grants signed with it may still be good."""
    former_until: float = 0.0

    def __repr__(self) -> str:
        return f"KeyRing({len(self.public_keys())} keys)"

    def public_keys(self) -> list[bytes]:
        """What peers shall take."""
        private = [key for key in (self.active, self.following) if key]
        found = [SigningKey.from_private_bytes(key).public_bytes() for key in private]
        return [*found, self.former] if self.former else found

    def rotated(self, now: float) -> KeyRing:
        """With a key to follow; as it is while one does already."""
        if self.following:
            return self
        key = SigningKey.generate().private_bytes()
        return msgspec.structs.replace(self, following=key, made=now)

    def advanced(self, now: float, *, ttl: float, max_age: float, told: bool) -> KeyRing:
        """What time brings. `told`: every peer takes all of `public_keys`. `max_age`: seconds; 0: none.

        `ttl`: for how long a grant is good, in seconds.
        """
        ring = self
        if ring.former and now >= ring.former_until:
            ring = msgspec.structs.replace(ring, former=b"", former_until=0.0)
        if ring.following and (told or now - ring.made >= WAIT_AT_MOST):
            former = SigningKey.from_private_bytes(ring.active).public_bytes()
            until = now + LEARNT + ttl + SKEW
            return KeyRing(ring.following, now, former=former, former_until=until)
        if max_age and now - ring.since >= max_age and not ring.former:
            return ring.rotated(now)
        return ring

    # --- kept -------------------------------------------------------------------------------

    @classmethod
    def load_or_create(cls, path: Path) -> KeyRing:
        """The ring in `path`, readable by its owner alone; begun with the single key beside it, or a new one.

        That key's file is `path` with the suffix `.key`. Raises `StorageError` where others could have put
        it there.
        """
        single = path.with_suffix(".key")
        private_folder(path.parent)
        try:
            return msgspec.msgpack.decode(read_private(path), type=cls)
        except FileNotFoundError:
            key = SigningKey.load_or_create(single)
            return cls(key.private_bytes(), single.stat().st_mtime)
        except msgspec.DecodeError:
            raise StorageError(
                f"{path}: not a valid key ring; delete it, a new one will be generated"
            ) from None

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.msgpack.encode(self))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
