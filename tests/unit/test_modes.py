"""Nobody may read at the destination what they could not read at the source, nor what the umask keeps from them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Entry, Manifest, Source
from dragonfly_ray.sources import resolve
from dragonfly_ray.storage.dest_identity import place_of
from dragonfly_ray.storage.modes import Modes
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.umask import current_umask
from tests import programs
from tests.ntfs import ntfs_at
from tests.origins import Behaviour, ScriptedOrigin
from tests.piece_stores import BIG, complete, fill, leftovers, store_at, task_of
from tests.swarm import Swarm

CONTENT = os.urandom(300_000)
STRANGER = 65534


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def stored_tree(root: Path, source: Path, **options: Any) -> TaskStore:
    manifest = resolve(Source(f"file://{source}", **options), Credentials(), OriginSettings()).manifest
    found = store_at(root).open(task_of(manifest, f"file://{source}"), manifest)
    fill(found, {e.path: (source / e.path).read_bytes() for e in manifest.entries if e.kind == "file"})
    found.finish()
    return found


def tree(folder: Path, names: dict[str, int]) -> Path:
    """Files of 100 kB where the name says `big`, else small ones; names that end in `/` are folders."""
    folder.mkdir()
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(name.encode() * (100_000 if "big" in name else 1))
    for name, bits in names.items():
        (folder / name).chmod(bits)
    return folder


def modes_in(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix() + "/" * p.is_dir(): mode(p) for p in folder.rglob("*")}


# --- local files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "linked", "copied"),
    [
        (0o600, 0o400, 0o600),
        (0o640, 0o440, 0o640),
        (0o644, 0o444, 0o644),
        (0o750, 0o550, 0o750),
        (0o711, 0o511, 0o711),
        (0o444, 0o444, 0o644),
        (0o4755, 0o555, 0o755),
        (0o2777, 0o555, 0o755),
        (0o000, 0o400, 0o600),
    ],
)
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_local_file_has_its_mode_on_every_node(
    swarm: Swarm, tmp_path: Path, given: int, linked: int, copied: int, size: int
) -> None:
    """The small one travels through messages and the object store, and lies in a pack."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT[:size])
    file.chmod(given)
    for link in (True, False):
        spec, dest = f"{link}.0", tmp_path / "out" / f"{link}-{{node}}"
        view = swarm.distribute(f"file://{file}", spec, node="n0", dest=str(dest), link=link)
        for node, record in view["nodes"].items():
            assert record["state"] == "done", record
            output = Path(record["path"])
            assert output.read_bytes() == CONTENT[:size], node
            assert mode(output) == (linked if link and size > 1000 else copied), (node, link)


def test_a_stranger_reads_no_output_that_he_could_not_read_at_the_source() -> None:
    """A real other user tries."""
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        source = tree(
            root / "source", {"big": 0o600, "small": 0o600, "open": 0o644, "d/": 0o700, "d/big": 0o644}
        )
        source.chmod(0o755)
        found = stored_tree(root / "s", source)
        (root / "there" / "d").mkdir(parents=True)
        for name, link in (("linked", True), ("copied", False), ("there", True)):
            out = found.publish(root / name, link=link).path
            assert not reads(out / "big"), name
            assert not reads(out / "small"), name
            assert not reads(out / "d" / "big"), name
            assert reads(out / "open"), name
    finally:
        shutil.rmtree(root)


def reads(path: Path) -> bool:
    assert path.exists()
    return subprocess.run(["cat", str(path)], check=False, user=STRANGER, group=STRANGER, extra_groups=[], cwd="/",
                          capture_output=True).returncode == 0  # fmt: skip


def test_folders_have_their_modes_and_the_root_too(tmp_path: Path) -> None:
    names = {"d/": 0o750, "d/e/": 0o2711, "d/e/big": 0o600, "d/small": 0o640, "none/": 0o1700}
    source = tree(tmp_path / "source", names)
    source.chmod(0o700)
    out = stored_tree(tmp_path / "s", source).publish(tmp_path / "out").path
    assert mode(out) == 0o700
    assert modes_in(out) == {"d/": 0o750, "d/e/": 0o711, "d/e/big": 0o400, "d/small": 0o640, "none/": 0o700}


