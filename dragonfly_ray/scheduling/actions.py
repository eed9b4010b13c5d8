"""What a scheduler decides to do; whoever holds the core carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dragonfly_ray import messages as m


@dataclass(frozen=True, slots=True)
class Send:
    """Push `message` to a peer: in order for each, until it has acknowledged it or is gone."""

    host: str
    message: m.Message


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a peer, and bring its answer to `answered` (or the question to `unanswered`)."""

    host: str
    message: m.Resolve | m.Prove | m.CompareSamples
    spec_id: str
    run: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Somebody cannot reach this host: find out whether it lives, and tell `probed`."""

    host: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask a host what it carries, and tell `compare`; not while messages for it are unacknowledged."""

    host: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Other schedulers must know that an origin wants patience."""

    origin: str
    seconds: float


Action = Send | Ask | Probe | Compare | Tell
Verdict = Literal["alive", "died", "silent", "gone"]
