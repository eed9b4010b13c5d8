"""Every metric of the manager that the dashboard and the alerts look at is there."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from tests.unit.test_operators import expressions

METRIC = re.compile(r"\bdragonfly_manager_\w+")


def test_every_metric_that_is_looked_at_is_there(sign_in: Callable[[str], httpx.Client]) -> None:
    client = sign_in("admin")
    client.get("/api/v1/distributions")
    named = {name for text in expressions() for name in METRIC.findall(text)}
    assert len(named) > 8
    text = client.get("/metrics").text
    assert named <= set(METRIC.findall(text))
    assert "dragonfly_manager_ready 1.0" in text
    assert "dragonfly_manager_webhooks_failing 0.0" in text