def test_patterns_leave_a_folder_its_mode(tmp_path: Path) -> None:
    source = tree(
        tmp_path / "source", {"d/e/": 0o700, "d/e/x.txt": 0o644, "d/": 0o710, "f/": 0o700, "f/y": 0o644}
    )
    out = stored_tree(tmp_path / "s", source, include=("*.txt",)).publish(tmp_path / "out").path
    assert modes_in(out) == {"d/": 0o710, "d/e/": 0o700, "d/e/x.txt": 0o644}, "and nothing else is there"


def test_a_group_that_a_folder_lends_stays_with_what_is_made_in_it(tmp_path: Path) -> None:
    """setgid comes from the destination, never from the source."""
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o2775)
    source = tree(tmp_path / "source", {"d/": 0o750, "d/x": 0o640})
    source.chmod(0o755)
    out = stored_tree(tmp_path / "s", source).publish(shared / "out").path
    assert (mode(out), mode(out / "d")) == (0o2755, 0o2750)


def test_what_lies_in_a_closed_folder_is_not_open_in_an_open_one(tmp_path: Path) -> None:
    """Folders that are there keep their modes: other things may lie in them."""
    names = {"d/": 0o700, "d/big": 0o644, "d/small": 0o644, "e/": 0o750, "e/big": 0o644, "top": 0o644}
    source = tree(tmp_path / "source", names)
    source.chmod(0o755)
    found = stored_tree(tmp_path / "s", source)
    out = tree(tmp_path / "out", {"d/": 0o755, "d/foreign": 0o644, "e/": 0o755, "d/big": 0o644})
    out.chmod(0o755)
    for _ in range(2):
        done = found.publish(out)
        assert modes_in(out) == {
            "d/": 0o755, "d/foreign": 0o644, "d/big": 0o600, "d/small": 0o600,
            "e/": 0o755, "e/big": 0o640, "top": 0o644,
        }  # fmt: skip
    assert done.unchanged == 4
    (tmp_path / "whole").mkdir(mode=0o700)
    assert mode(found.publish(tmp_path / "whole").path / "d" / "big") == 0o444, (
        "the folder is ours, and closed"
    )


def test_a_file_that_is_there_gets_the_mode_of_a_source_that_has_one(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"big": 0o600})
    out = tree(tmp_path / "out", {"big": 0o644})
    there = os.stat(out / "big").st_ino
    for bits in (0o600, 0o644):
        (source / "big").chmod(bits)
        found = stored_tree(tmp_path / f"{bits}", source)
        for _ in range(2):
            assert found.publish(out).unchanged == 1, "its content is right"
            assert (mode(out / "big"), os.stat(out / "big").st_ino) == (bits, there)
    os.link(out / "big", tmp_path / "somebody's")
    (source / "big").chmod(0o640)
    found = stored_tree(tmp_path / "s", source)
    assert found.publish(out).unchanged == 0
    assert (mode(out / "big"), mode(tmp_path / "somebody's")) == (0o440, 0o644), "another name keeps its mode"
    assert found.publish(out).unchanged == 1


def test_another_mode_is_another_task(tmp_path: Path) -> None:
    """Or a store would give out what it has as it was, to those who may not read it any more."""
    file = tree(tmp_path / "source", {"big": 0o644, "d/": 0o755})
    seen = set()
    for path, bits in ((file / "big", 0o644), (file / "big", 0o600), (file / "d", 0o700), (file, 0o700)):
        path.chmod(bits)
        seen.add(resolve(Source(f"file://{file}"), Credentials(), OriginSettings()).manifest.fingerprint)
    assert len(seen) == 4


