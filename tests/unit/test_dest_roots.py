"""Outputs below configured roots: no name and no link leads out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.errors import DestinationError, InvalidRequestError, UnsafePathError
from dragonfly_ray.names import inside
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.storage.nofollow import Folders, beneath, shown
from dragonfly_ray.storage.output import Output
from dragonfly_ray.targets import check_dest
from tests.leaks import Held
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm

CONTENT = os.urandom(300_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    return made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    for name in ("a/one", "b/c/two", "three"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode())
    return made


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dest", ["/r/a", "/r/a/b/{name}", "/r/{node}/x", "/r/", "/r2/x", "/r//a", "/r/./a"])
def test_what_lies_below_a_root_is_accepted(dest: str) -> None:
    assert check_dest(dest, ("/r", "/r2/")) == dest


@pytest.mark.parametrize(
    "dest", ["/r", "/rx/a", "/", "/other/r/a", "/r/../other", "//r/a", "r/a", "/r2", "/r/a\0b"]
)
@pytest.mark.parametrize("roots", [("/r", "/r2/"), ()])
def test_anything_else_is_refused_before_any_work(dest: str, roots: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError):
        check_dest(dest, roots)


def test_without_roots_nothing_is_allowed() -> None:
    with pytest.raises(InvalidRequestError, match=r"allowed dest roots \(none\)"):
        check_dest("/r/a", ())
    assert inside("/r/a", ()) is None


# --- folders ------------------------------------------------------------------------------------


def test_missing_folders_are_made_and_the_way_is_the_folder_itself(root: Path, outside: Path) -> None:
    with beneath(root / "a" / "b" / "f", [str(root)]) as way:
        assert (root / "a" / "b").is_dir()
        assert shown(way) == str(root / "a" / "b" / "f")
        (root / "a").rename(root / "moved")
        (root / "a").symlink_to(outside)
        way.write_bytes(b"x")
    assert (root / "moved" / "b" / "f").read_bytes() == b"x"
    assert not any(outside.rglob("*"))


def test_a_file_on_the_way_is_told_from_a_link(root: Path) -> None:
    (root / "a").write_bytes(b"a file")
    with (
        pytest.raises(DestinationError, match="/a: is a file, but a folder is needed"),
        beneath(root / "a" / "f", [str(root)]),
    ):
        pass
    assert (root / "a").read_bytes() == b"a file"


@pytest.mark.parametrize("name", ["link/f", "link/below/f", "a/link/f"])
def test_a_link_on_the_way_is_not_followed(root: Path, outside: Path, name: str) -> None:
    (root / "a").mkdir()
    for place in (root / "link", root / "a" / "link"):
        place.symlink_to(outside)
    with pytest.raises(UnsafePathError, match="link"), beneath(root / name, [str(root)]):
        pass
    assert not any(outside.rglob("*"))


def test_a_root_may_be_a_link_and_must_be_there(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    with beneath(tmp_path / "alias" / "d" / "f", [str(tmp_path / "alias")]) as way:
        way.write_bytes(b"x")
    assert (root / "d" / "f").read_bytes() == b"x"
    with (
        pytest.raises(DestinationError, match="must exist"),
        beneath(tmp_path / "no" / "f", [str(tmp_path / "no")]),
    ):
        pass


def test_no_descriptor_stays_open(root: Path) -> None:
    before = Held()
    for number in range(20):
        with beneath(root / f"{number % 3}" / "x" / "f", [str(root)]):
            pass
        with Folders.of(root) as folders, pytest.raises(UnsafePathError):
            folders.at("a/b")
            folders.at("a/../b")
    assert not before.more_files()


# --- whole peers --------------------------------------------------------------------------------


def distribute(swarm: Swarm, url: str, dest: str, roots: tuple[str, ...], **more: Any) -> dict[str, Any]:
    nodes: dict[str, Any] = swarm.distribute(url, dest=dest, dest_roots=roots, **more)["nodes"]
    return nodes


@pytest.mark.parametrize("link", [True, False])
def test_an_output_below_a_root_is_written(
    swarm: Swarm, origin: ScriptedOrigin, root: Path, link: bool
) -> None:
    found = distribute(swarm, origin.url, f"{root}/{{node}}/x/{{name}}", (str(root),), link=link)
    for node, record in found.items():
        assert record["state"] == "done", record
        assert record["path"] == f"{root}/{node}/x/content.bin"
        assert Path(record["path"]).read_bytes() == CONTENT


@pytest.mark.parametrize("roots", [(), ("/nowhere",)])
def test_outside_of_the_roots_nothing_is_fetched(
    swarm: Swarm, origin: ScriptedOrigin, root: Path, roots: tuple[str, ...]
) -> None:
    found = distribute(swarm, origin.url, f"{root}/f", roots, small=False)
    assert {r["kind"] for r in found.values()} == {"destination"}
    assert not any(root.iterdir())
    assert {asked for _, _, asked in origin.requests} == {"bytes=0-0"}, "it was only looked at"


def test_a_linked_parent_is_refused_on_the_node(
    swarm: Swarm, origin: ScriptedOrigin, root: Path, outside: Path
) -> None:
    (root / "models").symlink_to(outside)
    found = distribute(swarm, origin.url, f"{root}/models/{{node}}", (str(root),))
    assert {r["kind"] for r in found.values()} == {"unsafe-path"}
    assert "/proc/" not in str(found)
    assert not any(outside.rglob("*"))


def test_an_escaped_slash_stays_one_in_the_name(swarm: Swarm, origin: ScriptedOrigin, root: Path) -> None:
    url = origin.url.replace("content.bin", "d/a%2Fb")
    found = distribute(swarm, url, f"{root}/sub/{{name}}", (str(root),), policy=UrlPolicy(allow_private=True))
    assert {r["path"] for r in found.values()} == {f"{root}/sub/a%2Fb"}
    assert [p.name for p in (root / "sub").iterdir()] == ["a%2Fb"]


@pytest.mark.parametrize("name", ["%2e%2e", "."])
def test_a_name_that_expands_oddly_leads_nowhere(
    swarm: Swarm, origin: ScriptedOrigin, root: Path, tmp_path: Path, name: str
) -> None:
    url = origin.url.replace("content.bin", f"d/{name}")
    found = distribute(swarm, url, f"{root}/sub/{{name}}", (str(root),), policy=UrlPolicy(allow_private=True))
    assert {r["state"] for r in found.values()} == {"failed"}, found
    assert not (tmp_path / "escaped").exists()
    assert not any(root.rglob("*"))


@pytest.mark.parametrize("name", ["..%2f..%2fescaped", "%00"])
def test_escapes_that_are_no_part_of_a_name_stay_text(
    swarm: Swarm, origin: ScriptedOrigin, root: Path, tmp_path: Path, name: str
) -> None:
    url = origin.url.replace("content.bin", f"d/{name}")
    found = distribute(swarm, url, f"{root}/sub/{{name}}", (str(root),), policy=UrlPolicy(allow_private=True))
    assert {r["path"] for r in found.values()} == {f"{root}/sub/{name}"}, found
    assert os.listdir(root / "sub") == [name]
    assert not (tmp_path / "escaped").exists()


def test_a_name_is_not_expanded_twice(swarm: Swarm, origin: ScriptedOrigin, root: Path) -> None:
    url = origin.url.replace("content.bin", "%7Bnode%7D")
    found = distribute(swarm, url, f"{root}/{{node}}-{{name}}", (str(root),))
    assert {r["path"] for r in found.values()} == {f"{root}/n0-{{node}}", f"{root}/n1-{{node}}"}


def test_a_directory_is_merged_below_a_root(swarm: Swarm, tree: Path, root: Path) -> None:
    for _ in range(2):
        found = distribute(
            swarm, f"file://{tree}/", f"{root}/{{node}}/d", (str(root),), node="n0", spec_id=f"s{_}.0"
        )
        assert {r["state"] for r in found.values()} == {"done"}, found
    assert (root / "n1" / "d" / "b" / "c" / "two").read_bytes() == b"b/c/two"


def test_a_link_that_is_swapped_in_during_a_merge_is_not_followed(
    swarm: Swarm, tree: Path, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("n0", "n1"):
        (root / node / "d" / "b").mkdir(parents=True)
    look = Output._refuse_symlinks

    def swap(self: Output, dest: Path) -> None:
        look(self, dest)
        (dest / "b").rename(dest / "was-b")
        (dest / "b").symlink_to(outside)

    monkeypatch.setattr(Output, "_refuse_symlinks", swap)
    found = distribute(swarm, f"file://{tree}/", f"{root}/{{node}}/d", (str(root),), node="n0")
    assert {r["kind"] for r in found.values()} == {"unsafe-path"}, found
    assert not any(outside.rglob("*"))
