"""Whether a URL may be fetched at all, as far as it tells by itself. Peers look again at every connection."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.urls import redacted

_WEB = ("http", "https")
_LOCAL = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str, policy: UrlPolicy) -> None:
    """Raises `InvalidRequestError` with what is wrong; no name is looked up."""
    try:
        parts = urlsplit(url)
        host, shown = parts.hostname or "", redacted(url)
        _ = parts.port
    except ValueError:
        raise InvalidRequestError("url: this is none; is the host or the port right?") from None
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InvalidRequestError(f"url {shown!r}: must not hold blanks or control characters")
    if "@" in parts.netloc:
        raise InvalidRequestError(f"url {shown}: no user or password in a URL; put them into a named secret")
    if not parts.scheme or "://" not in url:
        raise InvalidRequestError(f"url {shown!r}: needs a scheme, such as https://")
    if parts.scheme not in policy.schemes:
        raise InvalidRequestError(
            f"url {shown}: {parts.scheme}:// is not allowed here; {', '.join(policy.schemes)} are"
        )
    if parts.scheme not in _WEB and "::" in url:
        raise InvalidRequestError(f"url {shown}: chained file systems (::) are not allowed here")
    if not host:
        raise InvalidRequestError(f"url {shown}: names no host or bucket")
    _check_host(host.rstrip("."), shown, policy, web=parts.scheme in _WEB)


def host_matches(host: str, pattern: str) -> bool:
    """`pattern`: a name, or `*.suffix`, which is what lies below it."""
    host, pattern = host.lower().rstrip("."), pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ("*", host)


def _check_host(host: str, shown: str, policy: UrlPolicy, *, web: bool) -> None:
    if any(host_matches(host, p) for p in policy.deny_hosts):
        raise InvalidRequestError(f"url {shown}: the host is denied here")
    if policy.allow_hosts and not any(host_matches(host, p) for p in policy.allow_hosts):
        raise InvalidRequestError(f"url {shown}: the host is not among those that are allowed here")
    if not web or policy.allow_private:
        return
    address = _literal(host)
    if address is None and (host in _LOCAL or host.endswith(".localhost")):
        address = ipaddress.ip_address("127.0.0.1")
    if address is not None and not _reachable(address, policy):
        raise InvalidRequestError(f"url {shown}: private addresses are not allowed here")


def _literal(host: str) -> Address | None:
    """The address that a host is, in any spelling that a resolver takes (`2130706433`, `0x7f.1`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _reachable(address: Address, policy: UrlPolicy) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if any(address in ipaddress.ip_network(n, strict=False) for n in policy.networks):
        return True
    return address.is_global and not address.is_multicast
