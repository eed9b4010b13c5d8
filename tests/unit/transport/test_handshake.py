"""Who gets in at a parent's port, and whom a child takes for its parent: attacks on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragonfly_ray.errors import GrantError, ProtocolError, TransportError
from dragonfly_ray.grants import SKEW, GrantIssuer, GrantVerifier, SigningKey
from dragonfly_ray.model import Host
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.bans import MOST_BANS, Bans
from dragonfly_ray.transport.negotiation import LEAST_VERSION, VERSION
from dragonfly_ray.transport.parent_connection import ParentConnection
from dragonfly_ray.transport.streams import Network
from tests.handshakes import (
    CHILD_KEY,
    CLUSTER_KEY,
    a_grant,
    caller,
    frame,
    hello_to,
    parent_at,
)
from tests.piece_bench import COUNT, PATIENT, SOON, Bench, fetch
from tests.waiting import until
from tests.wires import Listening, Wire, connect


def connected(bench: Bench) -> Wire:
    return connect(bench.network, bench.server.port)


def refusal(sock: Wire, hello: bytes) -> p.Refused:
    """What the parent says to this HELLO, after which it must close."""
    sock.sendall(hello)
    found = frame(sock, p.Refused)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    return found


@contextlib.contextmanager
def listening(network: Network, answer: Callable[[Wire], None]) -> Iterator[Host]:
    """Somebody at the address of the parent."""

    def serve() -> None:
        with listener.accept() as sock, contextlib.suppress(OSError):
            answer(sock)
            sock.drain()

    with Listening(network) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield parent_at(listener.port)
        server.join(10)
        assert not server.is_alive()


# --- at a parent's port -------------------------------------------------------------------------


def test_a_captured_hello_neither_reads_nor_throws_the_honest_child_out(bench: Bench) -> None:
    with connected(bench) as wire:
        captured = p.encode(hello_to(frame(wire, p.Challenge)))
        wire.sendall(captured)
        frame(wire, p.Accepted)
        with connected(bench) as thief:
            frame(thief, p.Challenge)
            assert refusal(thief, captured).code == p.Refusal.GRANT
        frame(wire, p.Welcome)
        wire.sendall(p.encode(p.Ping()))
        frame(wire, p.Pong)
        assert bench.server.connections == 1


def test_a_parent_cannot_pass_its_child_on_to_another_parent(bench: Bench) -> None:
    """It forwards the nonce of a victim; the child signs that together with the host that it speaks to."""
    with connected(bench) as victim:
        challenge = frame(victim, p.Challenge)
        relayed = hello_to(challenge, parent="the hostile parent")
        assert refusal(victim, p.encode(relayed)).code == p.Refusal.GRANT


def test_a_stolen_grant_is_of_no_use_without_its_key(bench: Bench) -> None:
    with connected(bench) as sock:
        stolen = hello_to(frame(sock, p.Challenge), key=SigningKey.generate(), grant=a_grant())
        assert refusal(sock, p.encode(stolen)).code == p.Refusal.GRANT


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_bit_of_a_hello_can_be_changed_on_its_way(bench: Bench, data: st.DataObject) -> None:
    with connected(bench) as sock:
        hello = bytearray(p.encode(hello_to(frame(sock, p.Challenge))))
        place = data.draw(st.integers(p.HEADER.size, len(hello) - 1))
        hello[place] ^= 1 << data.draw(st.integers(0, 7))
        sock.sendall(bytes(hello))
        with contextlib.suppress(ConnectionResetError):
            answer = sock.recv(1)
            assert answer in (b"", p.encode(p.Refused(""))[:1])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.binary(max_size=400), max_size=3))
def test_whatever_a_stranger_says_it_is_not_let_in(bench: Bench, words: list[bytes]) -> None:
    with connected(bench) as sock, contextlib.suppress(OSError):
        frame(sock, p.Challenge)
        for word in words:
            sock.sendall(word)
        sock.finish()
        assert sock.recv(1) in (b"", p.encode(p.Refused(""))[:1])


def test_an_expired_grant_is_refused_as_a_grant(bench: Bench) -> None:
    bench.connect(grant=a_grant(ttl=-SKEW / 2)).close()
    with pytest.raises(GrantError, match="expired"):
        bench.connect(grant=a_grant(ttl=-SKEW - 1.0))


def test_one_signing_key_replaces_another(bench: Bench) -> None:
    """Both are good for a while; then the old one is not."""
    new = SigningKey.generate()
    held = GrantIssuer(new).issue("t", "child", CHILD_KEY.public_bytes(), "default", 60.0)
    with pytest.raises(GrantError):
        bench.connect(grant=held)
    bench.verifier.trust([CLUSTER_KEY.public_bytes(), new.public_bytes()])
    bench.connect(grant=held).close()
    bench.connect(grant=a_grant()).close()
    bench.verifier.trust([new.public_bytes()])
    bench.connect(grant=held).close()
    with pytest.raises(GrantError):
        bench.connect(grant=a_grant())


def test_a_banned_child_is_closed_and_not_let_in_again(bench: Bench) -> None:
    with contextlib.closing(bench.connect("good")) as good:
        with contextlib.closing(bench.connect("bad")):
            assert bench.server.connections == 2
            bench.server.ban("t", "bad")
            until(lambda: bench.server.connections == 1, SOON)
        with pytest.raises(TransportError, match="banned"):
            bench.connect("bad")
        fetch(good, bench.task, range(4, 8))


def test_a_ban_of_another_task_closes_nothing(bench: Bench) -> None:
    with contextlib.closing(bench.connect("child")) as child:
        bench.server.ban("another", "child")
        until(bench.server._banned.empty, SOON)
        fetch(child, bench.task, range(4, 8))
        bench.connect("child").close()


def test_bans_end_and_are_bounded() -> None:
    bans = Bans(600.0)
    bans.add("t", "h", 0.0)
    assert bans.holds("t", "h", 599.0)
    assert not bans.holds("t", "other", 1.0)
    assert not bans.holds("other", "h", 1.0)
    assert not bans.holds("t", "h", 600.0)
    for number in range(MOST_BANS + 1):
        bans.add("t", f"h{number}", 0.0)
    assert not bans.holds("t", "h0", 1.0)
    assert bans.holds("t", f"h{MOST_BANS}", 1.0)


@pytest.mark.parametrize("version", [1, LEAST_VERSION - 1, VERSION + 1])
def test_a_child_of_another_version_is_told_so(bench: Bench, version: int) -> None:
    with connected(bench) as sock:
        frame(sock, p.Challenge)
        body = version.to_bytes(2, "big") * 2 + bytes(20)
        refused = refusal(sock, p.HEADER.pack(1, 0, 0, len(body)) + body)
        assert refused.code == p.Refusal.VERSION
        assert f"version {version} " in refused.reason


def test_whoever_speaks_before_it_has_proved_who_it_is_is_closed(bench: Bench) -> None:
    for word in (p.Request(4, 1), p.ManifestRequest(0, 100), p.Have(()), p.Ping()):
        with connected(bench) as sock:
            frame(sock, p.Challenge)
            sock.sendall(p.encode(word))
            assert sock.recv(1) == b""


# --- at a child ---------------------------------------------------------------------------------


def open_to(host: Host, network: Network) -> ParentConnection:
    return ParentConnection.open(host, caller(), PATIENT, COUNT, network)


def test_whoever_listens_at_a_parents_old_address_is_not_taken_for_it(network: Network) -> None:
    """It has no private key of that host: nothing that it says is the host's lie."""

    def impostor(sock: Wire) -> None:
        sock.sendall(p.encode(p.Challenge(bytes(32))))
        frame(sock, p.Hello)
        sock.sendall(p.encode(p.Accepted(bytes(64))) + p.encode(p.Welcome(b"\xff" * 8, ())))

    with (
        listening(network, impostor) as host,
        pytest.raises(TransportError, match="is not host parent") as caught,
    ):
        open_to(host, network)
    assert not isinstance(caught.value, ProtocolError | GrantError)


