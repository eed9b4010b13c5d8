"""Origins that fail while they are looked at: as much patience as while they are read, on real servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.ray_cluster import _part
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.ports import free_port
from tests.swarm import Swarm
from tests.unit.swarm.conftest import kinds, states
from tests.waiting import until

CONTENT = b"what it is" * 1000
AWAY = {
    "bad gateway": "location / { return 502; }",
    "busy": "location / { add_header Retry-After 1 always; return 503; }",
    "busy for itself": "location / { return 429; }",
    "nobody listens": "",
}


def waiting(swarm: Swarm) -> str:
    view = swarm.scheduler.core.view("s.0")
    return str(view["waiting"]) if view else ""


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
@pytest.mark.parametrize("away", AWAY)
def test_an_origin_that_is_away_at_the_first_look_is_waited_for(
    tmp_path: Path, swarm: Callable[..., Swarm], away: str, folder: bool
) -> None:
    tmp_path.chmod(0o755)
    nginx = Nginx(tmp_path / "www", tmp_path / "nginx", real=bool(AWAY[away]), extra=AWAY[away])
    (nginx.root / "d").mkdir()
    (nginx.root / "d" / "f").write_bytes(CONTENT)
    if AWAY[away]:
        nginx.start()
    try:
        built = swarm(2)
        built.submit(f"{nginx.url}/d/" if folder else f"{nginx.url}/d/f")
        until(lambda: waiting(built))
        assert {n["state"] for n in built.scheduler.core.view("s.0")["nodes"].values()} == {"waiting"}  # type: ignore[index]
        assert nginx.url in waiting(built), "who wants to know why is told"
        view = built.scheduler.core.view("s.0")
        assert view is not None
        assert _part("s", 0, view).waiting == view["waiting"], "so is a manager"
        nginx.restart("")
        view = built.wait()
        assert list(states(view).values()) == ["done"] * 2, view
        assert view["waiting"] == ""
    finally:
        nginx.stop()


def test_an_origin_that_stays_away_is_given_up_with_its_own_error(swarm: Callable[..., Swarm]) -> None:
    built = swarm(2, settings=Settings(origin=OriginSettings(give_up=1.0, retries=0)))
    view = built.distribute(f"http://127.0.0.1:{free_port()}/f")
    assert set(kinds(view).values()) == {"source-unreachable"}
    assert "connection refused" in next(iter(view["nodes"].values()))["message"]


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "source-not-found"), (403, "source-auth"), (400, "source")]
)
def test_what_waiting_does_not_cure_fails_at_once(
    swarm: Callable[..., Swarm], status: int, kind: str
) -> None:
    with ScriptedOrigin(Behaviour(CONTENT, status=status)) as origin:
        view = swarm(2).distribute(origin.url)
        assert set(kinds(view).values()) == {kind}
        assert len(origin.requests) <= 2, "a refused range is asked for once without"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "-", "x" * 70 + ".example"])
def test_a_name_that_no_host_has_is_not_waited_for(
    swarm: Callable[..., Swarm], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = socket.getaddrinfo

    def looked_up(name: Any, *args: Any, **options: Any) -> Any:
        if name in ("no-such-host.invalid", "-"):  # as every resolver says, also where there is none
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(name, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    built = swarm(2, settings=Settings(origin=OriginSettings(give_up=3600.0, retries=0)))
    view = built.distribute(f"http://{host}/f")
    assert set(states(view).values()) == {"failed"}


def test_a_cancel_ends_the_wait_at_once(swarm: Callable[..., Swarm]) -> None:
    with ScriptedOrigin(Behaviour(CONTENT, status=503, headers={"Retry-After": "3600"})) as origin:
        built = swarm(2)
        built.submit(origin.url)
        until(lambda: waiting(built))
        assert "3600" in waiting(built)
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.cancel("s.0", 1e9))
        assert set(kinds(built.wait()).values()) == {"cancelled"}
        assert len(origin.requests) == 1, "the origin is left alone"


def test_another_distribution_of_a_busy_origin_leaves_it_alone_too(swarm: Callable[..., Swarm]) -> None:
    with ScriptedOrigin(Behaviour(CONTENT, status=429, headers={"Retry-After": "2"})) as origin:
        built = swarm(2)
        built.submit(origin.url, "s.0")
        until(lambda: waiting(built))
        origin.behaviour.status = 0
        view = built.distribute(origin.url.replace("content", "other"), "t.0")
        assert list(states(view).values()) == ["done"] * 2
        built.wait("s.0")
        first, *rest = [at for at, _, _ in origin.requests]
        assert all(at - first >= 1.9 for at in rest)


def test_a_proof_has_the_same_patience(swarm: Callable[..., Swarm]) -> None:
    """What is held already is read by another caller, while the origin is away: the look succeeds, the samples fail."""
    with ScriptedOrigin(Behaviour(b"x" * (1 << 20))) as origin:
        built = swarm(2)
        built.distribute(origin.url, "a.0", credentials=Credentials({}, {"X-Who": "a"}))
        begun = len(origin.requests)
        away = threading.Event()

        def before(number: int) -> int:
            return 502 if number > begun and not away.is_set() else 0

        origin.behaviour.before = before
        built.submit(origin.url, "s.0", credentials=Credentials({}, {"X-Who": "b"}))
        until(lambda: "502" in waiting(built))
        away.set()
        assert list(states(built.wait()).values()) == ["done"] * 2


@pytest.mark.parametrize("status", [502, 503, 429])
@pytest.mark.parametrize("nodes", [1, 3], ids=["alone", "with helpers"])
def test_a_listing_goes_on_where_its_origin_failed(
    swarm: Callable[..., Swarm], status: int, nodes: int
) -> None:
    """Nothing that has been answered is asked for again, and whoever helps waits, too."""
    files = {f"f{number:03}": bytes([number]) * 100 for number in range(200)}
    well, failed = threading.Event(), threading.Event()
    with FolderOrigin(files) as origin:

        def before(method: str, path: str) -> int:
            if not path or well.is_set():
                return 0
            if sum(origin.count("HEAD").values()) <= 100:
                return 0
            failed.set()
            return status

        origin.before = before
        built = swarm(nodes)
        built.submit(origin.url)
        assert failed.wait(30)
        until(lambda: str(status) in waiting(built))
        well.set()
        view = built.wait()
        assert list(states(view).values()) == ["done"] * nodes
        assert view["waiting"] == ""
        for record in view["nodes"].values():
            assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files
        assert origin.count("GET")[""] == 1, "the listing itself was not asked for again"


def test_a_cancel_ends_the_wait_in_a_listing_at_once(swarm: Callable[..., Swarm]) -> None:
    files = {f"f{number:03}": b"x" for number in range(30)}
    with FolderOrigin(files) as origin:
        origin.before = lambda method, path: 502 if path else 0
        built = swarm(1)
        built.submit(origin.url)
        until(lambda: "502" in waiting(built))
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.cancel("s.0", 1e9))
        assert set(kinds(built.wait()).values()) == {"cancelled"}
        (peer,) = built.peers.values()
        until(lambda: not peer.queries.looks, 10.0)


def test_one_file_that_fails_for_good_ends_a_listing_after_the_patience_of_one(
    swarm: Callable[..., Swarm],
) -> None:
    files = {f"f{number:03}": b"x" for number in range(30)}
    with FolderOrigin(files) as origin:
        origin.before = lambda method, path: 500 if path == "f007" else 0
        built = swarm(1, settings=Settings(origin=OriginSettings(give_up=1.0, retries=0)))
        view = built.distribute(origin.url)
        assert set(kinds(view).values()) == {"source-unreachable"}
        assert origin.count("GET")[""] == 1
