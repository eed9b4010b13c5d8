"""Who feeds whom in a task: bytes from parent to child, as the children tell."""

from __future__ import annotations

from array import array
from collections.abc import Iterator


class TrafficMatrix:
    """Totals for each edge that carried anything; about ten bytes an edge, and a hundred a host."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._parents: dict[int, array[int]] = {}
        self._bytes: dict[int, array[int]] = {}

    def __len__(self) -> int:
        """Edges."""
        return sum(map(len, self._parents.values()))

    def add(self, parent: str, child: str, nbytes: int) -> None:
        a, b = self._number(parent), self._number(child)
        parents = self._parents.get(b)
        if parents is None:
            parents, self._bytes[b] = array("I"), array("Q")
            self._parents[b] = parents
        if a in parents:
            self._bytes[b][parents.index(a)] += nbytes
        else:
            parents.append(a)
            self._bytes[b].append(nbytes)

    def carried(self, parent: str, child: str) -> bool:
        """Whether anything came to `child` from `parent`."""
        a, b = self._numbers.get(parent), self._numbers.get(child)
        return a is not None and b is not None and a in self._parents.get(b, ())

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """(parent, child, bytes)."""
        for child, parents in self._parents.items():
            for parent, nbytes in zip(parents, self._bytes[child], strict=True):
                yield self._names[parent], self._names[child], nbytes

    def _number(self, host: str) -> int:
        found = self._numbers.get(host)
        if found is None:
            found = self._numbers[host] = len(self._names)
            self._names.append(host)
        return found
