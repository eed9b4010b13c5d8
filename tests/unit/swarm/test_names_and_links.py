"""Names and links as file systems and servers have them, through whole distributions."""

from __future__ import annotations

import json
import os
import tarfile
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.distribution import Distribution
from dragonfly_ray.model import Credentials
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import resolve
from dragonfly_ray.storage.output import Output
from dragonfly_ray.urls import local_url
from tests.nginx import Nginx
from tests.ntfs import ntfs_at
from tests.swarm import Swarm
from tests.waiting import HANG, until

from .conftest import kinds, states

ODD = [
    b"caf\xe9", b"caf\xc3\xa9", b"cafe\xcc\x81", b"\xff\xfe", b"README", b"readme", b"back\\slash", b"..\\..\\x", b"a:b",
    b"dot.", b"space ", b" ", b"...", b"new\nline", b"\x01\x7f", b"con", b"nul.txt", b"-rf", b"--", b"%2e%2e", b"100%",
    b"%00", b"a%2Fb", b"a#b?c=d&e;f", b'"q\'<>|*', b"x" * 255, "ü".encode() * 127, "\uf7e9".encode(), b"~", b"$HOME",
    "\u202egnp".encode(), b".hidden", b"{name}",
]  # fmt: skip


def plant(folder: Path) -> dict[bytes, bytes]:
    """Files and folders of odd names; path -> content."""
    made: dict[bytes, bytes] = {}
    top = os.fsencode(folder)
    for number, name in enumerate(ODD):
        content = b"%d" % number * (1 + number * 997 % 70_000)
        os.makedirs(b"%s/dirs/%s" % (top, name))
        for path in (name, b"dirs/%s/%s" % (name, name)):
            with open(b"%s/%s" % (top, path), "wb") as file:
                file.write(content)
            made[path] = content
    return made


def read(folder: str | Path) -> dict[bytes, bytes]:
    top = os.fsencode(folder)
    found = {}
    for base, _, names in os.walk(top):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, top)] = file.read()
    return found


def assert_tells(view: dict[str, Any]) -> None:
    """Whatever people and programs see of it can be written down."""
    done = Distribution.from_views("d", [view], {})
    json.dumps(done.to_dict(), ensure_ascii=False).encode()
    done._repr_html_().encode()
    for record in view["nodes"].values():
        assert record["message"].isprintable()


@pytest.fixture
def two(swarm: Callable[..., Swarm]) -> Swarm:
    return swarm(2)


# --- names --------------------------------------------------------------------------------------


def test_every_name_of_a_folder_arrives(two: Swarm, tmp_path: Path) -> None:
    made = plant(tmp_path / "src")
    for round_, dest in enumerate((str(tmp_path / "out" / "{node}"),) * 2):  # built anew, then merged into
        view = two.distribute(f"file://{tmp_path}/src/", f"s{round_}.0", node="n0", dest=dest)
        assert set(states(view).values()) == {"done"}, view
        assert_tells(view)
        for node in two.peers:
            assert read(tmp_path / "out" / node) == made
    stored = two.distribute(f"file://{tmp_path}/src/", "stored.0", node="n0")
    for record in stored["nodes"].values():
        assert read(record["path"]) == made
    count, page = two.peers["n1"].manifest(stored["task_id"], 0, 1000)
    assert count == len(page)
    json.dumps(page, ensure_ascii=False).encode()
    assert r"caf\xe9" in {row["path"] for row in page}


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_a_single_file_of_any_name_arrives(two: Swarm, tmp_path: Path, name: bytes) -> None:
    source = os.fsencode(tmp_path) + b"/src/" + name
    os.makedirs(os.path.dirname(source))
    with open(source, "wb") as file:
        file.write(b"content")
    url = local_url(os.fsdecode(source))
    view = two.distribute(url, node="n0", dest=f"{tmp_path}/out/{{node}}/{{name}}")
    assert set(states(view).values()) == {"done"}, view
    assert_tells(view)
    for node in two.peers:
        assert read(tmp_path / "out" / node) == {name: b"content"}
    for path in Distribution.from_views("d", [view], {}).paths.values():
        assert path.read_bytes() == b"content"
    assert set(states(two.distribute(url, "stored.0", node="n0")).values()) == {"done"}


