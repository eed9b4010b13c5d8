"""Messages of peers to schedulers: announcements, reports, outcomes, and the answers to what a scheduler asks."""

from __future__ import annotations

from dragonfly_ray.messages.common import Sample, TaggedStruct
from dragonfly_ray.messages.schedulers import Deliver
from dragonfly_ray.model import Credentials, Host, Manifest, Source, Task
from dragonfly_ray.policy import UrlPolicy

UNPROVED = "unproved"
"""Kind of an `Ended`: the peer holds something of the task, and was told of no proof that its caller may read it."""


class Held(TaggedStruct, frozen=True):
    """What a peer has of a task, when it (re-)announces itself. `have`: a bitmap, piece 0 first."""

    task: Task
    have: bytes
    digests: bytes = b""
    """All piece digests in order (32 bytes each, zero where unknown), where they come at once."""
    root: bytes = b""
    """All of the task is here: the digest over all pieces' digests. `have` is empty then."""


class Announce(TaggedStruct, frozen=True):
    """A page of what a peer has, or a part of it by itself (without `sequence`). The answer is an `Announced`."""

    host: Host
    held: tuple[Held, ...] = ()
    deliveries: tuple[Deliver, ...] = ()
    """Work in hand, on the first page: how a restarted scheduler learns of it."""
    sequence: str = ""
    """Of this announcement, random. With its last page, what was on none of them is not held any more."""
    page: int = 0
    last: bool = True


class Digests(TaggedStruct, frozen=True):
    """What a peer has of a task now, with the digests."""

    host_id: str
    task_id: str
    have: bytes = b""
    digests: bytes = b""
    """As in `Held`."""


class Report(TaggedStruct, frozen=True):
    """Batched news of one task. The answer is a `ReportReply`."""

    host_id: str
    task_id: str
    got: tuple[int, ...] = ()
    """Pieces verified since the last report."""
    origin: tuple[tuple[int, bytes], ...] = ()
    """Those of them that came from the origin, with their digests."""
    lost: tuple[int, ...] = ()
    """Pieces that turned out bad here, and were dropped."""
    bytes_origin: int = 0
    """Totals since the task started here; they grow with bytes, not only with whole pieces."""
    bytes_peers: int = 0
    bytes_cache: int = 0
    bytes_small: int = 0
    """Through the object store or inline."""
    claim: int = 0
    """How many more pieces of the origin the peer could start now."""
    rate: float = 0.0
    """Bytes a second from the origin, measured."""
    released: tuple[int, ...] = ()
    """Leases given back unread."""
    bad: tuple[str, ...] = ()
    """Host ids that sent bytes which did not match their digest."""
    unreachable: tuple[str, ...] = ()
    urgent: tuple[int, ...] = ()
    """Pieces that somebody is reading: lease these first."""
    disputed: tuple[int, ...] = ()
    """Pieces of which neighbours say different digests: what does the record say?"""
    misled: tuple[tuple[str, int], ...] = ()
    """(host id, piece): it says of this piece what the record denies. It may have been misled itself."""
    parents: tuple[tuple[str, int], ...] = ()
    """Host ids of parents, and the bytes of whole pieces from each since they were last told."""
    uploads: int = 0
    """Children that this peer is sending to now, of whatever task."""
    slots: int = 0
    """How many it can send to at a time; 0: unknown."""
    audited: tuple[tuple[int, bytes], ...] = ()
    """Pieces of `ReportReply.audit`, with the digests of what the origin gave."""
    unaudited: tuple[int, ...] = ()
    """Those that could not be read."""
    bytes_audit: int = 0
    """Read at the origin only to be compared: part of no other number."""
    carried: tuple[tuple[str, str], ...] = ()
    """(spec id, run) of the deliveries of the task that have no outcome here yet."""
    grant_refused: bool = False
    """A parent does not take the grant: another one is needed."""
    awaiting: float = 0.0
    """Seconds that the oldest of its requests has waited for the origin's answer to begin; 0: none waits."""
    answer: float = 0.0
    """Seconds that the origin's answers take to begin, measured; 0: unknown."""


class Throttled(TaggedStruct, frozen=True):
    """The origin asked one peer for patience; everybody shall be patient."""

    host_id: str
    task_id: str
    retry_after: float


class OriginFailed(TaggedStruct, frozen=True):
    """A lease that could not be read, for good or for now (`final`)."""

    host_id: str
    task_id: str
    kind: str
    message: str
    pieces: tuple[int, ...]
    final: bool
    spec_id: str = ""
    """The distribution with whose credentials it was read; empty: unknown."""


class Verify(TaggedStruct, frozen=True):
    """All pieces are here: do their digests agree with the record? The answer is a `Verified`."""

    host_id: str
    task_id: str
    root: bytes
    places: tuple[tuple[str, str], ...] = ()
    """(spec id, place) of outputs that are due, where other hosts may see the same folder."""
    report: Report | None = None
    """What the scheduler must know for it, heard before it."""


