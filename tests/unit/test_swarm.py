"""Whole distributions in one process: real stores, sockets, peers and origins; no Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings, StorageSettings, TransportSettings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.model import Credentials, digest
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.storage.task_store import Extent
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.swarm import Swarm
from tests.waiting import until

MIB = 1 << 20
SIZE = 32 * MIB
SIZE_IN_PIECES = 128


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def origin(tmp_path: Path, content: bytes) -> Iterator[Nginx]:
    tmp_path.chmod(0o755)
    with Nginx(tmp_path / "www", tmp_path / "nginx") as made:
        (made.root / "big").write_bytes(content)
        yield made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Callable[..., Swarm]]:
    made: list[Swarm] = []

    def build(count: int = 4, **options: Any) -> Swarm:
        made.append(Swarm(tmp_path / f"swarm{len(made)}", count, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


def settings(**sections: Any) -> Settings:
    return Settings(**sections)


def states(view: dict[str, Any]) -> dict[str, str]:
    return {node: record["state"] for node, record in view["nodes"].items()}


def kinds(view: dict[str, Any]) -> dict[str, str]:
    return {node: record["kind"] for node, record in view["nodes"].items()}


def assert_everywhere(view: dict[str, Any], content: bytes, nodes: int) -> None:
    assert list(states(view).values()) == ["done"] * nodes, view
    for record in view["nodes"].values():
        assert Path(record["path"]).read_bytes() == content


# --- the fault-free case ------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "policy"), [(0, "all"), (1, "seeds"), (1, "all")])
def test_each_byte_leaves_the_origin_once(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, seeds: int, policy: str
) -> None:
    built = swarm(4, seeds=seeds, settings=settings(origin=OriginSettings(policy=policy)))
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 4)
    assert SIZE <= origin.sent("/big") <= SIZE + 1, "all of it once, and the first byte to learn its length"
    got = sum(n["bytes_origin"] for n in view["nodes"].values())
    assert got == SIZE
    assert sum(n["bytes_peers"] for n in view["nodes"].values()) == 3 * SIZE


def test_the_only_reader_gives_out_every_piece_once_before_any_twice(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.stop()
    origin.start("limit_rate 3m;")
    built = swarm(5, seeds=1, settings=settings(origin=OriginSettings(policy="seeds")))
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 5)
    (task,) = built.scheduler.core.tasks
    seed = built.peers["n0"].host.id
    sent = sum(e["bytes"] for e in built.scheduler.core.edges(task) if e["parent"] == seed)
    # Four others want all of it; were each piece told to all at once, the seed would send it up to four times.
    assert SIZE * 0.9 <= sent <= SIZE * 1.5


def test_a_seed_that_is_no_target_helps_and_writes_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(3, seeds=1, settings=settings(origin=OriginSettings(policy="seeds")))
    view = built.distribute(f"{origin.url}/big", nodes=["n1", "n2"])
    assert_everywhere(view, content, 2)
    assert all(n["bytes_origin"] == 0 for n in view["nodes"].values())


def test_a_directory_of_small_files_is_one_request_a_file(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    files = {f"d/{i % 7}/f{i:04}": os.urandom(i * 13 % 9000) for i in range(1500)}
    files["d/large"] = os.urandom(3 * MIB)
    for name, data in files.items():
        (origin.root / name).parent.mkdir(parents=True, exist_ok=True)
        (origin.root / name).write_bytes(data)
    view = swarm(4).distribute(f"{origin.url}/d/", dest=str(tmp_path / "out" / "{node}"))
    assert set(states(view).values()) == {"done"}, view
    for record in view["nodes"].values():
        found = {p.relative_to(record["path"]).as_posix(): p.read_bytes()
                 for p in Path(record["path"]).rglob("*") if p.is_file()}  # fmt: skip
        assert {f"d/{name}": data for name, data in found.items()} == files
    asked = [hit for hit in origin.hits() if not hit.path.endswith("/")]
    per_file = {name: sum(hit.path == f"/{name}" for hit in asked) for name, data in files.items() if data}
    small = {n: c for n, c in per_file.items() if n != "d/large"}
    assert set(small.values()) == {1}
    assert sum(hit.sent for hit in asked) == sum(map(len, files.values()))
    assert len(origin.hits()) - len(asked) == 8, "one listing a folder"


@pytest.fixture
def many() -> Iterator[FolderOrigin]:
    """400 files, and a listing that does not tell how long they are."""
    with FolderOrigin({f"f{i:03}": os.urandom(i * 37 % 9000 + 1) for i in range(400)}) as made:
        yield made


def watch_looks(built: Swarm) -> dict[str, list[str]]:
    """Node -> the paths that it is asked to look at, by the resolver and for it."""
    seen: dict[str, list[str]] = {}
    for node, peer in built.peers.items():

        def look(ask: m.Look, node: str = node, peer: PeerNode = peer) -> m.Looked:
            seen.setdefault(node, []).extend(ask.paths)
            return PeerNode.look(peer, ask)

        peer.look = look  # type: ignore[method-assign]
    return seen


def assert_folder(view: dict[str, Any], files: dict[str, bytes], nodes: int) -> None:
    assert list(states(view).values()) == ["done"] * nodes, view
    for record in view["nodes"].values():
        assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files


def test_files_of_unknown_size_are_looked_at_once_each_by_several_peers(
    many: FolderOrigin, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    built = swarm(4)
    seen = watch_looks(built)
    assert_folder(built.distribute(many.url, dest=str(tmp_path / "out" / "{node}")), many.files, 4)
    assert many.count("HEAD") == dict.fromkeys(many.files, 1)
    helped = [path for paths in seen.values() for path in paths]
    assert len(set(helped)) == len(helped) < 400, "the resolver looks, too"
    assert len(seen) >= 1
    assert len(many.asked) == 2 * len(many.files) + 1


@pytest.mark.parametrize("how", ["raises", "is gone", "cannot reach it"])
def test_a_helper_that_fails_half_way_changes_nothing(
    many: FolderOrigin, swarm: Callable[..., Swarm], tmp_path: Path, how: str
) -> None:
    built = swarm(4)
    failed: list[str] = []
    for peer in built.peers.values():

        def look(ask: m.Look, peer: PeerNode = peer) -> m.Looked:
            if failed and failed[0] != ask.host:
                return PeerNode.look(peer, ask)
            failed.append(ask.host)
            if how == "raises":
                raise ClusterError("it died")
            return m.Looked(kind="cluster" if how == "is gone" else "source-unreachable", message="x")

        peer.look = look  # type: ignore[method-assign]
    assert_folder(built.distribute(many.url, dest=str(tmp_path / "out" / "{node}")), many.files, 4)
    assert len(failed) == 1, "it is not used again"
    assert many.count("HEAD") == dict.fromkeys(many.files, 1)


@pytest.mark.parametrize(("status", "kind"), [(403, "source-auth"), (404, "source-not-found"),
                                              (429, "source-busy")])  # fmt: skip
def test_what_the_origin_says_to_a_helper_is_what_everybody_hears(
    many: FolderOrigin, swarm: Callable[..., Swarm], status: int, kind: str
) -> None:
    built = swarm(4)
    seen = watch_looks(built)
    # Only what a helper asks is refused.
    many.before = lambda how, path: status if any(path in paths for paths in seen.values()) else 0
    view = built.distribute(many.url)
    assert set(kinds(view).values()) == {kind}
    assert seen


@pytest.mark.parametrize("policy", ["seeds", "targets"])
def test_only_who_may_go_to_the_origin_helps_to_look(
    many: FolderOrigin, swarm: Callable[..., Swarm], policy: str
) -> None:
    built = swarm(5, seeds=2, settings=settings(origin=OriginSettings(policy=policy)))
    seen = watch_looks(built)
    credentials = Credentials(headers={"X-Secret": "s"})
    built.submit(many.url, nodes=["n2", "n3", "n4"], credentials=credentials)
    assert set(states(built.wait()).values()) == {"done"}
    assert seen
    assert set(seen) <= ({"n0", "n1"} if policy == "seeds" else {"n2", "n3", "n4"})


def test_no_more_connections_are_open_than_the_origin_is_to_have(
    swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    with FolderOrigin({f"f{i:03}": os.urandom(20_000) for i in range(400)}) as narrow:
        built = swarm(3, settings=settings(origin=OriginSettings(max_connections=7)))
        view = built.distribute(narrow.url, dest=str(tmp_path / "out" / "{node}"))
        assert_folder(view, narrow.files, 3)
        assert narrow.count("GET") == dict.fromkeys(("", *narrow.files), 1)
        assert narrow.most_open <= 7


def test_requests_a_second_stay_within_the_limit(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    with FolderOrigin({f"f{i:03}": os.urandom(20_000) for i in range(130)}) as strict:
        built = swarm(3, settings=settings(origin=OriginSettings(max_requests=60.0)))
        assert_folder(built.distribute(strict.url, dest=str(tmp_path / "out" / "{node}")), strict.files, 3)
        assert len(strict.asked) == 2 * 130 + 1
        for start, first in enumerate(strict.times):
            inside = sum(at - first < 1.0 for at in strict.times[start:])
            assert inside <= 60 + 60 + 13, "a burst, a second, and the piece that was begun"


@pytest.mark.parametrize("size", [0, 1, 50_000, 300_000])
def test_small_content_needs_no_socket_and_one_word_to_the_scheduler(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    (origin.root / "small").write_bytes(data)
    built = swarm(3)
    view = built.distribute(f"{origin.url}/small", dest=str(tmp_path / "out" / "{node}"))
    assert_everywhere(view, data, 3)
    assert sum(n["bytes_small"] for n in view["nodes"].values()) == 3 * size
    assert not size or built.scheduler.heard == {"Announce": 3, "Ended": 3}
    assert sum(n["bytes_peers"] for n in view["nodes"].values()) == 0


def test_the_second_time_nothing_leaves_the_origin(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(3)
    built.distribute(f"{origin.url}/big", "a.0")
    before = origin.sent("/big")
    view = built.distribute(f"{origin.url}/big", "b.0", dest=str(tmp_path / "again" / "{node}"))
    assert_everywhere(view, content, 3)
    assert origin.sent("/big") - before <= 1
    assert all(n["bytes_cache"] == SIZE for n in view["nodes"].values())


def test_a_newcomer_gets_it_from_those_who_have_it(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0")
    before = origin.sent("/big")
    built.start("late")
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["late"])
    assert_everywhere(view, content, 1)
    assert view["nodes"]["late"]["bytes_peers"] == SIZE
    assert origin.sent("/big") - before <= 1


@pytest.mark.parametrize("limit", ["upload_rate", "download_rate"])
def test_limits_slow_it_down_and_break_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, limit: str
) -> None:
    rates: dict[str, Any] = {limit: 16 * MIB}
    view = swarm(2, settings=settings(transport=TransportSettings(**rates))).distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 2)
    peers, everything = SIZE / 2 / (16 * MIB), SIZE / (16 * MIB)
    least = everything if limit == "download_rate" else min(peers, 0.3)
    assert max(n["seconds"] for n in view["nodes"].values()) > 0.8 * least, "no faster than allowed"


def test_a_local_file_is_read_by_its_owner_alone(
    swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(content)
    view = swarm(3).distribute(f"file://{tmp_path}/mine", node="n1", nodes=["n0", "n2"])
    assert_everywhere(view, content, 2)
    assert all(n["bytes_origin"] == 0 for n in view["nodes"].values())


# --- origins that lie or are poor ---------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [
    Behaviour(ranges=False), Behaviour(ranges=False, length=False), Behaviour(etag=""),
], ids=["no ranges", "no length", "no version"])  # fmt: skip
def test_a_poor_origin_is_shared_by_all(
    swarm: Callable[..., Swarm], content: bytes, behaviour: Behaviour
) -> None:
    behaviour.content = content
    with ScriptedOrigin(behaviour) as poor:
        view = swarm(3).distribute(poor.url)
        assert_everywhere(view, content, 3)
        bodies = [r for r in poor.requests if r[2] != "bytes=0-0"]
        if not behaviour.ranges:
            assert len(bodies) <= 1, "one stream, shared by all"


def test_content_that_changes_is_never_mixed(swarm: Callable[..., Swarm], content: bytes) -> None:
    behaviour = Behaviour(content)
    other = content[::-1]

    def change(number: int) -> int:
        if number == 6:
            behaviour.content, behaviour.etag = other, '"v2"'
        return 0

    behaviour.before = change
    with ScriptedOrigin(behaviour) as fickle:
        view = swarm(3).distribute(fickle.url)
        assert_everywhere(view, other, 3)


@pytest.mark.parametrize("ttl", [0.0, 3600.0])
def test_content_without_a_version_counts_as_unchanged_for_a_while(
    swarm: Callable[..., Swarm], content: bytes, ttl: float
) -> None:
    other = content[::-1]
    with ScriptedOrigin(Behaviour(content, etag="")) as silent:
        built = swarm(2, settings=settings(origin=OriginSettings(unversioned_ttl=ttl)))
        assert_everywhere(built.distribute(silent.url, "a.0"), content, 2)
        silent.behaviour.content = other
        before = len(silent.requests)
        view = built.distribute(silent.url, "b.0")
        assert_everywhere(view, other if ttl == 0.0 else content, 2)
        if ttl:
            assert len(silent.requests) == before + 1, "a look at its length, and no more"


@pytest.mark.parametrize("replicas", [2, 1_000_000])
def test_replicas_that_do_not_agree_end_in_one_clear_error_or_in_one_version(
    swarm: Callable[..., Swarm], content: bytes, replicas: int
) -> None:
    """Each answer comes from the next replica, and each replica has content of its own."""
    behaviour = Behaviour(content)

    def turn(number: int) -> int:
        which = number % replicas
        behaviour.etag, behaviour.content = f'"r{which}"', content[which:] + content[:which]
        return 0

    behaviour.before = turn
    with ScriptedOrigin(behaviour) as fickle:
        view = swarm(3).distribute(fickle.url)
        if set(states(view).values()) == {"done"}:
            assert replicas == 2
            found = {Path(record["path"]).read_bytes() for record in view["nodes"].values()}
            assert found in ({content}, {content[1:] + content[:1]})
        else:
            assert set(kinds(view).values()) == {"source-changed"}
            assert all("replicas" in record["message"] for record in view["nodes"].values())
        resolves = [asked for _, _, asked in fickle.requests if asked == "bytes=0-0"]
        assert len(resolves) <= 2


def test_one_busy_answer_silences_every_node(swarm: Callable[..., Swarm], content: bytes) -> None:
    told: list[float] = []
    behaviour = Behaviour(content, headers={"Retry-After": "3"})

    def complain(number: int) -> int:
        if number == 8:
            told.append(time.monotonic())
            return 429
        return 0

    behaviour.before = complain
    with ScriptedOrigin(behaviour) as busy:
        view = swarm(4).distribute(busy.url)
        assert_everywhere(view, content, 4)
        quiet = [at - told[0] for at, _, _ in busy.requests if at > told[0] + 1.0]
        assert quiet
        assert min(quiet) >= 2.9, "requests under way may end; new ones wait"


@pytest.mark.parametrize(("status", "kind"), [(403, "source-auth"), (404, "source-not-found")])
def test_a_refusal_in_the_middle_ends_it_everywhere(
    swarm: Callable[..., Swarm], content: bytes, status: int, kind: str
) -> None:
    behaviour = Behaviour(content)
    behaviour.before = lambda number: status if number > 5 else 0
    with ScriptedOrigin(behaviour) as refusing:
        view = swarm(3).distribute(refusing.url)
        assert set(kinds(view).values()) == {kind}


def test_an_origin_that_is_away_for_a_while(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.stop()
    origin.start("limit_rate 2m;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: origin.sent("/big") > SIZE // 8)
    origin.stop()
    restart = threading.Timer(1.5, origin.start, [""])
    restart.start()
    assert_everywhere(built.wait(), content, 3)
    restart.join()


def test_an_origin_that_never_comes_back(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    origin.stop()
    origin.start("limit_rate 1m;")
    built = swarm(3, settings=settings(origin=OriginSettings(give_up=2.0)))
    built.submit(f"{origin.url}/big")
    until(lambda: origin.sent("/big") > SIZE // 10)
    origin.stop()
    view = built.wait()
    assert set(kinds(view).values()) == {"source-unreachable"}


# --- peers that fail ----------------------------------------------------------------------------


def test_a_parent_with_corrupted_bytes_is_found_out(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(4)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    file = task.folder / "0"
    os.chmod(file, 0o600)
    with file.open("r+b") as damaged:
        for place in range(1000, SIZE, 4 * MIB):
            damaged.seek(place)
            damaged.write(b"\0" * 100)
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1", "n2", "n3"])
    assert_everywhere(view, content, 3)


def test_log_lines_name_their_task_and_no_thread_of_it_is_left(
    origin: Nginx, swarm: Callable[..., Swarm], caplog: pytest.LogCaptureFixture
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    os.chmod(task.folder / "0", 0o600)
    with (task.folder / "0").open("r+b") as damaged:
        damaged.seek(20 * MIB)
        damaged.write(b"bit rot")
    built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    speakers = {r.threadName for r in caplog.records if "does not match its digest" in r.getMessage()}
    host = built.peers["n0"].host.id
    assert speakers == {f"task-{task.task.id[:12]}-parent-{host[:8]}"}
    until(lambda: built.peers["n1"].status()["task_threads"] == 0)
    assert built.peers["n1"].status()["received"] >= SIZE


def test_a_killed_peer_resumes_with_what_it_had(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.stop()
    origin.start("limit_rate 1500k;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    victim = built.peers["n1"]
    until(lambda: sum(t.count for t in victim.store.tasks()) > 30)
    had = sum(t.count for t in victim.store.tasks())
    assert 0.1 * 128 < had < 0.9 * 128
    built.scheduler.verdicts[victim.host.id] = "died"
    del built.scheduler.peers[victim.host.id]
    victim.stop()
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.probed(victim.host.id, "died", time.monotonic()))
    built.start("n1")
    view = built.wait()
    assert_everywhere(view, content, 3)
    assert view["nodes"]["n1"]["bytes_cache"] >= had * (SIZE // 128)


def test_a_lost_peer_does_not_hold_up_the_others(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.stop()
    origin.start("limit_rate 1500k;")
    built = swarm(4)
    built.submit(f"{origin.url}/big")
    victim = built.peers["n2"]
    until(lambda: sum(t.count for t in victim.store.tasks()) > 30)
    del built.scheduler.peers[victim.host.id]
    victim.stop()
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.probed(victim.host.id, "gone", time.monotonic()))
    view = built.wait()
    assert kinds(view)["n2"] == "node-lost"
    rest = {**view, "nodes": {n: r for n, r in view["nodes"].items() if n != "n2"}}
    assert_everywhere(rest, content, 3)


def test_a_wrong_digest_writes_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    import hashlib

    built, out = swarm(2), tmp_path / "out"
    view = built.distribute(f"{origin.url}/big", "a.0", digest=f"sha256:{'0' * 64}", dest=str(out / "{node}"))
    assert set(kinds(view).values()) == {"integrity"}
    assert not list(out.rglob("*"))
    good = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert_everywhere(
        built.distribute(f"{origin.url}/big", "b.0", digest=good, dest=str(out / "{node}")), content, 2
    )


def test_a_digest_that_joins_a_transfer_under_way_is_checked_too(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    origin.stop()
    origin.start("limit_rate 4m;")
    built, out = swarm(2), tmp_path / "out"
    built.submit(f"{origin.url}/big", "a.0")
    until(lambda: sum(t.count for t in built.peers["n1"].store.tasks()) > 10)
    built.submit(f"{origin.url}/big", "b.0", digest=f"sha256:{'0' * 64}", dest=str(out / "{node}"))
    assert_everywhere(built.wait("a.0"), content, 2)
    assert set(kinds(built.wait("b.0")).values()) == {"integrity"}
    assert not out.exists()


def test_an_edited_output_is_noticed_mended_and_left_as_its_owner_made_it(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    built = swarm(2)
    view = built.distribute(f"{origin.url}/big", "a.0", dest=str(tmp_path / "a" / "{node}"))
    edited = Path(view["nodes"]["n0"]["path"])
    edited.chmod(0o644)
    with edited.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"edited")
    view = built.distribute(f"{origin.url}/big", "b.0", dest=str(tmp_path / "b" / "{node}"))
    assert_everywhere(view, content, 2)
    assert edited.read_bytes()[5 * MIB : 5 * MIB + 6] == b"edited"


def test_a_holder_that_finds_itself_corrupted_is_not_counted_on(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    (task,) = built.peers["n0"].store.tasks()
    os.chmod(task.folder / "0", 0o600)
    with (task.folder / "0").open("r+b") as damaged:
        damaged.seek(20 * MIB)
        damaged.write(b"bit rot")
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    assert_everywhere(view, content, 1)
    known = built.scheduler.core.tasks[task.task.id]
    until(lambda: not known.is_complete(built.peers["n0"].host.id))


@pytest.mark.parametrize("holders", [["n0", "n1"], ["n0"]])
def test_a_whole_copy_that_is_not_what_the_record_says_is_mended(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes, holders: list[str]
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=holders)
    (task,) = built.peers["n0"].store.tasks()
    wrong = os.urandom(task.table[5].length)
    task.discard(5)
    task.put(5, memoryview(wrong), digest(wrong))
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n0"], dest=str(tmp_path / "out"))
    assert_everywhere(view, content, 1)


def test_an_unwritable_dest_fails_that_delivery_alone(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "n1").write_bytes(b"a file, not a folder")
    view = swarm(3).distribute(f"{origin.url}/big", dest=str(tmp_path / "out" / "{node}" / "f"))
    assert kinds(view) == {"n0": "", "n1": "destination", "n2": ""}
    assert not list(tmp_path.rglob(".dragonfly-*"))


def test_a_full_disk_fails_that_node_alone_and_is_freed(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    built = swarm(2)
    small = StorageSettings(root=tmp_path, quota=SIZE // 2)
    built.settings = built.settings.model_copy(update={"storage": small})
    full = built.start("full")
    view = built.distribute(f"{origin.url}/big")
    assert kinds(view) == {"n0": "", "n1": "", "full": "storage-full"}
    assert full.store.tasks() == []


def test_cancel_stops_every_byte(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    origin.stop()
    origin.start("limit_rate 1m;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: sum(t.count for t in built.peers["n1"].store.tasks()) > 20)
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.cancel("s.0", time.monotonic()))
    view = built.wait()
    assert set(kinds(view).values()) == {"cancelled"}
    until(lambda: all(not peer.status()["tasks"] for peer in built.peers.values()))
    held = {n: sum(t.count for t in peer.store.tasks()) for n, peer in built.peers.items()}
    asked = len(origin.hits())
    time.sleep(1.0)  # what must not happen cannot be awaited
    assert held == {n: sum(t.count for t in peer.store.tasks()) for n, peer in built.peers.items()}
    assert len(origin.hits()) == asked


def test_what_is_read_is_fetched_first(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> None:
    origin.stop()
    origin.start("limit_rate 1m;")
    built = swarm(2)
    built.submit(f"{origin.url}/big")
    peer = built.peers["n0"]
    until(lambda: bool(peer.store.tasks()))
    task = peer.store.tasks()[0]
    last = SIZE - 1000
    assert peer.await_range(task.task.id, last, 1000, 20.0)
    assert not task.complete
    layout = peer.layout(task.task.id)
    assert layout is not None
    with open(layout["path"], "rb") as file:
        file.seek(layout["base"] + last)
        assert file.read(1000) == content[-1000:]
    assert_everywhere(built.wait(), content, 2)


def test_a_scheduler_that_forgets_everything_is_told_again(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    from dragonfly_ray.scheduling.core import SchedulerCore

    origin.stop()
    origin.start("limit_rate 1500k;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: sum(t.count for t in built.peers["n1"].store.tasks()) > 20)
    with built.scheduler.changed:
        old = built.scheduler.core
        built.scheduler.core = SchedulerCore(built.settings, old.sign)
    for peer in built.peers.values():
        peer.announce()
    built.submit(f"{origin.url}/big")
    view = built.wait()
    assert_everywhere(view, content, 3)


def test_nothing_is_left_over(origin: Nginx, tmp_path: Path, content: bytes) -> None:
    """Threads and descriptors, after a distribution and after the peers."""
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    built = Swarm(tmp_path / "s", 3)
    assert_everywhere(built.distribute(f"{origin.url}/big"), content, 3)
    built.close()
    until(lambda: threading.active_count() == threads)
    until(lambda: len(os.listdir("/proc/self/fd")) == before)
    assert not list(tmp_path.rglob(".dragonfly-*"))
    shutil.rmtree(tmp_path / "s")


# --- peers that lie -----------------------------------------------------------------------------


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
    origin.stop()
    origin.start("limit_rate 2m;")
    # Nobody but the seed may ask the origin, so that every other peer depends on what it is told.
    built = swarm(4, seeds=1, settings=settings(origin=OriginSettings(policy="seeds")))
    liar = built.peers["n1"]
    shared = liar.shared

    def lies(task_id: str) -> Any:
        found = shared(task_id)
        return found and Liar(found, SIZE // len(found.digests()), tmp_path)

    liar.shared = lies  # type: ignore[method-assign]
    view = built.distribute(f"{origin.url}/big")
    (task,) = built.scheduler.core.tasks.values()
    for node in ("n0", "n2", "n3"):
        assert Path(view["nodes"][node]["path"]).read_bytes() == content
    bans = [d.host for d in built.scheduler.core.decisions.recent(task.task.id) if d.kind == "ban"]
    assert bans == [liar.host.id], "the liar, and nobody else"


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
            found.digests = lambda: [digest(b"no")] * SIZE_IN_PIECES  # type: ignore[method-assign]
            found.bitmap = lambda host_id: b"\xff" * (SIZE_IN_PIECES // 8)  # type: ignore[method-assign]
        return found

    liar.shared = false_words  # type: ignore[method-assign]
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1", "n2"])
    assert_everywhere(view, content, 2)
    task = built.scheduler.core.tasks[stored.task.id]
    assert built.peers["n0"].host.id not in task.banned
    assert built.peers["n2"].host.id not in task.banned


def test_who_feeds_whom_is_known(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> None:
    built = swarm(4)
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 4)
    (task,) = built.scheduler.core.tasks
    edges = built.scheduler.core.edges(task)
    fed = {node: sum(e["bytes"] for e in edges if e["child_node"] == node) for node in built.peers}
    assert fed == {node: record["bytes_peers"] for node, record in view["nodes"].items()}
    drawn = {d.id: d for d in built.scheduler.core.decisions.recent(task) if d.kind == "neighbours"}
    assert all(e["decision"] in drawn for e in edges)
    assert all(h.slots for h in built.scheduler.core.hosts.values())
