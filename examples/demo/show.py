"""What the demo shows. Needs no root, leaves nothing behind: the processes that it starts die with it, however it dies."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from blake3 import blake3
from rich.console import Console

from dragonfly_ray.distribution import Progress
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.remote import Client
from dragonfly_ray.remote import connect as connect_manager
from dragonfly_ray.signals import heed, interrupt
from examples.demo import environment
from examples.demo.keeping import STATE_VARIABLE, Kept

NODES = 4
INTERRUPTED = 130
TRACEBACK = "DRAGONFLY_DEMO_TRACEBACK"
SIZE = 256 * 1024 * 1024
OBJECT_STORE = 100 * 1024 * 1024
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
console = Console()
_libc = ctypes.CDLL(None)
_NGINX = """
daemon off; pid {state}/pid; error_log {state}/error.log; worker_processes 1;
events {{}}
http {{
  access_log off; sendfile on; types {{ }} default_type application/octet-stream;
  client_body_temp_path {state}/a; proxy_temp_path {state}/b; fastcgi_temp_path {state}/c;
  uwsgi_temp_path {state}/d; scgi_temp_path {state}/e;
  server {{ listen 127.0.0.1:{port}; root {root}; autoindex on; }}
}}
"""


def _dies_with_us() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web_server(root: Path, state: Path) -> Iterator[str]:
    """nginx where it is installed, else aiohttp's own file server; both know ranges and listings."""
    port = _free_port()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    command: Sequence[str]
    if nginx:
        conf = state / "nginx.conf"
        user = "" if os.geteuid() else "user root;"
        conf.write_text(user + _NGINX.format(state=state, port=port, root=root))
        command = [nginx, "-p", str(state), "-c", str(conf)]
    else:
        command = [sys.executable, "-c", _SERVE, str(root), str(port)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_dies_with_us,  # noqa: PLW1509, there are no other threads yet
    )
    try:
        _await_port(port)
        console.print(f"origin: {'nginx' if nginx else 'aiohttp'} on http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


_SERVE = """
import html, pathlib, sys
from aiohttp import web
root = pathlib.Path(sys.argv[1])
async def serve(request):
    path = root / request.match_info["path"]
    if not path.is_dir():
        return web.FileResponse(path)
    names = [p.name + ("/" if p.is_dir() else "") for p in sorted(path.iterdir())]
    links = "".join(f'<li><a href="{html.escape(n)}">{html.escape(n)}</a></li>' for n in names)
    page = f"<title>Index of {request.path}</title><ul>{links}</ul>"
    return web.Response(text=page, content_type="text/html")
app = web.Application()
app.add_routes([web.get("/{path:.*}", serve)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("the web server does not start")


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Ray nodes on this machine, each as if it were a host of its own."""
    import ray
    from ray.cluster_utils import Cluster

    console.print(f"starting {NODES} Ray nodes …")
    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": OBJECT_STORE}
    if objects := environment.object_store_folder(folder, NODES * OBJECT_STORE):
        console.print(f"/dev/shm is too small for Ray's objects: they lie in {objects}", soft_wrap=True)
        options["plasma_directory"] = str(objects)
    head = {**options, "include_dashboard": False, "temp_dir": str(folder / "ray")}
    started: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES - 1):
            started.add_node(**options)
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        with _unheard():
            ray.shutdown()
            started.shutdown()


