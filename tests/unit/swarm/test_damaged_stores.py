"""Holders whose disk has lost what they promise."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.grants import SigningKey
from dragonfly_ray.model import Host
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.transport.parent_connection import Caller, Data, ParentConnection
from tests.nginx import Nginx
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import PIECES, SIZE, assert_everywhere, kinds
from tests.waiting import until


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Connections to parents, by the child."""
    counted: Counter[str] = Counter()
    original = ParentConnection.open.__func__  # type: ignore[attr-defined]

    def counting(cls: Any, parent: Host, caller: Caller, *rest: Any, **more: Any) -> Any:
        counted[caller.host_id] += 1
        return original(cls, parent, caller, *rest, **more)

    monkeypatch.setattr(ParentConnection, "open", classmethod(counting))
    return counted


def damage(task: TaskStore, how: str) -> None:
    file = task.folder / "0"
    file.chmod(0o600)  # as not everybody is root
    if how == "cut":
        os.truncate(file, SIZE // 4)
    elif how == "emptied":
        os.truncate(file, 0)
    else:
        file.unlink()
        task._store.files.forget(str(file))


@pytest.mark.parametrize("how", ["cut", "emptied", "gone"])
def test_a_holder_whose_file_is_damaged_says_so_and_the_origin_fills_in(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, opened: Counter[str], how: str
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    damage(task, how)
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    assert_everywhere(view, content, 1)
    assert opened[built.peers["n1"].host.id] < 20, (
        "it is asked on the same connection, and now and then looked for again"
    )
    known = built.scheduler.core.tasks[task.task.id]
    until(lambda: not known.is_complete(built.peers["n0"].host.id))


def test_bad_sectors_cost_their_pieces_alone(
    origin: Nginx,
    swarm: Callable[..., Swarm],
    content: bytes,
    opened: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    bad = {5, 100, 200}
    inode = os.stat(task.folder / "0").st_ino
    sendfile, pread = os.sendfile, os.pread

    def broken(fd: int, offset: int) -> bool:
        return offset // task.table.leaf in bad and os.fstat(fd).st_ino == inode

    def send(out: int, source: int, offset: int, count: int) -> int:
        if broken(source, offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sendfile(out, source, offset, count)

    def read(fd: int, count: int, offset: int) -> bytes:
        if count > 1 and broken(fd, offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "sendfile", send)
    monkeypatch.setattr(os, "pread", read)
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    assert_everywhere(view, content, 1)
    until(lambda: task.count >= PIECES - len(bad))
    assert {i for i in range(PIECES) if not task.has(i)} <= bad
    assert opened[built.peers["n1"].host.id] <= 3 * len(bad) + 2


def test_a_delivery_of_what_the_disk_has_lost_fetches_it_again(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(1)
    built.distribute(f"{origin.url}/big", "a.0")
    (task,) = built.peers["n0"].store.tasks()
    damage(task, "cut")
    view = built.distribute(f"{origin.url}/big", "b.0", dest=str(tmp_path / "out"))
    assert_everywhere(view, content, 1)


def test_where_the_origin_is_gone_too_it_ends(
    origin: Nginx, swarm: Callable[..., Swarm], opened: Counter[str]
) -> None:
    built = swarm(2, settings=Settings(origin=OriginSettings(give_up=3.0)))
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    damage(task, "cut")
    origin.restart('if ($http_range != "bytes=0-0") { return 500; }')  # it is looked at, and gives nothing
    built.submit(f"{origin.url}/big", "b.0", nodes=["n1"])
    view = built.wait("b.0")
    assert kinds(view)["n1"], "it fails, and does not wait for ever"
    assert opened[built.peers["n1"].host.id] < 20


def test_complaints_keep_nobody_from_being_served(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    holder = built.peers["n0"]
    (task,) = holder.store.tasks()
    held, go_on, verify = threading.Event(), threading.Event(), TaskStore.verify

    def slow(store: TaskStore, index: int) -> bool:
        held.set()
        assert go_on.wait(60)
        return verify(store, index)

    monkeypatch.setattr(TaskStore, "verify", slow)
    key = SigningKey.generate()
    grant = built.scheduler.core.sign(task.task, Host("hostile", "x", key=key.public_bytes()))
    hostile = Caller("hostile", key, task.task.id, grant)
    with contextlib.closing(
        ParentConnection.open(holder.host, hostile, built.settings.transport, PIECES)
    ) as child:
        child.request(0, 100)
        for _ in range(100):
            assert isinstance(
                child.receive(lambda i, n: memoryview(bytearray(n)), lambda i: task.table[i].length), Data
            )
        threads = threading.active_count()
        for _ in range(5):
            for index in range(100):
                child.corrupt(index)
        assert held.wait(30)
        assert threading.active_count() <= threads + 1
        view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
        assert_everywhere(view, content, 1)
        go_on.set()
    assert task.complete


def test_an_edited_output_brings_its_holder_no_complaint(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(3)
    view = built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"], dest=str(tmp_path / "out"))
    output = Path(view["nodes"]["n0"]["path"])
    before = output.stat()
    output.chmod(0o644)
    with output.open("r+b") as file:
        for place in range(0, SIZE, 1 << 20):
            file.seek(place)
            file.write(b"edited")
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))
    (task,) = built.peers["n0"].store.tasks()
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1", "n2"])
    assert_everywhere(view, content, 2)
    known = built.scheduler.core.tasks[task.task.id]
    assert not known.banned
    assert not [
        d for d in built.scheduler.core.decisions.recent(task.task.id) if d.kind in ("ban", "complaint")
    ]


def test_what_a_resolve_writes_is_not_evicted_under_it(
    swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = TaskStore.put
    refused: list[str] = []

    def others_want_room(task: TaskStore, *rest: Any) -> None:
        assert isinstance(task._store, PieceStore)
        try:
            task._store.evict(task.task.id)
        except InvalidRequestError as error:
            refused.append(str(error))
        put(task, *rest)

    monkeypatch.setattr(TaskStore, "put", others_want_room)
    with ScriptedOrigin(Behaviour(ranges=False, length=False, content=content)) as poor:
        built = swarm(1)
        view = built.distribute(poor.url)
    assert_everywhere(view, content, 1)
    assert len(refused) == PIECES
