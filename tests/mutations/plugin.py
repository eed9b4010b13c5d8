"""`pytest -p tests.mutations.plugin`: the engine with one mutation, named by DRAGONFLY_MUTATION."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from tests.mutations.mutations import MUTATIONS, VARIABLE, Change


def apply(name: str, changes: list[Change]) -> None:
    """Runs the changed text of a module in its place, before anybody imports it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    for change in changes:
        assert source.count(change.old) == 1, f"{name} has {change.old!r} {source.count(change.old)} times"
        source = source.replace(change.old, change.new)
    assert name not in sys.modules, f"{name} is imported already"
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    exec(compile(source, spec.origin, "exec"), module.__dict__)  # noqa: S102
    package, _, last = name.rpartition(".")
    setattr(importlib.import_module(package), last, module)


if chosen := os.environ.get(VARIABLE):
    for each in {change.module for change in MUTATIONS[chosen].changes}:
        apply(each, [change for change in MUTATIONS[chosen].changes if change.module == each])
