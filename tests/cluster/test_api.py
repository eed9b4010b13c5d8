"""What users call, on a real cluster."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

import dragonfly_ray as d
from dragonfly_ray.errors import (
    CancelledByUserError,
    DeadlineError,
    DistributionFailedError,
    InvalidRequestError,
    SourceNotFoundError,
    UnknownNodesError,
)
from dragonfly_ray.telemetry import GAUGES
from tests import presigning
from tests.cluster.conftest import METRICS_PORT, LocalCluster, until
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin

MIB = 1 << 20
pytestmark = pytest.mark.cluster


def make(origin: Nginx, name: str, size: int) -> bytes:
    data = os.urandom(size)
    (origin.root / name).write_bytes(data)
    return data


def test_a_file_on_every_node(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    data = make(origin, "f", 24 * MIB)
    seen: list[d.Progress] = []
    done = d.distribute(f"{origin.url}/f", dest=tmp_path / "{node}" / "{name}", progress=seen.append)
    assert done.ok
    assert set(done.paths) == set(cluster.node_ids)
    for node, path in done.paths.items():
        assert path == tmp_path / node / "f"
        assert path.read_bytes() == data
    audited = sum(o.bytes_audit for o in done.outcomes)
    read, peers = (sum(getattr(o, f"bytes_{each}") for o in done.outcomes) for each in ("origin", "peers"))
    # What a slow host has leased and not begun in time is read by another one, too.
    assert len(data) <= read < 1.2 * len(data)
    assert 4 * len(data) - read <= peers <= 3 * len(data)
    # Its first byte tells how long it is, and 1 KiB is a proof that it may be read: a node that has just started
    # may not have told yet that it holds nothing.
    assert len(data) <= origin.sent("/f") - audited <= 1.2 * len(data) + 1 + 1024
    assert seen[-1].bytes_done == 4 * len(data)
    assert "4/4 succeeded" in repr(done)
    assert json.loads(json.dumps(done.to_dict(), default=str))["ok"]
    assert "<table>" in done._repr_html_()
    assert pickle.loads(pickle.dumps(done)) == done


def test_a_directory_on_every_node(cluster: LocalCluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for i in range(400):
        (tree / f"{i % 9}").mkdir(parents=True, exist_ok=True)
        (tree / f"{i % 9}" / f"f{i}").write_bytes(os.urandom(i * 11))
    (tree / "empty").mkdir()
    done = d.distribute(tree, dest=tmp_path / "out" / "{node}", link=False)
    for path in done.paths.values():
        subprocess.run(["diff", "-r", str(tree), str(path)], check=True)


def test_odd_names_and_links_are_asked_for_as_they_are(cluster: LocalCluster, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9\n")
    tree = tmp_path / "tree" / odd
    tree.mkdir(parents=True)
    (tmp_path / "blob").write_bytes(b"weights")
    (tree / odd).symlink_to("../../blob")
    with pytest.raises(DistributionFailedError, match="links='follow'"):
        d.distribute(tree)
    followed = d.distribute(tree, dest=tmp_path / odd / "{node}", links="follow")
    kept = d.distribute(tree, dest=tmp_path / "kept" / "{name}" / "{node}", links="keep")
    json.dumps(followed.to_dict(), ensure_ascii=False).encode()
    for node, path in followed.paths.items():
        assert path == tmp_path / odd / node
        assert not (path / odd).is_symlink()
        assert (path / odd).read_bytes() == b"weights"
        assert os.readlink(tmp_path / "kept" / odd / node / odd) == "../../blob"
    assert d.fetch(tree / odd).read_bytes() == b"weights"
    assert set(d.where(tree, links="keep")) == set(kept.paths)


def test_files_of_unknown_size_are_looked_at_by_several_peers(cluster: LocalCluster, tmp_path: Path) -> None:
    files = {f"f{i:03}": os.urandom(i + 1) for i in range(200)}
    ports: dict[int, int | None] = {}
    with FolderOrigin(files) as origin:
        answer = origin.answer

        def spy(handler: Any) -> None:
            """Which process is at the other end; the listing's is the resolver."""
            port = handler.client_address[1]
            with origin.lock:
                if port not in ports and handler.command == "HEAD":
                    ports[port] = next(
                        (c.pid for c in psutil.net_connections("tcp4") if c.laddr and c.laddr.port == port),
                        None,
                    )
            answer(handler)

        origin.answer = spy  # type: ignore[method-assign]
        done = d.distribute(origin.url, dest=tmp_path / "out" / "{node}")
        assert done.ok
        assert origin.count("HEAD") == dict.fromkeys(files, 1)
        assert len(set(ports.values())) > 1
    for path in done.paths.values():
        assert {p.name: p.read_bytes() for p in path.iterdir()} == files


