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
        # Dependencies come from the environment that runs this; the package itself only from the wheel.
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
        site = next((venv / "lib").glob("python3*/site-packages"))
        packages = next(p for p in sys.path if p.endswith("site-packages"))
        (site / "dependencies.pth").write_text(packages + "\n")
        for editable in site.glob("*dragonfly*.pth"):
            editable.unlink()
        code = f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n" + _IMPORT_ALL
        subprocess.run([str(python), "-c", code], check=True, cwd=folder)
        where = subprocess.run(
            [str(python), "-c", "import dragonfly_ray; print(dragonfly_ray.__file__)"],
            check=True, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if str(venv) not in where:
            raise SystemExit(f"the checkout was imported, not the wheel: {where}")


if __name__ == "__main__":
    main()
