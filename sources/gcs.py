"""Google's buckets by gcsfs: what it looks up beside the request, within bounds, and what its errors mean."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

log = logging.getLogger(__name__)

KIND_TIMEOUT_S = 3.0
"""For asking what kind of bucket it is (flat, hierarchical, zonal): gcsfs asks at every read, for a minute each."""
KIND_TTL_S = 600.0
"""For which it counts that nothing answered."""


class LatelySilent:
    """Whom nobody answered of late. Thread-safe."""

    def __init__(self, ttl: float = KIND_TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl, self._clock = ttl, clock
        self._until: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def add(self, key: Hashable) -> None:
        with self._lock:
            self._until[key] = self._clock() + self._ttl

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            now = self._clock()
            self._until = {each: until for each, until in self._until.items() if until > now}
            return key in self._until


_unanswered = LatelySilent()


def bound_look_ups(files: Any, *, guarded: bool, unanswered: LatelySilent = _unanswered) -> None:
    """Has an instance of gcsfs that is ours alone ask for a bucket's kind once, briefly, or not at all.

    It asks by gRPC, beside the HTTP that reads the objects: an endpoint of the caller's own seldom speaks that, and
    `guarded` ones must not be asked, since gRPC connects past the policy of URLs. Such buckets count as flat ones,
    as they do for gcsfs where nothing answers. Other filesystems are left as they are.
    """
    ask: Callable[[str], Awaitable[Any]] | None = getattr(files, "_get_bucket_type", None)
    if ask is None or not hasattr(files, "_storage_layout_cache"):
        return
    from gcsfs.extended_gcsfs import BucketType

    at = str(getattr(files, "_grpc_location", "") or "")
    own = bool(getattr(files, "_endpoint", None))
    silent = at.startswith("http://") or (guarded and own)  # gRPC is TLS here

    async def kind(bucket: str) -> Any:
        if silent or (at, bucket) in unanswered:
            found = BucketType.UNKNOWN
        else:
            try:
                found = await asyncio.wait_for(ask(bucket), KIND_TIMEOUT_S)
            except TimeoutError:
                log.warning(
                    "gs://%s: bucket type lookup timed out after %g s; assuming a flat namespace",
                    bucket, KIND_TIMEOUT_S,
                )  # fmt: skip
                unanswered.add((at, bucket))
                found = BucketType.UNKNOWN
        files._storage_layout_cache[bucket] = found  # also that it is unknown, or every read would ask again
        return found

    files._get_bucket_type = kind


def is_forbidden(error: BaseException) -> bool:
    """Whether gcsfs says so with its own `OSError`, which tells no status."""
    return type(error) is OSError and str(error).startswith("Forbidden: ")


def wants_payer(error: BaseException) -> bool:
    """Whether a bucket refuses a request since it names nobody who pays for it."""
    text = f"{error} {getattr(error, 'message', '')}".lower()
    return "requester pays" in text