def test_a_manifest_without_modes_is_the_task_that_it_was() -> None:
    plain = Manifest((Entry("a", 1, "v"), Entry("d", kind="dir")), directory=True)
    told = [(e.path, e.size, e.version, e.kind, e.target) for e in plain.entries]
    import hashlib

    assert plain.fingerprint == hashlib.sha256(msgspec.msgpack.encode(told)).hexdigest()
    assert Manifest.decode(plain.encode()) == plain


def test_a_chmod_reaches_the_nodes(swarm: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    for time, (bits, wanted) in enumerate([(0o644, 0o444), (0o600, 0o400)]):
        file.chmod(bits)
        view = swarm.distribute(f"file://{file}", f"{time}.0", node="n0", dest=str(tmp_path / "{node}"))
        assert {mode(Path(record["path"])) for record in view["nodes"].values()} == {wanted}


def test_members_of_an_archive_have_their_modes(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"d/": 0o700, "d/big": 0o600, "d/run": 0o755})
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source / "d", "d")
    manifest = resolve(Source(f"tar://::file://{tmp_path}/a.tar"), Credentials(), OriginSettings()).manifest
    assert {e.path: e.mode for e in manifest.entries} == {"d": 0o700, "d/big": 0o600, "d/run": 0o755}
    one = resolve(Source(f"tar://d/big::file://{tmp_path}/a.tar"), Credentials(), OriginSettings()).manifest
    assert [e.mode for e in one.entries] == [0o600]


def test_a_file_system_without_modes_gets_what_it_holds_once(tmp_path: Path) -> None:
    """Its mount decides who reads; nothing is written again for it."""
    source = tree(tmp_path / "source", {"d/": 0o700, "d/big": 0o644, "d/small": 0o600, "run": 0o755})
    source.chmod(0o750)
    found = stored_tree(tmp_path / "s", source)
    with ntfs_at(tmp_path) as folder:
        assert found.publish(folder / "out").copied == 3
        before = [os.stat(p).st_ino for p in sorted((folder / "out").rglob("*"))]
        again = found.publish(folder / "out")
        assert (again.copied, again.unchanged) == (0, 3)
        assert [os.stat(p).st_ino for p in sorted((folder / "out").rglob("*"))] == before
        assert (folder / "out" / "d" / "big").read_bytes() == (source / "d" / "big").read_bytes()


# --- the umask ----------------------------------------------------------------------------------


SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.swarm import Swarm
root, url = Path(sys.argv[1]), sys.argv[2]
swarm = Swarm(root / "swarm", 2)
for link in (True, False):
    for time in (1, 2):
        dest = str(root / "a" / str(link) / "{node}")
        view = swarm.distribute(url, f"{link}-{time}.0", dest=dest, link=link)
        assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
