"""Settings: defaults here, a YAML file over them, `DRAGONFLY_…` variables over both.

`configs/default.yaml` shows every one of them with its default. Values travel to the actors
with the controller, so all nodes of a cluster agree.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

CONFIG_VARIABLE = "DRAGONFLY_CONFIG"
"""Names the YAML file."""
STORAGE_ROOT = "DRAGONFLY_STORAGE__ROOT"
KIB, MIB, GIB = 1024, 1024**2, 1024**3


LIVE: JsonDict = {"live": True}
"""Marks a field that may change while a cluster runs; see `live`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class StorageSettings(_Section):
    root: Path | None = None
    """Folder for piece stores, of this user alone (0700); each peer takes the first free one in it. None:
    `/var/lib/dragonfly-ray` for root, else `dragonfly-ray` in the user's cache folder."""
    medium: str = "disk"
    """`disk`, `memory` (tmpfs), or the name of an installed plug-in."""
    quota: int | None = Field(None, gt=0, json_schema_extra=LIVE)
    """Bytes; None: what the file system has, less `keep_free`."""
    high_water: float = Field(0.9, gt=0, le=1, json_schema_extra=LIVE)
    """Share of the quota at which the least recently used content is evicted, down to `low_water`."""
    low_water: float = Field(0.8, gt=0, le=1, json_schema_extra=LIVE)
    """Share of the quota down to which eviction frees the store."""
    keep_free: float = Field(0.06, ge=0, lt=1, json_schema_extra=LIVE)
    """Share of the file system left free. Ray's object store fails below 5 %."""
    durable: bool = Field(False, json_schema_extra=LIVE)
    """fsync before an output appears."""

    @model_validator(mode="after")
    def _marks_in_order(self) -> Self:
        if self.low_water > self.high_water:
            raise ValueError("low_water must not be above high_water")
        return self


class TransportSettings(_Section):
    bind: str = ""
    """Listen address of the data port; empty: the node's Ray address."""
    advertise: str = ""
    """Address announced to other peers; empty: the node's Ray address."""
    port: int = Field(0, ge=0, le=65535)
    """Data port; 0: any free port. Ray's workers use 10002-19999."""
    upload_threads: int = Field(16, ge=1)
    pipeline: int = Field(3, ge=1, json_schema_extra=LIVE)
    """Requests in flight at one parent."""
    request_bytes: int = Field(1 * MIB, gt=0, json_schema_extra=LIVE)
    """Maximum bytes of pieces that one request asks for."""
    stall_timeout: float = Field(2.0, gt=0, json_schema_extra=LIVE)
    """Seconds without a byte before the connection to a parent times out."""
    connect_timeout: float = Field(2.0, gt=0, json_schema_extra=LIVE)
    """Timeout for connecting to a parent, in seconds."""
    idle_timeout: float = Field(60.0, gt=0, json_schema_extra=LIVE)
    """Idle timeout of a child's connection, in seconds."""
    upload_rate: int | None = Field(None, gt=0, json_schema_extra=LIVE)
    """Bytes a second, of one peer; None: no limit."""
    download_rate: int | None = Field(None, gt=0, json_schema_extra=LIVE)
    """Bytes a second, of one peer; None: no limit."""
    small_inline: int = Field(100 * KIB, ge=0, json_schema_extra=LIVE)
    """Content up to this size travels in the message itself."""
    small_object: int = Field(512 * KIB, ge=0, json_schema_extra=LIVE)
    """Content up to this size travels through Ray's object store: beyond it, the one link of the node that read it
    is slower for all than the links of all."""
    carrier: Literal["auto", "socket", "object", "inline"] = Field("auto", json_schema_extra=LIVE)
    """How small content travels; `auto`: by its size."""


class OriginSettings(_Section):
    policy: Literal["all", "seeds", "targets"] = Field("all", json_schema_extra=LIVE)
    """Who may fetch from the origin."""
    connections: int = Field(2, ge=1, json_schema_extra=LIVE)
    """Per peer."""
    small_connections: int = Field(48, ge=1, json_schema_extra=LIVE)
    """Per peer, for files smaller than a piece."""
    max_connections: int = Field(256, ge=1, json_schema_extra=LIVE)
    """Of the whole cluster, to one origin; schedulers that share the work have equal parts."""
    max_requests: float | None = Field(None, gt=0, json_schema_extra=LIVE)
    """Requests per second to one origin, of the whole cluster; None: no limit."""
    lease_seconds: float = Field(0.2, gt=0, json_schema_extra=LIVE)
    """How much of the origin one peer takes at a time, in seconds of its rate."""
    lease_timeout: float = Field(2.0, gt=0, json_schema_extra=LIVE)
    """Seconds without a byte before a lease expires and is reassigned."""
    connect_timeout: float = Field(5.0, gt=0, json_schema_extra=LIVE)
    """Timeout for connecting to the origin, in seconds."""
    answer_timeout: float = Field(60.0, gt=0, json_schema_extra=LIVE)
    """Timeout until the origin's response begins, in seconds, for any request."""
    read_timeout: float = Field(10.0, gt=0, json_schema_extra=LIVE)
    """Seconds without a byte within an answer, or without a sign that the origin's host is there."""
    environment_proxies: bool = Field(True, json_schema_extra=LIVE)
    """Go to http and https origins through the proxies that each node's own HTTP_PROXY, HTTPS_PROXY and NO_PROXY
    name. Never under a policy of URLs."""
    retries: int = Field(2, ge=0, json_schema_extra=LIVE)
    """Of one request, where the server or the connection failed at once; a 429 or 503 is never retried."""
    give_up: float = Field(30.0, gt=0, json_schema_extra=LIVE)
    """Seconds for which an origin may fail in a row before the distribution does: at its first look, in a listing,
    or while it is read."""
    checksums: bool = Field(True, json_schema_extra=LIVE)
    """Compare whole files with the checksums that the origin offers: S3, Google and Azure storage, HTTP's digests."""
    max_entries: int = Field(1_000_000, ge=1, json_schema_extra=LIVE)
    """Files and folders of one source; a listing of more is refused."""
    unversioned_ttl: float = Field(60.0, ge=0, json_schema_extra=LIVE)
    """Seconds for which content without ETag, version id or mtime counts as unchanged."""

    audit: float = Field(0.005, ge=0, le=1, json_schema_extra=LIVE)
    """Share of the pieces that a second host reads at the origin, too, as an audit, where no checksum of the origin's
    covers them. Of a task's last tenth only if it is 1; none where the origin has no ranges, one node alone may go
    there, or the content is small."""
    proof_ttl: float = Field(300.0, ge=0, json_schema_extra=LIVE)
    """Seconds for which a proof that the origin lets these credentials read the content is valid."""
    proof_sample: int = Field(0, ge=0, json_schema_extra=LIVE)
    """Random files of a directory that such a proof reads; 0: all of them, at most 1 KiB of each."""

    def sparing(self, connections: int, rate: float) -> OriginSettings:
        """One peer's part: so many connections at most (0: as they are), and requests a second (0: no limit)."""
        most = min(connections or self.small_connections, self.small_connections)
        return self.model_copy(update={"small_connections": most, "max_requests": rate or None})


