"""Builds the sdist, a wheel from it, installs that in a clean environment and imports every module.

Without extras first: a file is put on a node then, and what needs an extra says which.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.nginx import Nginx

ROOT = Path(__file__).resolve().parents[1]
_IMPORT_ALL = """
import importlib, pkgutil, sys, dragonfly_ray, dragonfly_ray.errors
from pathlib import Path
manager = len(sys.argv) > 1
OF_EXTRAS = ("serve.", "remote.client", "remote.http", "remote.submission", "sources.curl", "sources.stall_detection")
def skip(name):
    of_extra = name.startswith(tuple(f"dragonfly_ray.{each}" for each in OF_EXTRAS))
    return name.endswith("__main__") or (not manager and of_extra)
names = [m.name for m in pkgutil.walk_packages(dragonfly_ray.__path__, "dragonfly_ray.") if not skip(m.name)]
for name in names:
    importlib.import_module(name)
of_extras = ("remote.client", "sources.curl") if manager else ()
for wanted in ("actors.peer", "sources.http", "serve", "storage.store", "cli.app", *of_extras):
    assert f"dragonfly_ray.{wanted}" in names, (wanted, names)
assert dragonfly_ray.distribute
assert not any(name.startswith("dragonfly_ray.demo") for name in names), "the demo is no part of the wheel"
if not manager:
    try:
        dragonfly_ray.connect
        raise SystemExit("httpx is there: is it asked for by something mandatory?")
    except dragonfly_ray.errors.InvalidRequestError as error:
        assert "dragonfly-ray[remote]" in str(error), error
if manager:
    from dragonfly_ray.serve.database import Database
    Database("sqlite:///manager.db").migrate()
    console = Path(dragonfly_ray.__file__).parent / "serve" / "console"
    assert list(console.rglob("index.html")), console
print(len(names), "modules import")
"""


def _put_on_a_node(python: Path, folder: Path) -> None:
    """A folder of a web server, by a driver that starts a Ray of its own, with nothing but what is mandatory."""
    content = {"a.bin": b"a" * 5_000_000, "b/c.txt": b"c", "b/d.txt": b"d"}
    for name, data in content.items():
        (folder / "www" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "www" / name).write_bytes(data)
    folder.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DRAGONFLY_STORAGE__ROOT": str(folder / "store"),
           "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder / "r")}  # fmt: skip
    with Nginx(folder / "www", folder / "nginx") as origin:
        command = [
            str(python),
            str(ROOT / "examples" / "distribute.py"),
            f"{origin.url}/",
            str(folder / "dest"),
        ]
        subprocess.run(command, check=True, cwd=folder, env=env)
    assert {name: (folder / "dest" / name).read_bytes() for name in content} == content


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder) / "dist"
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        (wheel,) = dist.glob("*.whl")
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        # pytest for the conformance suite alone; no extras: nothing but the manager may need them.
        subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel), "pytest"], check=True)
        subprocess.run([str(python), "-c", _IMPORT_ALL], check=True, cwd=folder)
        subprocess.run([str(venv / "bin" / "dragonfly"), "--help"], check=True, stdout=subprocess.DEVNULL)
        _put_on_a_node(python, Path(folder))
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"{wheel}[serve,curl]"], check=True)
        subprocess.run([str(python), "-c", _IMPORT_ALL, "manager"], check=True, cwd=folder)
        where = subprocess.run(
            [str(python), "-c", "import dragonfly_ray; print(dragonfly_ray.__file__)"],
            check=True, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if str(venv) not in where:
            raise SystemExit(f"the checkout was imported, not the wheel: {where}")


if __name__ == "__main__":
    main()
