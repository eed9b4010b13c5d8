"""What tests of jobs share."""

from __future__ import annotations

from typing import Any

import httpx

from tests.waiting import until

URL = "https://example.com/model.bin"


def submit(client: httpx.Client, *, kind: str = "distributions", **body: Any) -> dict[str, Any]:
    """A job that was accepted."""
    answer = client.post(f"/api/v1/{kind}", json={"urls": [URL]} | body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/v1/{kind}/{found['id']}"
    return found


def job_in(client: httpx.Client, job: dict[str, Any], *states: str) -> dict[str, Any]:
    """The job, once it is in one of these states."""
    path = f"/api/v1/{job['kind']}s/{job['id']}"
    seen: dict[str, Any] = {}

    def there() -> bool:
        seen.update(client.get(path).json())
        return seen["state"] in states

    until(there, why=lambda: seen)
    return seen


def nodes_of(client: httpx.Client, job: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/{job['kind']}s/{job['id']}/nodes", params={"limit": 500} | query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items