@pytest.mark.parametrize("name", ["f", "tree/"])
def test_one_dest_for_all_nodes_is_written_once(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path, name: str
) -> None:
    """All nodes here see one file system."""
    data = make(origin, "f", 9 * MIB)
    (origin.root / "tree").mkdir()
    (origin.root / "tree" / "big").write_bytes(data)
    (origin.root / "tree" / "small").write_bytes(data[:1000])
    dest = tmp_path / "models" / "out"
    done = d.distribute(f"{origin.url}/{name}", dest=dest)
    assert set(done.paths.values()) == {dest}
    assert len(done.paths) == 4
    file = dest / "big" if name == "tree/" else dest
    assert file.read_bytes() == data
    if name == "tree/":
        assert (dest / "small").read_bytes() == data[:1000]
    by = {o.written_by for o in done.outcomes}
    (writer,) = by - {""}
    assert [o.node_id for o in done.outcomes if not o.written_by] == [writer]
    store = Path(cluster.peer(writer)["store"])
    assert file.stat().st_ino in {p.stat().st_ino for p in (store / "tasks").rglob("*") if p.is_file()}
    assert done._repr_html_().count("(shared)") == 3


@pytest.mark.parametrize(
    ("size", "policy"), [(50_000, "inline"), (512 * 1024, "object store"), (512 * 1024 + 1, "peers")]
)
def test_the_carrier_is_chosen_by_size(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path, size: int, policy: str
) -> None:
    data = make(origin, "carried", size)
    done = d.distribute(f"{origin.url}/carried", dest=tmp_path / "o" / "{node}")
    assert all(path.read_bytes() == data for path in done.paths.values())
    by_store = sum(o.bytes_object_store for o in done.outcomes)
    assert by_store == (0 if policy == "peers" else 4 * size)
    assert sum(h.sent for h in origin.hits()) <= size + 1


