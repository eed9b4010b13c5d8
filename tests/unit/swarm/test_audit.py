"""A second host reads at the origin what the first has read, and one that lies about it is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.peer.engine import Engine
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import PIECES, SIZE, assert_everywhere, kinds, patient, states
from tests.waiting import until


def total(view: dict[str, Any], what: str) -> int:
    return sum(record[what] for record in view["nodes"].values())


def lie(monkeypatch: pytest.MonkeyPatch, built: Swarm, node: str) -> None:
    """A host that reads one thing at the origin and says another."""
    liar = built.peers[node].host.id
    true = Engine.from_origin

    def from_origin(run: Engine, index: int, view: memoryview) -> None:
        if run.context.host_id == liar:
            view[:8] = b"not true"
        true(run, index, view)

    monkeypatch.setattr(Engine, "from_origin", from_origin)


def test_what_is_read_twice_is_counted_apart(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(4, audit=0.5, settings=patient())
    view = built.distribute(f"{origin.url}/big", dest=str(tmp_path / "out" / "{node}"))
    assert_everywhere(view, content, 4)
    assert total(view, "bytes_origin") == SIZE
    (task,) = built.scheduler.core.tasks.values()
    done = task.audits.confirmed.bit_count()
    assert done + task.audits.missed == PIECES // 2
    assert done > PIECES // 4
    audited = total(view, "bytes_audit")
    assert audited >= done * SIZE // PIECES
    # What was read in vain is counted, too.
    assert SIZE + audited <= origin.sent("/big") + 4 * SIZE // PIECES
    read: list[int] = []
    for record in view["nodes"].values():
        for part in record["origin_pieces"].split(","):
            first, _, last = part.partition("-")
            read.extend(range(int(first), int(last or first) + 1))
    assert sorted(read) == list(range(PIECES)), "who read what"


def test_without_audits_each_byte_leaves_the_origin_once(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    view = swarm(3, audit=0.0, settings=patient()).distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 3)
    assert total(view, "bytes_audit") == 0
    assert total(view, "bytes_origin") == SIZE
    until(lambda: origin.sent("/big") > SIZE)  # its log has the last answer
    assert origin.sent("/big") == SIZE + 1, "and the first byte, to look at it"


def test_a_host_that_lies_about_the_origin_is_banned_and_the_content_is_right(
    origin: Nginx,
    swarm: Callable[..., Swarm],
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin.restart("limit_rate 4m;")
    built = swarm(4, audit=1.0)
    lie(monkeypatch, built, "n1")
    built.submit(f"{origin.url}/big")
    view = built.wait()
    (task,) = built.scheduler.core.tasks.values()
    liar = built.peers["n1"].host.id
    assert task.banned == {liar}
    for node in ("n0", "n2", "n3"):
        record = view["nodes"][node]
        assert record["state"] == "done", view
        assert Path(record["path"]).read_bytes() == content


def test_two_hosts_that_differ_leave_nothing_that_might_be_wrong(
    origin: Nginx, swarm: Callable[..., Swarm], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin.restart("limit_rate 4m;")
    built = swarm(2, audit=1.0)
    lie(monkeypatch, built, "n0")
    view = built.distribute(f"{origin.url}/big", dest=str(tmp_path / "out" / "{node}"))
    assert set(states(view).values()) == {"failed"}
    assert set(kinds(view).values()) == {"integrity"}
    assert not (tmp_path / "out").exists()