@pytest.mark.parametrize("extra", ["", "autoindex_format json;"])
def test_every_name_that_nginx_lists_arrives(two: Swarm, tmp_path: Path, extra: str) -> None:
    tmp_path.chmod(0o755)
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True) as server:
        made = plant(server.root / "d")
        made = {
            path: content for path, content in made.items() if not os.path.basename(path).startswith(b".")
        }
        view = two.distribute(f"{server.url}/d/", dest=str(tmp_path / "out" / "{node}"))
        assert set(states(view).values()) == {"done"}, view
        assert_tells(view)
        for node in two.peers:
            assert read(tmp_path / "out" / node) == made


def test_every_name_in_an_archive_arrives(two: Swarm, tmp_path: Path) -> None:
    made = plant(tmp_path / "src")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "src", ".")
    view = two.distribute(f"tar://::file://{tmp_path}/a.tar", dest=str(tmp_path / "out" / "{node}"))
    assert set(states(view).values()) == {"done"}, view
    assert read(tmp_path / "out" / "n1") == made


@pytest.mark.parametrize("links", ["refuse", "follow", "keep"])
def test_links_of_an_archive(two: Swarm, tmp_path: Path, links: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("out")
        member.type, member.linkname = tarfile.SYMTYPE, "../x"
        tar.addfile(member)
        tar.addfile(tarfile.TarInfo("file"))
    view = two.distribute(
        f"tar://::file://{tmp_path}/a.tar", links=links, dest=str(tmp_path / "o" / "{node}")
    )
    if links == "keep":
        assert set(states(view).values()) == {"done"}, view
        assert os.readlink(tmp_path / "o" / "n1" / "out") == "../x"
        return
    assert set(kinds(view).values()) == {"unsafe-path" if links == "refuse" else "source-unsupported"}, view
    assert "/out: a symlink" in view["nodes"]["n1"]["message"]
    assert "links='keep'" in view["nodes"]["n1"]["message"]


def test_keys_of_an_object_store_arrive(two: Swarm, tmp_path: Path, s3: Any) -> None:
    # Keys are text, and the routes of moto end with a line.
    keys = [key for each in ODD if "\n" not in (key := each.decode(errors="replace")) and "\ufffd" not in key]
    for number, key in enumerate(keys):
        s3.put_object(Bucket=s3.bucket, Key=f"top/{key}", Body=b"%d" % number)
    view = two.distribute(
        f"s3://{s3.bucket}/top/", dest=str(tmp_path / "out" / "{node}"), credentials=s3.options
    )
    assert set(states(view).values()) == {"done"}, view
    assert read(tmp_path / "out" / "n1") == {key.encode(): b"%d" % n for n, key in enumerate(keys)}


@pytest.mark.parametrize("key", ["top/a//b", "top//x", "top/./x", "top/a/../b", "top/.."])
def test_a_key_that_no_folder_holds_is_named_and_can_be_left_out(
    two: Swarm, tmp_path: Path, s3: Any, key: str
) -> None:
    s3.put_object(Bucket=s3.bucket, Key="top/a/b", Body=b"good")
    s3.put_object(Bucket=s3.bucket, Key=key, Body=b"other")
    name = key.removeprefix("top/")
    view = two.distribute(
        f"s3://{s3.bucket}/top/", dest=str(tmp_path / "out" / "{node}"), credentials=s3.options
    )
    assert set(kinds(view).values()) == {"unsafe-path"}, view
    for record in view["nodes"].values():
        assert f"'{name}'" in record["message"]
        assert "exclude" in record["message"]
    left = two.distribute(
        f"s3://{s3.bucket}/top/",
        "left.0",
        exclude=(name,),
        dest=str(tmp_path / "out" / "{node}"),
        credentials=s3.options,
    )
    assert set(states(left).values()) == {"done"}, left
    assert read(tmp_path / "out" / "n1") == {b"a/b": b"good"}


class _S3:
    """A bucket of moto's."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        self.bucket = f"bucket-{uuid4().hex}"
        self._client.create_bucket(Bucket=self.bucket)
        self.options = Credentials({"endpoint_url": endpoint, "key": "k", "secret": "s"})

    def put_object(self, **what: Any) -> None:
        self._client.put_object(**what)


@pytest.fixture
def s3() -> Iterator[_S3]:
    from moto.server import ThreadedMotoServer

    server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield _S3(f"http://{host}:{port}")
    server.stop()


# --- a file system that holds less --------------------------------------------------------------


@pytest.fixture
def ntfs(tmp_path: Path) -> Iterator[Path]:
    """It cannot tell `A` from `a`, and takes what Windows takes."""
    with ntfs_at(tmp_path) as folder:
        yield folder


def grow(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode(errors="surrogateescape"))
    return folder


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("README", "readme"), ("README", "readme")),
        (("d/Ä.bin", "d/ä.bin"), ("d/ä.bin", "Ä.bin")),
        (("D/one", "d/two"), ("D", "d")),
        (("a:b", "x"), ("a:b",)),
        (("x", "sub/end."), ("sub/end.",)),
        (("x", "caf\udce9"), (r"caf\xe9",)),
        (("x", "con"), ("con",)),
        (("x", "new\nline"), (r"new\nline",)),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_what_one_node_cannot_hold_is_named_there_and_arrives_elsewhere(
    two: Swarm, tmp_path: Path, ntfs: Path, names: tuple[str, ...], named: tuple[str, ...], there: bool
) -> None:
    tree = grow(tmp_path / "src", *names)
    links = {"n0": tmp_path / "plain", "n1": ntfs}
    (tmp_path / "plain").mkdir()
    for node, folder in links.items():
        (tmp_path / node).symlink_to(folder)
        if there:
            (folder / "out").mkdir()
    view = two.distribute(f"file://{tree}/", node="n0", dest=str(tmp_path / "{node}" / "out"))
    assert states(view) == {"n0": "done", "n1": "failed"}, view
    assert kinds(view)["n1"] == "destination"
    message = view["nodes"]["n1"]["message"]
    assert all(f"'{name}'" in message for name in named), message
    assert read(tmp_path / "plain" / "out") == read(tree)
    assert not [each for each in ntfs.rglob("*") if each != ntfs / "out"]
    assert not two.pieces("n1"), "it was refused before it was fetched"
    assert_tells(view)


def test_the_rest_of_a_folder_arrives_where_the_name_is_left_out(
    two: Swarm, tmp_path: Path, ntfs: Path
) -> None:
    tree = grow(tmp_path / "src", "README", "readme", "a:b", "ok")
    view = two.distribute(
        f"file://{tree}/", node="n0", nodes=["n1"], dest=str(ntfs / "out"), exclude=("readme", "a:b")
    )
    assert states(view) == {"n1": "done"}, view
    assert {name.lower() for name in os.listdir(ntfs / "out")} == {"readme", "ok"}


def test_letters_composed_in_two_ways_are_two_names_where_they_are(
    two: Swarm, tmp_path: Path, ntfs: Path
) -> None:
    composed = "é"
    tree = grow(tmp_path / "src", composed, unicodedata.normalize("NFD", composed))
    view = two.distribute(f"file://{tree}/", node="n0", nodes=["n1"], dest=str(ntfs / "out"))
    assert states(view) == {"n1": "done"}, view
    assert len(read(ntfs / "out")) == 2


# --- links --------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    grow(tmp_path / "hub", "blobs/ab12", "snapshots/main/config.json")
    snapshot = tmp_path / "hub" / "snapshots" / "main"
    (snapshot / "model.safetensors").symlink_to("../../blobs/ab12")
    (snapshot / "inside").symlink_to("config.json")
    return snapshot


def test_a_snapshot_of_a_hub_arrives_as_files(two: Swarm, hub: Path, tmp_path: Path) -> None:
    view = two.distribute(f"file://{hub}/", node="n0", links="follow", dest=str(tmp_path / "out" / "{node}"))
    assert set(states(view).values()) == {"done"}, view
    out = tmp_path / "out" / "n1"
    assert read(out) == {
        b"config.json": b"snapshots/main/config.json", b"inside": b"snapshots/main/config.json",
        b"model.safetensors": b"blobs/ab12",
    }  # fmt: skip
    assert not any(each.is_symlink() for each in out.iterdir())


def test_links_are_kept_as_they_are(two: Swarm, hub: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    (hub / odd).symlink_to(f"/nowhere/{odd}")
    for number in range(2):
        dest = str(tmp_path / "out" / "{node}")
        view = two.distribute(f"file://{hub}/", f"s{number}.0", node="n0", links="keep", dest=dest)
        assert set(states(view).values()) == {"done"}, view
        out = tmp_path / "out" / "n1"
        assert os.readlink(out / "model.safetensors") == "../../blobs/ab12"
        assert os.readlink(out / odd) == f"/nowhere/{odd}"
        assert os.readlink(out / "inside") == "config.json"


def test_without_the_option_it_is_refused_by_name(two: Swarm, hub: Path) -> None:
    view = two.distribute(f"file://{hub}/", node="n0")
    assert set(kinds(view).values()) == {"unsafe-path"}
    assert "model.safetensors: a symlink that points outside" in view["nodes"]["n1"]["message"]
    assert "links='follow'" in view["nodes"]["n1"]["message"]


def test_the_same_folder_with_other_links_is_other_content(two: Swarm, tmp_path: Path) -> None:
    tree = grow(tmp_path / "src", "a")
    options = ("refuse", "follow", "keep")
    tasks = {two.distribute(f"file://{tree}/", f"{o}.0", node="n0", links=o)["task_id"] for o in options}
    assert len(tasks) == len(options)


@pytest.mark.parametrize("bound", [{"policy": UrlPolicy(schemes=("file",))}, {"dest_roots": ()}])
def test_a_job_writes_no_link_that_leads_out_whoever_resolved_it(
    two: Swarm, hub: Path, tmp_path: Path, bound: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver is not believed: this one looks at the folder as if no policy bound it."""
    monkeypatch.setattr(
        "dragonfly_ray.peer.origin_queries.resolve",
        lambda *args, **more: resolve(*args, **{**more, "policy": None}),
    )
    root = tmp_path / "root"
    root.mkdir()
    if "dest_roots" in bound:
        bound = {"dest_roots": (str(root),)}
    view = two.distribute(f"file://{hub}/", node="n0", links="keep", dest=str(root / "{node}"), **bound)
    assert set(kinds(view).values()) == {"unsafe-path"}, view
    assert not any(root.iterdir())


@pytest.mark.parametrize("links", ["refuse", "follow", "keep"])
def test_nothing_is_written_by_way_of_a_link_that_was_delivered(
    two: Swarm, tmp_path: Path, links: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    first, second = tmp_path / "first", grow(tmp_path / "second", "d/f")
    first.mkdir()
    (first / "d").symlink_to(victim)
    dest = str(tmp_path / "out" / "{node}")
    assert set(states(two.distribute(f"file://{first}/", node="n0", links="keep", dest=dest)).values()) == {
        "done"
    }
    view = two.distribute(f"file://{second}/", "s1.0", node="n0", links=links, dest=dest)
    assert set(kinds(view).values()) == {"unsafe-path"}, view
    assert not any(victim.iterdir())


# --- many, and a cancel -------------------------------------------------------------------------


def test_a_cancel_ends_the_writing_of_many_files(
    two: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = grow(tmp_path / "src", *(f"{i:03}" for i in range(200)))
    begun, cancelled = threading.Event(), threading.Event()
    make, made = Output._make, []

    def slowly(self: Output, *args: Any) -> bool:
        begun.set()
        assert cancelled.wait(HANG)
        made.append(1)
        return make(self, *args)

    monkeypatch.setattr(Output, "_make", slowly)
    two.submit(f"file://{tree}/", node="n0", nodes=["n0"], dest=str(tmp_path / "out"))
    assert begun.wait(HANG)
    with two.scheduler.changed:
        two.scheduler.act(two.scheduler.core.cancel("s.0", 0.0))
    until(lambda: not any(run.deliveries.open() for run in two.peers["n0"]._runs.values()))
    cancelled.set()
    until(lambda: not two.peers["n0"]._runs)
    assert len(made) == 1
    assert not (tmp_path / "out").exists()
    assert not [each for each in os.listdir(tmp_path) if each.startswith(".dragonfly")]


def test_a_cancel_ends_the_walk_through_a_folder(
    two: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragonfly_ray.sources.local_walk import LocalWalk

    tree = grow(tmp_path / "src", *(f"{i:03}" for i in range(200)))
    begun, cancelled, seen = threading.Event(), threading.Event(), []
    entry = LocalWalk._entry

    def slowly(self: LocalWalk, *args: Any) -> Any:
        begun.set()
        assert cancelled.wait(HANG)
        seen.append(1)
        return entry(self, *args)

    monkeypatch.setattr(LocalWalk, "_entry", slowly)
    two.submit(f"file://{tree}/", node="n0", nodes=["n0"])
    assert begun.wait(HANG)
    peer = two.peers["n0"]
    peer.handle(m.Cancel("s.0"))
    cancelled.set()
    until(lambda: not peer.queries.looking)
    assert len(seen) == 1
