"""Which URLs may be fetched on a user's behalf: by their text, and by the address that is connected to.

`check_url` looks at a URL before any work. It knows the names only, so whoever connects asks again:
`Rules.address` for the very address that the socket is about to get.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from dragonfly_ray.errors import InvalidRequestError, SourceForbiddenError
from dragonfly_ray.urls import redacted, scheme

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
WEB = frozenset({"http", "https"})
LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
HOST_OPTIONS = frozenset(
    ("host", "hostname", "server", "endpoint", "endpoint_url", "endpoint_override", "account_host", "proxy",
     "proxies", "base_url", "url")
)  # fmt: skip
"""Names of storage options whose text is a host, with or without a scheme."""
CHAINING = frozenset(("fo", "fs", "target_protocol", "target_options", "remote_protocol", "remote_options"))
"""Storage options that open another filesystem behind the one that the URL names."""
_INSIDE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments; metadata of one cloud
        "192.88.99.0/24",  # relays to IPv6
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
    )
)
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_NUMERIC = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_BAD = re.compile(r"[\x00-\x20\x7f\\%<>^`{|}\"]")


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Which URLs may be fetched on a user's behalf. Checked again at every redirect and every connection.

    Hosts are names or `*.suffix` patterns, compared with what stands in the URL where the host does: of
    an object store that is the bucket. `networks`: private ranges (CIDR) that may be reached all the same.
    Private is whatever the whole Internet does not route, metadata services included.
    """

    schemes: tuple[str, ...] = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hdfs")
    allow_hosts: tuple[str, ...] = ()
    """If any, no other host may be asked."""
    deny_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    networks: tuple[str, ...] = ()
    ambient_credentials: tuple[str, ...] = ()
    """Schemes that may be opened with the node's own credentials where none are given; see `ambient`."""


class Rules:
    """A policy, ready to be asked. Raises `InvalidRequestError` for one that makes no sense."""

    def __init__(self, policy: UrlPolicy) -> None:
        self.policy = policy
        self._schemes = frozenset(each.lower() for each in policy.schemes)
        self._allow = tuple(_normal(each, pattern=True) for each in policy.allow_hosts)
        self._deny = tuple(_normal(each, pattern=True) for each in policy.deny_hosts)
        try:
            self._networks = tuple(ipaddress.ip_network(each, strict=False) for each in policy.networks)
        except ValueError as error:
            raise InvalidRequestError(f"url policy: {error}") from None

    def url(self, url: str) -> None:
        """Its scheme and its host, as far as the text tells. Raises `SourceForbiddenError`."""
        shown, protocol = redacted(url), scheme(url)
        if protocol not in self._schemes:
            allowed = ", ".join(sorted(self._schemes)) or "none"
            raise SourceForbiddenError(
                f"{shown}: {protocol!r} URLs are blocked by URL policy; allowed: {allowed}"
            )
        if "::" in url.partition("://")[0] or (protocol not in WEB and "::" in url):
            raise SourceForbiddenError(f"{shown}: chained filesystems (::) are blocked by URL policy")
        if protocol != "file":
            self.host(_host_of(url, shown), shown)

    def host(self, host: str, shown: str = "") -> None:
        """A name, or an address in whatever spelling. Raises `SourceForbiddenError`."""
        shown = shown or host
        try:
            name = _normal(host)
        except InvalidRequestError as error:
            raise SourceForbiddenError(f"{shown}: {error}") from None
        literal = literal_address(name)
        spelt = {name} if literal is None else {name, str(literal)}
        if any(_matches(each, self._deny) for each in spelt):
            raise SourceForbiddenError(f"{shown}: host is denied by URL policy")
        if self._allow and not any(_matches(each, self._allow) for each in spelt):
            raise SourceForbiddenError(f"{shown}: host is not in the URL policy's allow list")
        if literal is not None:
            self._address(literal, shown)
        elif name in LOCAL_NAMES or name.endswith(".localhost"):
            self._address(ipaddress.ip_address("127.0.0.1"), shown)

    def address(self, address: str, shown: str = "") -> None:
        """One that is about to be connected to. Raises `SourceForbiddenError`."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise SourceForbiddenError(f"{shown or address}: not a network address") from None
        self._address(found, shown or address)

    def _address(self, address: Address, shown: str) -> None:
        if self.policy.allow_private or is_public(address):
            return
        meant = [address, *_embedded(address)]
        if any(each.version == net.version and each in net for each in meant for net in self._networks):
            return
        raise SourceForbiddenError(f"{shown}: resolves to a private address; blocked by URL policy")

    def options(self, options: Mapping[str, object]) -> None:
        """Storage options that name hosts, at whatever depth. Raises `SourceForbiddenError`."""
        for name, _ in walk(options):
            if name in CHAINING:
                raise SourceForbiddenError(f"storage option {name!r}: not allowed by the URL policy")
        for name, place in endpoints(options):
            shown = f"storage option {name!r}"
            if "://" not in place:
                self.host(_without_port(place.rpartition("@")[2].partition("/")[0]), shown)
            elif scheme(place) in WEB:
                self.host(_host_of(place, shown), shown)
            else:
                raise SourceForbiddenError(
                    f"{shown}: endpoint blocked by URL policy; only http and https are allowed"
                )


@lru_cache(maxsize=64)
def rules(policy: UrlPolicy) -> Rules:
    """Those of a policy."""
    return Rules(policy)


def check_url(url: str, policy: UrlPolicy, storage_options: Mapping[str, object] | None = None) -> None:
    """Whether a URL may be asked for, as far as its text and the options tell; without any look-up.

    Raises `SourceForbiddenError`. What a name stands for is checked where it is connected to.
    """
    found = rules(policy)
    found.url(url)
    found.options(storage_options or {})


def is_public(address: Address) -> bool:
    """Whether the whole Internet routes it; one within another counts as the inner one does, too."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in net for net in _INSIDE)
    inner = list(_embedded(address))
    if address in _NAT64:
        return all(is_public(each) for each in inner)
    return address in _GLOBAL_V6 and address.is_global and all(is_public(each) for each in inner)


