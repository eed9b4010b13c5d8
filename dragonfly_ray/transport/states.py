"""Which frame may come when: one table for the child's end of a connection, and one for the parent's.

A transition is (what is done, type of the frame) -> the state that follows. What is in no table is a protocol error: of
this end where it sends, of the other where it is received.

A child that connects::

    CONNECTED -Challenge-> CHALLENGED =Hello=> IDENTIFIED -Accepted-> ACCEPTED -Welcome-> GREETED -> OPEN
                                               IDENTIFIED -Refused-> CLOSED

`GREETED` ends with the last digest of the greeting, which its frames do not say themselves. The parent's states have
the same names for the same points of the conversation, with sent and received exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from dragonfly_ray.errors import LocalProtocolError, RemoteProtocolError
from dragonfly_ray.transport import protocol as p

MAX_UNKNOWN_FRAMES = 16
"""Of types that are not known, on one connection: more is noise."""

Done = Literal["sent", "received"]
Step = tuple[Done, type]


class State(Enum):
    CONNECTED = "connected"
    CHALLENGED = "challenged"
    IDENTIFIED = "identified"
    ACCEPTED = "accepted"
    GREETED = "greeted"
    OPEN = "open"
    CLOSED = "closed"


Table = Mapping[State, Mapping[Step, State]]

FROM_CHILD = (p.Request, p.Cancel, p.Have, p.Corrupt, p.ManifestRequest, p.Ping, p.Unsupported)
"""What a child says once it is greeted."""
FROM_PARENT = (p.DataHeader, p.Busy, p.Missing, p.Pong, p.ManifestData, p.Unsupported)
"""What a parent says once it has greeted."""


def _both(sent: tuple[type, ...], received: tuple[type, ...]) -> dict[Step, State]:
    """All of these, while the connection stays open."""
    steps: dict[Step, State] = {("sent", each): State.OPEN for each in sent}
    return steps | {("received", each): State.OPEN for each in received}


CHILD: Table = {
    State.CONNECTED: {("received", p.Challenge): State.CHALLENGED},
    State.CHALLENGED: {("sent", p.Hello): State.IDENTIFIED},
    State.IDENTIFIED: {
        ("received", p.Accepted): State.ACCEPTED,
        ("received", p.Refused): State.CLOSED,
    },
    State.ACCEPTED: {("received", p.Welcome): State.GREETED},
    State.GREETED: {("received", p.Digests): State.GREETED},
    State.OPEN: _both(FROM_CHILD, FROM_PARENT),
    State.CLOSED: {},
}
PARENT: Table = {
    State.CONNECTED: {("sent", p.Challenge): State.CHALLENGED},
    State.CHALLENGED: {("received", p.Hello): State.IDENTIFIED},
    State.IDENTIFIED: {("sent", p.Accepted): State.ACCEPTED, ("sent", p.Refused): State.CLOSED},
    State.ACCEPTED: {("sent", p.Welcome): State.GREETED},
    State.GREETED: {("sent", p.Digests): State.GREETED},
    State.OPEN: _both(FROM_PARENT, FROM_CHILD),
    State.CLOSED: {},
}


class Machine:
    """Where one end of a connection is. Not thread-safe until it is open; after that, its state stays."""

    def __init__(self, table: Table, name: str = "") -> None:
        """`name`: of the other end, for errors."""
        self._table = table
        self._where = f"{name}: " if name else ""
        self.state = State.CONNECTED

    def sent(self, frame: type) -> None:
        """Before it is sent. Raises `LocalProtocolError`."""
        following = self._table[self.state].get(("sent", frame))
        if following is None:
            raise LocalProtocolError(
                f"{self._where}{frame.__name__} cannot be sent in state {self.state.value}"
            )
        self.state = following

    def received(self, frame: type) -> None:
        """Raises `RemoteProtocolError`."""
        following = self._table[self.state].get(("received", frame))
        if following is None:
            raise RemoteProtocolError(f"{self._where}unexpected {frame.__name__} in state {self.state.value}")
        self.state = following

    def greeted(self) -> None:
        """The greeting is complete."""
        assert self.state is State.GREETED
        self.state = State.OPEN
