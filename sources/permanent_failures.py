"""Failures of an origin that waiting does not cure, among those that look as if it might."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping

from urllib3 import Retry
from urllib3.exceptions import InvalidHeader, LocationValueError, ResponseError

MAX_RETRY_AFTER_S = 24 * 3600
AGAIN = frozenset((408, 425))
"""Statuses below 500 that a moment's patience may cure: a request that came too slowly, or too early."""
NEVER = frozenset((501, 505))
"""And those from 500 on that it does not: what the server cannot do."""
_NO_NAME = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAMILY") if hasattr(socket, name)
)
_SETTINGS = frozenset(
    ("ParamValidationError", "NoRegionError", "InvalidRegionError", "UnknownServiceError", "ProfileNotFound",
     "UnknownEndpointError", "InvalidEndpointConfigurationError", "InvalidS3AddressingStyleError", "InvalidURL")
)  # fmt: skip
"""Names of errors of object stores' clients about how they were called."""


def final(error: BaseException) -> bool:
    """Whether asking again would end in the same way: no such name, no trusted certificate, redirects in a circle.

    A name that nobody could look up now is something else than one that does not exist.
    """
    return any(_final(each) for each in causes(error))


def _final(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno in _NO_NAME
    if isinstance(error, (ssl.SSLCertVerificationError, ResponseError, LocationValueError, UnicodeError)):
        return True
    # What libraries raise about their own callers, and is no answer of any server.
    return isinstance(error, (LookupError, AttributeError)) or type(error).__name__ in _SETTINGS


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it comes from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [each.__cause__, getattr(each, "original_error", None)]
        todo += [
            found for found in (*each.args, getattr(each, "reason", None)) if isinstance(found, Exception)
        ]


def retry_after(text: str | None) -> float | None:
    """Seconds, of the header's value; None where it does not say."""
    if not text:
        return None
    try:
        return Retry(retry_after_max=MAX_RETRY_AFTER_S).parse_retry_after(text.strip())
    except (InvalidHeader, ValueError, OverflowError):
        return None


def retry_after_in(error: BaseException) -> float | None:
    """What the answer in an error of an object store's client says."""
    for each in causes(error):
        response = getattr(each, "response", None)
        headers = getattr(response, "headers", None) or getattr(each, "headers", None)
        if isinstance(response, Mapping):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        if isinstance(headers, Mapping):
            for name, value in headers.items():
                if str(name).lower() == "retry-after":
                    return retry_after(str(value))
    return None
