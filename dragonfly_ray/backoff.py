"""When an origin that failed is asked again: which failures pass, and how long the waits between tries are."""

from __future__ import annotations

from dragonfly_ray.errors import SourceBusyError, SourceTruncatedError, SourceUnreachableError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 2.0
DEFAULT_RETRY_AFTER_S = 1.0
"""For an origin that wants to be left alone without saying for how long."""
PASSING = (SourceBusyError, SourceUnreachableError, SourceTruncatedError)
"""What waiting may cure."""
PASSING_KINDS = frozenset(error.kind for error in PASSING)


def next_pause(pause: float) -> float:
    """Seconds, twice as long each time; after 0.0 the first."""
    return min(LONGEST_PAUSE_S, 2 * pause or FIRST_PAUSE_S)
