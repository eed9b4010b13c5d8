"""An id names one run at a time: while it is open it is attached to, once it has ended it runs anew."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Credentials
from dragonfly_ray.scheduling.actions import Ask
from dragonfly_ray.source_identity import source_of
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.one_scheduler import SOURCE, TASK, Cluster, host, started
from tests.waiting import until

CONTENT = os.urandom(3 << 20)


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


def submit(cluster: Cluster, run: str, targets: tuple[str, ...] = ("n0", "n1")) -> None:
    spec = m.DistributionSpec("nightly.0", SOURCE, targets, run=run)
    cluster.do(cluster.core.submit(spec, Credentials(), cluster.now))


def end(cluster: Cluster, number: int, run: str) -> None:
    ended = m.Ended(f"h{number}", "nightly.0", TASK.id, ok=True, run=run)
    cluster.do(cluster.core.ended(ended, cluster.now)[1])


def test_the_same_id_again_writes_the_output_again(
    swarm: Swarm, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    dest = tmp_path / "out" / "{node}"
    first = swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="monday")
    paths = [Path(record["path"]) for record in first["nodes"].values()]
    for path in paths:
        path.unlink()
    again = swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="tuesday")
    assert [record["state"] for record in again["nodes"].values()] == ["done", "done"]
    assert [path.read_bytes() == CONTENT for path in paths] == [True, True]


def test_a_submission_that_was_heard_twice_runs_once(
    swarm: Swarm, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    dest = tmp_path / "out" / "{node}"
    first = swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="monday")
    for record in first["nodes"].values():
        Path(record["path"]).unlink()
    assert swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="monday") == first
    assert not any(Path(record["path"]).exists() for record in first["nodes"].values())


def test_a_peer_that_is_asked_again_for_an_ended_run_after_a_restart_answers_from_memory(
    swarm: Swarm, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    dest = tmp_path / "out" / "{node}"
    first = swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="monday")
    for record in first["nodes"].values():
        Path(record["path"]).unlink()
    with swarm.scheduler.changed:
        swarm.scheduler.core.specs.clear()
    again = swarm.distribute(origin.url, "nightly.0", dest=str(dest), run="monday")
    assert [record["state"] for record in again["nodes"].values()] == ["done", "done"]
    assert not any(Path(record["path"]).exists() for record in again["nodes"].values())


def test_a_run_joins_a_task_that_another_distribution_still_fetches(
    swarm: Swarm, origin: ScriptedOrigin
) -> None:
    origin.behaviour.pace = 2_000_000.0
    swarm.submit(origin.url, "other.0")
    swarm.submit(origin.url, "nightly.0", nodes=["n0"], run="monday")
    until(lambda: swarm.scheduler.heard["Report"])
    with swarm.scheduler.changed:
        swarm.scheduler.act(swarm.scheduler.core.cancel("nightly.0", 1e9))
    swarm.submit(origin.url, "nightly.0", nodes=["n0"], run="tuesday")
    assert swarm.wait("nightly.0")["nodes"]["n0"]["state"] == "done"
    assert swarm.wait("other.0")["nodes"]["n0"]["state"] == "done"


def test_while_it_is_open_others_attach_and_stay_attached_to_its_end() -> None:
    cluster = Cluster([host(0), host(1)])
    submit(cluster, "monday")
    submit(cluster, "somebody-else")
    cluster.resolved("nightly.0")
    assert len(cluster.sent(m.Deliver)) == 2
    assert cluster.view("nightly.0")["run"] == "monday"
    for number in range(2):
        end(cluster, number, "monday")
    for run in ("monday", "somebody-else"):
        submit(cluster, run)
        assert cluster.view("nightly.0")["phase"] == "ended"
    before = cluster.core.specs["nightly.0"].version
    submit(cluster, "tuesday")
    assert cluster.view("nightly.0")["phase"] == "resolving"
    assert cluster.core.specs["nightly.0"].version > before, "whoever watches the id sees it"


def test_the_end_of_an_earlier_run_does_not_end_the_next() -> None:
    cluster = Cluster([host(0), host(1)])
    submit(cluster, "monday")
    cluster.resolved("nightly.0")
    for number in range(2):
        end(cluster, number, "monday")
    submit(cluster, "tuesday")
    cluster.resolved("nightly.0")
    end(cluster, 0, "monday")
    assert cluster.view("nightly.0")["nodes"]["n0"]["state"] == "running"  # type: ignore[index]
    end(cluster, 0, "tuesday")
    assert cluster.view("nightly.0")["nodes"]["n0"]["state"] == "done"  # type: ignore[index]


def test_a_cancel_is_for_the_run_that_it_stopped() -> None:
    cluster = Cluster([host(0), host(1)])
    submit(cluster, "monday")
    cluster.resolved("nightly.0")
    cluster.do(cluster.core.cancel("nightly.0", cluster.now))
    submit(cluster, "monday")
    assert cluster.view("nightly.0")["phase"] == "ended"
    submit(cluster, "tuesday")
    assert cluster.view("nightly.0")["phase"] == "resolving"


def test_after_a_restart_the_run_that_peers_are_at_counts() -> None:
    before = Cluster([host(0), host(1)])
    submit(before, "monday")
    before.resolved("nightly.0")
    in_hand = before.sent(m.Deliver, 0)
    after = Cluster([])
    after.do(after.core.announce(m.Announce(host(0), deliveries=tuple(in_hand)), after.now))
    submit(after, "somebody-else", ("n0",))
    assert after.view("nightly.0")["run"] == "monday"
    end(after, 0, "monday")
    assert after.view("nightly.0")["nodes"]["n0"]["state"] == "done"  # type: ignore[index]


def test_whoever_submits_before_the_peers_announce_is_served_by_the_run_they_are_at() -> None:
    before = Cluster([host(0)])
    submit(before, "monday", ("n0",))
    before.resolved("nightly.0")
    after = Cluster([])
    submit(after, "somebody-else", ("n0",))
    after.do(after.core.announce(m.Announce(host(0), deliveries=tuple(before.sent(m.Deliver))), after.now))
    end(after, 0, "monday")
    assert after.view("nightly.0")["phase"] == "ended"


def test_a_node_that_was_given_up_is_told_that_its_distribution_has_ended() -> None:
    cluster = started(2)
    in_hand = cluster.sent(m.Deliver, 1)
    cluster.end(0)
    cluster.do(cluster.core.probed("h1", "gone", cluster.now))
    assert cluster.view()["phase"] == "ended"
    cluster.said.clear()
    cluster.do(cluster.core.announce(m.Announce(host(1), deliveries=tuple(in_hand)), cluster.now))
    assert [c.spec_id for c in cluster.sent(m.Cancel, 1)] == ["s.0"]
    assert not cluster.core.tasks[TASK.id].participants
    assert cluster.core.cluster.busy == 0


def test_the_answer_to_an_earlier_run_says_nothing_of_the_next() -> None:
    cluster = Cluster(host(i) for i in range(2))
    spec = m.DistributionSpec("nightly.0", SOURCE, ("n0", "n1"), run="monday")
    asked = next(a for a in cluster.core.submit(spec, Credentials(), cluster.now) if isinstance(a, Ask))
    cluster.do(cluster.core.cancel("nightly.0", cluster.now))
    submit(cluster, "tuesday")
    stopped = m.Resolved(kind="source", message="cancelled")
    cluster.do(cluster.core.answered(asked, stopped, cluster.now))
    cluster.do(cluster.core.unanswered(asked, cluster.now))
    assert cluster.core.specs["nightly.0"].phase == "resolving"


@pytest.mark.parametrize(
    ("cancel", "goes_on"),
    [
        (m.Cancel("nightly.0", run="monday"), True),
        (m.Cancel("nightly.0", "superseded", "the source has changed", "tuesday"), True),
        (m.Cancel("nightly.0", run="tuesday"), False),
        (m.Cancel("nightly.0"), False),
    ],
    ids=["an earlier run's", "of content that has changed", "its own", "of any run"],
)
def test_a_late_cancel_ends_no_look_but_its_own(
    swarm: Swarm, tmp_path: Path, cancel: m.Cancel, goes_on: bool
) -> None:
    asked, held = threading.Event(), threading.Event()

    def hold(number: int) -> int:
        asked.set()
        held.wait(30)
        return 0

    with ScriptedOrigin(Behaviour(CONTENT, before=hold)) as origin:
        peer = next(iter(swarm.peers.values()))
        ask = m.Resolve(source_of(origin.url, Credentials()), spec_id="nightly.0", run="tuesday")
        answers: list[m.Resolved] = []
        look = threading.Thread(target=lambda: answers.append(peer.queries.resolve(ask)))
        look.start()
        assert asked.wait(20)
        peer.handle(cancel)
        if not goes_on:
            look.join(20)
        held.set()
        look.join(20)
    assert bool(answers[0].task) == goes_on, answers[0].message
