"""`http` and `https`: files, and folders that the server lists.

Bytes are taken as the server sends them (`Accept-Encoding: identity`, and nothing is decoded), so
that ranges mean what they say. A server that ignores ranges is read in one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Manifest, Segment, Source
from dragonfly_ray.policy import UrlPolicy, rules
from dragonfly_ray.sources.base import Adapter, Progress, Resolution, Room, Seen, Share, Stream, together
from dragonfly_ray.sources.http_address import HttpAddress
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_reader import HttpReader
from dragonfly_ray.sources.http_resolver import HttpResolver
from dragonfly_ray.sources.origin_concurrency import OriginConcurrency, Slots
from dragonfly_ray.sources.proxies import directly, of_environment
from dragonfly_ray.sources.stat_retry import Retry
from dragonfly_ray.urls import redacted


class HttpAdapter(Adapter):
    """One URL; its connections are kept and shared by all threads."""

    def __init__(
        self,
        source: Source,
        credentials: Credentials,
        settings: OriginSettings,
        policy: UrlPolicy | None = None,
    ) -> None:
        known = None if policy is None else rules(policy)
        address = HttpAddress(source.url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "dragonfly-ray", **credentials.headers}
        if address.authorization and "authorization" not in {h.lower() for h in headers}:
            headers["Authorization"] = address.authorization
        secret = {name.lower() for name in credentials.headers} | {"authorization", "cookie"}
        self._settings = settings
        self._pace = OriginConcurrency(settings.max_requests)
        # Through a proxy, whoever connects sees the proxy's address: nobody could ask the policy.
        choose = of_environment if settings.environment_proxies and known is None else directly
        self._client = HttpClient(redacted(source.url), headers, secret, settings, known, choose)
        self._reader = HttpReader(address, self._client, headers, settings, known, choose)
        self._resolver = HttpResolver(source, address, self._client, self._reader, self._pace, settings)

    @property
    def patience(self) -> Retry | None:
        return self._client.patience

    @patience.setter
    def patience(self, patience: Retry | None) -> None:
        self._client.patience = patience

    def abort(self) -> None:
        self._client.abort()

    def rest(self) -> None:
        self._reader.rest()
        self._client.rest()

    def close(self) -> None:
        self.rest()

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        return self._resolver.resolve(small_limit, spool, share, room)

    def look(self, paths: Sequence[str]) -> list[Seen]:
        return self._resolver.look(paths)

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        return self._reader.stream(manifest, number, offset, length)

    def many(
        self, manifest: Manifest, wanted: Sequence[tuple[int, memoryview]], slots: Slots, progress: Progress
    ) -> list[int]:
        return self._reader.many(manifest, wanted, slots, progress)

    def ranges(self, manifest: Manifest, spans: Sequence[Segment], connections: int) -> list[bytes]:
        found: dict[int, bytes] = {}
        if len(spans) > 1 and manifest.directory and self._settings.max_requests is None:
            found = self._reader.quick_ranges(manifest, spans, connections)
        rest = [at for at in range(len(spans)) if at not in found]
        if rest:
            found |= zip(
                rest, together(connections, rest, lambda at: self._paced(manifest, spans[at])), strict=True
            )
        return [found[at] for at in range(len(spans))]

    def _paced(self, manifest: Manifest, span: Segment) -> bytes:
        self._pace.wait()
        return self.range_of(manifest, span)
