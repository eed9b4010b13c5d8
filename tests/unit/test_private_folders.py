"""Where stores and keys lie: what others could have planted is refused, and nobody else can look in."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from dragonfly_ray import private_folders as private
from dragonfly_ray.config import Settings, StorageSettings
from dragonfly_ray.errors import StorageError
from dragonfly_ray.grants import SigningKey
from dragonfly_ray.private_folders import adopted, default_root, private_folder, root_of
from dragonfly_ray.storage.store import PieceStore
from tests.piece_stores import BIG, complete, store_at


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes itself for another user than the one whose files it makes."""
    monkeypatch.setattr(os, "geteuid", lambda: 4321)


def test_a_store_is_for_its_user_alone_and_hard_links_work_all_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    (root / "store-0").mkdir(mode=0o755)  # as earlier versions made it
    found = complete(store_at(root), {"x": BIG})
    assert [mode(p) for p in (root, root / "store-0")] == [0o700, 0o700]
    assert found.publish(tmp_path / "out").linked == 1


def test_a_folder_that_somebody_else_made_is_refused(tmp_path: Path, stranger: None) -> None:
    (tmp_path / "planted").mkdir(mode=0o700)
    with pytest.raises(StorageError, match=r"owned by uid .*; remove it, or set storage.root"):
        store_at(tmp_path / "planted")


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"root: is a symlink; remove it, or set storage.root"):
        store_at(tmp_path / "root")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="is a symlink"):
        store_at(tmp_path / "broken")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_store_that_is_a_link_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    (root / "store-0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="store-0: is a symlink"):
        store_at(root)


def test_our_own_link_on_the_way_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "way").symlink_to("disk")
    (tmp_path / "disk" / "up").symlink_to("../disk")
    assert private_folder(tmp_path / "way" / "up" / "a" / "b") == tmp_path / "disk" / "a" / "b"


def test_a_stranger_s_link_on_the_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "way").symlink_to("disk")
    look = os.stat

    def planted(path: object, *rest: object, **more: object) -> os.stat_result:
        found = look(path, *rest, **more)  # type: ignore[arg-type]
        return os.stat_result((*found[:4], 4321, *found[5:])) if path == "way" else found

    monkeypatch.setattr(os, "stat", planted)
    with pytest.raises(StorageError, match="way: is a symlink"):
        private_folder(tmp_path / "way" / "root")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="symlink loop"):
        private_folder(tmp_path / "a" / "root")


def test_a_way_that_others_may_change_is_refused_unless_names_there_belong_to_their_owners(
    tmp_path: Path,
) -> None:
    way = tmp_path / "way"
    way.mkdir()
    way.chmod(0o777)
    with pytest.raises(StorageError, match=r"way: writable by other users"):
        private_folder(way / "root")
    way.chmod(0o1777)
    assert mode(private_folder(way / "root")) == 0o700


def test_what_others_could_write_to_is_taken_only_if_all_in_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    (root / "keys").mkdir()
    assert mode(private_folder(root)) == 0o700
    root.chmod(0o777)
    (root / "store-0").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="contains 'store-0' that we did not create"):
        private_folder(root)


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=r"Not a directory; create it, or set storage.root") as caught:
            private_folder(path)
        assert "\n" not in str(caught.value)


# --- keys ---------------------------------------------------------------------------------------


def test_a_planted_key_is_no_key_of_the_cluster(tmp_path: Path, stranger: None) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (folder / "dragonfly.key").write_bytes(SigningKey.generate().private_bytes())
    with pytest.raises(StorageError, match="owned by uid"):
        SigningKey.load_or_create(folder / "dragonfly.key")


def test_a_key_that_is_a_link_or_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    SigningKey.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(StorageError, match="accessible to other users"):
        SigningKey.load_or_create(path)
    path.rename(tmp_path / "planted")
    path.symlink_to(tmp_path / "planted")
    with pytest.raises(StorageError, match="not a symlink"):
        SigningKey.load_or_create(path)
    path.unlink()
    path.touch(mode=0o600)
    with pytest.raises(StorageError, match="not a valid signing key"):
        SigningKey.load_or_create(path)


def test_a_draft_of_a_key_follows_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (tmp_path / "victim").write_bytes(b"dear")
    (folder / f"k.{os.getpid()}.new").symlink_to(tmp_path / "victim")
    SigningKey.load_or_create(folder / "k")
    assert (tmp_path / "victim").read_bytes() == b"dear"


# --- defaults -----------------------------------------------------------------------------------


def test_the_default_is_the_system_s_for_root_and_the_user_s_cache_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert StorageSettings().root is None
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert default_root() == tmp_path / "home" / ".cache" / "dragonfly-ray"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "dragonfly-ray"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == tmp_path / "home" / ".cache" / "dragonfly-ray"
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    assert default_root() == Path("/tmp/dragonfly-ray-4321"), "where nothing else can be made"


def test_root_s_default_is_below_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda *rest: True)
    assert default_root() == Path("/var/lib/dragonfly-ray")


def test_a_node_s_own_root_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGONFLY_STORAGE__ROOT", str(tmp_path / "own"))
    assert root_of(Settings().on_this_node().storage) == tmp_path / "own"


# --- the former default -------------------------------------------------------------------------


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As an earlier version left it, in a folder for everybody."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    folder = shared / "dragonfly-ray"
    monkeypatch.setattr(private, "FORMER_ROOT", folder)
    monkeypatch.setattr(private, "default_root", lambda: tmp_path / "new")
    store = store_at(folder)
    complete(store, {"x": BIG})
    store.close()
    SigningKey.load_or_create(folder / "keys" / "k")
    folder.chmod(0o755)
    (folder / "store-0").chmod(0o755)
    return folder


def test_what_lies_in_the_former_default_is_adopted(tmp_path: Path, former: Path) -> None:
    key = SigningKey.load_or_create(former / "keys" / "k").public_bytes()
    former.chmod(0o755)
    store = PieceStore(StorageSettings())
    assert store.path == tmp_path / "new" / "store-0"
    (task,) = store.tasks()
    assert task.complete
    assert all(task.verify(i) for i in range(len(task.table)))
    assert not former.exists()
    assert mode(tmp_path / "new") == mode(store.path) == 0o700
    assert SigningKey.load_or_create(tmp_path / "new" / "keys" / "k").public_bytes() == key
    store.close()
    assert len(PieceStore(StorageSettings()).tasks()) == 1


def test_a_former_default_that_others_could_write_to_is_left(tmp_path: Path, former: Path) -> None:
    former.chmod(0o777)
    assert PieceStore(StorageSettings()).tasks() == []
    assert former.exists()


def test_a_former_default_that_is_a_link_is_left(tmp_path: Path, former: Path) -> None:
    former.rename(tmp_path / "theirs")
    former.symlink_to(tmp_path / "theirs")
    assert PieceStore(StorageSettings()).tasks() == []
    assert (tmp_path / "theirs" / "store-0").exists()


def test_a_former_default_in_use_is_left(tmp_path: Path, former: Path) -> None:
    with (former / "store-0" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert adopted(former, tmp_path / "new") == tmp_path / "new"
    assert (former / "store-0").exists()


def test_a_former_default_on_another_file_system_stays_in_use_made_private(
    tmp_path: Path, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*names: object) -> None:
        raise OSError(18, os.strerror(18))

    with monkeypatch.context() as other:
        other.setattr(os, "rename", across)
        assert root_of(StorageSettings()) == former
    assert mode(former) == 0o700
