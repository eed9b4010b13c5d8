"""Both parts of the handshake of a connection, for tests that then say what they like."""

from __future__ import annotations

import os
from typing import TypeVar

from dragonfly_ray.grants import GrantIssuer, Handshake, SigningKey
from dragonfly_ray.model import Endpoint, Host
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import CURRENT, Capabilities
from dragonfly_ray.transport.parent_connection import Caller
from tests.wires import Raw

CLUSTER_KEY = SigningKey.generate()
ISSUER = GrantIssuer(CLUSTER_KEY)
PARENT = "parent"
PARENT_KEY = SigningKey.generate()
CHILD_KEY = SigningKey.generate()
F = TypeVar("F")


def a_grant(host: str = "child", task: str = "t", ttl: float = 60.0, key: SigningKey = CHILD_KEY) -> bytes:
    return ISSUER.issue(task, host, key.public_bytes(), "default", ttl)


def caller(host: str = "child", task: str = "t", grant: bytes | None = None) -> Caller:
    return Caller(host, CHILD_KEY, task, a_grant(host, task) if grant is None else grant)


def parent_at(*ports: int, key: SigningKey = PARENT_KEY) -> Host:
    endpoints = tuple(Endpoint("127.0.0.1", port) for port in ports)
    return Host(PARENT, "node", endpoints, key=key.public_bytes())


def frame(sock: Raw, kind: type[F]) -> F:
    """The next frame, which must be of this kind."""
    number, length = p.decode_header(_exactly(sock, p.HEADER.size))
    found = p.decode(number, _exactly(sock, length))
    assert isinstance(found, kind), found
    return found


def _exactly(sock: Raw, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, "closed"
        data += more
    return data


def as_parent(sock: Raw, capabilities: Capabilities = CURRENT) -> p.Hello:
    """Up to where a parent says what it has; whatever the child's grant is."""
    nonce = os.urandom(32)
    sock.sendall(p.encode(p.Challenge(nonce, capabilities)))
    hello = frame(sock, p.Hello)
    both = Handshake(
        hello.task_id,
        hello.host_id,
        PARENT,
        nonce,
        hello.nonce,
        capabilities.signed,
        hello.capabilities.signed,
    )
    sock.sendall(p.encode(p.Accepted(both.sign("parent", PARENT_KEY))))
    return hello


def hello_to(
    challenge: p.Challenge,
    host: str = "child",
    task: str = "t",
    *,
    parent: str = PARENT,
    key: SigningKey = CHILD_KEY,
    grant: bytes | None = None,
    capabilities: Capabilities = CURRENT,
) -> p.Hello:
    """A child's answer to a parent's first word."""
    both = Handshake(
        task,
        host,
        parent,
        challenge.nonce,
        os.urandom(32),
        challenge.capabilities.signed,
        capabilities.signed,
    )
    token = a_grant(host, task) if grant is None else grant
    return p.Hello(task, host, token, both.child_nonce, both.sign("child", key), capabilities)


def as_child(sock: Raw, host: str = "child", capabilities: Capabilities = CURRENT) -> None:
    """Up to where the parent has accepted it."""
    sock.sendall(p.encode(hello_to(frame(sock, p.Challenge), host, capabilities=capabilities)))
    frame(sock, p.Accepted)
