"""All pieces are here: how the scheduler's record of their digests is awaited, and what is done if it stays incomplete."""

from __future__ import annotations

from enum import Enum, auto

VOUCH_AFTER_S = 1.0
"""For those who read the origin to fill the record; once more after each time."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.005, 0.25
"""Between two questions."""


class Step(Enum):
    ACCEPT = auto()
    """The record has what is here."""
    MEND = auto()
    """The record is whole, and other than what is here."""
    ANNOUNCE = auto()
    """The scheduler does not know that this host had all of it before: one root says so, and no piece is claimed."""
    VOUCH = auto()
    """Either nobody has read those pieces, whatever others say that they have; or whoever did is gone, and what is here
    was checked against the digests of its senders. Tell what is here, and read it once more: where two hosts differ,
    both drop it."""


class RecordWait:
    """`announced`: the scheduler knows of what was here before, or nothing was."""

    def __init__(self, now: float, *, announced: bool = True) -> None:
        self.announced = announced
        self._deadline = now + VOUCH_AFTER_S
        self._pause = FIRST_PAUSE_S

    def answered(self, now: float, *, known: bool, pending: bool, ok: bool) -> tuple[Step, ...]:
        """The scheduler was asked. `known`: it knows the task; `pending`: its record has gaps; `ok`: it agrees."""
        if known and not pending:
            return (Step.ACCEPT if ok else Step.MEND,)
        steps = (Step.ANNOUNCE,) if known and not self.announced else ()
        if now > self._deadline:
            self._deadline = now + VOUCH_AFTER_S
            return (*steps, Step.VOUCH)
        return steps

    def pause(self) -> float:
        """Seconds until it is asked again."""
        pause, self._pause = self._pause, min(MAX_PAUSE_S, 2 * self._pause)
        return pause
