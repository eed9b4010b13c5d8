"""When schedules run: cron in its time zone, clocks that change, intervals."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve.jobs.timing import Timing

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def cron(text: str, timezone: str = "UTC") -> Timing:
    return Timing(text, None, timezone, ANCHOR)


def utc(*at: int) -> datetime:
    return datetime(*at, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_local_time_counts() -> None:
    daily = cron("30 6 * * *", "Europe/Berlin")
    assert daily.next(utc(2026, 1, 10)) == utc(2026, 1, 10, 5, 30)
    assert daily.next(utc(2026, 7, 10)) == utc(2026, 7, 10, 4, 30)


def test_an_hour_that_is_left_out_runs_once_all_the_same() -> None:
    """On 29 March 2026 clocks in Berlin go from 2 to 3."""
    daily = cron("30 2 * * *", "Europe/Berlin")
    assert daily.first(utc(2026, 3, 28), 3) == [
        utc(2026, 3, 28, 1, 30),
        utc(2026, 3, 29, 1, 0),
        utc(2026, 3, 30, 0, 30),
    ]


def test_an_hour_that_comes_twice_runs_once() -> None:
    """On 25 October 2026 clocks in Berlin go from 3 to 2."""
    daily = cron("45 2 * * *", "Europe/Berlin")
    first = utc(2026, 10, 25, 0, 45)
    assert daily.first(utc(2026, 10, 24, 12), 2) == [first, utc(2026, 10, 26, 1, 45)]
    # Asked within the second of the two hours, when the local time is before 2:45 again.
    assert daily.next(utc(2026, 10, 25, 1, 10)) == utc(2026, 10, 26, 1, 45)


def test_every_quarter_of_an_hour_goes_on_while_clocks_change() -> None:
    quarters = cron("*/15 * * * *", "Europe/Berlin").first(utc(2026, 10, 24, 23, 50), 12)
    assert [b - a for a, b in itertools.pairwise(quarters)] == [timedelta(minutes=15)] * 11


def test_intervals_are_counted_from_their_anchor() -> None:
    every = Timing("", 90, "UTC", ANCHOR)
    assert every.next(ANCHOR) == ANCHOR + timedelta(seconds=90)
    assert every.next(ANCHOR + timedelta(seconds=900)) == ANCHOR + timedelta(seconds=990)
    assert every.next(ANCHOR - timedelta(days=1)) == ANCHOR + timedelta(seconds=90)


@pytest.mark.parametrize(
    "timing",
    [
        cron("* * * *"),
        cron("0 * * * * *"),
        cron("61 * * * *"),
        cron("0 0 30 2 *"),
        cron("0 0 * * *", "Mars/Olympus"),
        cron("0 0 * * *", "../../etc/passwd"),
        cron("0 0 * * *", ""),
        Timing("0 0 * * *", 60, "UTC", ANCHOR),
        Timing("", None, "UTC", ANCHOR),
    ],
)
def test_what_never_runs_is_refused(timing: Timing) -> None:
    with pytest.raises(InvalidRequestError):
        timing.check()
