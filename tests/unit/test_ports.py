"""Ports that tests choose now and bind later."""

from __future__ import annotations

from pathlib import Path

from tests.ports import free_port


def test_no_port_is_given_twice_nor_to_a_connection() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
    assert not [port for port in ports if first <= port <= last]