@contextmanager
def _unheard() -> Iterator[None]:
    """Ray's raylets tell a driver's standard output of every actor that is ended with calls under way: here all are."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def tree_digest(path: Path) -> str:
    """Over every name and every byte below `path`, or of one file."""
    found = blake3()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(path).as_posix()
        found.update(f"{name}\0{file.stat().st_size}\0".encode())
        found.update_mmap(file)
    return found.hexdigest()


def run(folder: Path, kept: Kept | None = None) -> None:
    """The whole demonstration. Raises if a single byte is wrong. `kept`: then it goes on until it is told to end."""
    import pyarrow

    import dragonfly_ray

    root, state = folder / "www", folder / "nginx"
    root.mkdir(mode=0o755)
    state.mkdir()
    (folder / "nodes").mkdir()  # a root of outputs must be there
    big = root / "big.bin"
    with big.open("wb") as file:
        for _ in range(SIZE // (1 << 22)):
            file.write(os.urandom(1 << 22))
    tree = root / "pyarrow"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(pyarrow.__file__).parent, tree, symlinks=False, ignore=ignore)
    with web_server(root, state) as url, cluster(folder):
        heed()
        started = dragonfly_ray.up(manager=_manager(folder))
        heed()
        console.print(f"{len(started)} peers are ready")
        found = started.manager
        if found:
            assert found.password
            password = found.password.get_secret_value()
            console.print(f"console: {found.url}   sign in as admin, password {password}", soft_wrap=True)
            with _client(found.url, password) as client:
                _distribute(client, url, folder, (big, tree))
        else:
            console.print("no manager: the extra `serve` is not installed")
            _distribute(dragonfly_ray, url, folder, (big, tree))
        heed()
        if kept:
            replace(kept, url=found.url if found else "", ready=True).write()
            while True:
                signal.pause()
        with _unheard():
            dragonfly_ray.down()


def _distribute(cluster: Any, url: str, folder: Path, sources: Sequence[Path]) -> None:
    """`cluster`: the package itself, or a client of the manager; their calls are the same."""
    from dragonfly_ray.cli.show import Live

    for source in sources:
        name = source.name + ("/" if source.is_dir() else "")
        with Live(console) as live:

            def progress(found: Progress, live: Live = live) -> None:
                heed()
                live.update(found)

            dest = str(folder / "nodes" / "{node}" / "{name}")
            done = cluster.distribute(f"{url}/{name}", dest=dest, progress=progress)
        console.print(done)
        wanted = tree_digest(source)
        for node, path in done.paths.items():
            if tree_digest(path) != wanted:
                raise SystemExit(f"node {node}: {path} is not what was sent")
        console.print(f"every byte verified on {len(done.paths)} nodes\n", style="green")


def _manager(folder: Path) -> Any:
    """Settings of the demo's manager; False where what it needs is not installed."""
    try:
        from dragonfly_ray.serve import launch  # noqa: F401, whether all that it needs is there
        from dragonfly_ray.serve.settings import ManagerSettings
    except ImportError:
        return False
    return ManagerSettings(
        state_dir=folder / "manager",
        http_port=0,
        dest_roots=(str(folder / "nodes"),),
        # The demo's origin is on this machine: elsewhere, addresses of that kind are refused.
        urls=UrlPolicy(networks=("127.0.0.0/8",)),
    )


def _client(url: str, password: str) -> Client:
    """Signs in as a person does, and makes a token as a person would."""
    import httpx

    with httpx.Client(base_url=f"{url}/api/v1") as session:
        me = session.post("/session", json={"name": "admin", "password": password}).raise_for_status().json()
        made = session.post("/tokens", json={"name": "demo"}, headers={"X-CSRF-Token": me["csrf"]})
        return connect_manager(url, made.raise_for_status().json()["token"])


def _children() -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _reap() -> None:
    """Kills whatever is left below this process: it is the reaper of all its descendants."""
    deadline = time.monotonic() + 10
    while (left := _children()) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def _interrupted(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # once is enough: now everything is put away
    interrupt()


def _failed(why: str) -> int:
    console.print(why, style="red", markup=False, highlight=False, soft_wrap=True)
    return 1


def main(*, keep: bool = False) -> int:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _interrupted)
    started = time.monotonic()
    with ExitStack() as stack:
        stack.callback(_reap)
        try:
            folder = environment.scratch_folder()
        except environment.UnfitMachineError as error:
            return _failed(str(error))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_reap)
        kept = Kept.me(folder) if keep else None
        if kept:
            stack.callback(kept.forget)
            kept.write()
        ignored = environment.shed(os.environ, keep=(STATE_VARIABLE, TRACEBACK))
        if told := [name for name in ignored if not name.startswith("DRAGONFLY_DEMO")]:
            console.print(f"not used here: {', '.join(told)}", style="dim", highlight=False, soft_wrap=True)
        environment.prepare_ray(folder, os.environ)
        os.environ["DRAGONFLY_STORAGE__ROOT"] = str(folder / "stores")
        try:
            run(folder, kept)
        except KeyboardInterrupt:
            console.print("interrupted; stopping everything", style="yellow")
            return INTERRUPTED
        except DragonflyError as error:
            return _failed(str(error))
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            return _failed(f"{environment.explain(error)}   ({TRACEBACK}=1 shows where)")
        console.print(f"done in {time.monotonic() - started:.0f} s, stopped cleanly")
    return 0