class SchedulerSettings(_Section):
    shards: int = Field(1, ge=1)
    neighbours: int = Field(40, ge=2, json_schema_extra=LIVE)
    """Peers that one peer knows, in a large swarm."""
    everybody: int = Field(48, ge=2, json_schema_extra=LIVE)
    """Up to this number of hosts the graph is a full mesh."""
    zones: Literal["auto", "importers", "off"] = "auto"
    """`importers`: each piece has one host in each zone that fetches it from other zones. `off`: every host
    fetches from other zones what its own does not have. `auto`: importers, unless a task begins with so many
    hosts for its pieces (more than 96, and than 3 for each 4 pieces) that the few would delay the many."""
    importers: int = Field(8, ge=1)
    """Hosts of a zone that fetch from other zones."""
    report_interval: float = Field(0.1, gt=0, json_schema_extra=LIVE)
    """Seconds between the reports of a peer; stretches to stay below `max_reports`."""
    max_reports: float = Field(500.0, gt=0, json_schema_extra=LIVE)
    """Reports per second and scheduler shard; the interval stretches to stay below."""
    silent_after: float = Field(8.0, gt=0, json_schema_extra=LIVE)
    """Seconds without a report before a host is unresponsive and counts as lost."""
    heartbeat_timeout: float = Field(30.0, gt=0, json_schema_extra=LIVE)
    """Heartbeat timeout of the submitter, in seconds: then an attached distribution is cancelled."""
    resolve_timeout: float = Field(60.0, gt=0, json_schema_extra=LIVE)
    """Seconds for which a look at the origin may bring nothing, besides `origin.answer_timeout`."""
    grant_ttl: float = Field(900.0, gt=0)
    """Seconds for which a grant is valid for new connections; it is renewed in time."""
    signing_key_days: float = Field(30.0, ge=0)
    """Days after which the key that signs grants is rotated; 0: never."""


class PeerSettings(_Section):
    seed_label: str = "dragonfly.io/seed"
    """A Ray node with this label set to `true` is a seed."""
    seeds: tuple[str, ...] = ()
    """Node ids or IPs that are seeds whatever their labels say."""
    exclude_label: str = "dragonfly.io/exclude"
    idc_label: str = "dragonfly.io/idc"
    location_label: str = "dragonfly.io/location"
    start_timeout: float = Field(60.0, gt=0, json_schema_extra=LIVE)
    """Timeout for a peer to start or restart, in seconds."""
    health_interval: float = Field(1.0, gt=0, json_schema_extra=LIVE)
    """Interval of a peer's health checks, in seconds."""
    loaded_bytes: int = Field(1 * GIB, gt=0, json_schema_extra=LIVE)
    """Bytes of content that `load` keeps in a node's object store, besides what workers still use."""
    loaded_ttl: float = Field(600.0, gt=0, json_schema_extra=LIVE)
    """Seconds without a `load` after which content is released."""
    dest_roots: tuple[str, ...] = Field(("/",), json_schema_extra=LIVE)
    """Folders that a `dest` must be inside of."""


class Settings(BaseSettings):
    """All settings of a cluster."""

    model_config = SettingsConfigDict(
        env_prefix="DRAGONFLY_", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    namespace: str = "dragonfly"
    """The Ray namespace of the actors: two of them are two clusters."""
    log_format: Literal["text", "json"] = "text"
    """Of the actors' and the manager's own logs; `json`: with the ids of request, job and task."""
    storage: StorageSettings = StorageSettings()
    transport: TransportSettings = TransportSettings()
    origin: OriginSettings = OriginSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    peer: PeerSettings = PeerSettings()

    def on_this_node(self) -> Settings:
        """With the one setting that a node may have for itself: its storage root, from its environment."""
        root = os.environ.get(STORAGE_ROOT)
        if not root:
            return self
        storage = self.storage.model_copy(update={"root": Path(root)})
        return self.model_copy(update={"storage": storage})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get(CONFIG_VARIABLE)
        found: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if file:
            found.append(YamlConfigSettingsSource(settings_cls, yaml_file=file))
        return tuple(found)
