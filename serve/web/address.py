"""Where a request comes from."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dragonfly_ray.serve.web.scope import state

HEADER = "X-Forwarded-For"


class ClientAddress:
    """`state.address`. `X-Forwarded-For` counts only as far as it was written by trusted proxies: from
    its right end, the first address that is not one of them."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = app
        self._trusted = tuple(ipaddress.ip_network(network, strict=False) for network in trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            state(scope)["address"] = self._of(scope)
        await self._app(scope, receive, send)

    def _of(self, scope: Scope) -> str:
        client = scope.get("client")
        found = client[0] if client else ""
        if not self._is_trusted(found):
            return str(found)[:64]
        hops = ",".join(Headers(scope=scope).getlist(HEADER)).split(",")
        for hop in reversed(hops):
            address = _plain(hop)
            if address is None:
                break
            found = address
            if not self._is_trusted(found):
                break
        return str(found)[:64]

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._trusted)


def network(address: str) -> str:
    """What to count an address by: whoever has one IPv6 address has the whole /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _plain(hop: str) -> str | None:
    """`hop` without a port and brackets; None: not an address."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
