"""Builds the sdist, a wheel from it, installs that in a clean environment and imports every module."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_IMPORT_ALL = """
import importlib, pkgutil, sys, dragonfly_ray
from pathlib import Path
manager = len(sys.argv) > 1
def skip(name):
    # Of the manager, a cluster without it needs nothing.
    return name.endswith("__main__") or (not manager and name.startswith("dragonfly_ray.serve."))
names = [m.name for m in pkgutil.walk_packages(dragonfly_ray.__path__, "dragonfly_ray.") if not skip(m.name)]
for name in names:
    importlib.import_module(name)
for wanted in ("actors.peer", "sources.http", "serve", "storage.store", "cli.app", "remote.client"):
    assert f"dragonfly_ray.{wanted}" in names, (wanted, names)
assert dragonfly_ray.distribute
if manager:
    from dragonfly_ray.serve.database import Database
    Database("sqlite:///manager.db").migrate()
    console = Path(dragonfly_ray.__file__).parent / "serve" / "console"
    assert list(console.rglob("index.html")), console
print(len(names), "modules import")
"""


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
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"{wheel}[serve]"], check=True)
        subprocess.run([str(python), "-c", _IMPORT_ALL, "manager"], check=True, cwd=folder)
        where = subprocess.run(
            [str(python), "-c", "import dragonfly_ray; print(dragonfly_ray.__file__)"],
            check=True, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if str(venv) not in where:
            raise SystemExit(f"the checkout was imported, not the wheel: {where}")


if __name__ == "__main__":
    main()