def test_several_urls_are_one_distribution(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    data = {name: make(origin, name, 500_000) for name in ("one", "two")}
    done = d.distribute([f"{origin.url}/{n}" for n in data], 2, dest=tmp_path / "{node}" / "{name}")
    for url in done.urls:
        paths = done.paths_of(url)
        assert len(paths) == 2
        assert all(p.read_bytes() == data[url.rpartition("/")[2]] for p in paths.values())


def test_nodes_by_every_kind_of_name(cluster: LocalCluster, origin: Nginx) -> None:
    make(origin, "n", 1000)
    url = f"{origin.url}/n"
    ids = cluster.node_ids
    pool = {m.node_id for m in d.nodes() if m.labels.get("pool") == "a"}
    assert len(pool) == 2
    assert set(d.distribute(url, {"pool": "a"}).paths) == pool
    assert set(d.distribute(url, [ids[0], ids[3][:12]]).paths) == {ids[0], ids[3]}
    assert len(d.distribute(url, 2).paths) == 2
    assert len(d.distribute(url, "50%").paths) == 2
    for wrong in ("nope", {"pool": "z"}, [ids[0], "nope"], 5, "seeds"):
        with pytest.raises(UnknownNodesError, match=r"nope|pool|5 requested|seeds"):
            d.submit(url, wrong)


@pytest.mark.parametrize("options", [
    {"dest": "relative"}, {"dest": "/a/../b"}, {"dest": "/x/{what}"}, {"digest": "sha256:12"},
    {"digest": "crc0:00"}, {"id": "a b"}, {"on_failure": "ignore"},
])  # fmt: skip
def test_bad_input_is_refused_before_any_work(
    cluster: LocalCluster, origin: Nginx, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        d.distribute(f"{origin.url}/x", **options)
    assert origin.hits() == []


def test_a_missing_source_is_one_clear_line(cluster: LocalCluster, origin: Nginx) -> None:
    with pytest.raises(DistributionFailedError) as caught:
        d.distribute(f"{origin.url}/missing?token=secret")
    assert "404" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    done = caught.value.distribution
    assert all(isinstance(o.error, SourceNotFoundError) for o in done.outcomes)
    returned = d.distribute(f"{origin.url}/missing?token=secret", on_failure="return")
    assert not returned.ok
    assert "secret" not in f"{returned!r}{returned.to_dict()}"


def test_submit_is_awaitable_and_found_again_elsewhere(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path
) -> None:
    origin.restart("limit_rate 2m;")
    data = make(origin, "s", 24 * MIB)
    submission = d.submit(f"{origin.url}/s", dest=tmp_path / "{node}", id="found-again")
    code = (
        f"import json, ray, dragonfly_ray as d; ray.init(address={cluster.ray.address!r}, log_to_driver=False)\n"
        "print(json.dumps(d.attach('found-again').result(120).to_dict(), default=str))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert other.returncode == 0, other.stderr[-2000:]
    assert json.loads(other.stdout.splitlines()[-1])["ok"]

    async def wait() -> d.Distribution:
        return await submission

    done = asyncio.run(wait())
    assert all(path.read_bytes() == data for path in done.paths.values())
    with pytest.raises(InvalidRequestError):
        d.attach("never-heard-of")


def test_cancel_and_timeout_stop_everything(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    origin.restart("limit_rate 500k;")
    make(origin, "c", 48 * MIB)
    submission = d.submit(f"{origin.url}/c", dest=tmp_path / "{node}")
    until(lambda: submission.progress().bytes_done > 4 * MIB)
    assert submission.progress().bytes_done < 0.9 * submission.progress().bytes_total
    submission.cancel()
    with pytest.raises(CancelledByUserError) as stopped:
        submission.result(60)
    assert {o.error.kind for o in stopped.value.distribution.outcomes if o.error} == {"cancelled"}

    async def wait() -> None:
        await submission

    for result in (lambda: asyncio.run(wait()), lambda: d.attach(submission.id).result(60)):
        with pytest.raises(CancelledByUserError):
            result()
    with pytest.raises(DeadlineError):
        d.distribute(f"{origin.url}/c", timeout=1.5)
    until(lambda: all(h["tasks"] == 0 for h in d.status()["hosts"]))
    asked = len(origin.hits())
    assert not list(tmp_path.glob("????????????????*"))
    import time

    time.sleep(2.0)  # what must not happen cannot be awaited
    assert len(origin.hits()) == asked


def test_a_digest_is_checked(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    data = make(origin, "g", 9 * MIB)
    with pytest.raises(DistributionFailedError) as caught:
        d.distribute(f"{origin.url}/g", dest=tmp_path / "o" / "{node}", digest="sha256:" + "0" * 64)
    assert {o.error.kind for o in caught.value.distribution.outcomes} == {"integrity"}
    assert not (tmp_path / "o").exists()
    good = "sha256:" + hashlib.sha256(data).hexdigest()
    assert d.distribute(f"{origin.url}/g", dest=tmp_path / "o" / "{node}", digest=good).ok


def test_on_this_node(cluster: LocalCluster, origin: Nginx) -> None:
    data = make(origin, "h", 9 * MIB)
    assert d.fetch(f"{origin.url}/h").read_bytes() == data
    assert d.where(f"{origin.url}/h")[0] == ray.get_runtime_context().get_node_id()

    @ray.remote(num_cpus=0)
    def elsewhere(url: str) -> str:
        return hashlib.sha256(d.fetch(url).read_bytes()).hexdigest()

    assert ray.get(elsewhere.remote(f"{origin.url}/h")) == hashlib.sha256(data).hexdigest()


def test_what_a_caller_asks_for_on_its_node_is_as_its_umask_says(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path
) -> None:
    data = make(origin, "private", 300_000)
    url = f"{origin.url}/private"

    @ray.remote(num_cpus=0)
    def fetched(how: str, dest: str, umask: int) -> str:
        before = os.umask(umask)
        try:
            if how == "fetch":
                return str(d.fetch(url, dest=dest))
            d.submit(url, [ray.get_runtime_context().get_node_id()], dest=dest).result().raise_for_failures()
            return dest
        finally:
            os.umask(before)  # others work in this process

    def mode(path: str | Path) -> int:
        assert Path(path).read_bytes() == data
        return os.stat(path).st_mode & 0o777

    assert os.umask(0o022) == 0o022, "of the peers, too"
    for how, umask, wanted in (("fetch", 0o077, 0o600), ("fetch", 0o022, 0o444), ("submit", 0o027, 0o640)):
        path = tmp_path / f"{how}-{umask}" / "f"
        assert mode(ray.get(fetched.remote(how, str(path), umask))) == wanted
    command = [sys.executable, "-m", "dragonfly_ray.cli", "get", url, "-O", "got"]
    env = {**os.environ, "RAY_ADDRESS": cluster.ray.address}
    subprocess.run(command, check=True, cwd=tmp_path, env=env, umask=0o077, capture_output=True, timeout=200)
    assert mode(tmp_path / "got") == 0o600
    everywhere = d.distribute(url, dest=tmp_path / "all" / "{node}")
    assert {mode(path) for path in everywhere.paths.values()} == {0o444}, "each peer's own"


def test_open_reads_before_all_of_it_is_here(cluster: LocalCluster, origin: Nginx) -> None:
    origin.restart("limit_rate 1m;")
    data = make(origin, "o", 40 * MIB)
    with d.open(f"{origin.url}/o") as file:
        file.seek(-1000, os.SEEK_END)
        assert file.read() == data[-1000:]
        file.seek(20 * MIB)
        assert file.read(100_000) == data[20 * MIB : 20 * MIB + 100_000]
        assert sum(hit.sent for hit in origin.hits()) < len(data) * 0.9


def test_open_before_the_first_byte_is_there(cluster: LocalCluster) -> None:
    data = os.urandom(3 * MIB)
    with ScriptedOrigin(Behaviour(data, hold=0.7, pace=3e6)) as slow, d.open(slow.url) as file:
        assert file.read() == data


def test_load_is_one_object_for_all_workers_of_a_node(cluster: LocalCluster, origin: Nginx) -> None:
    data = make(origin, "l", 16 * MIB)
    url = f"{origin.url}/l"

    @ray.remote(num_cpus=0)
    class Reader:
        def load(self, url: str) -> tuple[str, int, bool]:
            def anonymous() -> int:
                return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

            d.where(url)
            before = anonymous()
            self.view = d.load(url)
            grown = anonymous() - before
            return hashlib.sha256(self.view).hexdigest(), grown, self.view.readonly

    def used() -> float:
        api: Any = ray
        name = "object_store_memory"
        return float(api.cluster_resources()[name] - api.available_resources()[name])

    node = ray.get_runtime_context().get_node_id()
    readers = [Reader.options(label_selector={"ray.io/node-id": node}).remote() for _ in range(2)]  # type: ignore[attr-defined]
    first = ray.get(readers[0].load.remote(url))
    until(lambda: used() >= 15 * MIB)
    once = used()
    second = ray.get(readers[1].load.remote(url))
    for found, grown, readonly in (first, second):
        assert found == hashlib.sha256(data).hexdigest()
        assert grown < 8 * 1024, "KiB of anonymous memory"
        assert readonly
    assert used() - once < MIB, "the store grows once"


def test_what_is_loaded_stays_while_it_is_used_and_no_longer(cluster: LocalCluster, origin: Nginx) -> None:
    data = make(origin, "u", 24 * MIB)

    def used() -> float:
        api: Any = ray
        name = "object_store_memory"
        return float(api.cluster_resources()[name] - api.available_resources()[name])

    view = d.load(f"{origin.url}/u")
    until(lambda: used() >= 23 * MIB)
    with_it = used()
    d.evict(f"{origin.url}/u")  # as an age or a budget does
    until(lambda: used() <= with_it - 23 * MIB, 60.0, used)  # what its reader holds Ray does not count
    for _ in range(8):  # and others may want the room
        ray.put(np.frombuffer(os.urandom(24 * MIB), np.uint8))
    assert hashlib.sha256(view).digest() == hashlib.sha256(data).digest()


def test_pin_and_evict(cluster: LocalCluster, origin: Nginx) -> None:
    make(origin, "p", 1 * MIB)
    url = f"{origin.url}/p"
    d.distribute(url)
    assert set(d.where(url)) == set(cluster.node_ids)
    assert d.pin(url, owner="me") == 4
    with pytest.raises(InvalidRequestError, match="pinned by me"):
        d.evict(url)
    d.unpin(url, owner="me")
    assert d.evict(url, cluster.node_ids[0]) == MIB
    until(lambda: set(d.where(url)) == set(cluster.node_ids[1:]))
    assert d.evict(url) == 3 * MIB
    until(lambda: d.where(url) == [])


def test_any_signature_of_a_presigned_url_names_what_one_of_them_fetched(
    cluster: LocalCluster, origin: Nginx
) -> None:
    make(origin, "signed", MIB)
    one, other, third = (
        presigning.keyed(f"{origin.url}/signed", "OSSAccessKeyId", expires=n) for n in (1, 2, 3)
    )
    nodes = cluster.node_ids[:2]
    d.distribute(one, nodes)
    again = d.distribute(other, nodes)
    assert [outcome.bytes_cache for outcome in again.outcomes] == [MIB, MIB]
    assert set(d.where(third)) == set(nodes)
    assert d.pin(third, owner="me") == 2
    with pytest.raises(InvalidRequestError, match="pinned by me"):
        d.evict(other)
    assert d.unpin(one, owner="me") == 2
    assert d.evict(third) == 2 * MIB


def test_what_chooses_the_answer_is_part_of_the_source(cluster: LocalCluster, origin: Nginx) -> None:
    """Whoever asks for another representation has another source, and names it in the same way again."""
    (origin.root / "variant").write_bytes(b"v" * 3000)
    url, german = f"{origin.url}/variant", {"Accept-Language": "de", "Authorization": "Bearer x"}
    d.distribute(url, 2, headers=german)
    assert d.where(url) == []
    assert len(d.where(url, headers=german)) == 2
    assert len(d.where(url, headers={"Accept-Language": "de"})) == 2, "credentials are no part of it"
    assert d.pin(url, owner="me", headers=german) == 2
    assert d.unpin(url, owner="me", headers=german) == 2
    assert d.evict(url) == 0
    assert d.evict(url, headers=german) == 6000
    for call in (d.submit, d.where):
        with pytest.raises(InvalidRequestError, match="Host"):
            call(url, headers={"Host": "elsewhere"})


def test_metrics_are_exported(cluster: LocalCluster, origin: Nginx) -> None:
    make(origin, "m", 9 * MIB)
    d.distribute(f"{origin.url}/m")

    def scraped() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    wanted = ("ray_dragonfly_bytes_total", "ray_dragonfly_pieces_total", *(f"ray_{name}" for name in GAUGES),
              'provenance="origin"', 'provenance="peers"')  # fmt: skip

    def missing() -> list[str]:
        text = scraped()
        return [name for name in wanted if name not in text]

    until(lambda: not missing(), 90.0, missing)


def test_the_dashboard_can_tell_the_actors_apart(cluster: LocalCluster) -> None:
    from ray.util import list_named_actors

    names = {a["name"] for a in list_named_actors(all_namespaces=True) if a["namespace"] == "dragonfly"}
    assert names == {"controller", "scheduler:0", *(f"peer:{n}" for n in cluster.node_ids)}


# --- the command line ---------------------------------------------------------------------------


def dragonfly(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RAY_ADDRESS": cluster.ray.address}
    return subprocess.run(
        [sys.executable, "-m", "dragonfly_ray.cli", *arguments],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_the_command_line(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    data = make(origin, "cli", 5 * MIB)
    url = f"{origin.url}/cli"
    ran = dragonfly(cluster, "distribute", url, "-d", f"{tmp_path}/{{node}}/x", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["ok"]
    assert all(Path(o["path"]).read_bytes() == data for o in found["outcomes"])
    ran = dragonfly(cluster, "get", url, "-O", str(tmp_path / "got"))
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "got").read_bytes() == data
    held = json.loads(dragonfly(cluster, "ls", "--json").stdout)
    assert sum(row["url"] == url for row in held) == 4
    assert len(json.loads(dragonfly(cluster, "nodes", "--json").stdout)) == 4
    assert len(json.loads(dragonfly(cluster, "status", "--json").stdout)["hosts"]) == 4
    assert json.loads(dragonfly(cluster, "rm", url, "--json").stdout) == {"freed": 4 * len(data)}


def test_keys_are_rotated_from_the_command_line(cluster: LocalCluster, origin: Nginx) -> None:
    data = make(origin, "rotated", MIB)
    controller: Any = ray.get_actor("controller", namespace="dragonfly")
    first: Any = ray.get(controller.signing_key.remote())
    ran = dragonfly(cluster, "rotate-keys", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"begun": True}
    until(lambda: ray.get(controller.signing_key.remote()) != first, 100.0)
    done = d.distribute(f"{origin.url}/rotated")
    assert done.ok
    assert all(path.read_bytes() == data for path in done.paths.values())


def test_a_detached_distribution_goes_on_without_whoever_submitted_it(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path
) -> None:
    origin.restart("limit_rate 1m;")
    data = make(origin, "detached", 40 * MIB)
    ran = dragonfly(
        cluster, "distribute", f"{origin.url}/detached", "-d", f"{tmp_path}/o/{{node}}", "--detach", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    submission = d.attach(json.loads(ran.stdout)["id"])
    assert not submission.done
    done = submission.result(120)
    submission.close()
    assert len(done.paths) == 4
    assert all(path.read_bytes() == data for path in done.paths.values())


def test_an_interrupted_command_cancels_and_says_so(
    cluster: LocalCluster, origin: Nginx, tmp_path: Path
) -> None:
    origin.restart("limit_rate 500k;")
    make(origin, "interrupted", 60 * MIB)
    command = subprocess.Popen(
        # In the background of a script the signal is ignored, and that would be inherited.
        ["env", "--default-signal=INT", sys.executable, "-m", "dragonfly_ray.cli", "distribute",
         f"{origin.url}/interrupted",
         "-d", f"{tmp_path}/o/{{node}}"],
        env={**os.environ, "RAY_ADDRESS": cluster.ray.address}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: any(h["tasks"] for h in d.status()["hosts"]))
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    assert "Traceback" not in said
    until(lambda: not any(h["tasks"] for h in d.status()["hosts"]))
    assert not (tmp_path / "o").exists()


def test_exit_codes_are_the_documented_ones(cluster: LocalCluster, origin: Nginx) -> None:
    assert dragonfly(cluster, "distribute", f"{origin.url}/missing").returncode == 4
    bad = dragonfly(cluster, "distribute", f"{origin.url}/x", "-n", "nope")
    assert bad.returncode == 2
    assert bad.stderr.startswith("dragonfly: no such nodes: nope")
    assert "Traceback" not in bad.stderr
    assert dragonfly(cluster, "--namespace", "empty", "status").returncode == 3
