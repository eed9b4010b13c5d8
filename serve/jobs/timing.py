"""When a schedule runs: by cron expression in a time zone, or every so many seconds. No clock of its own."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice

from cronsim import CronSim, CronSimError

from dragonfly_ray.errors import InvalidRequestError

FIELDS = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """`cron` or `interval_seconds`. Intervals are counted from `anchor`."""

    cron: str
    interval_seconds: int | None
    timezone: str
    anchor: datetime

    def check(self) -> None:
        """Raises `InvalidRequestError` for one that would never run, or cannot be read."""
        if bool(self.cron) == (self.interval_seconds is not None):
            raise InvalidRequestError("schedule: give either cron or interval_seconds")
        zone = self._zone()
        if not self.cron:
            return
        if len(self.cron.split()) != FIELDS:
            raise InvalidRequestError(
                f"cron {self.cron!r}: must have five fields: minute, hour, day, month, weekday"
            )
        try:
            CronSim(self.cron, self.anchor.astimezone(zone))
        except CronSimError as error:
            raise InvalidRequestError(f"cron {self.cron!r}: {error}") from None
        if self.next(self.anchor) is None:
            raise InvalidRequestError(f"cron {self.cron!r}: never fires, no such date")

    def next(self, after: datetime) -> datetime | None:
        """The first time later than `after`; what was missed before it, is left out."""
        return next(self.upcoming(after), None)

    def upcoming(self, after: datetime) -> Iterator[datetime]:
        return self._by_cron(after) if self.cron else self._by_interval(after)

    def first(self, after: datetime, count: int) -> list[datetime]:
        return list(islice(self.upcoming(after), count))

    def _by_cron(self, after: datetime) -> Iterator[datetime]:
        # In the hour that clocks go through twice, the local time alone would lead back.
        for at in CronSim(self.cron, after.astimezone(self._zone())):
            found = at.astimezone(UTC)
            if found > after:
                yield found

    def _by_interval(self, after: datetime) -> Iterator[datetime]:
        every = timedelta(seconds=self.interval_seconds or 1)
        passed = max(0, (after - self.anchor) // every)
        while True:
            passed += 1
            if (at := self.anchor + passed * every) > after:
                yield at

    def _zone(self) -> tzinfo:
        try:
            return UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidRequestError(
                f"timezone {self.timezone!r}: unknown timezone; use an IANA name such as Europe/Berlin"
            ) from None