def _embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64 or address in _COMPATIBLE:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def literal_address(host: str) -> Address | None:
    """The address that a host is, in any spelling that a resolver takes: decimal, octal, hex, short."""
    text = host.strip("[]")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    if _NUMERIC.fullmatch(text):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            return None
    return None


def _normal(host: str, *, pattern: bool = False) -> str:
    """As resolvers see it: one alphabet, small letters, no dot at the end."""
    text = unicodedata.normalize("NFKC", host).replace("\u3002", ".").strip().rstrip(".").lower()
    if not text or _BAD.search(text) or (not pattern and "*" in text):
        raise InvalidRequestError(f"host {host[:80]!r}: not a valid host name")
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidRequestError(f"host {host[:80]!r}: not a valid host name") from None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name.endswith(p[1:]) if p.startswith("*.") else name == p for p in patterns)


def _host_of(url: str, shown: str) -> str:
    """The host, if everybody who reads the URL would find the same."""
    if scheme(url) not in WEB:
        netloc = url.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
        return _without_port(netloc.rpartition("@")[2])
    try:
        found, other = urlsplit(url).hostname, parse_url(url).host
    except (ValueError, LocationParseError):
        raise SourceForbiddenError(f"{shown}: not a valid URL") from None
    try:
        if found and other and _normal(found) == _normal(other.strip("[]")):
            return found
    except InvalidRequestError:
        pass
    raise SourceForbiddenError(f"{shown}: has no host, or an ambiguous one")


def _without_port(netloc: str) -> str:
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0]
    host, colon, port = netloc.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else netloc


def endpoints(options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The storage options that lead somewhere: their names, and URLs or hosts."""
    for name, value in walk(options):
        if not isinstance(value, str) or not value:
            continue
        if name == "connection_string":
            yield from ((name, place) for place in _azure_endpoints(value))
        elif "://" in value or name in HOST_OPTIONS:
            yield name, value


def _azure_endpoints(text: str) -> Iterator[str]:
    """Of a connection string."""
    parts = dict(part.partition("=")[::2] for part in text.split(";"))
    named = {key.strip().lower(): value.strip() for key, value in parts.items()}
    yield from (value for key, value in named.items() if key.endswith("endpoint") and value)
    if "endpointsuffix" in named:
        protocol = named.get("defaultendpointsprotocol", "https")
        yield f"{protocol}://{named.get('accountname', '')}.blob.{named['endpointsuffix']}"


def walk(options: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every option at every depth, in small letters; a name that holds others comes with None."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from walk(value, str(key).lower())
            yield str(key).lower(), None
    elif isinstance(options, (list, tuple, set)):
        for value in options:
            yield from walk(value, name)
    else:
        yield name, options
