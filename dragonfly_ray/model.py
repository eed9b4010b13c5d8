"""What is distributed: sources, manifests, pieces, hosts. Plain values, shared by every part."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

import msgspec
from blake3 import blake3

KIB = 1024
MIB = 1024 * KIB
DIGEST_SIZE = 32
"""Bytes of a piece digest (BLAKE3)."""
DEFAULT_TENANT = "default"
USUAL_LEAF = 256 * KIB
"""The least piece size, but for small single files."""
SHORT_LEAF = 128 * KIB
SHORT_UP_TO = 64 * MIB
"""Bytes of a single file of such short pieces. What every host is just reading from the origin at the end,
nobody can pass on: the smaller the content, the larger a part of it that is."""
MAX_LEAF = 16 * MIB
FEW = 4
"""Files in a piece of the usual size."""
UNTOLD = "resolve:"
"""Versions begin so that the origin does not tell: they name the look that found the content."""
PACK_LIMIT = 64 * KIB
"""Entries smaller than this share one pack file in the store."""


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of `data`, 32 bytes. Releases the GIL for anything longer than 2 KiB."""
    return blake3(data).digest()


def digest_of(file: BinaryIO) -> bytes:
    """As `digest`, of the rest of a file. Raises `OSError`."""
    found = blake3()
    while data := file.read(MIB):
        found.update(data)
    return found.digest()


