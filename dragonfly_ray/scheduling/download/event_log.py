"""The last events of a download with the answers that they got, and how to see them happen again."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

SPAN = 1000
"""At least so many events can be replayed, where there were as many."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """A call of one of the engine's methods, and what it answered."""

    name: str
    arguments: tuple[Any, ...]
    answer: Any


_Fields = tuple[str, tuple[Any, ...], Any]
"""Of an event. Some are added for every piece: a frozen value is made only of those that are looked at."""


@dataclass(frozen=True, slots=True)
class Dump:
    """`state`: the engine before `events`, pickled by this process or one of the same version."""

    state: bytes
    events: tuple[Event, ...]


class EventLog:
    """`state`: the engine as it is before the first event."""

    def __init__(self, state: bytes, span: int = SPAN) -> None:
        self._span = span
        self._before: tuple[bytes, list[_Fields]] = (state, [])
        self._now: tuple[bytes, list[_Fields]] = (state, [])
        self._turned = False

    def add(self, name: str, arguments: tuple[Any, ...], answer: Any) -> bool:
        """True: the state is to be given to `turn` before the next event."""
        happened = self._now[1]
        happened.append((name, arguments, answer))
        return len(happened) >= self._span

    def turn(self, state: bytes) -> None:
        self._before, self._now, self._turned = self._now, (state, []), True

    def dump(self) -> Dump:
        state, events = self._before if self._turned else self._now
        happened = [*events, *self._now[1]] if self._turned else events
        return Dump(state, tuple(Event(*fields) for fields in happened))


class Recorded(Protocol):
    """An engine whose events are recorded and whose state is checked, where that is switched on."""

    log: EventLog | None
    checked: bool

    def validate(self) -> None: ...


E = TypeVar("E", bound=Recorded)


def event(method: Callable[Concatenate[E, P], T]) -> Callable[Concatenate[E, P], T]:
    """Marks a method that changes the state, by positional arguments that are values."""
    name = method.__name__

    @wraps(method)
    def recorded(self: E, *args: P.args, **kwargs: P.kwargs) -> T:
        answer = method(self, *args, **kwargs)
        if (log := self.log) is not None:
            assert not kwargs, "events are recorded by position"
            if log.add(name, args, answer):
                log.turn(frozen(self))
        if self.checked:
            self.validate()
        return answer

    return recorded  # type: ignore[return-value]


def frozen(engine: Recorded) -> bytes:
    """The state, without its log."""
    log, engine.log = engine.log, None
    try:
        return pickle.dumps(engine)
    finally:
        engine.log = log


def replay(dump: Dump) -> tuple[Any, list[Any]]:
    """The engine after all of it has happened once more, and the answers that it gave this time."""
    engine = pickle.loads(dump.state)
    return engine, [getattr(engine, each.name)(*each.arguments) for each in dump.events]
