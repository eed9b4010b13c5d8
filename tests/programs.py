"""Programs that some tests need. A test that truly needs one skips, and names it; DRAGONFLY_REQUIRE_ALL=1 fails it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

REQUIRE_ALL = "DRAGONFLY_REQUIRE_ALL"
_VENV = Path(sys.prefix)
_PLACES = {
    "nginx": ("/usr/sbin",),
    "ip": ("/usr/sbin", "/sbin"),
    "mkntfs": ("/usr/sbin", "/sbin"),
    "azurite-blob": (str(_VENV / "azurite" / "node_modules" / ".bin"),),
    "promtool": (str(_VENV / "tools" / "usr" / "bin"),),
}


def find(name: str) -> str | None:
    """The path of a program, also where it is installed but not on PATH."""
    if name == "chromium" and (given := os.environ.get("CHROMIUM")):
        return given
    if name == "postgres":
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version)
        if versions:
            return str(versions[-1])
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_PLACES.get(name, ())))


def _version(path: Path) -> float:
    try:
        return float(path.parts[-3])
    except ValueError:
        return 0.0


def need(name: str) -> str:
    """The same; without it the test skips."""
    found = find(name)
    if found is None:
        pytest.skip(f"without {name}")
    return found


def all_required() -> bool:
    return os.environ.get(REQUIRE_ALL, "") not in ("", "0")
