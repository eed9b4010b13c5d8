"""What the parts of the download engine share."""

from __future__ import annotations

from dataclasses import dataclass

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.download.audit_queue import AuditQueue
from dragonfly_ray.scheduling.download.connections import Connections
from dragonfly_ray.scheduling.download.digest_claims import DigestClaims
from dragonfly_ray.scheduling.download.event_log import Dump, EventLog, frozen
from dragonfly_ray.scheduling.download.have_outbox import HaveOutbox
from dragonfly_ray.scheduling.download.lease_queue import LeaseQueue
from dragonfly_ray.scheduling.download.parent_state import NeighbourInfo, RequestLimits
from dragonfly_ray.scheduling.download.report_buffer import ReportBuffer
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.zones import Imports, region_of

Claims = tuple[tuple[int, bytes], ...]
"""(piece, digest that is claimed for it)."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Of whole pieces, by where they came from."""

    peers: int = 0
    cache: int = 0
    small: int = 0


class DownloadParts:
    """What is known of one download."""

    checked = False
    """Whether `validate` runs after every event: in tests."""

    def __init__(
        self,
        picker: Picker,
        limits: RequestLimits,
        *,
        host: str = "",
        zone: str = "",
        location: str = "",
        seeder: SuperSeeder | None = None,
        now: float = 0.0,
        recorded: bool = False,
    ) -> None:
        """`zone`: the one that this host is in; empty: zones are not known, and no host is in another one. `location`:
        of which the first part is the region that the zone is in."""
        self.picker = picker
        self.limits = limits
        self._host = host
        self._zone = zone
        if zone:
            picker.imports = Imports(host, zone, picker.count, region_of(location))
        self.claims = DigestClaims()
        self.report = ReportBuffer(now)
        self.leases: LeaseQueue | None = None
        self._audits = AuditQueue()
        self.provenance: dict[int, str] = {}
        """Piece -> the parent that it came from."""
        self._peers = self._cache = self._small = 0
        """See `bytes`."""
        self.connections = Connections()
        self._haves = HaveOutbox(picker, self.connections, seeder)
        self._infos: dict[str, NeighbourInfo] = {}
        self._banned: set[str] = set()
        self._bad: dict[str, int] = {}
        self._storing: set[int] = set()
        """Verified, and to be stored now."""
        self.log: EventLog | None = None
        if recorded:
            self.log = EventLog(frozen(self))

    @property
    def bytes(self) -> Bytes:
        return Bytes(self._peers, self._cache, self._small)

    def dump(self) -> Dump:
        """The last events, to be replayed. Raises `ValueError` where none are recorded."""
        if self.log is None:
            raise ValueError("this download is not recorded")
        return self.log.dump()

    # --- tests ------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raises `AssertionError` where the state contradicts itself."""
        picker = self.picker
        assert not picker.have & ~picker.everything, "piece index out of range"
        self.connections.validate()
        assert not self._banned & self.connections.hosts(), "connected to a banned host"
        assert not self._banned & set(picker.holders()), "pieces of a banned host are counted"
        for parent in self.connections.parents():
            assert picker.outstanding(parent.host) <= parent.due + len(self._storing), (
                "outstanding request without a connection"
            )
            assert not parent.told & ~picker.everything
        assert bitset.of(self.provenance) & ~picker.have == 0, "provenance of a piece that is not stored"
        assert self._haves.fresh & ~picker.have == 0, "announcement of a piece that is not stored"
        if self.leases:
            self.leases.validate()