class Ended(TaggedStruct, frozen=True):
    """A delivery ended on this node."""

    host_id: str
    spec_id: str
    task_id: str
    ok: bool
    path: str = ""
    size: int = 0
    seconds: float = 0.0
    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_cache: int = 0
    bytes_small: int = 0
    merged: bool = False
    kind: str = ""
    message: str = ""
    place: str = ""
    """Of the output, as in `Verify`."""
    stamp: str = ""
    """Of the output that this host wrote there."""
    written_by: str = ""
    """Node id of another host that wrote the output for this one, too."""
    run: str = ""
    """Of the spec that was delivered."""
    bytes_audit: int = 0
    dropped: bool = False
    """Nothing of the task is kept there: it is not what the origin offers."""
    report: Report | None = None
    """What was left to say of the task before this."""


class Carrying(TaggedStruct, frozen=True):
    """A peer's answer to its scheduler: all that it carries. What it does not name is delivered again."""

    host_id: str
    incarnation: str
    carried: tuple[tuple[str, str], ...] = ()
    """(spec id, run) of deliveries without an outcome, or whose outcome has not been heard yet."""


class Evicted(TaggedStruct, frozen=True):
    """The peer has dropped a task from its store."""

    host_id: str
    task_id: str


class Stat(TaggedStruct, frozen=True):
    """Files of a folder whose listing tells too little, for the peer `host` to look at.

    From whoever resolves it to its scheduler, which passes it on. The answer is a `StatReply`.
    """

    host: str
    source: Source
    credentials: Credentials = Credentials()
    paths: tuple[str, ...] = ()
    connections: int = 0
    """That may be opened to the origin; 0: as configured."""
    rate: float = 0.0
    """Requests a second; 0: no limit."""
    policy: UrlPolicy | None = None
    spec_id: str = ""
    part: Manifest | None = None
    """Files to read `spans` of instead."""
    spans: tuple[tuple[int, int, int], ...] = ()
    """(entry of `part`, offset, length)"""
    run: str = ""
    """Of the distribution."""


class StatReply(TaggedStruct, frozen=True):
    """One of each for every path, in order; or an error."""

    sizes: tuple[int, ...] = ()
    versions: tuple[str, ...] = ()
    ranges: tuple[bool, ...] = ()
    """Whether it can be read from the middle."""
    kind: str = ""
    message: str = ""
    digests: tuple[bytes, ...] = ()
    """Of the spans."""
    retry_after: float = 0.0
    """Seconds of the origin's Retry-After."""
    checksums: tuple[str, ...] = ()
    """Of whole files, where the origin offers any; as `Entry` has them."""


class StatPending(TaggedStruct, frozen=True):
    """A look at an origin goes on: it has answered since the last of these, or it fails, and is waited for."""

    host_id: str
    spec_id: str
    run: str
    message: str = ""
    """What it waits for, for people; empty: nothing."""
    retry_after: float = 0.0
    """Seconds of the origin's Retry-After."""


class Proved(TaggedStruct, frozen=True):
    """The origin gave all that was asked for, and what the prover holds itself is the same; or an error."""

    task_id: str
    samples: tuple[Sample, ...] = ()
    """What the prover does not hold, for somebody else to compare."""
    kind: str = ""
    message: str = ""
    differs: bool = False
    """The version is as ever, and its bytes are others than those that the prover holds."""
    retry_after: float = 0.0
    """With an error, as in `Resolved`."""


class SamplesCompared(TaggedStruct, frozen=True):
    """Entries whose bytes are others here, and those that are not here."""

    host: str
    task_id: str
    wrong: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


class Resolved(TaggedStruct, frozen=True):
    task: Task | None = None
    units: tuple[int, ...] = ()
    """Where the origin has no ranges: the first piece of each stretch that one stream must fetch."""
    manifest: bytes = b""
    """The manifest, where it is short."""
    content: bytes = b""
    """The whole content, where it is small."""
    digests: bytes = b""
    beside: bool = False
    """The content comes beside the message, as an object in Ray's store."""
    kind: str = ""
    message: str = ""
    requests: tuple[int, ...] = ()
    """How many requests each piece costs at the origin; empty: one each."""
    covered: bytes = b""
    """A bitmap of the pieces whose files the origin offers checksums of that cannot be made up; empty: none."""
    whole: bool = False
    """All of the content was read with these credentials, and is here or in the resolver's store."""
    retry_after: float = 0.0
    """With an error: seconds of the origin's Retry-After."""
    failing: float = 0.0
    """With an error: seconds for which the origin has failed already."""
    final: bool = False
    """With an error: asking again is of no use."""
