"""Messages of schedulers to peers: deliveries, updates, questions about an origin, and the replies to reports."""

from __future__ import annotations

from dragonfly_ray.messages.common import Sample, TaggedStruct
from dragonfly_ray.messages.submitters import DistributionSpec
from dragonfly_ray.model import Credentials, Host, Source, Task
from dragonfly_ray.policy import UrlPolicy

SUPERSEDED = "superseded"
"""Kind of a `Cancel`: the content is another by now, and its delivery follows."""


class Neighbour(TaggedStruct, frozen=True):
    host: Host
    complete: bool = False
    """It only gives: it will not connect back."""
    manifest: bool = False
    """It has the manifest."""
    silent: bool = False
    """It is told what is here, and asked for nothing."""
    importer: bool = False
    """It is one of those that bring pieces into their zone. The receiver itself may be named, too."""
    sole: bool = False
    """It alone reads the origin, and tells of a fresh piece whoever is to fetch it, in whatever zone."""


class Announced(TaggedStruct, frozen=True):
    known: bool = True
    """False: the pages before are not known (any more); begin again."""
    taken: str = ""
    """The node of another live peer that has this host id: nothing was heard, take another id."""


class TellDigests(TaggedStruct, frozen=True):
    """The record lacks digests of a task that a peer has announced. It answers with `Digests`."""

    task_id: str


class Resolve(TaggedStruct, frozen=True):
    """Look at the origin once, for everybody. The answer is a `Resolved`."""

    source: Source
    credentials: Credentials = Credentials()
    small: bool = True
    """Whether to bring the content along where it is small."""
    nonce: str = ""
    """The version of whatever has none."""
    helpers: tuple[str, ...] = ()
    """Host ids that may look at files of a folder, too, with `Stat`."""
    connections: int = 0
    """That the resolver, and each helper, may open to the origin; 0: as configured."""
    rate: float = 0.0
    """Requests a second of each of them; 0: no limit."""
    policy: UrlPolicy | None = None
    """What may be asked for it; None: anything."""
    spec_id: str = ""
    """A `Cancel` of it ends the look."""
    run: str = ""
    """Of the distribution."""
    generation: str = ""
    """As `Manifest` has it: hosts have read different bytes of the source under one version."""


class Prove(TaggedStruct, frozen=True):
    """Read a little of each file of a task that is held already, with the credentials of one distribution.

    The answer is a `Proved`.
    """

    source: Source
    credentials: Credentials
    task: Task
    manifest: bytes = b""
    """Where it is short; otherwise whoever resolved it has it."""
    held: bytes = b""
    """A bitmap of the pieces that anybody holds; empty: all."""
    helpers: tuple[str, ...] = ()
    """Host ids that may read some of it, too, with `Stat`."""
    connections: int = 0
    rate: float = 0.0
    policy: UrlPolicy | None = None
    spec_id: str = ""
    """A `Cancel` of it ends the proof."""
    run: str = ""
    """Of the distribution."""


class CompareSamples(TaggedStruct, frozen=True):
    """Are these bytes those that the peer `host` holds? The answer is a `SamplesCompared`."""

    host: str
    task_id: str
    samples: tuple[Sample, ...] = ()


class Deliver(TaggedStruct, frozen=True):
    """Get a task, and put it where the spec says."""

    spec: DistributionSpec
    task: Task
    credentials: Credentials = Credentials()
    manifest: bytes = b""
    """The manifest itself where it is short; otherwise neighbours have it."""
    neighbours: tuple[Neighbour, ...] = ()
    grant: bytes = b""
    may_claim: bool = True
    sole: bool = False
    """Nobody else may: fresh pieces are given out once before any is twice."""
    helper: bool = False
    """The node is no target: it takes part, and writes no output."""
    lease: tuple[int, ...] = ()
    content: bytes = b""
    """The whole content, where it is small."""
    digests: bytes = b""
    """The pieces' digests, where the content is small."""
    beside: bool = False
    """The content comes beside the message, as an object in Ray's store."""
    interval: float = 0.1
    not_before: float = 0.0
    connections: int = 0
    """To the origin, at most; 0: as before, or as configured."""
    proved: bool = True
    """False: whoever wants it reads it at the origin, and may not have what is here from others."""
    banned: tuple[str, ...] = ()
    """Host ids that are served nothing of this task."""
    importer: bool = False
    """The host is one of those that bring pieces into their zone."""
    left: int = -1
    """Pieces that nobody has a lease of yet; -1: unknown."""


class ReportReply(TaggedStruct, frozen=True):
    known: bool = True
    """False: the scheduler is new and does not know the task; announce again."""
    lease: tuple[int, ...] = ()
    interval: float = 0.1
    left: int = -1
    """Pieces that nobody has a lease of yet; -1: unknown."""
    usual: float = 0.0
    """Seconds from a lease until others have the piece, where it goes quickly; 0: unknown."""
    not_before: float = 0.0
    """Seconds to wait before the origin is asked again."""
    record: tuple[tuple[int, bytes], ...] = ()
    """The digests of disputed pieces, as far as the record has them."""
    connections: int = 0
    """To the origin, at most; 0: as before."""
    grant: bytes = b""
    """A newer one; empty: the last still holds for long enough."""
    audit: tuple[int, ...] = ()
    """Pieces to read at the origin, only to tell their digests: another host has read them."""


class TaskUpdate(TaggedStruct, frozen=True):
    """Pushed when it happens."""

    task_id: str
    joined: tuple[Neighbour, ...] = ()
    left: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    revoked: tuple[int, ...] = ()
    not_before: float = 0.0
    may_claim: bool | None = None
    discard: tuple[int, ...] = ()
    """Pieces for which two digests are known: drop them."""
    record: tuple[tuple[int, bytes], ...] = ()
    """What the record says of pieces that somebody says were wrong here."""
    connections: int = 0
    """To the origin, at most; 0: as before."""
    settled: bool = False
    """An output that another host was at is written, or is anybody's: ask again."""
    grant: bytes = b""
    """As in `ReportReply`."""


class WrittenElsewhere(TaggedStruct, frozen=True):
    """Another host writes this output. `stamp`: of the output, once it is whole."""

    spec_id: str
    node_id: str
    stamp: str = ""
    merged: bool = False


class Verified(TaggedStruct, frozen=True):
    known: bool = True
    ok: bool = True
    pending: bool = False
    """The record has gaps still: ask again in a moment."""
    gaps: tuple[int, ...] = ()
    """Some of them. Whoever read these pieces may be gone: tell their digests if it takes long."""
    digests: bytes = b""
    """The record, where it does not agree."""
    audit: tuple[int, ...] = ()
    """As in `ReportReply`: what is pending is the comparison of these."""
    elsewhere: tuple[WrittenElsewhere, ...] = ()
    """Of the places in the question; what is not named here is to be written by whoever asks."""
    reply: ReportReply | None = None
    """To the report in the question."""


class Cancel(TaggedStruct, frozen=True):
    spec_id: str
    kind: str = "cancelled"
    message: str = "cancelled"
    run: str = ""
    """Of the distribution: looks at the origin for another run go on. Empty: any."""
