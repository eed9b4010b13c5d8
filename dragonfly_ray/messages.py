"""What peers and schedulers say to each other, in versioned messages.

They travel as MessagePack, so that an actor call carries them today and a socket can tomorrow.
Unknown fields are ignored by the reader; a field is only ever added, with a default. A message is stamped with the
first version that has it, so that a node that is one version behind reads all that it knows. What it does not know it
answers with `Unsupported`.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from dragonfly_ray.model import Credentials, Host, Manifest, Source, Task
from dragonfly_ray.policy import UrlPolicy

VERSION = 2
LEAST_VERSION = 1
MAX_NAME = 64
"""Characters of the name of a message that is not known."""

UNPROVED = "unproved"
"""Kind of an `Ended`: the peer holds something of the task, and was told of no proof that its caller may read it."""

SUPERSEDED = "superseded"
"""Kind of a `Cancel`: the content is another by now, and its delivery follows."""


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    pass


# --- from whoever submits -------------------------------------------------------------------


class DistributionSpec(_Message, frozen=True):
    """One source for a set of nodes: what `submit` hands to a scheduler."""

    id: str
    source: Source
    targets: tuple[str, ...]
    """Ray node ids."""
    dest: str = ""
    """Absolute path on the node; empty: the content stays in the store."""
    digest: str = ""
    """`algorithm:hex` of the whole content."""
    link: bool = True
    detached: bool = False
    seeds_only: bool = False
    small: bool = True
    """Whether small content may travel in messages and through the object store."""
    policy: UrlPolicy | None = None
    """What may be fetched for it; None: anything."""
    dest_roots: tuple[str, ...] | None = None
    """`dest` must lie below one of them, with no link on the way; None: below the peer's own."""
    run: str = ""
    """Tells one run of this id from the next: random, made by whoever submits. See `SchedulerCore.submit`."""
    umask: int | None = None
    """Of the caller, where it asks for an output on its own node; None: each peer's own."""
    beside: tuple[str, ...] = ()
    """Names of the distribution's other sources that differ from this one's in case or composition alone, where `dest`
    has `{name}` in it: outputs of their own where the file system tells them apart."""


# --- peer to scheduler ----------------------------------------------------------------------


class Held(_Message, frozen=True):
    """What a peer has of a task, when it (re-)announces itself. `have`: a bitmap, piece 0 first."""

    task: Task
    have: bytes
    digests: bytes = b""
    """All piece digests in order (32 bytes each, zero where unknown), where they come at once."""
    root: bytes = b""
    """All of the task is here: the digest over all pieces' digests. `have` is empty then."""


class Announce(_Message, frozen=True):
    """A page of what a peer has, or a part of it by itself (without `sequence`). The answer is an `Announced`."""

    host: Host
    held: tuple[Held, ...] = ()
    deliveries: tuple[Deliver, ...] = ()
    """Work in hand, on the first page: how a restarted scheduler learns of it."""
    sequence: str = ""
    """Of this announcement, random. With its last page, what was on none of them is not held any more."""
    page: int = 0
    last: bool = True


class Announced(_Message, frozen=True):
    known: bool = True
    """False: the pages before are not known (any more); begin again."""
    taken: str = ""
    """The node of another live peer that has this host id: nothing was heard, take another id."""


class TellDigests(_Message, frozen=True):
    """The record lacks digests of a task that a peer has announced. It answers with `Digests`."""

    task_id: str


class Digests(_Message, frozen=True):
    """What a peer has of a task now, with the digests."""

    host_id: str
    task_id: str
    have: bytes = b""
    digests: bytes = b""
    """As in `Held`."""


class Report(_Message, frozen=True):
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


class Throttled(_Message, frozen=True):
    """The origin asked one peer for patience; everybody shall be patient."""

    host_id: str
    task_id: str
    retry_after: float


class OriginFailed(_Message, frozen=True):
    """A lease that could not be read, for good or for now (`final`)."""

    host_id: str
    task_id: str
    kind: str
    message: str
    pieces: tuple[int, ...]
    final: bool
    spec_id: str = ""
    """The distribution with whose credentials it was read; empty: unknown."""


class Verify(_Message, frozen=True):
    """All pieces are here: do their digests agree with the record? The answer is a `Verified`."""

    host_id: str
    task_id: str
    root: bytes
    places: tuple[tuple[str, str], ...] = ()
    """(spec id, place) of outputs that are due, where other hosts may see the same folder."""
    report: Report | None = None
    """What the scheduler must know for it, heard before it."""


