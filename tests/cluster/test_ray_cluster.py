"""The manager's port, over real actors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

import dragonfly_ray as d
from dragonfly_ray.actors.handles import reach
from dragonfly_ray.cluster_directives import Directives
from dragonfly_ray.errors import ClusterError, InvalidRequestError, SourceForbiddenError, UnknownNodesError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.cluster import NodeView, Order, Part
from dragonfly_ray.serve.ray_cluster import RayCluster
from tests.cluster.conftest import LocalCluster, connections, until
from tests.cluster.test_api import dragonfly
from tests.nginx import Nginx
from tests.origins import Behaviour, ScriptedOrigin

MIB = 1 << 20
HERE = UrlPolicy(networks=("127.0.0.0/8",))
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def port(cluster: LocalCluster) -> RayCluster:
    return RayCluster()


@pytest.fixture(autouse=True)
def unmarked(port: RayCluster) -> Iterator[None]:
    """A test that fails leaves no node cordoned or draining for the next."""
    yield
    for each in port.nodes():
        if each.cordoned or each.state in ("draining", "drained"):
            port.cordon(each.node_id, False)
            port.drain(each.node_id, False)


def an_order(id: str, urls: list[str], nodes: list[str], dest: Path | None = None) -> Order:
    """Whatever it puts out lies below the test's folder."""
    return Order(
        id=id,
        sources=tuple(Source(url) for url in urls),
        targets=tuple(nodes),
        dest=str(dest / "{node}" / "{name}") if dest else "",
        dest_roots=(str(dest.parent),) if dest else (),
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
                if part is None:  # it has restarted
                    port.submit(order, Credentials())
                    continue
                parts[key[1]] = part
                wanted[key] = part.version
        return enough(parts)

    until(look, timeout)
    return parts


def over(parts: dict[int, Part]) -> bool:
    return bool(parts) and all(part.phase == "ended" for part in parts.values())


def reported(cluster: LocalCluster, port: RayCluster) -> dict[str, NodeView]:
    """The nodes, once the manager has heard of all that they have received: they tell it now and then."""
    views: dict[str, NodeView] = {}

    def heard() -> bool:
        views.update({n.node_id: n for n in port.nodes()})
        return all(
            cluster.peer(n)["received"]
            == views[n].bytes_origin + views[n].bytes_peers + views[n].bytes_object_store
            for n in cluster.node_ids
        )

    until(heard, why=port.nodes)
    return views


def node(port: RayCluster, node_id: str) -> NodeView:
    return next(n for n in port.nodes() if n.node_id == node_id)


def test_an_order_is_carried_out_and_watched(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    data = {name: os.urandom(9 * MIB) for name in ("a", "b")}
    for name, content in data.items():
        (origin.root / name).write_bytes(content)
    before = reported(cluster, port)
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
        read = sum(o.bytes_origin for o in part.nodes)
        # What a slow host has leased and not begun in time is read by another one, too.
        assert len(content) <= read < 1.2 * len(content)
        assert 4 * len(content) - read <= sum(o.bytes_peers for o in part.nodes) <= 3 * len(content)
        audited = sum(o.bytes_audit for o in part.nodes)
        assert len(content) <= origin.sent(f"/{name}") - audited <= 1.2 * len(content) + 1
    assert port.watch(0, {(order.id, 0): parts[0].version}, 0.0) == {}
    assert port.watch(0, {("never", 0): 3}, 0.0) == {("never", 0): None}

    # What a node counts is what came to it; that may be more than it needed: what is late is asked twice.
    after = reported(cluster, port)

    def grown(count: str) -> int:
        return sum(getattr(after[n], count) - getattr(before[n], count) for n in cluster.node_ids)

    assert 18 * MIB <= grown("bytes_origin") < 36 * MIB
    assert 3 * 18 * MIB <= grown("bytes_peers") < 2 * 3 * 18 * MIB

    def sent_and_stored() -> bool:
        after.update({n.node_id: n for n in port.nodes()})
        stored = all(after[n].store_used >= 18 * MIB for n in cluster.node_ids)
        return stored and grown("bytes_sent") >= 3 * 18 * MIB

    until(sent_and_stored, why=port.nodes)
    for n in (after[node] for node in cluster.node_ids):
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
    with pytest.raises(InvalidRequestError, match="no node has any piece"):
        port.manifest("0" * 64, 0, 10)
    with pytest.raises(ClusterError):
        RayCluster(d.Settings(namespace="nowhere"), start=False).nodes()


# --- cancel, and who may read -------------------------------------------------------------------


def moved(port: RayCluster) -> int:
    return sum(n.bytes_origin + n.bytes_peers for n in port.nodes())


def test_a_cancel_stops_the_work_on_the_nodes(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    for name in ("c", "other"):
        (origin.root / name).write_bytes(os.urandom(60 * MIB))
    origin.restart("limit_rate 500k;")
    order = an_order(
        "cancel-1", [f"{origin.url}/{n}" for n in ("c", "other")], cluster.node_ids, tmp_path / "o"
    )
    port.submit(order, Credentials())
    follow(port, order, lambda parts: sum(o.bytes_done for p in parts.values() for o in p.nodes) > 8 * MIB)
    port.cancel(order, "cancelled", "somebody said so")
    parts = follow(port, order, lambda parts: len(parts) == 2 and over(parts))
    assert {(o.state, o.error_kind, o.error) for p in parts.values() for o in p.nodes} == {
        ("failed", "cancelled", "somebody said so")
    }
    until(lambda: not any(n.active_tasks for n in port.nodes()), 20.0)
    # nginx tells of a request when it has ended: once all have, nothing comes after.
    until(lambda: not any(connections(h["pid"], set()) for h in d.status()["hosts"]), 20.0)
    sent, before = sum(hit.sent for hit in origin.hits()), moved(port)
    assert sent < 100 * MIB
    (origin.root / "meanwhile").write_bytes(b"x")
    meanwhile = an_order("cancel-2", [f"{origin.url}/meanwhile"], cluster.node_ids)
    port.submit(meanwhile, Credentials())
    follow(port, meanwhile, over)
    assert sum(hit.sent for hit in origin.hits()) - sent <= 2
    assert moved(port) - before <= 4
    assert not (tmp_path / "o").exists()


def test_a_cancel_leaves_another_order_of_the_same_content_alone(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    content = os.urandom(32 * MIB)
    (origin.root / "same").write_bytes(content)
    origin.restart("limit_rate 1m;")
    one, two = (
        an_order(f"same-{n}", [f"{origin.url}/same"], nodes, tmp_path / n)
        for n, nodes in (("one", cluster.node_ids[:3]), ("two", cluster.node_ids[1:]))
    )
    for order in (one, two):
        port.submit(order, Credentials())
    for order in (one, two):
        follow(
            port, order, lambda parts: sum(o.bytes_done for p in parts.values() for o in p.nodes) > 4 * MIB
        )
    port.cancel(one)
    done = follow(port, two, over)[0]
    assert {o.state for o in done.nodes} == {"done"}
    assert all(Path(o.path).read_bytes() == content for o in done.nodes)
    assert {o.error_kind for o in follow(port, one, over)[0].nodes} == {"cancelled"}


def test_every_order_must_be_let_in_by_the_origin_itself(
    cluster: LocalCluster, port: RayCluster, tmp_path: Path
) -> None:
    """Content that is cached on all nodes is none of theirs who may not read it."""
    right = Credentials({}, {"Authorization": "Bearer right"})
    with ScriptedOrigin(Behaviour(os.urandom(9 * MIB), demand=right.headers)) as origin:
        for number, credentials in enumerate(
            (right, Credentials(), Credentials({}, {"Authorization": "x"}), right)
        ):
            order = an_order(f"own-{number}", [origin.url], cluster.node_ids, tmp_path / f"{number}")
            port.submit(order, credentials)
            part = follow(port, order, over)[0]
            expected = {("done", "")} if credentials is right else {("failed", "source-auth")}
            assert {(o.state, o.error_kind) for o in part.nodes} == expected
        assert sum(o.bytes_cache for o in part.nodes) == 4 * 9 * MIB
        assert "right" not in str([n.error for n in port.nodes()])
    assert not (tmp_path / "1").exists()


# --- what is not allowed ------------------------------------------------------------------------


def test_orders_keep_to_their_policy_and_roots(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    (origin.root / "p").write_bytes(b"x" * 1000)
    url = f"{origin.url}/p"
    nodes = cluster.node_ids[:2]
    inside = replace(an_order("no-1", [url], nodes), policy=UrlPolicy())
    with pytest.raises(SourceForbiddenError):
        port.submit(inside, Credentials())
    for dest, roots in (
        ("/elsewhere/f", (str(tmp_path),)),
        (f"{tmp_path}/f", ()),
        (f"{tmp_path}/../f", (str(tmp_path),)),
    ):
        with pytest.raises(InvalidRequestError):
            port.submit(replace(an_order("no-2", [url], nodes), dest=dest, dest_roots=roots), Credentials())
    assert origin.hits() == []
    outside = UrlPolicy(networks=("127.0.0.2/32",))
    with ScriptedOrigin(Behaviour(redirect=url), "127.0.0.2") as redirecting:
        order = replace(an_order("no-3", [redirecting.url], nodes), policy=outside)
        port.submit(order, Credentials())
        assert {o.error_kind for o in follow(port, order, over)[0].nodes} == {"source-forbidden"}
    assert origin.hits() == []
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    order = an_order("no-4", [url], nodes, tmp_path / "root" / "link")
    port.submit(order, Credentials())
    assert {o.error_kind for o in follow(port, order, over)[0].nodes} == {"unsafe-path"}
    assert not list(tmp_path.glob(f"{nodes[0]}*"))


# --- cordon and drain ---------------------------------------------------------------------------


def test_a_cordoned_node_is_chosen_only_by_name(cluster: LocalCluster, port: RayCluster) -> None:
    first, *others = cluster.node_ids
    port.cordon(first, True)
    assert set(port.select("all")) == set(others)
    assert port.select([first]) == [first]
    assert node(port, first).cordoned
    assert {m.node_id for m in d.nodes() if m.cordoned} == {first}
    ran = dragonfly(cluster, "uncordon", first)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "1 uncordoned"
    assert set(port.select("all")) == set(cluster.node_ids)


def test_a_drained_node_ends_what_it_has_begun_and_feeds_nobody(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path
) -> None:
    content = os.urandom(40 * MIB)
    (origin.root / "d").write_bytes(content)
    origin.restart("limit_rate 1m;")
    first, *others = cluster.node_ids
    begun = an_order("drain-1", [f"{origin.url}/d"], cluster.node_ids[:3], tmp_path / "o")
    port.submit(begun, Credentials())
    follow(port, begun, lambda parts: any(o.bytes_done > 4 * MIB for p in parts.values() for o in p.nodes))
    port.drain(first, True)
    assert node(port, first).state == "draining"
    assert first not in port.select("all")
    done = follow(port, begun, over)[0]
    assert {o.state for o in done.nodes} == {"done"}
    until(lambda: node(port, first).state == "drained", why=port.nodes)
    assert d.drain(first) == [first], "it is already"
    sent = node(port, first).bytes_sent
    late = an_order("drain-2", [f"{origin.url}/d"], [others[2]], tmp_path / "late")
    port.submit(late, Credentials())
    done = follow(port, late, over)[0]
    assert done.nodes[0].bytes_peers == len(content)
    assert Path(done.nodes[0].path).read_bytes() == content
    assert not [e for e in port.edges(done.task_id) if (e.parent, e.child) == (first, others[2])]
    assert node(port, first).bytes_sent == sent
    port.drain(first, False)
    until(lambda: node(port, first).state == "healthy")
    assert d.uncordon(first) == [first]
    assert first in port.select("all")


def test_a_node_that_ray_drains_is_left_alone(cluster: LocalCluster, port: RayCluster) -> None:
    extra = cluster.add()
    gone = extra.node_id
    try:
        until(lambda: any(n.node_id == gone and n.state == "healthy" for n in port.nodes()))
        subprocess.run(
            [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.ray.address,
             "--node-id", gone, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", "300"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        until(lambda: node(port, gone).state in ("draining", "drained"), why=port.nodes)
        assert gone not in port.select("all")
        assert not node(port, gone).cordoned, "nobody has said so"
    finally:
        cluster.ray.remove_node(extra)
    until(lambda: not node(port, gone).alive)
    until(lambda: node(port, gone).state == "missing")


# --- settings -----------------------------------------------------------------------------------


@pytest.fixture
def as_started(port: RayCluster) -> Iterator[None]:
    yield
    port.apply(port.settings()[0] + 1, {})


def scheduler_version() -> int:
    """Of the settings that the scheduler follows."""
    actor = reach("scheduler:0", "dragonfly")
    return Directives.decode(ray.get(actor.direct.remote(Directives().encode()), timeout=10)).version


def everywhere(port: RayCluster, version: int) -> bool:
    try:
        nodes = [n for n in port.nodes() if n.alive]
        versions = {port.settings()[0], scheduler_version(), *(n.settings_version for n in nodes)}
    except (ClusterError, ray.exceptions.RayError):
        return False
    return versions == {version} and {n.state for n in nodes} == {"healthy"}


def test_settings_reach_everybody_and_survive_restarts(
    cluster: LocalCluster, port: RayCluster, origin: Nginx, tmp_path: Path, as_started: None
) -> None:
    content = os.urandom(24 * MIB)
    (origin.root / "s").write_bytes(content)
    version = port.settings()[0] + 1
    with pytest.raises(InvalidRequestError, match=r"transport\.port: cannot be changed at runtime"):
        port.apply(version, {"transport.port": 7})
    port.apply(version, {"transport.download_rate": 32 * 1024, "peer.dest_roots": ["/"]})
    until(lambda: everywhere(port, version))
    assert port.settings()[1]["transport"]["download_rate"] == 32 * 1024
    order = an_order("live-1", [f"{origin.url}/s"], cluster.node_ids, tmp_path / "o")
    port.submit(order, Credentials())
    part = follow(port, order, lambda parts: any(o.bytes_done for p in parts.values() for o in p.nodes))[0]
    assert part.phase == "running"
    pids = d.status()["pids"]
    for pid in (pids["controller"], pids["scheduler:0"], cluster.peer(cluster.node_ids[1])["pid"]):
        os.kill(pid, signal.SIGKILL)
    until(lambda: everywhere(port, version), 120.0)
    assert d.status()["pids"]["controller"] != pids["controller"]
    port.apply(version - 1, {})
    assert port.settings()[0] == version
    assert port.settings()[1]["transport"]["download_rate"] == 32 * 1024
    follow(port, order, lambda parts: any(p.phase == "running" for p in parts.values()))
    port.apply(version + 1, {})
    until(lambda: everywhere(port, version + 1))
    assert port.settings()[1]["transport"]["download_rate"] is None
    done = follow(port, order, over, 120.0)[0]
    assert all(Path(o.path).read_bytes() == content for o in done.nodes)


def test_marks_survive_the_controller(cluster: LocalCluster, port: RayCluster) -> None:
    first, second = cluster.node_ids[:2]
    port.cordon(first, True)
    os.kill(d.status()["pids"]["controller"], signal.SIGKILL)
    port.cordon(second, True)
    assert set(port.select("all")) == set(cluster.node_ids[2:])
    for each in (first, second):
        port.cordon(each, False)
    until(lambda: set(port.select("all")) == set(cluster.node_ids))
