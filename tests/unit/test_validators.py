"""What versions prove, and what a manifest is named by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Entry, Manifest, Source
from dragonfly_ray.scheduling.version_ttl import MAX_GENERATIONS, Generations
from dragonfly_ray.sources import resolve
from dragonfly_ray.validators import validator, validator_of


@pytest.mark.parametrize(("version", "proves"), [
    ('"5f3a-2b"', "strong"), ('"a=b"', "strong"), ("ETag=d41d8cd9", "strong"), ("generation=17", "strong"),
    ("version_id=abc", "strong"), ("182f0a9c3b-400-1a2b", "strong"),
    ('W/"5f3a"', "weak"), ('ETag=W/"x', "weak"), ("Sun, 06 Nov 1994 08:49:37 GMT", "weak"),
    ("Sunday, 06-Nov-94 08:49:37 GMT", "weak"), ("listed:2024-01-01 10:00", "weak"),
    ("mtime=1700000000.0", "weak"), ("LastModified=2024-01-01T00:00:00+00:00", "weak"), ("ino=7", "weak"),
    ("", "none"), ("resolve:00ff", "none"),
])  # fmt: skip
def test_what_a_version_proves(version: str, proves: str) -> None:
    assert validator(version) == proves


def test_a_folder_is_as_good_as_the_least_of_its_files() -> None:
    strong, weak, none = Entry("a", 1, '"x"'), Entry("b", 1, 'W/"x"'), Entry("c", 1)
    others = Entry("d", kind="dir"), Entry("e", 0), Entry("f", kind="symlink", target="a", version="a")
    for entries, proves in [((strong,), "strong"), ((strong, weak), "weak"), ((strong, weak, none), "none")]:
        assert validator_of(Manifest((*entries, *others), directory=True)) == proves


def test_a_generation_is_another_task_and_none_is_as_ever() -> None:
    manifest = Manifest((Entry("a", 1, '"x"'),), directory=False)
    names = {manifest.marked("n", generation).task_id("s") for generation in ("", "1", "2")}
    assert len(names) == 3
    assert manifest.marked("n").task_id("s") == manifest.task_id("s")


def test_generations_stay_until_too_many_sources_have_one() -> None:
    generations = Generations()
    assert not generations.of("s")
    generations.next("s")
    first = generations.of("s")
    assert first
    assert generations.of("s") == first
    generations.next("s")
    assert generations.of("s") not in ("", first)
    for number in range(MAX_GENERATIONS):
        generations.next(f"{number}")
    assert not generations.of("s")
    assert generations.of("0")


def test_a_generation_of_some_callers_is_theirs_until_all_have_another() -> None:
    generations = Generations()
    generations.next("s", "b")
    own = generations.of("s", "b")
    assert own
    assert not generations.of("s", "a")
    generations.next("s")
    assert generations.of("s", "a") == generations.of("s", "b") not in ("", own)


def test_a_file_that_is_written_again_in_its_place_has_another_version(tmp_path: Path) -> None:
    """Some filesystems tell its number, which stays."""
    file, found = tmp_path / "f", set[str]()
    for content in (b"old", b"new"):
        file.write_bytes(content)
        os.utime(file, (1000.0, 1000.0 + len(found)))
        source = Source(f"blockcache::file://{file}")
        found.add(resolve(source, Credentials(), OriginSettings()).manifest.entries[0].version)
    assert len(found) == 2
