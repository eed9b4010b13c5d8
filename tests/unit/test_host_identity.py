"""The id of a store: kept through restarts and reboots, new on machines that were cloned from one image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dragonfly_ray.config import StorageSettings
from dragonfly_ray.storage import host_identity
from dragonfly_ray.storage.host_identity import machine_identity
from dragonfly_ray.storage.store import PieceStore
from tests.piece_stores import BIG, complete


class Machine:
    """What the kernel tells of one."""

    def __init__(self, folder: Path, image: str, board: str, card: str) -> None:
        self.folder = folder
        net = folder / "net"
        (net / "eth0" / "device").mkdir(parents=True)
        (net / "lo").mkdir()
        (net / "lo" / "address").write_text("00:00:00:00:00:00\n")
        (net / "eth0" / "address").write_text(card + "\n")
        (folder / "machine-id").write_text(image + "\n")
        (folder / "board").write_text(board + "\n")

    def use(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(host_identity, "_MACHINE_ID", self.folder / "machine-id")
        patch.setattr(host_identity, "_BOARD", self.folder / "board")
        patch.setattr(host_identity, "_NETWORK", self.folder / "net")


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one", "image", "board1", "02:00:00:00:00:01")


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "two", "image", "board2", "02:00:00:00:00:02")


def started(root: Path, boot: str) -> str:
    store = PieceStore(StorageSettings(root=root), boot_id=boot)
    store.close()
    return store.host_id


def test_the_id_outlives_processes_and_reboots(
    tmp_path: Path, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.use(monkeypatch)
    ids = {started(tmp_path / "s", boot) for boot in ("a", "a", "b", "c")}
    assert len(ids) == 1


def test_machines_cloned_from_one_image_take_ids_of_their_own_and_keep_the_content(
    tmp_path: Path, one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.use(monkeypatch)
    store = PieceStore(StorageSettings(root=tmp_path / "s"), boot_id="a")
    complete(store, {"x": BIG})
    store.close()
    first = store.host_id
    two.use(monkeypatch)  # the same disk, as the clone sees it, down to the numbers of its files
    clone = PieceStore(StorageSettings(root=tmp_path / "s"), boot_id="b")
    assert clone.host_id != first
    assert [task.complete for task in clone.tasks()] == [True]
    clone.close()
    assert started(tmp_path / "s", "c") == clone.host_id, "and keeps it"


def test_a_copy_of_a_store_on_one_machine_has_an_id_of_its_own(
    tmp_path: Path, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.use(monkeypatch)
    first = started(tmp_path / "s", "a")
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    assert started(tmp_path / "copy", "a") != first
    (tmp_path / "s").rename(tmp_path / "moved")
    assert started(tmp_path / "moved", "a") == first, "what was only moved is the same"


def test_what_tells_machines_apart(
    tmp_path: Path, one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.use(monkeypatch)
    first = machine_identity()
    two.use(monkeypatch)
    assert machine_identity() != first
    (two.folder / "board").unlink()  # not readable by everybody
    (one.folder / "board").unlink()
    cards = machine_identity()
    one.use(monkeypatch)
    assert machine_identity() not in ("", cards)
    shutil.rmtree(one.folder / "net")
    assert machine_identity() == "", "the image's id is no machine's"


def test_without_any_mark_of_the_machine_an_id_lasts_until_the_reboot(
    tmp_path: Path, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.use(monkeypatch)
    (one.folder / "board").unlink()
    shutil.rmtree(one.folder / "net")
    first = started(tmp_path / "s", "a")
    assert started(tmp_path / "s", "a") == first
    assert started(tmp_path / "s", "b") != first


@pytest.mark.parametrize("left", [b"0123456789abcdef0123456789abcdef", b"", b"{"])
def test_an_id_that_is_bound_to_no_machine_is_replaced(
    tmp_path: Path, one: Machine, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    one.use(monkeypatch)
    first = started(tmp_path / "s", "a")
    (tmp_path / "s" / "store-0" / "id").write_bytes(left)
    second = started(tmp_path / "s", "a")
    assert second not in (first, left.decode())
    assert started(tmp_path / "s", "a") == second
