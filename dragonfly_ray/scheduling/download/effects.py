"""What the engine wants done, as frozen values: carried out by whoever holds the sockets, outside the lock, in order."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

ConnectionId = Hashable
"""One connection to a parent; a new one for each that is opened."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The piece came from elsewhere: this connection need not send it."""

    connection: ConnectionId
    piece: int


@dataclass(frozen=True, slots=True)
class Close:
    """The host is gone or banned."""

    host: str


@dataclass(frozen=True, slots=True)
class Complain:
    """What came on this connection is not what was promised on it."""

    connection: ConnectionId
    piece: int


@dataclass(frozen=True, slots=True)
class Tell:
    """`pieces`: a bitmap of what is here. `last`: after these there is nothing left to tell."""

    connection: ConnectionId
    pieces: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The scheduler is to hear of it now."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Whoever had nothing to ask for looks again."""


Effect = Cancel | Close | Complain | Tell | Report | Wake
Effects = tuple[Effect, ...]
