"""What surrounds every request: plain ASGI middlewares, so that streams stay streams."""

from __future__ import annotations

from fastapi import FastAPI

from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.web.address import ClientAddress
from dragonfly_ray.serve.web.body_limit import BodyLimit
from dragonfly_ray.serve.web.errors import Unexpected
from dragonfly_ray.serve.web.rate_limit import RateLimit
from dragonfly_ray.serve.web.request_id import RequestId
from dragonfly_ray.serve.web.security_headers import SecurityHeaders


def surround(app: FastAPI, settings: ManagerSettings) -> None:
    """The last one added is the first that a request meets."""
    app.add_middleware(BodyLimit, most=settings.limits.body)
    app.add_middleware(RateLimit, requests=settings.limits.requests, anonymous=settings.limits.anonymous)
    app.add_middleware(Unexpected)
    app.add_middleware(SecurityHeaders, https=settings.cookie_secure)
    app.add_middleware(ClientAddress, trusted=settings.trusted_proxies)
    app.add_middleware(RequestId)
