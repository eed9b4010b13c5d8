"""The console's files: read once, never looked up by a path that a request names.

What browsers may load at all is said for every answer in `web/security_headers.py`.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from dragonfly_ray.serve.permissions import Access, requires
from dragonfly_ray.serve.problems import not_found

router = APIRouter(include_in_schema=False)
BASE = "/console/"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_PAGE = "index.html"
_VERSION = "{{version}}"
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    body: bytes
    packed: bytes
    """By gzip; empty where that saves nothing."""
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All files under `/console/assets/<version>/`; the version is a digest of them all."""

    version: str
    files: dict[str, Asset]
    page: Asset


@cache
def assets() -> Assets:
    root = resources.files("dragonfly_ray.serve").joinpath("console")
    found = {name: file.read_bytes() for name, file in _walk(root, "")}
    digest = hashlib.sha256()
    for name, body in sorted(found.items()):
        digest.update(f"{name}\0{len(body)}\0".encode() + body)
    version = digest.hexdigest()[:16]
    page = found.pop(_PAGE).replace(_VERSION.encode(), version.encode())
    return Assets(
        version,
        {name: _asset(body, _TYPES["." + name.rpartition(".")[2]]) for name, body in found.items()},
        _asset(page, "text/html; charset=utf-8"),
    )


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name == _PAGE or "." + entry.name.rpartition(".")[2] in _TYPES:
            yield prefix + entry.name, entry


def _asset(body: bytes, media_type: str) -> Asset:
    packed = b"" if media_type == _TYPES[".woff2"] else gzip.compress(body, 6, mtime=0)
    return Asset(
        body,
        packed if len(packed) < len(body) else b"",
        media_type,
        f'"{hashlib.sha256(body).hexdigest()[:24]}"',
    )


def _answer(request: Request, asset: Asset, caching: str) -> Response:
    headers = {"ETag": asset.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.etag in known:
        return Response(status_code=304, headers=headers)
    accepted = {
        part.partition(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")
    }
    if asset.packed and "gzip" in accepted:
        return Response(
            asset.packed, media_type=asset.media_type, headers=headers | {"Content-Encoding": "gzip"}
        )
    return Response(asset.body, media_type=asset.media_type, headers=headers)


@router.api_route("/", methods=["GET", "HEAD"])
@requires(Access.PUBLIC)
def start() -> RedirectResponse:
    return RedirectResponse(BASE, 307)


@router.api_route("/console", methods=["GET", "HEAD"])
@requires(Access.PUBLIC)
def without_slash() -> RedirectResponse:
    return RedirectResponse(BASE, 307)


@router.api_route("/console/assets/{version}/{path:path}", methods=["GET", "HEAD"])
@requires(Access.PUBLIC)
def asset(request: Request, version: str, path: str) -> Response:
    """Of another version than this replica's (an upgrade is under way): its own, not to be kept."""
    ours = assets()
    found = ours.files.get(path)
    if found is None:
        raise not_found("file", path)
    return _answer(request, found, _FOREVER if version == ours.version else _ASK_AGAIN)


@router.api_route("/console/{path:path}", methods=["GET", "HEAD"])
@requires(Access.PUBLIC)
def page(request: Request, path: str) -> Response:
    """Any screen: which one, the page itself finds out."""
    return _answer(request, assets().page, _ASK_AGAIN)
