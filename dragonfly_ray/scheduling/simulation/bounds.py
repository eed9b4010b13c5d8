"""The least time that a distribution can take: the greatest of what each cut through the network takes.

F is the content's size, N the number of peers, u and d a peer's two rates; a *group* is a zone or a region, joined to
all others by a link of its own, `out` and `into`, behind which all others are as near as each other.

| what has to pass | seconds, at least |
|---|---|
| all of it leaves the origin | F / rate at which it is read |
| all of it reaches the slowest peer | F / min d |
| N copies leave whoever can send | N F / (readers + Σ u) |
| K pieces, one after the other, on equal links from one seed; the last one doubles | (K - 1 + ⌈log₂(N + 1)⌉) x a piece's time |
| all of it enters a group that has no reader in it | F / into |
| all of it leaves the group of the only reader | F / out |
| the other G - 1 groups get a copy each, and each copy leaves some group | (G - 1) F / Σ out |
| the copies of the n peers of a group | n F / (into + Σ u of its peers + readers in it) |

The row of the G - 1 copies is the rule of the ring: where links are equal it is below F / out, so that F / out can be
reached, but only if no group exports a piece twice. A group that drained the reader's link for all the others would make
it (G - 1) F / out. Where the peers themselves read an origin outside of all groups, what they read crosses no link of a
group: then G copies come from the origin or through the groups' links, G F / (origin + Σ into), and so for Σ out.
All but the row of K pieces are bounds of a fluid: they leave out that a piece can be passed on only once it is whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

INFINITE = math.inf


@dataclass(frozen=True)
class Group:
    """Of peers. Rates in bytes a second; `readers`: what its readers of the origin send, that are no peers."""

    peers: int
    up: float
    """Σ u."""
    out: float = INFINITE
    into: float = INFINITE
    readers: float = 0.0
    source: bool = False
    """The origin's bytes appear here: its readers are here, or it is itself."""


def origin(size: float, rate: float) -> float:
    return size / rate


def receiver(size: float, slowest: float) -> float:
    return size / slowest


def copies(size: float, peers: int, senders: float) -> float:
    return peers * size / senders


def pipeline(pieces: int, peers: int, piece_time: float) -> float:
    """Equal links and one seed."""
    return (pieces - 1 + math.ceil(math.log2(peers + 1))) * piece_time


def groups(size: float, groups: Sequence[Group], outside: float = 0.0) -> float:
    """At one level. `outside`: the rate of an origin that is in none of the groups, and that their peers read."""
    if len(groups) < 2:
        return 0.0
    found = [each.peers * size / (each.into + each.up + each.readers + outside) for each in groups]
    out, into = sum(each.out for each in groups), sum(each.into for each in groups)
    if outside:
        return max(*found, len(groups) * size / (outside + out), len(groups) * size / (outside + into))
    sources = [each for each in groups if each.source]
    found += [size / each.into for each in groups if not each.source]
    found.append((len(groups) - len(sources)) * size / out)
    if len(sources) == 1:
        found.append(size / sources[0].out)
    return max(found)
