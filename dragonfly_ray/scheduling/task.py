"""What a scheduler knows of one task: who holds what, the record of digests, leases, neighbours."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from dragonfly_ray import bitset
from dragonfly_ray.model import DIGEST_SIZE, Task, root_digest
from dragonfly_ray.scheduling.audit_table import AuditTable
from dragonfly_ray.scheduling.decisions import arm_of
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.graph import Graph
from dragonfly_ray.scheduling.lease_timeouts import LeaseTimeouts
from dragonfly_ray.scheduling.leases import LeaseTable
from dragonfly_ray.scheduling.rarity import Rarity
from dragonfly_ray.scheduling.relay_latency import RelayLatency
from dragonfly_ray.scheduling.shared_dest import WriterElection
from dragonfly_ray.scheduling.traffic_matrix import TrafficMatrix
from dragonfly_ray.scheduling.traffic_meter import TrafficMeter


@dataclass(slots=True)
class Traffic:
    """Bytes of a task at one host, by where they came from."""

    origin: int = 0
    peers: int = 0
    cache: int = 0
    small: int = 0
    audit: int = 0
    """At the origin, only to be compared."""
    told: float = 0.0
    """When it last said from whom."""
    moved: float = 0.0
    """When bytes last came, or should have begun to."""
    starved: int = 0
    """Pieces that it missed and others had, as it was last looked for."""

    @property
    def total(self) -> int:
        return self.origin + self.peers + self.cache + self.small


@dataclass(slots=True)
class Suspicion:
    since: float
    by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class TaskState:
    """One task. Holders and participants are host ids."""

    task: Task
    leases: LeaseTable
    graph: Graph
    origin: str = ""
    """`scheme://host` of the source: the key of the request budget."""
    holders: dict[str, int] = field(default_factory=dict)
    record: dict[int, bytes] = field(default_factory=dict)
    participants: dict[str, bool] = field(default_factory=dict)
    """host -> whether it only helps (it is no target)."""
    roots: dict[str, bytes] = field(default_factory=dict)
    """Host -> the root that it announced for its whole copy, while the record does not say the same."""
    claimed: bytes | None = None
    """The one root of all of them, where that is known."""
    asked: dict[str, float] = field(default_factory=dict)
    """Hosts that were asked for digests, and when."""
    vouched: int = 0
    """The pieces that were announced: their holders have the digests."""
    confirmed: dict[str, float] = field(default_factory=dict)
    """Participant -> when it last named all the distributions that it must be at, or was asked, or told."""
    traffic: dict[str, Traffic] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)
    granted: dict[str, float] = field(default_factory=dict)
    """host -> when its last grant was made."""
    complaints: dict[str, Counter[str]] = field(default_factory=dict)
    """host -> who got how many bad pieces of it."""
    disputed: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    contested: Counter[int] = field(default_factory=Counter)
    """Piece -> how often there were two digests for it: whatever was said of it, the origin may have been the cause."""
    differing: int = 0
    """The pieces for which there were two digests."""
    suspects: dict[tuple[str, int], Suspicion] = field(default_factory=dict)
    """(host, piece): it said what the record denies, and may still say who misled it."""
    misled: dict[int, set[str]] = field(default_factory=dict)
    """Piece -> those who said that they were misled about it."""
    failing_since: float | None = None
    failure: str = ""
    """What the origin's last failure was, while it fails."""
    failures: int = 0
    manifest_holders: set[str] = field(default_factory=set)
    places: WriterElection = field(default_factory=WriterElection)
    reread: float = 0.0
    """Bytes that were read from the origin in vain, about: others took over what was late."""
    requests: tuple[int, ...] = ()
    """How many requests each piece costs at the origin, where that is known."""
    claimants: int = 0
    """How many hosts might go to the origin, when that was last looked at."""
    connections: dict[str, int] = field(default_factory=dict)
    """host -> how many connections to the origin it was told to have at most."""
    specs: dict[str, DistributionState] = field(default_factory=dict)
    """The distributions of it that are running, by id."""
    able: set[str] = field(default_factory=set)
    """The participants that live and are not banned."""
    able_seeds: set[str] = field(default_factory=set)
    able_helpers: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)
    """Holders that are not in the graph yet."""
    shunned: set[str] = field(default_factory=set)
    """Those of the banned that did wrong elsewhere: until this task comes to rest."""
    aloof: dict[str, str] = field(default_factory=dict)
    """Draining hosts that others have no need of: `silent` while they still take, then `gone`."""
    passing: RelayLatency = field(default_factory=RelayLatency)
    flows: TrafficMatrix = field(default_factory=TrafficMatrix)
    meter: TrafficMeter = field(default_factory=TrafficMeter)
    drawn: dict[str, int] = field(default_factory=dict)
    """host -> the number of the decision that drew its neighbours."""
    repaired: dict[tuple[str, str], int] = field(default_factory=dict)
    """Edges drawn later than both of their hosts, in both directions."""
    audits: AuditTable = field(default_factory=lambda: AuditTable(0, 0.0, 0.0))
    readers: dict[str, int] = field(default_factory=dict)
    """host -> the pieces that it has read at the origin."""
    closed: bool = False
    """Until somebody has proved that it may read it, holders outside of the graph stay there."""
    arm: int = 0
    everything: int = 0
    _copies: Rarity = field(default_factory=Rarity)
    """How many holders have each piece that are not banned."""
    _somewhere: int = 0
    _recorded: int = 0
    """The pieces whose digest is known."""
    _deputies: tuple[str, ...] = ()
    _root: bytes | None = None

    def __post_init__(self) -> None:
        self.arm = arm_of(self.task.id)
        self.everything = bitset.full(self.task.pieces)

    def cost(self, piece: int) -> int:
        """Requests at the origin; an estimate after a restart."""
        if self.requests:
            return self.requests[piece]
        return max(1, -(-self.task.entries // max(1, self.task.pieces)))

    def taken(self, but: str = "") -> int:
        """Connections of the hosts that hold leases, `but` left out."""
        told = self.connections
        return sum(told.get(host, 0) for host in self.leases.hosts() if host != but)

    def read(self, host: str) -> int:
        """Bytes that it has from the origin, as far as it has told."""
        traffic = self.traffic.get(host)
        return traffic.origin if traffic else 0

    def is_complete(self, host: str) -> bool:
        return self.holders.get(host, 0) == self.everything

    # --- who can do something ---------------------------------------------------------------

    def enable(self, host: str, *, seed: bool) -> None:
        self.able.add(host)
        (self.able_seeds.add if seed else self.able_seeds.discard)(host)
        (self.able_helpers.add if self.participants[host] else self.able_helpers.discard)(host)
        self._deputies = ()

    def disable(self, host: str) -> None:
        for able in (self.able, self.able_seeds, self.able_helpers):
            able.discard(host)
        self._deputies = ()

    def deputies(self) -> tuple[str, ...]:
        """The two that go to the origin where only seeds may and none is left."""
        if not self._deputies:
            self._deputies = tuple(heapq.nsmallest(2, self.able))
        return self._deputies

    # --- who has what -----------------------------------------------------------------------

    def room(self, host: str, now: float) -> int:
        """How many pieces more `host` may be given to read from the origin, for the others' sake."""
        read = self._somewhere.bit_count()
        unread = max(self.task.pieces - read, self.leases.left)
        return self.passing.room(host, unread, read, now)

    def somewhere(self) -> int:
        """The pieces that some holder has which is not banned."""
        return self._somewhere

    def hold(self, host: str, pieces: int, *, vouched: bool = False) -> None:
        """`vouched`: the host has announced them, and can tell their digests."""
        if vouched:
            self.vouched |= pieces
        before = self.holders.get(host, 0)
        held = before | pieces
        # One number for all that are complete, not one each.
        self.holders[host] = self.everything if held == self.everything else held
        if host not in self.graph:
            self.aside.add(host)
        if host not in self.banned:
            self._add(pieces & ~before)
            # What nobody read from the origin is not done, whatever they say that they have.
            self.leases.done(pieces & (self._recorded | self.vouched))

    def drop(self, host: str, pieces: int | None = None) -> None:
        """`host` has lost `pieces` (all: None): what nobody else has must come from the origin again."""
        lost = self._unhold(host, pieces)
        if pieces is None:
            self.leases.drop(host)
            self.leases.waits.left(host)
            self.audits.gave_up(host)
            self.passing.left(host)
        self.leases.lost(lost & ~self.somewhere())

    def discard(self, pieces: int) -> list[str]:
        """Nobody keeps these; those who had some of them."""
        had = [host for host, held in self.holders.items() if held & pieces]
        for host in had:
            self._unhold(host, pieces)
        self.leases.lost(pieces)
        return had

    def _unhold(self, host: str, pieces: int | None) -> int:
        before = self.holders.get(host, 0)
        lost = before if pieces is None else before & pieces
        if pieces is None:
            self.holders.pop(host, None)
            self.aside.discard(host)
        else:
            self.holders[host] = before & ~lost
        if lost:
            self.claimed = None
            self.roots.pop(host, None)
        if pieces is None:
            self.asked.pop(host, None)
        if host not in self.banned:
            self._remove(lost)
        self.vouched &= self._somewhere
        return lost

    def _add(self, pieces: int) -> None:
        self._copies.add(pieces)
        self.passing.spread |= pieces & self._somewhere
        self._somewhere |= pieces

    def _remove(self, pieces: int) -> None:
        self._copies.remove(pieces)
        self.passing.spread = self._copies.several()
        self._somewhere = self._copies.held()

    # --- digests ----------------------------------------------------------------------------

    def learn(self, host: str, digests: Iterable[tuple[int, bytes]]) -> tuple[list[int], list[str]]:
        """Enters digests in the record.

        Returns the pieces for which there are now two digests (to be dropped by all and fetched
        again), and the hosts whose word in an earlier dispute was another than what was read since.
        """
        dropped, others = [], []
        for piece, digest in digests:
            if not 0 <= piece < self.task.pieces or len(digest) != DIGEST_SIZE:
                continue
            known = self.record.get(piece)
            if known is None:
                self.record[piece] = digest
                self._root = None
                self._recorded |= 1 << piece
                self.leases.done(1 << piece & self._somewhere)
                others += [h for h, other in self.disputed.pop(piece, []) if other != digest]
            elif known != digest:
                holders = ((h, known) for h, held in self.holders.items() if held >> piece & 1 and h != host)
                self.disputed[piece] = [*itertools.islice(holders, 1), (host, digest)]
                self.forget(piece)
                dropped.append(piece)
                self.contested[piece] += 1
                self.differing |= 1 << piece
        return dropped, others

    def forget(self, piece: int) -> None:
        """Its digest is not known any more, nor who has confirmed it."""
        self.audits.unconfirm(piece)
        if self.record.pop(piece, None) is not None:
            self._recorded &= ~(1 << piece)
            self._root = None

    def ban(self, host: str) -> None:
        if host in self.banned:
            return
        held = self.holders.get(host, 0)
        self._remove(held)
        self.banned.add(host)
        self.claimed = None
        self.aside.discard(host)
        self.leases.drop(host)
        self.leases.lost(held & ~self.somewhere())

    def shun(self, host: str) -> None:
        """Banned for what it did elsewhere; until `pardon`."""
        if host not in self.banned:
            self.ban(host)
            self.shunned.add(host)

    def pardon(self, hosts: Iterable[str] | None = None) -> None:
        """These of the banned count again; None: those that were shunned."""
        for host in list(self.shunned if hosts is None else hosts):
            self.banned.discard(host)
            self.shunned.discard(host)
            if host in self.holders:
                held = self.holders.pop(host)
                self.hold(host, held)

    def expelled(self) -> set[str]:
        """Those that were banned for what they did in this task: they are served nothing of it."""
        return self.banned - self.shunned

    def forget_hosts(self, hosts: AbstractSet[str]) -> None:
        """They do not exist any more."""
        for named in (self.drawn, self.complaints, self.readers):
            for host in hosts & named.keys():
                del named[host]
        for edge in [e for e in self.repaired if not hosts.isdisjoint(e)]:
            del self.repaired[edge]
        self.banned -= hosts
        self.shunned -= hosts
        self.manifest_holders -= hosts

    def drawn_in(self, a: str, b: str) -> int:
        """The number of the decision that drew the edge of two hosts; 0: unknown."""
        return self.repaired.get((a, b)) or self.drawn.get(self.graph.drawer(a, b), 0)

    def root(self) -> bytes | None:
        """The digest over the whole record; None while it has gaps.

        An empty record's is the root that all those have announced who hold everything.
        """
        if len(self.record) < self.task.pieces:
            return None if self.record else self._claimed_root()
        if self._root is None:
            self._root = root_digest([self.record[i] for i in range(self.task.pieces)])
        return self._root

    @property
    def recorded(self) -> int:
        """The pieces whose digest is known."""
        return self._recorded

    def _claimed_root(self) -> bytes | None:
        if self.claimed is None and self.roots:
            roots = {root for host, root in self.roots.items() if host not in self.banned}
            self.claimed = roots.pop() if len(roots) == 1 else None
        return self.claimed

    def gaps(self, most: int) -> tuple[int, ...]:
        """Up to `most` pieces whose digest is not known, and that nobody will read from the origin, or tell."""
        if self.asked:
            return ()
        missing = self.everything & ~self._recorded & ~self.leases.free & ~self.leases.leased
        return tuple(itertools.islice(bitset.members(missing), most))

    def digests(self) -> bytes:
        blank = bytes(DIGEST_SIZE)
        return b"".join(self.record.get(i, blank) for i in range(self.task.pieces))

    def learn_all(self, host: str, digests: bytes, held: int) -> tuple[list[int], list[str]]:
        """The digests of an announcement, 32 bytes a piece."""
        if len(digests) != DIGEST_SIZE * self.task.pieces:
            return [], []
        blank = bytes(DIGEST_SIZE)
        said = ((i, digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE]) for i in bitset.members(held))
        return self.learn(host, ((i, digest) for i, digest in said if digest != blank))


def new_task(
    task: Task,
    *,
    timeout: float,
    everybody: int,
    degree: int,
    origin: str,
    units: Sequence[int] = (),
    audit: float = 0.0,
    answer_timeout: float = 60.0,
    importers: int = 0,
    import_up_to: int | None = None,
) -> TaskState:
    waits = LeaseTimeouts(answer_timeout)
    leases = LeaseTable(task.pieces, free=bitset.full(task.pieces), timeout=timeout, units=units, waits=waits)
    graph = Graph(
        everybody=everybody, degree=degree, importers=importers, import_up_to=import_up_to, seed=task.id
    )
    # Where the origin has no ranges, one piece costs all that lies before it.
    audits = AuditTable(task.pieces, audit if task.ranges else 0.0, timeout)
    return TaskState(task, leases, graph, origin, audits=audits)
