"""Distributes over the REST API with nothing but the standard library: for services that are not this package's.

DRAGONFLY_TOKEN=dfr_… python examples/rest_client.py MANAGER URL
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT = 60.0


def request(manager: str, path: str, body: Any = None, **headers: str) -> Any:
    """The answer's stream. Raises `HTTPError`, whose body is a problem document (RFC 9457)."""
    sent = {"Authorization": f"Bearer {os.environ['DRAGONFLY_TOKEN']}", **headers}
    data = None
    if body is not None:
        data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    return urlopen(Request(f"{manager.rstrip('/')}/api/v1{path}", data, sent), timeout=TIMEOUT)


def main(manager: str, url: str) -> int:
    try:
        # The same key again starts nothing twice: keep it, and send it again where no answer came.
        key = {"Idempotency-Key": str(uuid.uuid4())}
        with request(manager, "/distributions", {"urls": [url], "nodes": "all"}, **key) as answer:
            job = json.load(answer)
        print(f"distribution {job['id']}", flush=True)
        with request(manager, f"/distributions/{job['id']}/live", Accept="text/event-stream") as events:
            for line in events:  # ends with the distribution
                if line.startswith(b"event:"):
                    print(line.decode().strip(), flush=True)
        with request(manager, f"/distributions/{job['id']}") as answer:
            job = json.load(answer)
    except HTTPError as error:
        problem = json.load(error)
        print(f"{error.code} {problem['title']}: {problem.get('detail', '')}", file=sys.stderr)
        return 1
    print(f"it is {job['state']}")
    return 0 if job["state"] in ("succeeded", "done") else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
