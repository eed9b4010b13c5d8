"""Whoever has no grant, and whoever says nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from dragonfly_ray.errors import GrantError, TransportError
from dragonfly_ray.grants import GrantIssuer, SigningKey
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.server import HELLO_TIMEOUT
from dragonfly_ray.transport.streams import Network
from tests.handshakes import (
    CHILD_KEY,
    ISSUER,
    a_grant,
)
from tests.leaks import Held
from tests.piece_bench import (
    Bench,
    fetch,
)
from tests.waiting import until
from tests.wires import connect


def tampered() -> bytes:
    good = a_grant()
    return good[:-1] + bytes([good[-1] ^ 1])


@pytest.mark.parametrize(
    "grant",
    [b"", b"x" * 100, tampered(), a_grant("somebody-else"), a_grant(task="other"), a_grant(ttl=-3600.0),
     GrantIssuer(SigningKey.generate()).issue("t", "child", CHILD_KEY.public_bytes(), "default", 60),
     a_grant(key=SigningKey.generate()), ISSUER.issue("t", "child", b"short", "default", 60)],
    ids=["none", "noise", "tampered", "other host", "other task", "expired", "other cluster", "other key", "no key"],
)  # fmt: skip
def test_nobody_gets_in_without_a_grant(bench: Bench, grant: bytes) -> None:
    with pytest.raises(GrantError):
        bench.connect(grant=grant)


def test_a_task_that_is_not_here_is_said_so(bench: Bench) -> None:
    with pytest.raises(TransportError, match="unknown task"):
        bench.connect(task="u")


def test_ten_thousand_strangers_and_noise_cost_a_closed_connection_each(bench: Bench) -> None:
    hello = p.encode(p.Hello("t", "child", b"no grant"))
    noise = os.urandom(300)
    for number in range(10_000):
        with connect(bench.network, bench.server.port) as sock, contextlib.suppress(OSError):
            sock.sendall(hello if number % 10 else noise)
    with contextlib.closing(bench.connect()) as connection:
        fetch(connection, bench.task, range(4, 12))
    until(lambda: bench.server.connections == 0)


def test_who_says_nothing_is_closed(bench: Bench) -> None:
    slow = [connect(bench.network, bench.server.port, 10 * HELLO_TIMEOUT) for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(b"\x01")
        with contextlib.closing(bench.connect()) as connection:
            fetch(connection, bench.task, range(4, 12))
        for sock in slow:
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(100):  # the challenge
                    pass
    finally:
        for sock in slow:
            sock.stream.close()


def test_stop_leaves_no_thread_and_no_descriptor(tmp_path: Path, network: Network) -> None:
    before = Held()
    bench = Bench(tmp_path, network=network)
    connections = [bench.connect(f"c{n}") for n in range(5)]
    for connection in connections:
        connection.request(4, 20)
    bench.close()
    for connection in connections:
        connection.close()
    assert not before.more_files()
    assert not before.more_threads()
