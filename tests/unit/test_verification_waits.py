"""What a peer asks when it has everything: what it tells with the question, and whether the answer waits for others."""

from __future__ import annotations

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import digest, root_digest
from dragonfly_ray.scheduling.dispatch import dispatch
from tests.unit.one_scheduler import PIECES, TASK, Cluster, started

RIGHT = [digest(bytes([i])) for i in range(PIECES)]


def read(number: int, pieces: set[int]) -> m.Report:
    return m.Report(
        f"h{number}", TASK.id, got=tuple(pieces), origin=tuple((p, RIGHT[p]) for p in sorted(pieces))
    )


def question(number: int, report: m.Report | None = None) -> m.Verify:
    return m.Verify(f"h{number}", TASK.id, root_digest(RIGHT), report=report)


def ask(cluster: Cluster, message: m.Verify) -> m.Verified:
    answer, actions = dispatch(cluster.core, message, cluster.now)
    cluster.do(actions)
    assert isinstance(answer, m.Verified)
    return answer


@pytest.fixture
def leases() -> tuple[Cluster, list[set[int]]]:
    """Two hosts, and what each of them is to read: all of it together."""
    cluster = started(2)
    cluster.core.tasks[TASK.id].audits.chosen = 0
    held = [set(cluster.sent(m.Deliver, number)[0].lease) for number in range(2)]
    while more := cluster.report(0, claim=8).lease:
        held[0].update(more)
    assert held[0] | held[1] == set(range(PIECES))
    return cluster, held


def test_the_report_in_a_question_is_heard_before_it(leases: tuple[Cluster, list[set[int]]]) -> None:
    cluster, held = leases
    cluster.core.report(read(0, held[0]), cluster.now)
    answer = ask(cluster, question(1, read(1, held[1])))
    assert (answer.ok, answer.known, answer.pending) == (True, True, False)
    assert answer.reply is not None
    assert answer.reply.known


def test_whoever_is_not_known_tells_it_again(leases: tuple[Cluster, list[set[int]]]) -> None:
    cluster, held = leases
    report = m.Report("stranger", TASK.id, origin=read(0, held[0]).origin)
    answer = ask(cluster, m.Verify("stranger", TASK.id, root_digest(RIGHT), report=report))
    assert not answer.known
    assert answer.reply is not None
    assert not answer.reply.known


def test_what_others_read_is_waited_for(leases: tuple[Cluster, list[set[int]]]) -> None:
    cluster, held = leases
    answer = ask(cluster, question(0, read(0, held[0])))
    assert answer.pending
    assert cluster.core.waits_for_others(question(0), answer)
    ask(cluster, question(1, read(1, held[1])))
    answer = cluster.core.verify(question(0))
    assert answer == m.Verified()
    assert not cluster.core.waits_for_others(question(0), answer)


def test_whoever_has_to_tell_something_itself_is_answered_at_once(
    leases: tuple[Cluster, list[set[int]]],
) -> None:
    cluster, held = leases
    unread = held[0] - {min(held[0])}
    answer = ask(cluster, question(0, read(0, held[0] - unread)))
    assert answer.pending
    assert not cluster.core.waits_for_others(question(0), answer), "others wait for its leases"


@pytest.mark.parametrize(
    "answer", [m.Verified(pending=True, gaps=(1,)), m.Verified(pending=True, audit=(1,))]
)
def test_what_its_asker_has_to_act_on_is_answered_at_once(
    leases: tuple[Cluster, list[set[int]]], answer: m.Verified
) -> None:
    cluster, held = leases
    ask(cluster, question(0, read(0, held[0])))
    assert not cluster.core.waits_for_others(question(0), answer)


def test_whoever_reads_an_audit_is_answered_at_once(leases: tuple[Cluster, list[set[int]]]) -> None:
    cluster, held = leases
    task = cluster.core.tasks[TASK.id]
    task.audits.chosen = 1 << min(held[0])
    for number in range(2):
        ask(cluster, question(number, read(number, held[number])))
    first, second = (cluster.core.verify(question(number)) for number in (0, 1))
    assert first.pending
    assert second.pending
    assert task.audits.reads("h1")
    assert cluster.core.waits_for_others(question(0), first)
    assert not cluster.core.waits_for_others(question(1), second)
