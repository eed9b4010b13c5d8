"""The OpenAPI document: what FastAPI says of the routes, and what it cannot know: who may ask, how, and
what comes back with an answer besides its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from dragonfly_ray.serve.accounts import csrf
from dragonfly_ray.serve.permissions import Access, Demand, demanded
from dragonfly_ray.serve.problems import MEDIA_TYPE

TITLE = "dragonfly-ray manager"
SUMMARY = "Distributes files and directories to the nodes of a Ray cluster."
DESCRIPTION = """\
Errors are problem documents (RFC 9457) with a stable `type`. Lists are paginated: pass `next_cursor` as
`cursor`. Times are ISO 8601 with a zone, sizes are bytes. Editable resources have an `ETag`; a change passes the one
that it is based on with `If-Match`. `RateLimit-*` headers tell how many requests are left. Every response has an
`X-Request-ID`, which the request may set.

Authenticate with `Authorization: Bearer <token>`, or sign in at `/api/v1/session` and send the cookie; with a cookie,
requests that change something also need `X-CSRF-Token`.
"""
TAGS = {
    "session": "Sign in and out.",
    "distributions": "Distribute content to nodes.",
    "preheats": "Load content into the nodes' stores ahead of use.",
    "tasks": "Cached content and where it is stored.",
    "nodes": "Peers and seeds.",
    "schedules": "Distributions and preheats on a schedule.",
    "users": "Users who may sign in.",
    "tokens": "Personal access tokens.",
    "roles": "Named sets of permissions.",
    "secrets": "Credentials for sources.",
    "config": "Live settings of the cluster, with history.",
    "audit": "Audit log: who did what, when, from where.",
    "events": "Events of the cluster and of jobs, as a list and as streams.",
    "webhooks": "Signed deliveries of events.",
    "stats": "Traffic over time.",
    "health": "For probes and monitoring.",
}
PERMISSION = "x-permission"
PROBLEM = {"$ref": "#/components/responses/Problem"}
TOO_MANY = {"$ref": "#/components/responses/TooMany"}
_METHODS = ("get", "put", "post", "delete", "patch")


def operation_id(route: APIRoute) -> str:
    """The endpoint's name, with the tag's in front unless it is in it: unique, and made to be read."""
    tag = str(route.tags[0]) if route.tags else ""
    return route.name if tag.removesuffix("s") in route.name else f"{tag}_{route.name}"


def endpoints(app: FastAPI) -> Iterator[tuple[str, str, object]]:
    """Path, method and endpoint of everything that can be asked; a WebSocket's method is `WEBSOCKET`."""
    for route in iter_route_contexts(app.routes):
        if route.path is None:
            continue
        for method in sorted(route.methods or {"WEBSOCKET"}):
            yield route.path, method, route.endpoint


def enrich(app: FastAPI, document: dict[str, Any], cookie: str) -> dict[str, Any]:
    """`document` with security, problems and headers. `cookie`: its name."""
    demands = {(path, method.lower()): demanded(found) for path, method, found in endpoints(app)}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    components = document.setdefault("components", {})
    components["securitySchemes"] = _schemes(cookie)
    components["responses"] = {"Problem": _problem(), "TooMany": _problem("Retry-After")}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                _operation(item[method], method, demands.get((path, method)))
        _versions(item)
    return document


def _operation(operation: dict[str, Any], method: str, demand: Demand | None) -> None:
    responses = operation["responses"]
    named = ["4XX", "5XX", "429"]
    if demand is not Access.PUBLIC:
        named += ["401", "403"]
        operation[PERMISSION] = str(demand) if demand else None
    if "requestBody" in operation:
        named += ["413", "422"]
    operation["security"] = _security(method, demand)
    for status in named:
        responses[status] = TOO_MANY if status == "429" else PROBLEM
    for status in ("201", "202"):
        if status in responses:
            _header(responses[status], "Location", "URL of the new resource.")


def _versions(item: dict[str, Any]) -> None:
    """Where a change wants `If-Match`, whatever shows the resource has its `ETag`."""
    edits = [item[m] for m in ("put", "patch") if m in item]
    conditions = [p for e in edits for p in e.get("parameters", ()) if p["name"].lower() == "if-match"]
    if not conditions:
        return
    for condition in conditions:
        # Only so far optional that a request without it gets an answer of its own.
        condition |= {"name": "If-Match", "required": True, "schema": {"type": "string", "maxLength": 256}}
    for operation in edits:
        operation["responses"] |= {"412": PROBLEM, "428": PROBLEM}
    for operation in [*edits, *([item["get"]] if "get" in item else [])]:
        for status, response in operation["responses"].items():
            if status in ("200", "201"):
                _header(response, "ETag", "Version of the resource.")


def _header(response: dict[str, Any], name: str, description: str) -> None:
    response.setdefault("headers", {})[name] = {"description": description, "schema": {"type": "string"}}


def _security(method: str, demand: Demand | None) -> list[dict[str, list[str]]]:
    if demand is Access.PUBLIC:
        return []
    cookie: dict[str, list[str]] = {"cookie": []}
    return [{"bearer": []}, cookie if method.upper() in csrf.SAFE else cookie | {"csrf": []}]


def _schemes(cookie: str) -> dict[str, Any]:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A personal access token."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "A session."},
        "csrf": {
            "type": "apiKey",
            "in": "header",
            "name": csrf.HEADER,
            "description": "The `csrf` value returned by sign-in and by GET /api/v1/session.",
        },
    }


def _problem(*headers: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": "A problem document (RFC 9457).",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    for name in headers:
        _header(found, name, "Seconds until a retry.")
    return found
