"""What a message of a peer comes to, whoever carries it."""

from __future__ import annotations

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.bitset import members, to_bytes
from dragonfly_ray.model import DIGEST_SIZE, Host
from dragonfly_ray.scheduling.actions import Ask, Send
from dragonfly_ray.scheduling.dispatch import dispatch
from tests.unit.one_scheduler import PIECES, SOURCE, TASK, Cluster, host


@pytest.fixture
def cluster() -> Cluster:
    """Two hosts at one task."""
    made = Cluster([host(0), host(1)])
    made.submit([0, 1])
    made.resolved()
    return made


def told(cluster: Cluster, message: m.Message) -> m.Message | None:
    answer, actions = dispatch(cluster.core, message, cluster.now)
    cluster.do(actions)
    return answer


def test_an_announcement_enters_a_host_and_hears_whether_its_pages_follow(cluster: Cluster) -> None:
    assert told(cluster, m.Announce(host(2))) == m.Announced()
    assert cluster.core.hosts["h2"].alive
    assert told(cluster, m.Announce(host(3), sequence="s", page=1)) == m.Announced(known=False)


def test_a_report_is_taken_and_leased_to(cluster: Cluster) -> None:
    answer = told(cluster, m.Report("h0", TASK.id, claim=2))
    assert isinstance(answer, m.ReportReply)
    assert answer.known
    assert answer.lease
    assert told(cluster, m.Report("h9", TASK.id)) == m.ReportReply(known=False)


def test_a_copy_is_verified(cluster: Cluster) -> None:
    answer = told(cluster, m.Verify("h0", TASK.id, b"root"))
    assert isinstance(answer, m.Verified)
    assert answer.pending, "nothing is recorded yet"


def test_an_outcome_is_kept(cluster: Cluster) -> None:
    assert told(cluster, m.Ended("h0", "s.0", TASK.id, True, path="/f")) == m.ReportReply()
    record = cluster.core.specs["s.0"].nodes["n0"]
    assert (record.state, record.path) == ("done", "/f")


def test_what_was_evicted_is_held_no_more(cluster: Cluster) -> None:
    told(cluster, m.Announce(host(2), (m.Held(TASK, to_bytes(1, PIECES)),)))
    assert "n2" in cluster.core.keepers(TASK.id)
    assert told(cluster, m.Evicted("h2", TASK.id)) is None
    assert "n2" not in cluster.core.keepers(TASK.id)


def test_digests_that_were_asked_for_are_recorded(cluster: Cluster) -> None:
    told(cluster, m.Announce(host(2), (m.Held(TASK, to_bytes(1, PIECES)),)))
    assert Send("h2", m.TellDigests(TASK.id)) in cluster.said
    digests = b"d" * DIGEST_SIZE + bytes(DIGEST_SIZE * (PIECES - 1))
    assert told(cluster, m.Digests("h2", TASK.id, to_bytes(1, PIECES), digests)) is None
    assert cluster.core.tasks[TASK.id].record == {0: b"d" * DIGEST_SIZE}


def test_an_origin_that_wants_patience_is_left_alone(cluster: Cluster) -> None:
    assert told(cluster, m.Throttled("h0", TASK.id, 30.0)) is None
    answer = told(cluster, m.Report("h0", TASK.id, claim=2))
    assert isinstance(answer, m.ReportReply)
    assert answer.not_before == 30.0
    assert not answer.lease


def test_what_could_not_be_read_is_leased_again(cluster: Cluster) -> None:
    leases = cluster.core.tasks[TASK.id].leases
    held = tuple(members(leases.held_by("h0")))
    assert held
    failed = m.OriginFailed("h0", TASK.id, "source-unreachable", "502", held, False)
    assert told(cluster, failed) is None
    assert not leases.held_by("h0")


def test_a_look_that_goes_on_is_waited_for() -> None:
    cluster = Cluster([host(0)])
    cluster.submit([0])
    (ask,) = (a for a in cluster.said if isinstance(a, Ask))
    asked = cluster.now
    due = cluster.core.overdue_at(ask, asked)
    assert due > asked
    cluster.now += 50.0
    assert told(cluster, m.StatPending("h0", "s.0", "another run")) is None
    assert cluster.core.overdue_at(ask, asked) == due
    assert told(cluster, m.StatPending("h0", "s.0", "")) is None
    assert cluster.core.overdue_at(ask, asked) == due + 50.0


def test_what_is_for_others_is_refused(cluster: Cluster) -> None:
    for message in (m.Cancel("s.0"), m.Stat("h0", SOURCE)):
        assert told(cluster, message) == m.Unsupported(type(message).__name__)


def test_whose_host_id_another_node_has_is_found_at_the_first_page() -> None:
    cluster = Cluster([host(0)])
    clone = Host("h0", "n9", incarnation="2")
    assert cluster.core.rival(m.Announce(clone)) == host(0)
    assert cluster.core.rival(m.Announce(clone, sequence="s", page=1)) is None
