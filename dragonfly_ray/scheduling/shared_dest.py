"""Outputs that several hosts see in one folder: one of them writes, the others hear of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Place:
    """`stamp`: of the output, once it is whole."""

    host: str
    node: str
    spec_id: str
    stamp: str = ""
    merged: bool = False
    waiting: set[str] = field(default_factory=set)


class WriterElection:
    """Of one task. The first host that has all of it writes; what returns hosts names who must ask again."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def claim(self, place: str, host: str, node: str, spec_id: str) -> Place | None:
        """None: `host` is to write it. Else who does, or did."""
        known = self._places.setdefault(place, Place(host, node, spec_id))
        if known.host == host:
            return None
        known.waiting.add(host)
        return known

    def ended(self, place: str, host: str, stamp: str, *, merged: bool) -> set[str]:
        """`host` has written it; without a stamp: it could not, and another may try."""
        known = self._places.get(place)
        if known is None or known.host != host:
            return set()
        if not stamp:
            return self._free([place])
        known.stamp, known.merged = stamp, merged
        woken, known.waiting = known.waiting, set()
        return woken

    def lost(self, host: str) -> set[str]:
        """What it has not finished is anybody's."""
        return self._free([p for p, known in self._places.items() if known.host == host and not known.stamp])

    def over(self, spec_id: str) -> set[str]:
        """Nobody writes for this spec any more."""
        return self._free(
            [p for p, known in self._places.items() if known.spec_id == spec_id and not known.stamp]
        )

    def clear(self) -> None:
        self._places.clear()

    def _free(self, places: list[str]) -> set[str]:
        woken: set[str] = set()
        for place in places:
            woken |= self._places.pop(place).waiting
        return woken
