"""What the demo makes of the machine that it finds."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import environment
from examples.demo.environment import UnfitMachineError, explain, prepare_ray, scratch_folder, shed
from examples.demo.keeping import STATE_VARIABLE


@pytest.fixture
def executable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "executable", sys.executable)
    return monkeypatch


def test_the_first_place_with_room_is_taken(tmp_path: Path) -> None:
    found = scratch_folder(["/proc/nowhere", "/tmp"], disk=0, prefix="df-")
    try:
        assert found.parent == Path("/tmp")
        assert found.stat().st_mode & 0o777 == 0o755
        sockets = len(os.fsencode(found)) + len("/ray/session_2026-11-29_21-36-51_123456_1234567")
        assert sockets + len("/sockets/plasma_store.12") <= 107
    finally:
        found.rmdir()


def test_what_is_wrong_with_each_place_is_said_in_one_line(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 40)
    long.mkdir()
    with pytest.raises(UnfitMachineError) as caught:
        scratch_folder([str(long), "/proc/none", "/tmp"], disk=1 << 60)
    said = str(caught.value)
    assert f"{long}: too long for sockets" in said
    assert "/proc/none: No such file or directory" in said
    assert " MiB free" in said
    assert "TMPDIR" in said
    assert "\n" not in said


def test_other_clusters_and_proxies_are_left_out_of_the_environment() -> None:
    found = {
        "RAY_ADDRESS": "10.0.0.1:6379", "http_proxy": "http://p", "HTTPS_PROXY": "http://p", "no_proxy": "x",
        "DRAGONFLY_CONFIG": "/etc/x", "DRAGONFLY_KEPT": "1", "PATH": "/bin", "RAY_AUTH_MODE": "token",
    }  # fmt: skip
    assert shed(found, keep=("DRAGONFLY_KEPT",)) == [
        "DRAGONFLY_CONFIG", "HTTPS_PROXY", "RAY_ADDRESS", "http_proxy",
    ]  # fmt: skip
    assert sorted(found) == ["DRAGONFLY_KEPT", "PATH", "RAY_AUTH_MODE", "no_proxy"]


def test_ray_finds_its_folder_where_no_ray_ever_ran(tmp_path: Path, executable: pytest.MonkeyPatch) -> None:
    """What Ray does at the start of a local cluster; without the folder it raises FileNotFoundError."""
    env: dict[str, str] = {}
    prepare_ray(tmp_path, env)
    code = "from ray._private.utils import write_ray_address; write_ray_address('127.0.0.1:1')"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=True, timeout=100)
    assert (tmp_path / "ray" / "ray_current_cluster").read_text() == "127.0.0.1:1"


def test_a_python_in_a_path_with_a_space_gets_one_without(
    tmp_path: Path, executable: pytest.MonkeyPatch
) -> None:
    """Ray starts workers through a shell, and does not quote the interpreter."""
    prefix = tmp_path / "my work"
    prefix.symlink_to(sys.prefix)
    executable.setattr(sys, "prefix", str(prefix))
    executable.setattr(sys, "executable", str(prefix / "bin" / "python"))
    folder = tmp_path / "scratch"
    folder.mkdir()
    prepare_ray(folder, {})
    said = subprocess.run(
        f"{sys.executable} -c 'import ray; print(ray.__file__)'",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith(str(folder))


def test_objects_lie_in_the_folder_where_shared_memory_is_too_small(tmp_path: Path) -> None:
    assert environment.object_store_folder(tmp_path, 0) is None
    assert environment.object_store_folder(tmp_path, 1 << 60) == tmp_path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "no space left"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "try again"),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/x"), "no permission"),
        (ValueError("one\ntwo"), "ValueError: one two"),
        (KeyError(), "KeyError"),
    ],
)
def test_any_error_is_one_line(error: BaseException, said: str) -> None:
    assert said in explain(error)
    assert "\n" not in explain(error)


@pytest.mark.parametrize("arguments", [[], ["stop"]])
def test_a_state_folder_that_cannot_be_used_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments], capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, STATE_VARIABLE: str(blocked / "state"), "KEEP": "1"},
    )  # fmt: skip
    said = (done.stdout + done.stderr).splitlines()
    assert len(said) == 1, said
    assert "Traceback" not in said[0]
    assert done.returncode == (0 if arguments else 1)
