"""`pytest -p tests.mutations.plugin`: the engine with one mutation, named by DRAGONFLY_MUTATION."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutations.mutations import MUTATIONS, VARIABLE, Change


class Changed(SourceFileLoader):
    """Loads a module from its changed text."""

    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        for change in self._changes:
            times = source.count(change.old)
            assert times == 1, f"{fullname} has {change.old!r} {times} times"
            source = source.replace(change.old, change.new)
        return compile(source, self.path, "exec")


class Finder(MetaPathFinder):
    """Finds the modules that are changed before anybody else does, in whatever order they are imported."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        for change in changes:
            assert change.module not in sys.modules, f"{change.module} is imported already"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        changes = [change for change in self._changes if change.module == fullname]
        found = PathFinder.find_spec(fullname, path) if changes else None
        if found is None or found.origin is None:
            return None
        loader = Changed(fullname, found.origin, changes)
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=loader)


if chosen := os.environ.get(VARIABLE):
    sys.meta_path.insert(0, Finder(MUTATIONS[chosen].changes))
