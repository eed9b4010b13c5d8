"""The manager's port, over real actors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import dragonfly_ray as d
from dragonfly_ray.errors import ClusterError, InvalidRequestError, UnknownNodesError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.cluster import NodeView, Order, Part
from dragonfly_ray.serve.ray_cluster import RayCluster
from tests.cluster.conftest import LocalCluster, until
from tests.nginx import Nginx

MIB = 1 << 20
HERE = UrlPolicy(networks=("127.0.0.0/8",))
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def port(cluster: LocalCluster) -> RayCluster:
    return RayCluster()


def an_order(id: str, urls: list[str], nodes: list[str], dest: Path | None = None) -> Order:
    """Whatever it puts out lies below the test's folder."""
    return Order(
        id=id,
        sources=tuple(Source(url) for url in urls),
        targets=tuple(nodes),
        dest=str(dest / "{node}" / "{name}") if dest else "",
        dest_roots=(str(dest),) if dest else (),
        policy=HERE,
    )


def follow(
    port: RayCluster, order: Order, enough: Callable[[dict[int, Part]], bool], timeout: float = 60.0
) -> dict[int, Part]:
    """Watches an order until its parts, by index, are enough."""
    parts: dict[int, Part] = {}
    wanted = {(order.id, i): -1 for i in range(len(order.sources))}

    def look() -> bool:
        for shard in range(port.shards()):
            mine = {key: v for key, v in wanted.items() if port.shard_of(order.sources[key[1]]) == shard}
            for key, part in port.watch(shard, mine, 1.0).items() if mine else ():
                assert part is not None, "its scheduler knows it"
                parts[key[1]] = part
                wanted[key] = part.version
        return enough(parts)

    until(look, timeout)
    return parts


def over(parts: dict[int, Part]) -> bool:
    return bool(parts) and all(part.phase == "ended" for part in parts.values())


def node(port: RayCluster, node_id: str) -> NodeView:
    return next(n for n in port.nodes() if n.node_id == node_id)


def test_an_order_is_carried_out_and_watched(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    data = {name: os.urandom(9 * MIB) for name in ("a", "b")}
    for name, content in data.items():
        (origin.root / name).write_bytes(content)
    before = {n.node_id: n for n in port.nodes()}
    order = an_order("o-1", [f"{origin.url}/{n}" for n in data], cluster.node_ids, tmp_path / "o")
    port.submit(order, Credentials())
    port.submit(order, Credentials())
    parts = follow(port, order, lambda parts: len(parts) == 2 and over(parts))
    for index, (name, content) in enumerate(data.items()):
        part = parts[index]
        assert part.url == f"{origin.url}/{name}"
        assert part.size == len(content)
        assert {o.node_id: o.state for o in part.nodes} == dict.fromkeys(cluster.node_ids, "done")
        assert all(Path(o.path).read_bytes() == content for o in part.nodes)
        assert sum(o.bytes_origin for o in part.nodes) == len(content)
        assert len(content) <= origin.sent(f"/{name}") <= len(content) + 1
    assert port.watch(0, {(order.id, 0): parts[0].version}, 0.0) == {}
    assert port.watch(0, {("never", 0): 3}, 0.0) == {("never", 0): None}

    def moved() -> bool:
        now = {n.node_id: n for n in port.nodes()}
        return sum(now[n].bytes_origin - before[n].bytes_origin for n in now) == 18 * MIB

    until(moved, why=port.nodes)
    until(lambda: all(n.store_used >= 18 * MIB for n in port.nodes()), why=port.nodes)
    after = {n.node_id: n for n in port.nodes()}
    assert sum(after[n].bytes_peers - before[n].bytes_peers for n in after) == 3 * 18 * MIB
    assert sum(after[n].bytes_sent - before[n].bytes_sent for n in after) >= 3 * 18 * MIB
    for n in after.values():
        assert (n.state, n.alive, n.cordoned, n.error) == ("healthy", True, False, "")
        assert n.store_quota > n.store_used
        assert n.disk_total > n.disk_free > 0
        assert n.incarnation


def test_tasks_and_what_can_be_done_with_them(cluster: LocalCluster, port: RayCluster, origin: Nginx) -> None:
    tree = origin.root / "tree"
    tree.mkdir()
    for number in range(25):
        (tree / f"f{number:02}").write_bytes(os.urandom(1000 + number))
    (tree / "big").write_bytes(os.urandom(6 * MIB))
    order = an_order("o-2", [f"{origin.url}/tree/"], cluster.node_ids[:3])
    port.submit(order, Credentials())
    part = follow(port, order, over)[0]
    holders = set(cluster.node_ids[:3])

    def listed() -> bool:
        found = next((t for t in port.tasks() if t.task_id == part.task_id), None)
        return found is not None and found.holders == dict.fromkeys(holders, 1.0) and not found.active

    until(listed, why=port.tasks)
    task = next(t for t in port.tasks() if t.task_id == part.task_id)
    assert (task.whole, task.partial, task.entries, task.directory, task.banned) == (3, 0, 26, True, ())
    total, page = port.manifest(part.task_id, 24, 5)
    assert (total, [e["path"] for e in page]) == (26, ["f23", "f24"])
    assert page[0]["size"] == 1023
    found = port.availability(part.task_id, 7)
    assert found is not None
    assert found.nodes == dict.fromkeys(holders, b"\xff" * 7)
    assert port.availability("nothing", 7) is None
    assert {e.child for e in port.edges(part.task_id)} <= holders
    assert port.pin(part.task_id, "me", None) == 3
    assert port.pin(part.task_id, "you", 4e9, cluster.node_ids[:1]) == 1
    assert {(p.node_id, p.owner, p.expires_at) for p in port.pins(part.task_id)} == {
        *((n, "me", None) for n in holders), (cluster.node_ids[0], "you", 4e9)
    }  # fmt: skip
    with pytest.raises(InvalidRequestError, match="pinned by me"):
        port.evict(part.task_id, cluster.node_ids[1:2])
    assert port.unpin(part.task_id, "me") == 3
    assert port.unpin(part.task_id, "you", cluster.node_ids[:1]) == 1
    assert port.pins(part.task_id) == []
    assert port.evict(part.task_id, cluster.node_ids[:1]) == part.size
    until(lambda: set(next(t for t in port.tasks() if t.task_id == part.task_id).holders) == holders - {cluster.node_ids[0]})  # fmt: skip
    assert port.evict(part.task_id) == 2 * (part.size or 0)


def test_what_is_not_there_is_said(cluster: LocalCluster, port: RayCluster) -> None:
    assert set(port.select("all")) == set(cluster.node_ids)
    with pytest.raises(UnknownNodesError):
        port.select("nope")
    with pytest.raises(InvalidRequestError, match="no node holds"):
        port.manifest("0" * 64, 0, 10)
    with pytest.raises(ClusterError):
        RayCluster(d.Settings(namespace="nowhere"), start=False).nodes()