swarm.close()
print(json.dumps({str(p.relative_to(root / "a")): p.stat().st_mode & 0o7777 for p in (root / "a").rglob("*")}))
"""


@pytest.fixture
def under(tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Two peers in a process of their own, with that umask: the modes of what they delivered, below `a`. Twice."""

    def run(umask: int, url: str, *by: str) -> dict[str, int]:
        done = subprocess.run([*by, sys.executable, "-c", SCRIPT, str(tmp_path), url], check=False, umask=umask, cwd=Path.cwd(),
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        assert not done.returncode, done.stderr
        found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_downloads_are_as_the_umask_of_the_peer_says(
    under: Callable[..., dict[str, int]], size: int, umask: int
) -> None:
    with ScriptedOrigin(Behaviour(CONTENT[:size])) as origin:
        found = under(umask, origin.url)
    own, linked = 0o666 & ~umask, 0o444 & ~umask
    assert found == {
        **dict.fromkeys(("True", "False"), 0o777 & ~umask),
        **dict.fromkeys(("False/n0", "False/n1"), own),
        **dict.fromkeys(("True/n0", "True/n1"), linked if size > 1000 else own),
    }


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_modes_that_bind_the_peers_own_user_hinder_no_delivery(
    under: Callable[..., dict[str, int]], tmp_path: Path, umask: int
) -> None:
    """As for any user but root, who may write to whatever there is."""
    source = tree(tmp_path / "source", {"d/": 0o500, "d/big": 0o400, "d/small": 0o440, "run": 0o700})
    source.chmod(0o750)
    if os.geteuid():
        pytest.skip("needs root, to give up what it may")
    capabilities = "-dac_override,-dac_read_search"
    found = under(umask, f"file://{source}/", programs.need("setpriv"), "--bounding-set", capabilities)
    for where in ("True/n0", "True/n1", "False/n0", "False/n1"):
        assert found[f"{where}/d/big"] == (0o400 if where.startswith("True") else 0o600)
        assert found[f"{where}/d"] == found[f"{where}/run"] == 0o700
        assert found[f"{where}/d/small"] == 0o640 & ~umask
        assert (tmp_path / "a" / where / "d" / "big").read_bytes() == (source / "d" / "big").read_bytes()


def test_modes_of_local_files_are_kept_within_the_umask_of_the_peer(
    under: Callable[..., dict[str, int]], tmp_path: Path
) -> None:
    source = tree(tmp_path / "source", {"d/": 0o775, "d/big": 0o664, "d/small": 0o755, "d/mine": 0o600})
    source.chmod(0o755)
    # Without a Ray node: every peer sees it.
    found = under(0o027, f"file://{source}/")
    for node in ("n0", "n1"):
        assert found[f"False/{node}"] == found[f"False/{node}/d"] == 0o750
        assert found[f"False/{node}/d/big"] == 0o640
        assert found[f"True/{node}/d/big"] == 0o440
        assert found[f"True/{node}/d/small"] == 0o750
        assert found[f"True/{node}/d/mine"] == 0o600


def test_the_umask_of_a_caller_on_the_node_holds_there(swarm: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    file.chmod(0o664)
    for umask, folder, linked in ((0o077, 0o700, 0o400), (0o002, 0o755, 0o444), (None, 0o755, 0o444)):
        dest = tmp_path / f"{umask}" / "below" / "f"
        view = swarm.distribute(
            f"file://{file}", f"{umask}.0", nodes=["n0"], node="n0", dest=str(dest), umask=umask
        )
        (record,) = view["nodes"].values()
        assert record["state"] == "done", record
        assert mode(dest) == (0o600 if linked == 0o400 else linked), (
            "a copy, since the store's file has another mode"
        )
        assert mode(dest.parent) == mode(dest.parent.parent) == folder
    wide = tree(tmp_path / "wide", {"d/": 0o777, "d/small": 0o666})
    wide.chmod(0o777)
    out = tmp_path / "out"
    swarm.distribute(f"file://{wide}/", "wide.0", nodes=["n0"], node="n0", dest=str(out), umask=0o002)
    assert (mode(out), modes_in(out)) == (0o775, {"d/": 0o775, "d/small": 0o664})


def test_a_wider_umask_of_the_caller_holds_in_a_stricter_process(tmp_path: Path) -> None:
    files = {"a/big": BIG, "a/small": b"small"}
    os.umask(0o077)
    found = complete(store_at(tmp_path / "s"), files)
    out = found.publish(tmp_path / "out", umask=0o022).path
    assert modes_in(out) == {"a/": 0o755, "a/big": 0o644, "a/small": 0o644, "none/": 0o755}
    assert mode(out) == 0o755
    (tmp_path / "there").mkdir()
    assert modes_in(found.publish(tmp_path / "there", umask=0o022).path) == modes_in(out)


def test_what_is_replaced_is_not_opened_further_by_a_source_without_modes(tmp_path: Path) -> None:
    """As curl and cp leave a file the mode that it has."""
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    private, right, umasked = tmp_path / "private", tmp_path / "right", tmp_path / "umasked"
    for path, content, bits in ((private, b"old", 0o600), (right, BIG, 0o640), (umasked, BIG, 0o644)):
        path.write_bytes(content)
        path.chmod(bits)
    assert (found.publish(private).unchanged, mode(private)) == (0, 0o600)
    assert private.read_bytes() == BIG
    assert (found.publish(right).unchanged, mode(right)) == (1, 0o640)
    assert (found.publish(umasked, umask=0o077).unchanged, mode(umasked)) == (1, 0o600)
    assert not leftovers(tmp_path)


# --- one inode, one mode ------------------------------------------------------------------------


def test_outputs_of_unlike_modes_share_no_inode(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    seen = {}
    for name, umask in (("usual", None), ("private", 0o077), ("again", 0o022), ("group", 0o027)):
        found.publish(tmp_path / name, umask=umask)
        seen[name] = os.stat(tmp_path / name)
        assert (tmp_path / name).read_bytes() == BIG
    assert {n: stat.S_IMODE(s.st_mode) for n, s in seen.items()} == {
        "usual": 0o444, "private": 0o600, "again": 0o444, "group": 0o640}  # fmt: skip
    assert seen["usual"].st_ino == seen["again"].st_ino == os.stat(found.folder / "0").st_ino
    assert len({s.st_ino for s in seen.values()}) == 3
    assert found.refresh() == []


def test_an_output_that_somebody_opened_lends_its_mode_to_no_other(tmp_path: Path) -> None:
    """The store's file is the same inode."""
    manifest = Manifest((Entry("x", len(BIG), "v", mode=0o600),), directory=False)
    found = store_at(tmp_path / "s").open(task_of(manifest), manifest)
    fill(found, {"x": BIG})
    found.finish()
    found.publish(tmp_path / "one")
    (tmp_path / "one").chmod(0o644)
    found.finish()
    found.publish(tmp_path / "two")
    assert (mode(tmp_path / "one"), mode(tmp_path / "two")) == (0o644, 0o600)


def test_the_same_content_of_unlike_modes_is_two_files_and_of_one_mode_one(tmp_path: Path) -> None:
    store, files = store_at(tmp_path / "s"), []
    for number, bits in enumerate([0o644, 0o600, 0o644, None, 0o755]):
        manifest = Manifest((Entry("x", len(BIG), f"{number}", mode=bits),), directory=False)
        found = store.open(task_of(manifest, f"http://o/{number}"), manifest)
        fill(found, {"x": BIG})
        found.finish()
        found.publish(tmp_path / f"{number}")
        files.append(os.stat(tmp_path / f"{number}"))
    assert [stat.S_IMODE(f.st_mode) for f in files] == [0o444, 0o400, 0o444, 0o444, 0o555]
    first, second, third, fourth, fifth = (f.st_ino for f in files)
    assert first == third == fourth
    assert len({first, second, fifth}) == 3


def test_nodes_that_share_a_dest_agree_on_its_mode(swarm: Swarm, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"d/": 0o710, "d/big": 0o600, "d/small": 0o640})
    source.chmod(0o700)
    out = tmp_path / "out"
    view = swarm.distribute(f"file://{source}/", node="n0", dest=str(out))
    assert sorted(bool(n["written_by"]) for n in view["nodes"].values()) == [False, True]
    assert (mode(out), modes_in(out)) == (0o700, {"d/": 0o710, "d/big": 0o400, "d/small": 0o640})
    assert place_of(out, link=True, umask=0o077) != place_of(out, link=True), "another output"


def test_the_store_stays_private(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"a/big": BIG, "a/small": b"small"})
    assert found.path().is_dir()
    assert mode(tmp_path / "s") & 0o077 == 0
    assert mode(found.folder / "pack") == 0o400


def test_the_umask_is_read_without_changing_it() -> None:
    os.umask(0o027)
    assert current_umask() == 0o027
    assert os.umask(0o022) == 0o027
    modes = Modes(Manifest((Entry("x", 1),), directory=False), 0o777)
    assert modes.file(Entry("x", 1)) == 0o600, "its owner can always use it"
    assert modes.folder("d") == 0o700