def leaf_size(size: int) -> int:
    """The piece size for content of `size` bytes: a power of two, about 1,024 pieces a task.

    It follows from the size alone, so that a cache fits whoever asks next.
    """
    wanted = max(1, size // 1024)
    return min(MAX_LEAF, max(USUAL_LEAF, 1 << (wanted - 1).bit_length()))


def file_leaf(size: int) -> int:
    """The piece size for a single file of `size` bytes."""
    return SHORT_LEAF if size <= SHORT_UP_TO else leaf_size(size)


class Credentials(msgspec.Struct, frozen=True):
    """What opens an origin. Held in memory only: its repr shows nothing."""

    storage_options: dict[str, object] = {}
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Credentials(***)" if self.storage_options or self.headers else "Credentials()"


Links = Literal["refuse", "follow", "keep"]
"""What becomes of symlinks in a folder. `refuse`: those that stay inside are links, one that leads out is an error;
`follow`: what they lead to takes their place; `keep`: all are links, wherever they lead."""


class Source(msgspec.Struct, frozen=True):
    """Where a caller points. It exists before anything is resolved; `id` is what it is filed under."""

    url: str
    tenant: str = DEFAULT_TENANT
    tag: str = ""
    application: str = ""
    filtered_query_params: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    node: str = ""
    """For `file://`: the Ray node whose disk is meant. Empty where every node sees the same."""
    server: str = ""
    """What chooses the server or the representation besides the URL, as `identity.server_of` has it."""
    links: Links = "refuse"

    @property
    def id(self) -> str:
        from dragonfly_ray.urls import canonical, chosen_filters

        url = canonical(self.url, self.filtered_query_params)
        parts = [self.tenant, url, self.tag, self.application, self.node]
        if self.links != "refuse":
            parts.append(f"links={self.links}")  # no `server` looks so
        filters = chosen_filters(self.url, self.filtered_query_params)
        if self.server or filters:
            # A parameter that is left out may choose the content, so nobody else's source is without it.
            parts += [self.server, *filters]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


EntryKind = Literal["file", "dir", "symlink"]


class Entry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One name of a manifest. `path` is relative with `/`; a single file's is its base name."""

    path: str
    size: int = 0
    version: str = ""
    """An ETag, a version id or an mtime: whatever tells one content from the next."""
    kind: EntryKind = "file"
    mode: int | None = None
    mtime_ns: int | None = None
    target: str = ""
    """Where a symlink points, relative to its own folder."""
    url: str = ""
    """The entry's own URL where it does not follow from the source's URL and the path."""
    checksum: str = ""
    """`algorithm:hex` of all of it, as the origin offers it. Not part of the fingerprint: it follows the version."""


class Manifest(msgspec.Struct, frozen=True):
    """The ordered entries of a task, and how they are cut.

    A directory is one virtual byte stream, as in a multi-file torrent. `ranges` says whether the
    origin can be read from the middle; where it cannot, an entry is fetched in one stream.
    It is shared and stored, so it holds no secret: no userinfo, no query.
    """

    entries: tuple[Entry, ...]
    directory: bool
    ranges: bool = True
    generation: str = ""
    """Tells contents apart that the origin gives one version, or none: the digest of what was seen whole, or a
    token where hosts have read different bytes under one version. Empty: the versions tell enough."""
    mode: int | None = None
    """Of the directory itself, where the source tells it."""

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(entry.size for entry in self.entries)

    @property
    def leaf(self) -> int:
        """The piece size. Longer where a piece would hold a few files only: it ends where a file does, so much
        of it would be missing, and it costs no less than a whole one."""
        if not self.directory:
            return file_leaf(self.size)
        leaf = leaf_size(self.size)
        files = sum(1 for entry in self.entries if entry.size)
        if leaf > USUAL_LEAF and FEW * self.size > files * leaf >= self.size:
            return min(MAX_LEAF, 2 * leaf)
        return leaf

    @property
    def fingerprint(self) -> str:
        """Changes whenever a name, a size, a version, a mode or the generation does."""
        named: list[object] = [
            (e.path, e.size, e.version, e.kind, e.target, *(() if e.mode is None else (e.mode,)))
            for e in self.entries
        ]
        if self.mode is not None:
            named.append(self.mode)
        if self.generation:
            named.append(self.generation)
        return hashlib.sha256(msgspec.msgpack.encode(named)).hexdigest()

    def marked(self, nonce: str, generation: str = "") -> Manifest:
        """With `nonce` for a version where the origin tells none, so that it is not taken for the same for ever."""
        entries = [
            msgspec.structs.replace(e, version=f"{UNTOLD}{nonce}")
            if e.kind == "file" and e.size and not e.version
            else e
            for e in self.entries
        ]
        return msgspec.structs.replace(self, entries=tuple(entries), generation=generation)

    def task_id(self, source_id: str) -> str:
        """One version of a source: new content at the same URL is a new task."""
        text = f"{source_id}\0{self.fingerprint}\0{self.leaf}"
        return hashlib.sha256(text.encode()).hexdigest()

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> Manifest:
        return msgspec.msgpack.decode(data, type=Manifest)


class Segment(NamedTuple):
    """A stretch of one entry."""

    entry: int
    offset: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the virtual byte stream."""

    index: int
    offset: int
    length: int


class PieceTable:
    """How a manifest is cut: variable lengths, so never compute index x size.

    A file not larger than a piece never straddles two, so it is one request at the origin.
    Empty content has no pieces.
    """

    def __init__(self, sizes: Sequence[int], leaf: int) -> None:
        self.leaf = leaf
        self.starts = [0, *itertools.accumulate(sizes)]
        """Where each entry starts in the stream; one longer than the entries."""
        self.cuts = [0]
        """Where each piece starts; one longer than the pieces."""
        filled = 0
        for start, size in zip(self.starts, sizes, strict=False):
            if filled and filled + min(size, leaf) > leaf:
                self.cuts.append(start)
                filled = 0
            while filled + size > leaf:
                self.cuts.append(self.cuts[-1] + leaf)
                size -= leaf - filled
                filled = 0
            filled += size
        if filled:
            self.cuts.append(self.starts[-1])

    @classmethod
    def of(cls, manifest: Manifest) -> PieceTable:
        return cls([entry.size for entry in manifest.entries], manifest.leaf)

    @property
    def size(self) -> int:
        return self.starts[-1]

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __getitem__(self, index: int) -> Piece:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Piece(index, self.cuts[index], self.cuts[index + 1] - self.cuts[index])

    def __iter__(self) -> Iterator[Piece]:
        return (self[index] for index in range(len(self)))

    def segments(self, index: int) -> list[Segment]:
        """The stretches of entries that piece `index` is made of, empty entries left out."""
        start, end = self.cuts[index], self.cuts[index + 1]
        found = []
        entry = bisect.bisect_right(self.starts, start) - 1
        while start < end:
            stop = min(end, self.starts[entry + 1])
            if stop > start:
                found.append(Segment(entry, start - self.starts[entry], stop - start))
                start = stop
            entry += 1
        return found

    def covering(self, offset: int, length: int) -> range:
        """The pieces that hold the bytes [offset, offset + length) of the stream."""
        if length <= 0 or offset >= self.size:
            return range(0)
        first = bisect.bisect_right(self.cuts, offset) - 1
        last = bisect.bisect_left(self.cuts, min(offset + length, self.size))
        return range(first, last)

    def of_entry(self, entry: int) -> range:
        """The pieces that touch an entry."""
        return self.covering(self.starts[entry], self.starts[entry + 1] - self.starts[entry])


class Endpoint(msgspec.Struct, frozen=True):
    """Where a peer's data port is reached. Not the address it is bound to."""

    address: str
    port: int


@dataclasses.dataclass(frozen=True)
class Identity:
    """What Ray knows of a node."""

    node_id: str
    address: str
    name: str = ""
    seed: bool = False
    idc: str = ""
    location: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


class Host(msgspec.Struct, frozen=True):
    """One Ray node with a peer on it. `id` belongs to the piece store and outlives the Ray node id."""

    id: str
    node_id: str
    endpoints: tuple[Endpoint, ...] = ()
    name: str = ""
    seed: bool = False
    idc: str = ""
    location: str = ""
    labels: dict[str, str] = {}
    incarnation: str = ""
    """New at every start of the peer's process."""
    key: bytes = b""
    """The public key (Ed25519, 32 bytes) of this process: grants are for whoever has the private one."""


class Task(msgspec.Struct, frozen=True):
    """What a peer must know of a task before it has the manifest."""

    id: str
    source_id: str
    url: str
    """For people: without secrets."""
    tenant: str
    manifest_digest: bytes
    manifest_size: int
    size: int
    pieces: int
    entries: int
    directory: bool
    ranges: bool
    validator: Literal["strong", "weak", "none"] = "strong"
    """What the versions of its files prove: see `versions.Validator`."""


def root_digest(digests: Sequence[bytes]) -> bytes:
    """One digest over all pieces' digests, in order."""
    return digest(b"".join(digests))
