"""tests/setup on machines that lack something: one line that says what to do, and nothing half made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "setup"
TOOLS = [
    "bash",
    "env",
    "dirname",
    "cp",
    "mkdir",
    "df",
    "awk",
    "grep",
    "tail",
    "head",
    "cut",
    "id",
    "mktemp",
    "rm",
    "cat",
    "touch",
]


class Machine:
    """With nothing but a shell's usual tools, and what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.checkout = folder / "bin", folder / "check out"
        self.bin.mkdir()
        (self.checkout / "tests").mkdir(parents=True)
        shutil.copy(SCRIPT, self.checkout / "tests" / "setup")
        (self.checkout / "pyproject.toml").touch()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)

    def has(self, name: str, script: str = "exit 0") -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def has_python(
        self, version: str = "3.12", venv: str = 'mkdir -p "$4/bin"; cp "$0" "$4/bin/python"'
    ) -> None:
        """Answers as that version does; `venv`: what it does for `-m venv --clear FOLDER`."""
        old = int(version.split(".")[1]) < 11
        self.has(
            "python3",
            f"""case "$*" in
--version) echo "Python {version}.0" ;;
*version_info*\\<*) exit {int(old)} ;;
*version_info*) echo {version} ;;
"-m venv"*) {venv} ;;
"-m pip --version") exit 0 ;;
"-m pip install"*) echo "$*" >>"$PIP_SAID"; [ -z "$PIP_FAILS" ] || {{ echo "$PIP_FAILS"; exit 1; }} ;;
esac""",
        )

    def setup(self, what: str = "run", **env: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            ["bash", "tests/setup", what], cwd=self.checkout, text=True, timeout=60, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": str(self.bin), "HOME": "/nowhere", "PIP_SAID": str(self.bin / "pip-said"),
                 "SBIN": "/nowhere", "DRAGONFLY_SYSTEM_PACKAGES": "no", **env},
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_is_set_up_without_any_program(machine: Machine) -> None:
    machine.has_python()
    code, said = machine.setup()
    assert code == 0, said
    assert said[0].startswith("setup: without nginx")
    assert len(said) == 2
    assert "--editable .[all]" in (machine.bin / "pip-said").read_text()


def test_what_is_required_fails_it(machine: Machine) -> None:
    machine.has_python()
    code, said = machine.setup("test", DRAGONFLY_REQUIRE_ALL="1")
    assert code == 1
    assert len(said) == 1
    assert "without nginx iproute2 curl strace npm chromium" in said[0]


def test_an_installation_that_fails_is_named(machine: Machine) -> None:
    machine.has_python()
    machine.has("sudo")
    machine.has("apt-get", 'echo "E: Unable to locate package nginx"; exit 100')
    code, said = machine.setup(DRAGONFLY_SYSTEM_PACKAGES="yes")
    assert code == 0, said
    assert "installing nginx" in said[0]
    assert "not installed: nginx (E: Unable to locate package nginx)" in said[1]
    code, said = machine.setup(DRAGONFLY_SYSTEM_PACKAGES="yes", DRAGONFLY_REQUIRE_ALL="1")
    assert code == 1
    assert "not installed: nginx" in said[-1]


def test_no_python(machine: Machine) -> None:
    code, said = machine.setup()
    assert code == 1
    assert "Python 3.11 or later is needed" in said[-1]
    assert "PYTHON=" in said[-1]


def test_an_old_python(machine: Machine) -> None:
    machine.has_python("3.9")
    code, said = machine.setup()
    assert code == 1
    assert "Python 3.11 or later is needed (found: Python 3.9.0)" in said[-1]
    code, said = machine.setup(PYTHON=str(machine.bin / "python3"))
    assert code == 1
    assert said[-1].endswith("python3 is no Python 3.11 or later")


def test_a_python_without_its_venv_module(machine: Machine) -> None:
    """Debian's: it leaves half an environment behind, which must not be taken for one."""
    machine.has_python(venv='mkdir -p "$4/bin"; echo "ensurepip is not available."; exit 1')
    code, said = machine.setup()
    assert code == 1
    assert "ensurepip is not available" in said[-1]
    assert "apt-get install python3.12-venv" in said[-1]
    assert not machine.venv.exists()
    machine.has_python()
    assert machine.setup()[0] == 0


def test_pip_cannot_reach_anything(machine: Machine) -> None:
    machine.has_python()
    code, said = machine.setup(PIP_FAILS="ERROR: No matching distribution found for ray")
    assert code == 1
    assert "No matching distribution found for ray" in said[-1]
    assert "https_proxy" in said[-1]


def test_a_full_disk(machine: Machine) -> None:
    machine.has_python()
    (machine.bin / "df").unlink()
    machine.has("df", "echo header; echo x x x 7 x")
    code, said = machine.setup()
    assert code == 1
    assert "7 MiB free" in said[-1]


def test_a_checkout_that_cannot_be_written_to(machine: Machine) -> None:
    machine.venv.touch()  # root, too, makes no folder there
    code, said = machine.setup()
    assert (code, len(said)) == (1, 1)
    assert "use a checkout of your own" in said[-1]
