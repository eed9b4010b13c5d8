"""Messages of submitters: what a driver, the manager or a peer hands to a scheduler."""

from __future__ import annotations

from dragonfly_ray.messages.common import TaggedStruct
from dragonfly_ray.model import Source
from dragonfly_ray.policy import UrlPolicy


class DistributionSpec(TaggedStruct, frozen=True):
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
