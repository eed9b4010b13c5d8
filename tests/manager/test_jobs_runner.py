"""From a request to its end, as the cluster moves."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests.manager.jobs_help import URL, job_in, nodes_of, submit, until

SignIn = Callable[[str], httpx.Client]


def test_a_job_from_its_start_to_its_end(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("operator")
    made = submit(client, name="weights", dest="/data/m")
    assert made["state"] == "queued"
    running = job_in(client, made, "running")
    assert running["started_at"]
    until(lambda: made["id"] in cluster.orders)
    order = cluster.orders[made["id"]]
    assert [s.url for s in order.sources] == [URL]
    assert order.dest_roots == ("/data",)
    cluster.advance(made["id"], 0.5)
    until(
        lambda: client.get(f"/api/v1/distributions/{made['id']}").json()["progress"]["bytes_done"] == 2 * SIZE
    )
    cluster.end(made["id"])
    ended = job_in(client, made, "succeeded")
    assert ended["progress"]["nodes_done"] == ended["progress"]["nodes_total"] == 4
    assert ended["size"] == SIZE
    assert ended["bytes"]["peers"] == 4 * SIZE
    assert ended["progress"]["bytes_done"] == 4 * SIZE
    assert ended["error"] is None
    assert ended["task_ids"] == [order.sources[0].id]
    assert {n["state"] for n in nodes_of(client, made)} == {"done"}
    assert cluster.submitted == [made["id"]]