class Ended(_Message, frozen=True):
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


class Carrying(_Message, frozen=True):
    """A peer's answer to its scheduler: all that it carries. What it does not name is delivered again."""

    host_id: str
    incarnation: str
    carried: tuple[tuple[str, str], ...] = ()
    """(spec id, run) of deliveries without an outcome, or whose outcome has not been heard yet."""


class Evicted(_Message, frozen=True):
    """The peer has dropped a task from its store."""

    host_id: str
    task_id: str


class Stat(_Message, frozen=True):
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


class StatReply(_Message, frozen=True):
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


class StatPending(_Message, frozen=True):
    """A look at an origin goes on: it has answered since the last of these, or it fails, and is waited for."""

    host_id: str
    spec_id: str
    run: str
    message: str = ""
    """What it waits for, for people; empty: nothing."""
    retry_after: float = 0.0
    """Seconds of the origin's Retry-After."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A few bytes of one entry as the origin gives them."""

    entry: int
    piece: int
    offset: int
    """In the piece."""
    length: int
    digest: bytes


# --- scheduler to peer ----------------------------------------------------------------------


class Neighbour(_Message, frozen=True):
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


class Resolve(_Message, frozen=True):
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


class Prove(_Message, frozen=True):
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


class Proved(_Message, frozen=True):
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


class CompareSamples(_Message, frozen=True):
    """Are these bytes those that the peer `host` holds? The answer is a `SamplesCompared`."""

    host: str
    task_id: str
    samples: tuple[Sample, ...] = ()


class SamplesCompared(_Message, frozen=True):
    """Entries whose bytes are others here, and those that are not here."""

    host: str
    task_id: str
    wrong: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


class Resolved(_Message, frozen=True):
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


class Deliver(_Message, frozen=True):
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


class ReportReply(_Message, frozen=True):
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


class TaskUpdate(_Message, frozen=True):
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


class WrittenElsewhere(_Message, frozen=True):
    """Another host writes this output. `stamp`: of the output, once it is whole."""

    spec_id: str
    node_id: str
    stamp: str = ""
    merged: bool = False


class Verified(_Message, frozen=True):
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


class Cancel(_Message, frozen=True):
    spec_id: str
    kind: str = "cancelled"
    message: str = "cancelled"
    run: str = ""
    """Of the distribution: looks at the origin for another run go on. Empty: any."""


class Unsupported(_Message, frozen=True):
    """The answer to a message that is not known to whoever got it, or not meant for it."""

    name: str
    version: int = 0
    """Of that message."""
    least: int = LEAST_VERSION
    most: int = VERSION
    """The versions that are read."""


Message = (
    DistributionSpec | Announce | Report | Throttled | OriginFailed | Verify | Ended | Evicted | Resolve | Resolved | Deliver
    | ReportReply | TaskUpdate | Verified | Cancel | Stat | StatReply | Carrying | Prove | Proved
    | CompareSamples | SamplesCompared | Announced | TellDigests | Digests | StatPending | Unsupported
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_envelopes = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_tags = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_SINCE: dict[type, int] = {Unsupported: 2}
"""Of all others: the least version."""
KNOWN = frozenset(cls.__name__ for cls in get_args(Message))


class UnsupportedMessageError(ValueError):
    """A message that is not known here. `answer`: what whoever sent it shall hear."""

    def __init__(self, answer: Unsupported) -> None:
        super().__init__(
            f"unsupported message {answer.name} of version {answer.version} "
            f"(supported versions: {answer.least}-{answer.most})"
        )
        self.answer = answer


def encode(message: Message) -> bytes:
    return _encoder.encode((_SINCE.get(type(message), LEAST_VERSION), message))


def decode(data: bytes) -> Message:
    """Raises `UnsupportedMessageError` for a message that is not known here, another `ValueError` for what is none."""
    version, body = _envelopes.decode(data)
    try:
        name = msgspec.msgpack.decode(_tags.decode(body).get("type", b""), type=str)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a message: {error}") from None
    if name not in KNOWN or not LEAST_VERSION <= version <= VERSION:
        raise UnsupportedMessageError(Unsupported(name[:MAX_NAME], version))
    return _decoder.decode(body)


def decode_or_refuse(data: bytes) -> Message | Unsupported:
    """As `decode`; of a message that is not known here, what to answer."""
    try:
        return decode(data)
    except UnsupportedMessageError as error:
        return error.answer
