"""A `dest` that is a link, or has one among its parents: the folder behind it is meant, as cp and rsync have it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import api
from dragonfly_ray.actors import nodes as actors_nodes
from dragonfly_ray.cli import main
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.scheduling.shared_dest import WriterElection
from dragonfly_ray.storage.nofollow import behind
from dragonfly_ray.storage.output import PREFIX, Output
from tests.origins import Behaviour, ScriptedOrigin
from tests.piece_stores import FILES, assert_tree, complete, leftovers, store_at
from tests.swarm import Swarm

CONTENT = os.urandom(300_000)
TREE = {"a/one": b"one", "b/c/two": CONTENT, "three": b"3" * 70_000}


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
def tree(tmp_path: Path) -> str:
    for name, data in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return f"file://{tmp_path}/tree/"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The folder behind each node's link `n0`, `n1` beside it."""
    for node in ("n0", "n1"):
        (tmp_path / "disk" / node).mkdir(parents=True)
        (tmp_path / "disk" / node / "foreign").write_bytes(b"theirs")
        (tmp_path / node).symlink_to(tmp_path / "disk" / node)
    return tmp_path / "disk"


def done(view: dict[str, Any]) -> dict[str, Any]:
    nodes: dict[str, Any] = view["nodes"]
    assert {n["state"] for n in nodes.values()} == {"done"}, nodes
    return nodes


