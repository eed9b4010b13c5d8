"""How long the manager's lists take with a database that has grown: `make bench-manager`.

Both databases are filled with 100,000 jobs and as much history, 1,000 nodes and 10,000 tasks. Every list is asked
through the application, in its process, in every order, with every filter, from the start and from deep inside.
The target is 50 ms for 95 of 100 requests to each list; the slowest way of asking is named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.routes import API
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from dragonfly_ray.serve.vault import Vault
from tests import postgres
from tests.benchmarks import manager_rows
from tests.benchmarks.manager_cases import Case, listings, pick
from tests.manager.conftest import token_of

Found = dict[str, dict[Case, list["Taken"]]]
"""Path -> how it was asked -> what that took."""
TARGET = 0.050
REQUESTS = 12
"""Of each way of asking; a list has dozens of them."""
WARM = 2


@dataclass(frozen=True)
class Taken:
    """One request: how long it took, and how much of that this process was at work. With SQLite that is all of it."""

    seconds: float
    cpu: float


async def ask(app: FastAPI, path: str, query: Mapping[str, Any], token: str) -> tuple[Taken, int, bytes]:
    """One GET with its status and body, without a client's own work."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(query, doseq=True).encode(),
        "root_path": "",
        "headers": [(b"host", b"manager"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("manager", 80),
        "state": {},
    }
    ended, status, body = asyncio.Event(), 0, bytearray()

    async def receive() -> dict[str, Any]:
        if not ended.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))

    begun, cpu = time.perf_counter(), time.process_time()
    await app(scope, receive, send)
    taken = Taken(time.perf_counter() - begun, time.process_time() - cpu)
    ended.set()
    return taken, status, bytes(body)


@contextlib.asynccontextmanager
async def running(database_url: str, folder: Path) -> AsyncIterator[tuple[FastAPI, list[str]]]:
    """The manager on a database that is filled, and the ids of its nodes."""
    settings = ManagerSettings(
        state_dir=folder,
        database_url=database_url,
        DRAGONFLY_ADMIN_PASSWORD=SecretStr("correct horse battery"),
        limits=Limits(requests="1000000/second"),
    )
    database = Database(database_url)
    database.migrate()
    cluster = manager_rows.cluster()
    begun = time.monotonic()
    manager_rows.fill(database, cluster.views.values(), Vault.of(settings))
    print(f"{database}: {dict(manager_rows.counts(database))}, {time.monotonic() - begun:.0f} s", flush=True)
    database.close()
    app = create_app(settings, cluster)
    async with app.router.lifespan_context(app):
        yield app, list(cluster.views)


async def measure(app: FastAPI, ids: list[str], requests: int, only: str) -> Found:
    database: Database = app.state.manager.database
    token = token_of(database, "admin")
    dice = random.Random(1)
    found: Found = {}
    known = lists(app)
    for listing in listings(ids):
        if only not in listing.path or _route(listing.path) not in known:
            continue
        # What garbage the measuring itself leaves is not the manager's.
        gc.collect()
        for case in listing.cases(database):
            times = found.setdefault(_route(case.path), {}).setdefault(case, [])
            for number in range(requests + WARM):
                taken, status, body = await ask(app, API + case.path, pick(case, dice), token)
                if status != 200:
                    raise SystemExit(f"{case.path} {case}: {status} {body[:500]!r}")
                if number >= WARM:
                    times.append(taken)
    return found


def _route(path: str) -> str:
    """`/preheats/{id}/nodes` of `/preheats/0123/nodes`."""
    parts = path.split("/")
    return "/".join("{id}" if len(p) == 32 else p for p in parts)


def lists(app: FastAPI) -> dict[str, bool]:
    """What can be read of the application; true: it has pages."""
    found = {}
    for path, methods in app.openapi()["paths"].items():
        if "get" in methods and path.startswith(API):
            names = ("{id}" if part.startswith("{") else part for part in path.removeprefix(API).split("/"))
            answer = methods["get"]["responses"].get("200", {}).get("content", {}).get("application/json", {})
            found["/".join(names)] = "/Page_" in str(answer.get("schema", {}).get("$ref"))
    return found


def quantile(times: Iterable[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(name: str, found: Found) -> tuple[Table, bool]:
    """And whether every list keeps to the target. All in milliseconds."""
    columns = ("list", "requests", "p50", "p95", "max", "p95 of work", "slowest way of asking", "its p50")
    shown = Table(*columns, title=name)
    good = True
    for path, cases in found.items():
        every = [t.seconds for times in cases.values() for t in times]
        slowest = max(cases, key=lambda c: quantile((t.seconds for t in cases[c]), 0.5))
        p95 = quantile(every, 0.95)
        good = good and p95 < TARGET
        figures = (
            quantile(every, 0.5),
            p95,
            max(every),
            quantile((t.cpu for times in cases.values() for t in times), 0.95),
        )
        shown.add_row(
            path,
            str(len(every)),
            *(f"{figure * 1000:.1f}" for figure in figures),
            str(slowest),
            f"{quantile((t.seconds for t in cases[slowest]), 0.5) * 1000:.1f}",
            style=None if p95 < TARGET else "red",
        )
    return shown, good


@contextlib.contextmanager
def databases(wanted: str, folder: Path) -> Iterator[Iterator[tuple[str, str]]]:
    with contextlib.ExitStack() as stack:

        def each() -> Iterator[tuple[str, str]]:
            if wanted in ("both", "sqlite"):
                yield "SQLite", f"sqlite:///{folder / 'manager.db'}"
            if wanted in ("both", "postgresql"):
                server = stack.enter_context(postgres.running())
                yield "PostgreSQL", stack.enter_context(server.database())
            if "://" in wanted:
                yield wanted.partition(":")[0], wanted

        yield each()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--database", default="both", help="sqlite, postgresql, or the URL of one to fill and keep"
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each way of asking")
    parser.add_argument("--only", default="", help="lists whose path has this in it")
    parser.add_argument("--folder", type=Path, help="keep the SQLite file here, and use it again")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    console, good = Console(width=160), True
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, url in stack.enter_context(databases(arguments.database, folder)):
            async with running(url, folder) as (app, ids):
                found = await measure(app, ids, arguments.requests, arguments.only)
                shown, kept = table(name, found)
                console.print(shown)
                good = good and kept
                if not arguments.only and (
                    left := [p for p, pages in lists(app).items() if pages and p not in found]
                ):
                    console.print(f"[red]not measured: {', '.join(left)}")
                    good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
