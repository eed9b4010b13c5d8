"""Peers that lie about what they have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import digest
from dragonfly_ray.storage.task_pieces import Extent
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import PIECES, SIZE, assert_everywhere, kinds, states
from tests.waiting import until


class Liar:
    """What a peer shares, with other bytes in every piece: it says so first, and consistently."""

    def __init__(self, honest: Any, leaf: int, folder: Path) -> None:
        self._honest = honest
        self._leaf = leaf
        self._file = folder / "lie"
        self._file.write_bytes(b"\x07" * leaf)
        self.digest_of_lie = digest(b"\x07" * leaf)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def digests(self) -> list[bytes | None]:
        return [self.digest_of_lie for _ in self._honest.digests()]

    def bitmap(self, host_id: str) -> bytes:
        return b"\xff" * len(self._honest.bitmap(host_id))

    def has(self, index: int) -> bool:
        return True

    def digest(self, index: int) -> bytes:
        return self.digest_of_lie

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[list[Extent]]:
        with self._file.open("rb") as file:
            yield [Extent(file.fileno(), 0, self._leaf)]


def test_a_neighbour_that_lies_first_gets_nobody_banned_but_itself(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    origin.restart("limit_rate 2m;")
    # Nobody but the seed may ask the origin, so that every other peer depends on what it is told.
    built = swarm(4, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    liar = built.peers["n1"]
    shared = liar.shared

    def lies(task_id: str) -> Any:
        found = shared(task_id)
        return found and Liar(found, SIZE // len(found.digests()), tmp_path)

    liar.shared = lies  # type: ignore[method-assign]
    view = built.distribute(f"{origin.url}/big")
    (task,) = built.scheduler.core.tasks.values()
    for node in ("n0", "n2", "n3"):
        assert states(view)[node] == "done", f"{view['nodes']}"
        assert Path(view["nodes"][node]["path"]).read_bytes() == content

    def bans() -> list[str]:
        return [d.host for d in built.scheduler.core.decisions.recent(task.task.id) if d.kind == "ban"]

    until(bans)  # the last complaint may come after the last byte
    assert bans() == [liar.host.id], "the liar, and nobody else"
    assert kinds(view)["n1"] in ("", "integrity"), "what it had not got by then it does not get"


def test_a_wrong_word_of_one_neighbour_is_no_proof_against_another(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(3)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (stored,) = built.peers["n0"].store.tasks()
    liar = built.peers["n1"]
    told = liar.shared

    def false_words(task_id: str) -> Any:
        found = told(task_id)
        if found:
            found.digests = lambda: [digest(b"no")] * PIECES  # type: ignore[method-assign]
            found.bitmap = lambda host_id: b"\xff" * (PIECES // 8)  # type: ignore[method-assign]
        return found

    liar.shared = false_words  # type: ignore[method-assign]
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1", "n2"])
    assert_everywhere(view, content, 2)
    task = built.scheduler.core.tasks[stored.task.id]
    assert built.peers["n0"].host.id not in task.banned
    assert built.peers["n2"].host.id not in task.banned


def test_a_parent_that_lies_about_lengths_is_dropped_alone(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    """Each of its pieces has the digest that it says, and another length than the table's."""
    origin.restart("limit_rate 2m;")
    built = swarm(5, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    liar = built.peers["n1"]
    shared = liar.shared

    def lies(task_id: str) -> Any:
        found = shared(task_id)
        return found and Liar(found, 1000, tmp_path)

    liar.shared = lies  # type: ignore[method-assign]
    view = built.distribute(f"{origin.url}/big")
    for node in ("n0", "n2", "n3", "n4"):
        assert states(view)[node] == "done", f"{view['nodes']}"
        assert Path(view["nodes"][node]["path"]).read_bytes() == content
    (task,) = built.scheduler.core.tasks.values()
    assert task.banned <= {liar.host.id}, "nobody else"
    false = digest(b"\x07" * 1000)
    for node in ("n0", "n2", "n3", "n4"):
        (stored,) = built.peers[node].store.tasks()
        assert false not in stored.digests
