"""Ports for servers that bind them later."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 20000
"""Ray gives its workers those below."""
_given: set[int] = set()


def free_port() -> int:
    """On loopback, and never the same twice.

    Outside the range from which the kernel chooses for connections and for whoever does not care: what is free there
    may be taken a moment later, and a client that tries such a port again and again is connected to itself one day.
    """
    ephemeral = int(_RANGE.read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(_FIRST, max(ephemeral, _FIRST + 10000))
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
