"""Processes that die in mid-transfer, on a real cluster. Each victim holds 10 to 90 % when it is hit."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import dragonfly_ray as d
from dragonfly_ray.config import OriginSettings, PeerSettings
from dragonfly_ray.errors import CancelledByUserError, NotRunningError
from dragonfly_ray.logs import logs_folder
from dragonfly_ray.model import SHORT_LEAF
from tests.cluster.conftest import NODES, LocalCluster, until
from tests.nginx import Nginx
from tests.origins import BusyOnce, ScriptedOrigin

MIB = 1 << 20
SIZE = 64 * MIB
"""A piece of content of that size."""
SLOW = "limit_rate 1m;"
"""For each connection; four peers with two each make 8 MiB a second."""
END = 120.0
PATIENCE = 15.0
"""Seconds from the end of the last survivor to the end of the whole."""
pytestmark = pytest.mark.cluster


@pytest.fixture
def content(origin: Nginx) -> bytes:
    data = os.urandom(SIZE)
    (origin.root / "f").write_bytes(data)
    origin.stop()
    origin.start(SLOW)
    return data


class Transfer:
    """A distribution under way to every node, stopped by nothing yet."""

    def __init__(self, origin: Nginx, out: Path, *, name: str = "f") -> None:
        self.submission = d.submit(f"{origin.url}/{name}", dest=out / "{node}" / "f")

    def share(self, node: str) -> float:
        """How much of it this node has, by its own account."""
        progress = self.submission.progress()
        found = next((n for n in progress.nodes if n.node_id == node), None)
        return found.done / found.total if found and found.total else 0.0

    def half_way(self, *nodes: str) -> None:
        """Waits until each of the nodes has something to lose, and checks that none has all of it."""
        until(lambda: all(self.share(node) > 0.25 for node in nodes))
        for node in nodes:
            assert 0.1 <= self.share(node) <= 0.9

    def end(self, *victims: str) -> d.Distribution:
        """The account of it, which comes soon after the last node that was not hit has ended."""
        done = self.submission.result(END)
        survivors = [o.seconds for o in done.outcomes if o.ok and o.node_id not in victims]
        if survivors:
            assert done.seconds - max(survivors) < PATIENCE, done.to_dict()
        return done


def assert_right(done: d.Distribution, content: bytes, nodes: object) -> None:
    wanted = set(nodes)  # type: ignore[call-overload]
    assert wanted <= set(done.paths), done.to_dict()
    assert all(done.paths[node].read_bytes() == content for node in wanted)


def kinds(done: d.Distribution) -> dict[str, str]:
    return {o.node_id: o.error.kind for o in done.outcomes if o.error}


def test_a_peer_is_killed(cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    victim = cluster.node_ids[1]
    transfer.half_way(victim)
    pid = cluster.peer(victim)["pid"]
    os.kill(pid, signal.SIGKILL)
    done = transfer.end(victim)
    assert_right(done, content, cluster.node_ids)
    outcome = next(o for o in done.outcomes if o.node_id == victim)
    assert outcome.bytes_cache > 0.1 * SIZE, "it resumed with what it had"
    assert cluster.peer(victim)["pid"] != pid


def test_the_scheduler_is_killed(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(*cluster.node_ids)
    pid = d.status()["pids"]["scheduler:0"]
    os.kill(pid, signal.SIGKILL)
    assert_right(transfer.end(), content, cluster.node_ids)
    assert d.status()["pids"]["scheduler:0"] != pid


def test_the_controller_is_killed(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(*cluster.node_ids)
    before = {h["node_id"]: h["pid"] for h in d.status()["hosts"]}
    os.kill(d.status()["pids"]["controller"], signal.SIGKILL)
    assert_right(transfer.end(), content, cluster.node_ids)
    until(lambda: _answers(cluster))
    assert {h["node_id"]: h["pid"] for h in d.status()["hosts"]} == before, "it adopted what ran"


def _answers(cluster: LocalCluster) -> bool:
    try:
        return all(h["state"] == "healthy" for h in d.status()["hosts"])
    except NotRunningError:
        return False


@contextlib.contextmanager
def another_dragonfly(name: str, settings: d.Settings) -> Iterator[None]:
    """A second set of actors on the same Ray cluster, with settings of its own."""
    os.environ["DRAGONFLY_NAMESPACE"] = name
    try:
        d.up(settings)
        yield
    finally:
        d.down()
        del os.environ["DRAGONFLY_NAMESPACE"]


def test_the_only_seed_is_killed(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    seed = cluster.node_ids[2]
    origin.restart("limit_rate 4m;")
    settings = d.Settings(
        namespace="seeded", origin=OriginSettings(policy="seeds"), peer=PeerSettings(seeds=(seed,))
    )
    with another_dragonfly("seeded", settings):
        transfer = Transfer(origin, tmp_path / "o")
        transfer.half_way(seed)
        os.kill(cluster.peer(seed)["pid"], signal.SIGKILL)
        assert_right(transfer.end(), content, cluster.node_ids)


def test_a_peer_stalls_without_closing(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    victim = cluster.node_ids[2]
    transfer.half_way(victim)
    process = psutil.Process(cluster.peer(victim)["pid"])
    process.suspend()
    try:
        done = transfer.end(victim)
    finally:
        process.kill()
    others = [n for n in cluster.node_ids if n != victim]
    assert_right(done, content, others)
    outcome = next(o for o in done.outcomes if o.node_id == victim)
    if outcome.ok:  # its health checks failed first, and its successor finished
        assert_right(done, content, [victim])
    else:
        assert kinds(done) == {victim: "node-lost"}
    until(lambda: cluster.peer(victim)["alive"])


def test_a_node_is_removed_and_another_added(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    extra = cluster.add()
    until(lambda: sum(m.alive for m in d.nodes()) == 5)
    gone = next(m.node_id for m in d.nodes() if m.alive and m.node_id not in cluster.node_ids)
    d.up()
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(gone)
    cluster.ray.remove_node(extra, allow_graceful=False)
    fresh = cluster.add()
    try:
        done = transfer.end(gone)
        assert_right(done, content, cluster.node_ids)
        assert kinds(done) == {gone: "node-lost"}
        until(lambda: sum(m.alive for m in d.nodes()) == 5)
        d.up()
        again = d.distribute(f"{origin.url}/f", dest=tmp_path / "again" / "{node}")
        assert len(again.paths) == 5
        new = next(iter(set(again.paths) - set(cluster.node_ids)))
        assert_right(again, content, [new])
        outcome = next(o for o in again.outcomes if o.node_id == new)
        assert outcome.bytes_origin == 0
        assert outcome.bytes_peers + outcome.bytes_cache == SIZE
    finally:
        cluster.ray.remove_node(fresh)
        until(lambda: sum(m.alive for m in d.nodes()) == 4)
        until(lambda: len(d.status()["hosts"]) == 4)


def test_an_origin_dies_and_comes_back(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(*cluster.node_ids)
    origin.stop()
    back = threading.Timer(3.0, origin.start, [""])
    back.start()
    assert_right(transfer.end(), content, cluster.node_ids)
    back.join()


def test_an_origin_dies_for_good(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    settings = d.Settings(namespace="impatient", origin=OriginSettings(give_up=3.0))
    with another_dragonfly("impatient", settings):
        transfer = Transfer(origin, tmp_path / "o")
        transfer.half_way(*cluster.node_ids)
        origin.stop()
        done = transfer.end()
    assert set(kinds(done).values()) == {"source-unreachable"}
    assert not (tmp_path / "o").exists()


def test_a_parent_has_corrupted_bytes(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    liar = cluster.node_ids[0]
    origin.restart("")
    path = d.distribute(f"{origin.url}/f", [liar]).paths[liar]
    path.chmod(0o600)
    with path.open("r+b") as file:
        for place in range(0, SIZE, 2 * MIB):
            file.seek(place)
            file.write(os.urandom(64))
    others = cluster.node_ids[1:]
    done = d.distribute(f"{origin.url}/f", others, dest=tmp_path / "o" / "{node}")
    assert_right(done, content, others)


def test_an_unwritable_dest_and_a_full_disk_fail_their_node_alone(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    origin.restart("")
    blocked = cluster.node_ids[3]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / blocked).write_bytes(b"a file, no folder")
    done = d.distribute(f"{origin.url}/f", dest=tmp_path / "o" / "{node}" / "f", on_failure="return")
    assert kinds(done) == {blocked: "destination"}
    assert_right(done, content, set(cluster.node_ids) - {blocked})


def test_a_peer_in_the_middle_of_it_gives_corrupted_bytes(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    """Its disk spoils whatever it writes, as fast as it mends it: it is banned, and the bytes come elsewhere."""
    transfer = Transfer(origin, tmp_path / "o")
    liar = cluster.node_ids[1]
    transfer.half_way(liar)
    peer = cluster.peer(liar)
    (task,) = {h["task_id"] for h in peer["held"] if h["url"] == f"{origin.url}/f"}
    over = threading.Event()

    def spoil() -> None:
        with (Path(peer["store"]) / "tasks" / task / "0").open("r+b", buffering=0) as file:
            while not over.wait(0.01):
                for place in range(0, SIZE, SHORT_LEAF):
                    os.pwrite(file.fileno(), os.urandom(64), place)

    def banned() -> list[str]:
        return next(list(t["banned"]) for t in d.status()["tasks"] if t["task_id"] == task)

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        until(lambda: banned() == [peer["host_id"]])
        done = transfer.end(liar)
    finally:
        over.set()
        spoiler.join()
    assert banned() == [peer["host_id"]], "and nobody else"
    assert_right(done, content, set(cluster.node_ids) - {liar})
    folder = logs_folder()
    assert folder is not None
    lines = [line for log in folder.glob("dragonfly-peer-*.log") for line in log.read_text().splitlines()]
    text = re.compile(rf"task {task[:12]}: piece \d+ from \S+ does not match its digest")
    said = [line for line in lines if text.search(line)]
    assert said
    for line in said:
        assert f" task-{task[:12]}-parent-{peer['host_id'][:8]} " in line
        assert any(f"-{node[:8]} task-" in line for node in cluster.node_ids), "and the peer that says so"


def test_cancelled_in_the_middle_everything_stands_still(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(*cluster.node_ids)
    transfer.submission.cancel()
    cancelled = time.monotonic()
    with pytest.raises(CancelledByUserError) as stopped:
        transfer.end()
    assert set(kinds(stopped.value.distribution).values()) == {"cancelled"}

    def moved() -> tuple[int, int, list[int]]:
        hits = origin.hits()
        return (
            len(hits),
            sum(hit.sent for hit in hits),
            [cluster.peer(n)["received"] for n in cluster.node_ids],
        )

    time.sleep(max(0.0, 2.0 - (time.monotonic() - cancelled)))  # what must not happen cannot be awaited
    before = moved()
    assert sum(before[2]) > 0.1 * SIZE * len(cluster.node_ids)
    time.sleep(2.0)
    assert moved() == before
    assert not (tmp_path / "o").exists()


def test_content_that_changes_half_way_is_never_mixed(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    # Before it begins: on a slow machine all could be here by the time that the other content is made.
    fresh = os.urandom(SIZE)
    draft = origin.root / "draft"
    draft.write_bytes(fresh)
    later = (origin.root / "f").stat().st_mtime + 100
    os.utime(draft, (later, later))
    transfer = Transfer(origin, tmp_path / "o")
    transfer.half_way(*cluster.node_ids)
    draft.rename(origin.root / "f")
    done = transfer.end()
    assert_right(done, fresh, cluster.node_ids)


def test_a_peer_is_killed_while_it_publishes(
    cluster: LocalCluster, origin: Nginx, content: bytes, tmp_path: Path
) -> None:
    """As soon as there is a draft of its copy. The node ends ok, and the output is whole at any time."""
    origin.restart("")
    victim = cluster.node_ids[2]
    d.distribute(f"{origin.url}/f", [victim])
    for number in range(3):
        until(lambda: cluster.peer(victim).get("state") == "healthy")
        folder = tmp_path / f"{number}"
        folder.mkdir()
        pid = cluster.peer(victim)["pid"]
        submission = d.submit(f"{origin.url}/f", [victim], dest=folder / "f", link=False)
        while not os.listdir(folder):
            pass  # a draft is there for a moment only
        os.kill(pid, signal.SIGKILL)
        if (folder / "f").exists():
            assert (folder / "f").read_bytes() == content
        done = submission.result(END)
        assert_right(done, content, [victim])
        until(lambda: cluster.peer(victim)["alive"])
        assert os.listdir(folder) == ["f"]


def test_one_busy_answer_silences_every_node(cluster: LocalCluster, tmp_path: Path) -> None:
    content = os.urandom(24 * MIB)
    busy = BusyOnce(content)
    with ScriptedOrigin(busy.behaviour) as origin:
        done = d.distribute(origin.url, dest=tmp_path / "o" / "{node}")
        assert_right(done, content, cluster.node_ids)
        busy.assert_left_alone(origin, connections=NODES * OriginSettings().connections)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A file system of 90 MiB."""
    mounts: list[Path] = []

    def mount() -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(folder)]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("without mounts")
        mounts.append(folder)
        return folder

    yield mount
    for folder in mounts:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def sizes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(
    cluster: LocalCluster,
    origin: Nginx,
    content: bytes,
    tmp_path: Path,
    tiny_disk: Callable[[], Path],
) -> None:
    """It takes the transfer at first, and fills up when a good part of it is there."""
    root = tiny_disk()
    (origin.root / "d").mkdir()
    for part in range(16):
        (origin.root / "d" / f"{part}").write_bytes(content[part * SIZE // 16 : (part + 1) * SIZE // 16])
    node = cluster.add(env_vars={"DRAGONFLY_STORAGE__ROOT": str(root)})
    try:
        until(lambda: sum(m.alive for m in d.nodes()) == 5)
        d.up()
        victim = next(m.node_id for m in d.nodes() if m.alive and m.node_id not in cluster.node_ids)
        transfer = Transfer(origin, tmp_path / "o", name="d/")
        transfer.half_way(victim)
        with contextlib.suppress(OSError), (root / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(64 * 1024))
                ballast.flush()
        done = transfer.end(victim)
        assert kinds(done) == {victim: "storage-full"}
        for other in cluster.node_ids:
            assert b"".join((done.paths[other] / f"{p}").read_bytes() for p in range(16)) == content
        (root / "ballast").unlink()
        until(lambda: sum(sizes(root).values()) < MIB, why=lambda: (sizes(root), d.status()["hosts"]))
    finally:
        cluster.ray.remove_node(node)
        until(lambda: len(d.status()["hosts"]) == 4)
