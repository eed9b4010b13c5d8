"""Names and links that no folder may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragonfly_ray.errors import (
    UnsafePathError,
)
from dragonfly_ray.model import Entry, Manifest
from dragonfly_ray.names import from_bytes
from dragonfly_ray.storage.manifest_paths import check_manifest
from dragonfly_ray.storage.symlinks import check_links


@pytest.mark.parametrize(
    "paths",
    [["../x"], ["/etc/passwd"], ["a/../../x"], ["a//b"], ["a/./b"], ["."], [""], ["a\0b"], ["a", "a/b"], ["a/b", "a"],
     ["a", "a"], ["a/"], ["x/" * 2000 + "x"], ["\ud800"], ["\uf7c3\uf7a9"]],
)  # fmt: skip
def test_names_that_no_folder_holds_are_refused(paths: list[str]) -> None:
    with pytest.raises(UnsafePathError):
        check_manifest(Manifest(tuple(Entry(p, 1) for p in paths), directory=True))


@pytest.mark.parametrize("folder", ["a/1", "a/1/b"])
def test_folders_that_clash_with_files_are_refused(folder: str) -> None:
    inside = (Entry("a/1", 1), Entry("a/B/2", 1))
    for entries in ((*inside, Entry(folder, kind="dir")), (Entry(folder, kind="dir"), *inside)):
        with pytest.raises(UnsafePathError):
            check_manifest(Manifest(entries, directory=True))


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", ""])
def test_symlinks_that_lead_out_are_refused(target: str) -> None:
    found = Manifest((Entry("l", kind="symlink", target=target),), directory=True)
    with pytest.raises(UnsafePathError):
        check_manifest(found)
        check_links(found)


def links(**targets: str) -> Manifest:
    """`a__b` stands for `a/b`."""
    found = (Entry(p.replace("__", "/"), kind="symlink", target=t) for p, t in targets.items())
    return Manifest(tuple(found), directory=True)


@pytest.mark.parametrize(
    "targets",
    [
        {"deep__er__up": "../..", "out": "deep/er/up/../x"},
        {"a": ".", "out": "a/../x"},
        {"a": ".", "b": "a/.", "c": "b/.", "out": "c/../x"},
        {"d__here": "..", "out": "d/here/../x"},
        {"d__here": "..", "e__out": "../D/HERE/../x"},
        {"a": ".", "d__out": "../a/../x"},
    ],
)
def test_links_that_lead_out_by_way_of_others_are_refused(tmp_path: Path, targets: dict[str, str]) -> None:
    with pytest.raises(UnsafePathError):
        check_links(links(**targets))
    for path, target in targets.items():
        link = tmp_path / path.replace("__", "/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    if all(t == t.lower() for t in targets.values()):
        out = next(tmp_path / p.replace("__", "/") for p in targets if p.endswith("out"))
        assert not out.resolve().is_relative_to(tmp_path), "the kernel would go there"


def test_links_that_stay_inside_pass() -> None:
    check_links(links(a="b", b="c/d", c__d="../e/f", g__h="../a", i="."))
    check_links(links(round="about", about="round", self="self/x", deep="a/../b/../c"))


def test_a_link_with_entries_below_it_is_refused() -> None:
    entries = (Entry("a", kind="symlink", target="b"), Entry("a/x", 1))
    for order in (entries, entries[::-1]):
        with pytest.raises(UnsafePathError):
            check_manifest(Manifest(order, directory=True))


def test_honest_names_pass() -> None:
    paths = ["a", "b/c", "b/d e", "..x", "x..", "ümlaut", "100%", "a:b", "b/.hidden", "A", "\u00e9", "e\u0301", "a\nb",
             "a\\..\\b", "%2e%2e/x", "a%2E%2E%2Fb", "con", "-rf", "...", " ", "\x7f", "x" * 300,
             from_bytes(b"caf\xe9"), from_bytes("\uf7e9".encode())]  # fmt: skip
    folders = tuple(Entry(p, kind="dir") for p in ("b", "b", "empty", "empty/too"))
    files = tuple(Entry(p, 1) for p in paths)
    check_manifest(Manifest((*folders, *files), directory=True))
    check_manifest(Manifest((*files, *folders), directory=True))
