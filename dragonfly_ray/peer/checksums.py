"""What the origin offers of whole files, compared along the contiguous prefix while pieces arrive."""

from __future__ import annotations

from dragonfly_ray.checksums import EntryChecksums, Mismatch
from dragonfly_ray.errors import IntegrityError
from dragonfly_ray.peer.streaming_digest import PrefixReader
from dragonfly_ray.peer.supervisor import Supervisor
from dragonfly_ray.storage.task_store import TaskStore


class OriginChecksums:
    """Follows a download. What does not match was read so from the origin: no neighbour is to blame."""

    def __init__(self, threads: Supervisor, store: TaskStore) -> None:
        self._store = store
        self._compared = EntryChecksums(store.manifest, store.table)
        self._follower = PrefixReader(threads, store, "checksums", self._compared.feed)
        self.advance = self._follower.advance

    def check(self) -> None:
        """Raises `IntegrityError` where a file is not what the origin offers. All of it must be here."""
        self._follower.finish()
        # A piece may have been replaced after it was compared: what counts is what is here now.
        mismatch = self._compared.mismatch and self._again()
        if mismatch is not None:
            raise IntegrityError(
                f"{self._store.task.url} {mismatch}; nothing was written. Distribute it again; "
                f"if the origin's own checksum is "
                "wrong, set origin.checksums to false"
            )

    def _again(self) -> Mismatch | None:
        store = self._store
        following = EntryChecksums(store.manifest, store.table)
        for index in range(len(store.table)):
            following.feed(index, store.read(index))
        return following.mismatch
