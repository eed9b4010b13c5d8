"""How long a distribution took, over the least time that the rates seen in it allow, and what limited it.

Every byte must enter the cluster from the origin, each zone from outside of it, and each node. So three kinds of
groups bound the time from below: bytes that a group needed, over the highest rate at which any came in. The greatest
of these bounds is the floor. It tells how steadily the links were used; what they might have carried at best, nobody
measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec

Level = Literal["origin", "zone", "node"]
LimitedBy = Literal["origin", "zone", "node", "startup", "other", ""]
"""`origin`: the rate at which it was read. `zone`: what came into a zone. `node`: a node's link, disk or processor.
`startup`: it was over before transfers mattered. `other`: most of the time passed with none of these at its limit, as
when an origin fails for a while. Empty: not known, or nothing had to come."""

NEAR_GREATEST = 0.75
"""The outermost group whose bound is at least so much of the greatest one is what limited: what is behind a thin
link receives no faster than the link gives."""
EXPLAINED_TO = 2.0
"""Times the floor: a distribution that took longer was held up by something else."""
STARTUP_S = 2.0
"""What looking at the source, connecting and the first reports may take."""


class Bound(msgspec.Struct, frozen=True):
    """Seconds that a group of this kind needed at least. `at`: the zone or node that needed more than most, or the
    only node that read the origin; empty: none stands out."""

    level: Level
    seconds: float
    at: str = ""


class Measured(msgspec.Struct, frozen=True):
    """What a scheduler has seen of one source of a distribution; bytes are of all hosts, helpers included."""

    bounds: tuple[Bound, ...] = ()
    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_across: int | None = None
    """Of those from peers: between two zones. None: its nodes are not in two."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One distribution in a few numbers; None: not known."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"use_attribute_docstrings": True}
    """REST answers with this very class, and documents it with what stands below its fields."""

    floor: float | None = None
    """The least seconds that the rates seen in it allow: the greatest of the bytes needed ÷ the highest rate at which
    they came, for reads at the origin, for what entered the slowest zone, and the slowest node."""
    floor_ratio: float | None = None
    """The seconds it took ÷ floor."""
    p99_p50_ratio: float | None = None
    """Of the seconds of the nodes that have everything, where there are two or more."""
    origin_ratio: float | None = None
    """Bytes read at the origin for the content, by whatever host, over its size."""
    cross_zone_share: float | None = None
    """Of the bytes from peers: between two zones."""
    limited_by: LimitedBy = ""
    """`origin` (the rate at which it was read; where few nodes read it, maybe theirs), `zone` (what entered it), `node`
    (its link, disk or processor), `startup` (over before transfers mattered), `other` (more than twice the floor, as
    with an origin that failed for a while); empty: not known, or nothing had to come."""
    limited_at: str = ""
    """The zone, or the id of the node, that was slower than most; or of the only node that read the origin."""


def figures(
    seconds: float,
    size: int,
    nodes: Iterable[tuple[str, float | None]],
    measured: Sequence[Measured | None],
) -> Figures:
    """Of a distribution of one or several sources, `size` bytes in all.

    `nodes`: the seconds of each source on each node; None: the node has not got it. Sources share their links, so the
    floor is the greatest of theirs, each at the rates that it had beside the others.
    """
    known = [each for each in measured if each is not None]
    complete = bool(known) and len(known) == len(measured)
    # The outermost of equals comes first, whichever source it belongs to.
    order: dict[Level, int] = {"origin": 0, "zone": 1, "node": 2}
    bounds = sorted((b for each in known for b in each.bounds), key=lambda b: (order[b.level], -b.seconds))
    floor = max((bound.seconds for bound in bounds), default=None) if complete else None
    moved = sum(each.bytes_origin + each.bytes_peers for each in known)
    limit = _limit(seconds, bounds, floor) if moved and complete else ("", "")
    peers = sum(each.bytes_peers for each in known)
    across = [each.bytes_across for each in known if each.bytes_across is not None]
    return Figures(
        floor=floor,
        floor_ratio=seconds / floor if floor else None,
        p99_p50_ratio=_p99_p50_ratio(nodes),
        origin_ratio=sum(each.bytes_origin for each in known) / size if complete and size else None,
        cross_zone_share=sum(across) / peers if complete and across and peers else None,
        limited_by=limit[0],
        limited_at=limit[1],
    )


def _limit(seconds: float, bounds: Sequence[Bound], floor: float | None) -> tuple[LimitedBy, str]:
    if floor is None:
        return ("startup" if seconds < STARTUP_S else ""), ""
    if seconds > EXPLAINED_TO * floor:
        return ("startup" if seconds - floor < STARTUP_S else "other"), ""
    first = next(bound for bound in bounds if bound.seconds >= NEAR_GREATEST * floor)
    return first.level, first.at


def _p99_p50_ratio(nodes: Iterable[tuple[str, float | None]]) -> float | None:
    """By nearest rank, over the time of each node's last source."""
    last: dict[str, float | None] = {}
    for node, seconds in nodes:
        before = last.get(node, 0.0)
        last[node] = None if seconds is None or before is None else max(seconds, before)
    ranked = sorted(seconds for seconds in last.values() if seconds is not None)
    if len(ranked) < 2:
        return None
    p50, p99 = (ranked[-(-share * len(ranked) // 100) - 1] for share in (50, 99))
    return p99 / p50 if p50 else None
