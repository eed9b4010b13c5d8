"""Builds the sdist, a wheel from it, installs that in a clean environment and imports every module."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_IMPORT_ALL = """
import importlib, pkgutil, dragonfly_ray
names = [m.name for m in pkgutil.walk_packages(dragonfly_ray.__path__, "dragonfly_ray.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for wanted in ("actors.peer", "sources.http", "serve", "storage.store", "cli.app"):
    assert f"dragonfly_ray.{wanted}" in names, (wanted, names)
assert dragonfly_ray.distribute
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
        # pytest for the conformance suite alone; no extras: nothing may need them to be imported.
        subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel), "pytest"], check=True)
        subprocess.run([str(python), "-c", _IMPORT_ALL], check=True, cwd=folder)
        subprocess.run([str(venv / "bin" / "dragonfly"), "--help"], check=True, stdout=subprocess.DEVNULL)
        where = subprocess.run(
            [str(python), "-c", "import dragonfly_ray; print(dragonfly_ray.__file__)"],
            check=True, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if str(venv) not in where:
            raise SystemExit(f"the checkout was imported, not the wheel: {where}")


if __name__ == "__main__":
    main()