def test_nonsense_at_a_parents_address_is_not_its_lie_before_it_has_proved_who_it_is(
    network: Network,
) -> None:
    for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", p.encode(p.Welcome(b"", ())), p.encode(p.Pong())):
        with listening(network, lambda sock, said=nonsense: sock.sendall(said)) as host:  # type: ignore[misc]
            with pytest.raises(TransportError) as caught:
                open_to(host, network)
            assert not isinstance(caught.value, ProtocolError)


def test_a_parent_with_another_key_than_its_host_is_not_taken_for_it(bench: Bench) -> None:
    """A host that was restarted, as the scheduler knew it before."""
    former = parent_at(bench.server.port, key=SigningKey.generate())
    with pytest.raises(TransportError, match="is not host parent"):
        open_to(former, bench.network)


def test_a_parent_of_another_version_is_told_apart(network: Network) -> None:
    def later(sock: Wire) -> None:
        body = (VERSION + 1).to_bytes(2, "big") * 2 + bytes(100)
        sock.sendall(p.HEADER.pack(16, 0, 0, len(body)) + body)

    with (
        listening(network, later) as host,
        pytest.raises(TransportError, match=f"protocol version {VERSION + 1}"),
    ):
        open_to(host, network)


# --- grants -------------------------------------------------------------------------------------


def test_a_grant_names_the_key_of_its_holder() -> None:
    verifier = GrantVerifier([CLUSTER_KEY.public_bytes()])
    assert verifier.verify(a_grant(), "t", "child") == CHILD_KEY.public_bytes()


def test_neither_keys_nor_grants_are_shown() -> None:
    shown = repr(caller())
    assert CHILD_KEY.private_bytes().hex() not in shown
    assert "grant" not in shown


def test_no_two_challenges_are_the_same(bench: Bench) -> None:
    seen = set()
    for _ in range(20):
        with connected(bench) as sock:
            seen.add(frame(sock, p.Challenge).nonce)
    assert len(seen) == 20
