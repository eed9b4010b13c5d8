"""The lock file pins what `pyproject.toml` asks for, and the bill of materials is of it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.sbom import BUILD_TOOLS, CONSOLE, LOCK, bill

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"(\S+)==(\S+)(?: ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://|\b(?:[a-z0-9-]+\.)+(?:com|dev|internal|io|lan|local|net|org)\b")


def pins() -> dict[str, set[str]]:
    """Package -> its versions, one for each Python that needs another; of a file with nothing else in it."""
    found: dict[str, set[str]] = {}
    hashed: set[str] = set()
    name = ""
    for line in LOCK.read_text().splitlines():
        if match := PIN.fullmatch(line):
            name = match[1].partition("[")[0]
            found.setdefault(name, set()).add(match[2])
        else:
            assert HASH.fullmatch(line), line
            hashed.add(name)
    assert hashed == set(found), "each has a hash"
    return found


def asked() -> Iterator[Requirement]:
    """What is installed with all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for each in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from (found for text in each if (found := Requirement(text)).name != project["name"])


def test_all_that_is_asked_for_is_locked() -> None:
    locked = pins()
    found = list(asked())
    assert len(found) > 30
    for each in found:
        versions = locked.get(canonicalize_name(each.name))
        assert versions, f"{each}: run `make lock`"
        for version in versions:
            assert each.specifier.contains(version), f"{each}: {version} is locked, run `make lock`"


@pytest.fixture(scope="module")
def text() -> str:
    return bill()


def test_nothing_says_where_packages_come_from(text: str) -> None:
    assert not ADDRESS.search(LOCK.read_text())
    told = text.replace("http://cyclonedx.org/schema/", "")
    assert not ADDRESS.search(told), ADDRESS.search(told)


def test_the_bill_is_of_the_lock_and_of_the_console_and_always_the_same(text: str) -> None:
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    found = {component["purl"] for component in document["components"]}
    console = json.loads(CONSOLE.read_text())["devDependencies"]
    libraries = {f"pkg:npm/{n.replace('@', '%40')}@{v}" for n, v in console.items() if n not in BUILD_TOOLS}
    locked = {f"pkg:pypi/{name}@{version}" for name, versions in pins().items() for version in versions}
    assert found == locked | libraries
    root, *others = document["dependencies"]
    assert root["dependsOn"] == sorted(each["ref"] for each in others)
    assert bill() == text
