"""What one host has to tell its scheduler about a task, until it is told."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

FED_S = 1.0
"""For so long the bytes of each parent are gathered before they are told."""


@dataclass(slots=True)
class Pending:
    """News in the order in which they came; the fields are those of `messages.Report`."""

    got: list[int] = field(default_factory=list)
    origin: list[tuple[int, bytes]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    misled: list[tuple[str, int]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    audited: list[tuple[int, bytes]] = field(default_factory=list)
    unaudited: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    @property
    def pressing(self) -> bool:
        """Whether others wait for some of it: for more than to know what is here."""
        return bool(
            self.lost
            or self.released
            or self.bad
            or self.misled
            or self.unreachable
            or self.audited
            or self.unaudited
        )

    def before(self, later: Pending) -> Pending:
        """Both, this one first."""
        return Pending(*([*getattr(self, each.name), *getattr(later, each.name)] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Taken:
    """What one report tells. `fed`: (parent, bytes of whole pieces since they were last told)."""

    pending: Pending
    fed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ReportPart:
    """What the engine puts into a report. The fields are those of `messages.Report`."""

    taken: Taken
    disputed: tuple[int, ...]
    urgent: tuple[int, ...]
    claim: int
    rate: float


class ReportBuffer:
    """Nothing is lost: what could not be told is put back before what came since."""

    def __init__(self, now: float = 0.0) -> None:
        self.news = Pending()
        self._fed: dict[str, int] = {}
        self._told = now
        """When it last said from whom the bytes came."""

    def __bool__(self) -> bool:
        return bool(self.news or self._fed)

    def feeds(self, parent: str, nbytes: int) -> None:
        """A whole piece came from `parent`."""
        self._fed[parent] = self._fed.get(parent, 0) + nbytes

    def unreachable(self, host: str) -> None:
        if host not in self.news.unreachable:
            self.news.unreachable.append(host)

    def take(self, now: float, *, last: bool = False) -> Taken:
        """What to tell now. `last`: all of it."""
        news, self.news = self.news, Pending()
        if not self._fed or not (last or now - self._told > FED_S):
            return Taken(news)
        fed, self._fed, self._told = tuple(self._fed.items()), {}, now
        return Taken(news, fed)

    def put_back(self, taken: Taken) -> None:
        """It could not be told."""
        self.news = taken.pending.before(self.news)
        for parent, nbytes in taken.fed:
            self.feeds(parent, nbytes)
