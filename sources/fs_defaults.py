"""What object stores' clients are told where the caller says nothing: how long to wait, and which proxies to heed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dragonfly_ray.ambient_credentials import AZURE, GCS, S3
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.policy import WEB, endpoints
from dragonfly_ray.sources.proxies import of_environment
from dragonfly_ray.urls import redacted, scheme

GOOGLE = "https://storage.googleapis.com"


def with_defaults(
    url: str, options: Mapping[str, Any], settings: OriginSettings, *, guarded: bool
) -> dict[str, Any]:
    """The options, and what is not in them. `guarded`: under a policy of URLs, where no proxy may be asked.

    Raises `SourceForbiddenError` for a client that would ask one all the same.
    """
    protocol = scheme(url)
    heeded = settings.environment_proxies and not guarded
    if protocol in S3:
        own: dict[str, Any] = {
            "connect_timeout": settings.connect_timeout,
            "read_timeout": settings.answer_timeout,
        }
        # Left out, it would look for the variables itself.
        return _merged(options, "config_kwargs", own if heeded else {**own, "proxies": {}})
    if protocol in GCS:
        import aiohttp  # gcsfs needs it, too: without the extra `gcs` nobody comes here

        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_timeout, sock_read=settings.answer_timeout
        )
        session = _session(str(options.get("endpoint_url") or GOOGLE)) if heeded else {}
        return _merged({"requests_timeout": timeout, **options}, "session_kwargs", session)
    if protocol in AZURE and guarded:
        _check_azure(url, options)
    return dict(options)


def _merged(options: Mapping[str, Any], name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    given = options.get(name)
    if given is not None and not isinstance(given, Mapping):
        return dict(options)  # the client refuses it
    return {**options, name: {**own, **(given or {})}}


def _session(endpoint: str) -> dict[str, Any]:
    """Of aiohttp, which left to itself would read the user's .netrc, too."""
    import aiohttp

    proxy = of_environment(endpoint)
    if proxy is None:
        return {}
    auth = aiohttp.BasicAuth(proxy.user, proxy.password) if proxy.headers else None
    return {"proxy": proxy.url, "proxy_auth": auth}


def _check_azure(url: str, options: Mapping[str, Any]) -> None:
    """Its client cannot be told to leave the variables alone."""
    account = options.get("account_name") or "account"
    host = options.get("account_host") or f"{account}.blob.core.windows.net"
    places = [place for _, place in endpoints(options) if scheme(place) in WEB] or [f"https://{host}/"]
    if any(of_environment(place) for place in places):
        raise SourceForbiddenError(
            f"{redacted(url)}: the node's HTTP_PROXY or HTTPS_PROXY would be used, which the URL policy "
            "forbids; "
            "unset it on the node, or add the account's host to NO_PROXY"
        )
