"""What the package says of itself, and what it does without its extras."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dragonfly_ray
from dragonfly_ray.cli.app import app
from tests.commit_subject import problem

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OF_EXTRAS = ("aiohttp", "aiohttp_cors", "httpx", "httpx_sse", "matplotlib", "psutil", "pycurl", "requests")
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OF_EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def without_extras(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process in which nothing of the extras can be imported."""
    command = [sys.executable, "-c", f"{WITHOUT}\n{program}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def test_the_version_stands_in_one_place_and_all_else_follows() -> None:
    version = dragonfly_ray.__version__
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "dragonfly_ray/__init__.py"
    assert CliRunner().invoke(app, ["--version"]).output == f"dragonfly-ray {version}\n"
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == version
    for file in (ROOT / "configs" / "kuberay").glob("*.yaml"):
        tags = set(re.findall(r"/dragonfly-ray:(\S+)", file.read_text()))
        assert tags <= {version}, file


def test_every_extra_is_in_all() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) - {"all"} == set(extras["all"][0].partition("[")[2].rstrip("]").split(","))


def test_it_is_licensed_as_it_says() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_a_folder_is_distributed_without_any_extra(tmp_path: Path) -> None:
    """Small files and their sizes as well, which otherwise are asked for many at once."""
    done = without_extras(
        "import logging, pathlib\n"
        "logging.basicConfig(level=logging.WARNING)\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "from tests.origins import FolderOrigin\n"
        "from tests.swarm import Swarm\n"
        "files = {f'{n}.txt': b'%d' % n * 1000 for n in range(20)} | {'large.bin': b'x' * 3_000_000}\n"
        "swarm = Swarm(root / 'nodes', 2)\n"
        "with FolderOrigin(files) as origin:\n"
        "    view = swarm.distribute(origin.url, dest=str(root / '{node}'))\n"
        "swarm.close()\n"
        "for node in swarm.peers:\n"
        "    assert {p.name: p.read_bytes() for p in (root / node).iterdir()} == files, view\n",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "pip install" in line]
    assert "small files are requested one by one" in said
    assert said.endswith("pip install 'dragonfly-ray[curl]'")


@pytest.mark.parametrize(
    "program",
    [
        "import dragonfly_ray\ntry:\n    dragonfly_ray.connect\nexcept ValueError as error:\n    sys.exit(str(error))",
        "from dragonfly_ray.cli import main\nsys.argv = ['dragonfly', '--manager', 'http://127.0.0.1:9', 'ls']\nmain()",
    ],
    ids=["python", "command"],
)
def test_a_manager_without_its_extra_is_one_line_that_names_it(program: str) -> None:
    done = without_extras(program)
    assert done.returncode != 0
    (said,) = done.stderr.splitlines()
    assert "httpx is missing" in said
    assert "pip install 'dragonfly-ray[remote]'" in said


def test_hooks_need_nothing_from_elsewhere() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "://" not in text
    assert re.findall(r"- repo: (.*)", text) == ["local"]


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ("peer: report lost neighbours immediately\n", True),
        ("scheduling, peer: small content needs few rounds\n\nWhy.\n", True),
        ("Merge branch 'main' into x\n", True),
        ("Report lost neighbours", False),
        ("peer: ends with a full stop.", False),
        ("peer: no blank line\nbehind it", False),
        ("", False),
    ],
)
def test_subjects_of_commits(message: str, good: bool) -> None:
    assert (problem(message) == "") == good
