"""Proxies of the node's environment, for http and https: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case.

What these say is read as by the standard library, and NO_PROXY also as by `requests`: networks beside names, suffixes and
ports. This machine itself is never asked for through a proxy, as in Go: there it would be another one.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url

from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.policy import LOCAL_NAMES, literal_address
from dragonfly_ray.sources.http_connections import Unanswered, pool_classes

SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is without credentials."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What the proxy gets, and nobody behind it."""
        if not self.user and not self.password:
            return {}
        return make_headers(proxy_basic_auth=f"{self.user}:{self.password}")


Choose = Callable[[str], Proxy | None]
"""The proxy for a URL; None: it is asked for directly."""


def of_environment(url: str) -> Proxy | None:
    """What the variables of this process say of a URL. Raises `SourceUnsupportedError` for a proxy that is none."""
    parts = urlsplit(url)
    if not parts.hostname or _here(parts.hostname):
        return None
    known = getproxies()
    if _bypassed(parts.hostname, parts.port, known.get("no", "")):
        return None
    found = known.get(parts.scheme) or known.get("all")
    return _parsed(found) if found else None


def directly(url: str) -> Proxy | None:
    """The `Choose` of those that have no proxies."""
    return None


def _here(host: str) -> bool:
    address = literal_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    name = host.rstrip(".").lower()
    return name in LOCAL_NAMES or name.endswith(".localhost") or bool(address and address.is_loopback)


def _bypassed(host: str, port: int | None, listed: str) -> bool:
    """Whether NO_PROXY names it."""
    # The standard library knows names, suffixes and `*`, with and without a port, and no networks.
    if proxy_bypass(f"{host}:{port}" if port else host):
        return True
    address = literal_address(host)
    return address is not None and any(address in each for each in _networks(listed))


def _networks(listed: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for each in listed.split(","):
        if "/" in each:
            with contextlib.suppress(ValueError):
                yield ipaddress.ip_network(each.strip(), strict=False)


def _parsed(text: str) -> Proxy:
    try:
        parts = parse_url(text if "://" in text else f"http://{text}")
    except LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in SCHEMES or not parts.host:
        raise SourceUnsupportedError(
            "the node's HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is not an http or https URL; "
            "fix it on the node, or set "
            "origin.environment_proxies to false"
        )
    user, _, password = (parts.auth or "").partition(":")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Proxy(f"{parts.scheme}://{parts.host}:{port}", unquote(user), unquote(password))


class ProxyingManager(urllib3.PoolManager):
    """Asks `choose` for each URL, redirects included, whether and through which proxy it goes."""

    def __init__(self, unanswered: Unanswered, choose: Choose, **options: Any) -> None:
        super().__init__(**options)
        self._choose = choose
        self._unanswered = unanswered
        self._options = options
        self._through: dict[Proxy, _Through] = {}
        self.pool_classes_by_scheme = pool_classes(unanswered)

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        # It is called again for every hop, with the hop's whole URL.
        proxy = self._choose(url)
        if headers := options.get("headers"):
            # A proxy needs it, and the next hop would send it on. Callers' own is refused long before.
            options["headers"] = {name: value for name, value in headers.items() if name.lower() != "host"}
        if proxy is None:
            return super().urlopen(method, url, redirect, **options)
        return self._of(proxy).hop(method, url, redirect, **options)

    def _of(self, proxy: Proxy) -> _Through:
        found = self._through.get(proxy)
        if found is None:
            made = _Through(self, proxy, pool_classes(self._unanswered), self._options)
            found = self._through.setdefault(proxy, made)
        return found

    @property
    def managers(self) -> list[urllib3.PoolManager]:
        """This one, and those of the proxies."""
        return [self, *self._through.values()]


class _Through(urllib3.ProxyManager):
    """One proxy; what it is redirected to, `outer` opens."""

    def __init__(
        self, outer: ProxyingManager, proxy: Proxy, classes: dict[str, Any], options: dict[str, Any]
    ) -> None:
        super().__init__(proxy.url, proxy_headers=proxy.headers, **options)
        self._outer = outer
        self.pool_classes_by_scheme = classes

    def hop(self, method: str, url: str, redirect: bool, **options: Any) -> Any:
        return super().urlopen(method, url, redirect, **options)

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        return self._outer.urlopen(method, url, redirect, **options)
