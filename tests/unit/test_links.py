"""Symlinks of folders: what leads where, what the options make of it, and that it takes no longer than its text."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings, StorageSettings
from dragonfly_ray.errors import InvalidRequestError, SourceError, SourceNotFoundError, UnsafePathError
from dragonfly_ray.model import Credentials, Entry, Links, Manifest, PieceTable, Source, Task, digest
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.sources import Resolution, resolve
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.symlinks import check_links, outward
from tests.waiting import HANG

FILES = UrlPolicy(schemes=("file",))


def look(
    folder: Path, links: Links = "refuse", policy: UrlPolicy | None = None, **more: object
) -> Resolution:
    source = Source(f"file://{folder}", links=links, **more)  # type: ignore[arg-type]
    return resolve(source, Credentials(), OriginSettings(), policy=policy)


def kinds(found: Resolution) -> dict[str, str]:
    return {e.path: e.target or e.kind for e in found.manifest.entries}


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A model as a hub's cache has it; its snapshot."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab12").write_bytes(b"weights")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/ab12")
    return snapshot


# --- what the options make of them --------------------------------------------------------------


def test_a_link_that_leads_out_is_refused_with_its_target_and_the_way_out(hub: Path) -> None:
    with pytest.raises(UnsafePathError) as refused:
        look(hub)
    for part in (f"{hub}/model.safetensors", "../../blobs/ab12", "links='follow'", "links='keep'", "exclude"):
        assert part in str(refused.value)


def test_follow_takes_what_a_link_leads_to(hub: Path) -> None:
    found = look(hub, "follow")
    assert kinds(found) == {"config.json": "file", "model.safetensors": "file"}
    assert found.manifest.size == len(b"{}weights")


def test_follow_goes_into_folders(hub: Path) -> None:
    (hub / "all").symlink_to("../../blobs")
    assert kinds(look(hub, "follow"))["all"] == "dir"
    assert kinds(look(hub, "follow"))["all/ab12"] == "file"


def test_keep_takes_the_link_itself(hub: Path) -> None:
    (hub / "python").symlink_to("/usr/bin/python3")
    (hub / "nowhere").symlink_to("gone")
    (hub / "round").symlink_to("round")
    found = kinds(look(hub, "keep"))
    assert found["model.safetensors"] == "../../blobs/ab12"
    assert found["python"] == "/usr/bin/python3"
    assert (found["nowhere"], found["round"]) == ("gone", "round")


@pytest.mark.parametrize(("target", "error"), [("gone", SourceNotFoundError), ("l", SourceError)])
def test_follow_names_a_link_that_leads_nowhere(tmp_path: Path, target: str, error: type[Exception]) -> None:
    (tmp_path / "l").symlink_to(target)
    with pytest.raises(error, match=f"{tmp_path}/l: a symlink to '{target}'.*links='keep'"):
        look(tmp_path, "follow")


@pytest.mark.parametrize("target", [".", "..", "../b", "../..", "../../a"])
def test_follow_names_a_link_that_leads_round(tmp_path: Path, target: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "l").symlink_to(target)
    with pytest.raises(SourceError, match=r"a/b/l: a symlink to .* is part of a loop"):
        look(tmp_path, "follow")


def test_links_in_a_circle_are_links_where_they_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "up").symlink_to("../d")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert kinds(look(tmp_path)) == {"d": "dir", "d/up": "../d", "one": "two", "two": "one"}


@pytest.mark.parametrize("links", ["refuse", "follow"])
def test_what_is_excluded_refuses_nothing(hub: Path, links: Links) -> None:
    (hub / "gone").symlink_to("nowhere")
    (hub / "out").symlink_to("/etc")
    (hub / "self").symlink_to(".")
    out = ("gone", "out", "self", "model.*")
    assert kinds(look(hub, links, exclude=out)) == {"config.json": "file"}
    assert kinds(look(hub, links, include=("*.json",), exclude=("self", "out"))) == {"config.json": "file"}


# --- under a policy -----------------------------------------------------------------------------


@pytest.mark.parametrize("links", ["refuse", "follow", "keep"])
@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "in/../../secret", "up"])
def test_under_a_policy_no_link_leads_out(tmp_path: Path, links: Links, target: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "up").symlink_to("in/../..")
    (folder / "l").symlink_to(target)
    with pytest.raises(UnsafePathError, match=r"points? outside"):
        look(folder, links, FILES)


def test_under_a_policy_links_inside_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "l").symlink_to(tmp_path / "a")
    assert kinds(look(tmp_path, "follow", FILES)) == {"a": "file", "l": "file"}
    (tmp_path / "alias").symlink_to(".")
    assert kinds(look(tmp_path / "alias", "follow", FILES, exclude=("alias",)))["l"] == "file"


def test_under_a_policy_a_folder_that_became_a_link_is_not_read_through(tmp_path: Path) -> None:
    """Whatever the file behind it looks like: here it is the very same one."""
    from dragonfly_ray.errors import SourceChangedError
    from dragonfly_ray.sources import open_reader

    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "f").write_bytes(b"1234")
    found = look(folder, policy=FILES).manifest
    (folder / "d").rename(elsewhere)
    (folder / "d").symlink_to(elsewhere)
    source, table = Source(f"file://{folder}"), PieceTable.of(found)
    for policy in (FILES, None):
        reader = open_reader(source, Credentials(), found, table, OriginSettings(), policy)
        try:
            if policy is None:
                assert [bytes(d) for _, d in reader.read(0, 1, _buffer, _ignore)] == [b"1234"]
            else:
                with pytest.raises(SourceChangedError):
                    list(reader.read(0, 1, _buffer, _ignore))
        finally:
            reader.close()


def _buffer(index: int) -> memoryview:
    return memoryview(bytearray(4))


def _ignore(count: int) -> None:
    pass


# --- identity -----------------------------------------------------------------------------------


def test_the_same_folder_with_other_links_is_another_source() -> None:
    options: tuple[Links, ...] = ("refuse", "follow", "keep")
    sources = [source_of("file:///d", Credentials(), node="n", links=each) for each in options]
    assert len({source.id for source in sources}) == len(options)
    assert sources[0].id == Source("file:///d", node="n").id
    forged = Source("file:///d", node="n", filtered_query_params=("links=follow",))
    assert forged.id not in {source.id for source in sources}


def test_where_there_are_no_links_the_option_makes_no_other_source() -> None:
    assert source_of("https://h/d/", Credentials(), links="follow") == source_of(
        "https://h/d/", Credentials()
    )
    assert source_of("s3://b/d/", Credentials(), links="keep") == source_of("s3://b/d/", Credentials())


def test_another_word_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="links 'copy': must be one of refuse, follow, keep"):
        source_of("file:///d", Credentials(), links="copy")  # type: ignore[arg-type]


# --- how long it takes --------------------------------------------------------------------------


def link(path: str, target: str) -> Entry:
    return Entry(path, kind="symlink", target=target, version=target)


N = 20_000
SHAPES = {
    "to files": [link(f"l{i}", f"f{i}") for i in range(N)],
    "each to the next": [link(f"l{i}", f"l{i + 1}") for i in range(N)],
    "each to the one before": [link(f"l{i}", f"l{i - 1}") for i in range(N)],
    "all in one circle": [link(f"l{i}", f"l{(i + 1) % N}") for i in range(N)],
    "through one folder": [link("here", "."), *(link(f"l{i}", "here/" * 40 + f"f{i}") for i in range(N))],
    "up and down": [link(f"l{i}", f"l{i + 1}/" + "x/../" * 300 + "y") for i in range(N // 10)],
    "deep": [link(f"l{i}", "x/" * 500 + f"{i}") for i in range(N // 10)],
    "far below": [link("d/" * 300 + f"l{i}", "../" * 300 + f"f{i}") for i in range(N // 10)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_links_are_followed_once_each(shape: str) -> None:
    """Steps are counted: no more than the links, and the links that they meet."""
    most = sum(entry.target.count("/") + 3 for entry in SHAPES[shape])
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        assert steps <= most

    assert not list(outward(SHAPES[shape], step))
    assert steps >= len(SHAPES[shape])


def test_a_long_chain_that_leads_out_is_refused() -> None:
    chain = [link(f"d/l{i}", f"l{i + 1}") for i in range(30)]
    with pytest.raises(UnsafePathError, match="points outside its folder"):
        check_links(Manifest((*chain, link("d/l30", "../..")), directory=True))


def task_of(manifest: Manifest) -> Task:
    encoded = manifest.encode()
    return Task(
        manifest.task_id("s"), "s", "file:///d", "default", digest(encoded), len(encoded), manifest.size,
        len(PieceTable.of(manifest)), len(manifest.entries), True, True,
    )  # fmt: skip


def test_other_tasks_are_opened_while_names_are_checked(tmp_path: Path) -> None:
    long = Manifest(tuple(Entry(f"{i:06}", 1, "v") for i in range(10_000)), directory=True)
    short = Manifest((Entry("a", 1, "v"),), directory=True)
    store = PieceStore(StorageSettings(root=tmp_path))
    checking, opened = threading.Event(), threading.Event()

    def go_on() -> None:
        checking.set()
        assert opened.wait(HANG)

    try:
        slow = threading.Thread(target=lambda: store.open(task_of(long), long, go_on))
        slow.start()
        assert checking.wait(HANG)
        store.open(task_of(short), short)
        opened.set()
        slow.join(HANG)
        assert {task.task.entries for task in store.tasks()} == {1, 10_000}
    finally:
        opened.set()
        store.close()


def test_a_check_of_names_ends_when_nobody_wants_it(tmp_path: Path) -> None:
    found = Manifest(tuple(Entry(f"{i:06}", 1, "v") for i in range(10_000)), directory=True)
    store = PieceStore(StorageSettings(root=tmp_path))
    looks = 0

    def go_on() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise SourceError("read cancelled")

    try:
        with pytest.raises(SourceError):
            store.open(task_of(found), found, go_on)
        assert looks == 3
        assert not store.tasks()
        assert not os.listdir(store.path / "tasks")
    finally:
        store.close()
