"""Where outputs lie, and who writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dragonfly_ray.errors import DestinationError
from dragonfly_ray.scheduling.shared_dest import WriterElection
from dragonfly_ray.storage import dest_identity
from dragonfly_ray.storage.dest_identity import place_of, stamp_of


def mounts(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, source: str) -> None:
    """As if `folder` lay on such a file system."""
    device = os.stat(folder).st_dev
    file = folder / "mountinfo"
    file.write_text(
        "21 1 0:99 / / rw,relatime - overlay overlay rw\n"
        f"36 21 {os.major(device)}:{os.minor(device)} /sub /mnt rw shared:1 master:2 - {kind} {source} rw,vers=4.2\n"
    )
    monkeypatch.setattr(dest_identity, "_MOUNTS", file)


def test_one_folder_by_two_names_is_one_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    one = place_of(tmp_path / "real" / "f", link=True)
    assert place_of(tmp_path / "alias" / "f", link=True) == one
    assert place_of(tmp_path / "real" / "g", link=True) != one
    assert place_of(tmp_path / "real" / "f", link=False) != one, "a private copy is another output"
    assert place_of(tmp_path / "other" / "f", link=True) != one


def test_the_same_numbers_on_two_machines_are_two_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = place_of(tmp_path / "f", link=True)
    monkeypatch.setattr(dest_identity, "boot_id", lambda: "another")
    assert place_of(tmp_path / "f", link=True) != one


@pytest.mark.parametrize(("kind", "one", "two"), [
    ("nfs4", "files:/export", "files:/export/deeper"),
    ("ceph", "10.0.0.1:6789,10.0.0.2:6789:/", "10.0.0.1:6789,10.0.0.2:6789:/a"),
    ("lustre", "10.0.0.1@tcp:/fs", "10.0.0.1@tcp:/fs"),
    ("cifs", "//files/share", "//files/share"),
])  # fmt: skip
def test_a_network_file_system_is_one_place_on_all_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, one: str, two: str
) -> None:
    mounts(monkeypatch, tmp_path, kind, one)
    here = place_of(tmp_path / "f", link=True)
    monkeypatch.setattr(dest_identity, "boot_id", lambda: "another")
    mounts(monkeypatch, tmp_path, kind, two)
    assert place_of(tmp_path / "f", link=True) == here
    mounts(monkeypatch, tmp_path, kind, "elsewhere:/export")
    assert place_of(tmp_path / "f", link=True) != here
    mounts(monkeypatch, tmp_path, "ext4", one)
    assert place_of(tmp_path / "f", link=True) != here


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError, match="file"):
        place_of(tmp_path / "file" / "f", link=True)


def test_a_stamp_is_of_one_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert stamp_of(file) == ""
    file.write_bytes(b"one")
    before = stamp_of(file)
    assert before == stamp_of(file) != ""
    (tmp_path / "g").write_bytes(b"one")
    assert stamp_of(tmp_path / "g") != before
    (tmp_path / "g").rename(file)
    assert stamp_of(file) != before
    file.unlink()
    file.symlink_to("g")
    assert stamp_of(file) == "", "a link is not what was written"


def test_the_first_writes_and_the_others_hear_of_it() -> None:
    places = WriterElection()
    assert places.claim("p", "h1", "n1", "s") is None
    assert places.claim("p", "h1", "n1", "s") is None, "asked again"
    assert places.claim("q", "h2", "n2", "s") is None, "another place"
    for host in ("h2", "h3"):
        other = places.claim("p", host, "", "s")
        assert other
        assert (other.node, other.stamp) == ("n1", "")
    assert places.ended("p", "h2", "stamp", merged=False) == set(), "it was not the writer"
    assert places.ended("p", "h1", "stamp", merged=True) == {"h2", "h3"}
    other = places.claim("p", "h3", "n3", "s")
    assert other
    assert (other.node, other.stamp, other.merged) == ("n1", "stamp", True)
    assert places.lost("h1") == places.over("s") == set(), "what is written stays"


@pytest.mark.parametrize("how", ["fails", "dies", "is cancelled"])
def test_when_the_writer_is_gone_the_next_who_asks_writes(how: str) -> None:
    places = WriterElection()
    places.claim("p", "h1", "n1", "s")
    places.claim("p", "h2", "n2", "t")
    woken = {
        "fails": lambda: places.ended("p", "h1", "", merged=False),
        "dies": lambda: places.lost("h1"),
        "is cancelled": lambda: places.over("s"),
    }[how]()
    assert woken == {"h2"}
    assert places.claim("p", "h2", "n2", "t") is None
    assert places.claim("p", "h1", "n1", "s")
