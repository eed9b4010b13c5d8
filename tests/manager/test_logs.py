"""A request is followed to its job in the manager's log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import pytest

from dragonfly_ray import logs
from dragonfly_ray.serve.testing import FakeCluster
from tests.waiting import until


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_request_job_and_what_the_runner_says_of_it(
    sign_in: Callable[[str], httpx.Client], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, logger = _Kept(), logging.getLogger("dragonfly_ray")
    kept.addFilter(logs._AddIds())
    logger.addHandler(kept)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        body = {"urls": ["https://models.example.org/f"]}
        answer = sign_in("operator").post(
            "/api/v1/distributions", json=body, headers={"X-Request-ID": "r-17"}
        )
        job = answer.json()["id"]
        until(lambda: job in cluster.orders)
        cluster.end(job)
        until(lambda: any("succeeded" in r.getMessage() for r in kept.records))
    finally:
        logger.removeHandler(kept)
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    accepted = next(r for r in kept.records if "accepted" in r.getMessage())
    assert (accepted.request_id, accepted.job_id) == ("r-17", job)  # type: ignore[attr-defined]
    later = [r for r in kept.records if job in r.getMessage() and r is not accepted]
    assert later
    assert all(getattr(r, "job_id", "") == job for r in later), [r.getMessage() for r in later]