def errors(view: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted({(n["kind"], n["message"]) for n in view["nodes"].values()})


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("link", [True, False])
def test_a_directory_is_merged_into_the_folder_behind_a_link(
    swarm: Swarm, tree: str, disk: Path, tmp_path: Path, slash: str, link: bool
) -> None:
    for time in range(2):
        found = done(
            swarm.distribute(tree, f"{time}.0", node="n0", dest=f"{tmp_path}/{{node}}{slash}", link=link)
        )
        for node, record in found.items():
            assert (record["path"], record["merged"]) == (f"{tmp_path}/{node}", True)
            assert_tree(disk / node, {**TREE, "foreign": b"theirs"})
            assert (tmp_path / node).is_symlink()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("link", [True, False])
def test_a_file_goes_into_the_folder_behind_a_link(
    swarm: Swarm, origin: ScriptedOrigin, disk: Path, tmp_path: Path, slash: str, link: bool
) -> None:
    for time in range(2):
        view = swarm.distribute(origin.url, f"{time}.0", dest=f"{tmp_path}/{{node}}{slash}", link=link)
        for node, record in done(view).items():
            assert record["path"] == f"{tmp_path}/{node}/content.bin"
            assert_tree(disk / node, {"content.bin": CONTENT, "foreign": b"theirs"})
            assert (tmp_path / node).is_symlink()


@pytest.mark.parametrize("name", ["sub", "sub/deeper/{name}", "sub/"])
def test_a_link_among_the_parents_is_followed(
    swarm: Swarm, origin: ScriptedOrigin, disk: Path, tmp_path: Path, name: str
) -> None:
    found = done(swarm.distribute(origin.url, dest=f"{tmp_path}/{{node}}/{name}"))
    for node, record in found.items():
        assert Path(record["path"]).read_bytes() == CONTENT
        assert Path(record["path"]).resolve().is_relative_to(disk / node)


def test_a_chain_of_relative_links_is_followed(swarm: Swarm, tree: str, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("disk/n0")
    done(swarm.distribute(tree, node="n0", nodes=["n0"], dest=f"{tmp_path}/one"))
    assert_tree(disk / "n0", {**TREE, "foreign": b"theirs"})
    assert (os.readlink(tmp_path / "one"), os.readlink(tmp_path / "two")) == ("two", "disk/n0")


def test_a_folder_and_a_link_to_it_are_one_place(
    swarm: Swarm, tree: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, claimed = WriterElection.claim, set()

    def noted(self: WriterElection, place: str, *rest: Any) -> Any:
        claimed.add(place)
        return claim(self, place, *rest)

    monkeypatch.setattr(WriterElection, "claim", noted)
    for spec, dest in (("a.0", tmp_path / "n0"), ("b.0", disk / "n0")):
        done(swarm.distribute(tree, spec, node="n0", dest=str(dest)))
    assert len(claimed) == 1
    assert_tree(disk / "n0", {**TREE, "foreign": b"theirs"})


@pytest.mark.parametrize("below", ["", "/x", "/x/{name}"])
@pytest.mark.parametrize(
    ("target", "why"),
    [("nowhere/at/all", "is a symlink to 'nowhere/at/all', which does not exist; create that folder"),
     ("circle", "is a symlink loop; remove it")],
)  # fmt: skip
def test_a_link_that_leads_nowhere_is_an_error_before_anything_is_fetched(
    swarm: Swarm, origin: ScriptedOrigin, tree: str, tmp_path: Path, target: str, why: str, below: str
) -> None:
    (tmp_path / "circle").symlink_to(target)
    for spec, url in (("a.0", origin.url), ("b.0", tree)):
        view = swarm.distribute(
            url, spec, node="n0" if spec == "b.0" else "", dest=f"{tmp_path}/circle{below}", small=False
        )
        ((kind, message),) = errors(view)
        assert kind == "destination"
        assert message.startswith(f"{tmp_path}/circle: {why}"), message
    assert (tmp_path / "circle").is_symlink()
    assert not (tmp_path / "nowhere").exists()
    assert {asked for _, _, asked in origin.requests} == {"bytes=0-0"}, "it was only looked at"


def test_a_link_to_a_file_is_replaced_and_the_file_stays(
    swarm: Swarm, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    (tmp_path / "v1").write_bytes(b"v1")
    (tmp_path / "current").symlink_to("v1")
    done(swarm.distribute(origin.url, nodes=["n0"], dest=f"{tmp_path}/current"))
    assert not (tmp_path / "current").is_symlink()
    assert (tmp_path / "current").read_bytes() == CONTENT
    assert (tmp_path / "v1").read_bytes() == b"v1"


def test_a_directory_does_not_replace_a_link_to_a_file(swarm: Swarm, tree: str, tmp_path: Path) -> None:
    (tmp_path / "v1").write_bytes(b"v1")
    (tmp_path / "current").symlink_to("v1")
    ((kind, message),) = errors(swarm.distribute(tree, node="n0", dest=f"{tmp_path}/current"))
    assert kind == "unsafe-path"
    assert message.startswith(f"{tmp_path}/current: is a symlink")
    assert (tmp_path / "v1").read_bytes() == b"v1"


def test_where_roots_hold_no_link_is_followed(
    swarm: Swarm, origin: ScriptedOrigin, tree: str, tmp_path: Path
) -> None:
    """They come with the orders of people who may write below these folders and nowhere else."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    for spec, url in (("a.0", origin.url), ("b.0", tree)):
        for slash in ("", "/"):
            view = swarm.distribute(
                url,
                f"{spec}{slash}",
                node="n0" if spec == "b.0" else "",
                dest=f"{root}/link{slash}",
                dest_roots=(str(root),),
            )
            ((kind, message),) = errors(view)
            assert kind == "unsafe-path", message
            assert message.startswith(f"{root}/link: "), message
            assert "/proc/" not in message
    assert (root / "link").is_symlink()
    assert not list(outside.iterdir())


def test_a_command_that_names_a_folder_by_its_slash_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def submitted(*rest: Any, dest: str, **more: Any) -> None:
        asked.append(dest)
        raise InvalidRequestError("enough is known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "nodes", list)
    monkeypatch.setattr(api, "submit", submitted)
    monkeypatch.setattr(actors_nodes, "current_node", lambda: "n0")
    for output in ("out/", "out", "./link/", "/", tmp_path / "x"):
        monkeypatch.setattr("sys.argv", ["dragonfly", "get", "https://host/f", "-O", str(output)])
        with pytest.raises(SystemExit):
            main()
    assert asked == [f"{tmp_path}/out/", f"{tmp_path}/out", f"{tmp_path}/link/", "/", f"{tmp_path}/x"]


def test_what_a_killed_process_left_behind_a_link_is_removed(tmp_path: Path) -> None:
    """The note of what was under way names the folder itself."""
    found = complete(store_at(tmp_path / "s"), FILES)
    (tmp_path / "disk").mkdir()
    (tmp_path / "dest").symlink_to("disk")
    notes: list[Path] = []

    class Killed(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:

        def dies(self: Output, dest: Path) -> None:
            notes.extend(p.readlink() for p in found.folder.glob("output-*"))
            raise Killed

        patch.setattr(Output, "publish", dies)
        with pytest.raises(Killed):
            found.publish(behind(tmp_path / "dest"))
    (tmp_path / "disk" / f"{PREFIX}{found._store.host_id[:12]}-left").write_bytes(b"")
    found._output(link=True).sweep(notes[0])
    assert not leftovers(tmp_path / "disk")
