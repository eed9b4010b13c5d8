"""The file server of the tests says what it sent as nginx does, also to who hangs up after the head."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import programs
from tests.nginx import Nginx


@pytest.fixture(params=["nginx", "python"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nginx]:
    if request.param == "nginx":
        programs.need("nginx")
    else:
        monkeypatch.setattr(programs, "find", lambda _: None)
    with Nginx(tmp_path / "files", tmp_path / "state") as started:
        (started.root / "file").write_bytes(bytes(100_000))
        yield started


def _ask(server: Nginx, headers: dict[str, str], read: Callable[[http.client.HTTPResponse], object]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/file", headers=headers)
    answer = connection.getresponse()
    read(answer)
    answer.close()
    connection.close()


def test_a_byte_whose_reader_hangs_up_after_the_head_counts(server: Nginx) -> None:
    for _ in range(200):
        _ask(server, {"Range": "bytes=0-0"}, lambda answer: None)
    assert [hit.sent for hit in server.hits()] == [1] * 200


def test_what_somebody_has_whole_is_in_the_log(server: Nginx) -> None:
    """Of four at once, so that one answer is logged while others end."""

    def ask() -> None:
        for _ in range(50):
            _ask(server, {}, lambda answer: answer.read())
            done.append(None)
            counts.append((len(done), len(server.hits())))

    done: list[None] = []
    counts: list[tuple[int, int]] = []
    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(counts) == 200, "none broke"
    assert [(had, logged) for had, logged in counts if logged < had] == []
