"""What a scheduler tells a host stays queued until it is acknowledged; a peer handles it once."""

from __future__ import annotations

import threading

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.peer.inbox import MAX_SENDERS, Inbox
from dragonfly_ray.scheduling import outbox
from dragonfly_ray.scheduling.outbox import Outbox, merged
from tests.unit.one_scheduler import host


def drain(queues: Outbox, name: str = "h0") -> list[m.Message]:
    found = []
    while queued := queues.head(name):
        found.append(queued.message)
        queues.acknowledged(name, queued.number)
    return found


def joined(*numbers: int) -> tuple[m.Neighbour, ...]:
    return tuple(m.Neighbour(host(n)) for n in numbers)


def test_a_message_stays_first_with_its_number_until_it_is_acknowledged() -> None:
    queues = Outbox()
    first, second = m.Cancel("a"), m.Cancel("b")
    queues.push("h0", "1", first)
    queues.push("h0", "1", second)
    queued = queues.head("h0")
    assert queued is not None
    assert queued.message == first
    assert queues.head("h0") == queued
    queues.acknowledged("h0", queued.number)
    queues.acknowledged("h0", queued.number)
    assert drain(queues) == [second]
    assert not queues.pending("h0")
    assert len(queues) == 0


def test_hosts_do_not_wait_for_each_other() -> None:
    queues = Outbox()
    queues.push("h0", "1", m.Cancel("a"))
    queues.push("h1", "1", m.Cancel("b"))
    assert drain(queues, "h1") == [m.Cancel("b")]
    assert queues.pending("h0")


def test_a_new_incarnation_hears_nothing_that_its_predecessor_should() -> None:
    queues = Outbox()
    queues.push("h0", "1", m.Cancel("old"))
    old = queues.head("h0")
    assert old is not None
    queues.push("h0", "2", m.Cancel("new"))
    queues.acknowledged("h0", old.number)
    assert drain(queues) == [m.Cancel("new")]


def test_news_of_a_task_are_one_message_and_overtake_nothing() -> None:
    queues = Outbox()
    queues.push("h0", "1", m.Cancel("a"))
    queues.push("h0", "1", m.TaskUpdate("t", left=("h1",)))
    queues.push("h0", "1", m.TaskUpdate("other", left=("h1",)))
    queues.push("h0", "1", m.TaskUpdate("t", left=("h2",)))
    queues.push("h0", "1", m.Cancel("b"))
    queues.push("h0", "1", m.TaskUpdate("t", left=("h3",)))
    assert drain(queues) == [
        m.Cancel("a"),
        m.TaskUpdate("t", left=("h1", "h2")),
        m.TaskUpdate("other", left=("h1",)),
        m.Cancel("b"),
        m.TaskUpdate("t", left=("h3",)),
    ]


def test_what_is_on_its_way_is_not_changed() -> None:
    queues = Outbox()
    queues.push("h0", "1", m.TaskUpdate("t", left=("h1",)))
    assert queues.head("h0") is not None
    queues.push("h0", "1", m.TaskUpdate("t", left=("h2",)))
    assert drain(queues) == [m.TaskUpdate("t", left=("h1",)), m.TaskUpdate("t", left=("h2",))]


def test_two_news_leave_a_peer_as_one_does() -> None:
    first = m.TaskUpdate("t", joined=joined(1, 2), left=("h9",), may_claim=False, not_before=2.0, revoked=(1,),
                   record=((1, b"a"), (2, b"b")), connections=3)  # fmt: skip
    then = m.TaskUpdate("t", joined=joined(3), left=("h1",), banned=("h2",), revoked=(2,), discard=(1,),
                  record=((2, b"c"),), settled=True, grant=b"new")  # fmt: skip
    assert merged(first, then) == m.TaskUpdate(
        "t", joined=joined(3), left=("h9", "h1"), banned=("h2",), revoked=(1, 2), not_before=2.0,
        may_claim=False, discard=(1,), record=((2, b"c"),), connections=3, settled=True,
        grant=b"new",
    )  # fmt: skip


def test_what_only_one_of_two_news_says_is_kept_whichever_it_is() -> None:
    said = m.TaskUpdate("t", joined=joined(1), left=("h9",), banned=("h8",), revoked=(1,), not_before=2.0, may_claim=True,
                  discard=(3,), record=((1, b"a"),), connections=3, settled=True, grant=b"g")  # fmt: skip
    blank = m.TaskUpdate("t")
    left_out = [name for name in said.__struct_fields__ if getattr(said, name) == getattr(blank, name)]
    assert left_out == ["task_id"], "each field has to be tried"
    assert merged(said, blank) == said
    assert merged(blank, said) == said


def test_whoever_left_and_came_back_is_met_anew() -> None:
    both = merged(m.TaskUpdate("t", left=("h1",)), m.TaskUpdate("t", joined=joined(1)))
    assert (both.left, both.joined) == (("h1",), joined(1))


def test_a_host_that_takes_nothing_costs_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_QUEUED", 10)
    queues = Outbox()
    taken = [queues.push("h0", "1", m.Cancel(str(n))) for n in range(11)]
    assert taken == [True] * 10 + [False]
    assert not queues.pending("h0")


def test_a_message_that_comes_again_is_handled_once() -> None:
    inbox, seen = Inbox(), []
    for sender, number in [("a", 1), ("a", 1), ("a", 3), ("a", 2), ("b", 1), ("a", 3)]:
        inbox.take(sender, number, lambda s=sender, n=number: seen.append((s, n)))  # type: ignore[misc]
    assert seen == [("a", 1), ("a", 3), ("b", 1)]


def test_a_message_that_failed_may_come_again() -> None:
    inbox, seen = Inbox(), []

    def fails() -> None:
        raise OSError

    with pytest.raises(OSError):
        inbox.take("a", 1, fails)
    assert inbox.take("a", 1, lambda: seen.append(1))
    assert seen == [1]


def test_a_repeated_message_is_acknowledged_only_when_the_first_has_been_handled() -> None:
    inbox, entered, go = Inbox(), threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        entered.set()
        assert go.wait(30)
        order.append("handled")

    def repeat() -> None:
        inbox.take("a", 1, lambda: order.append("twice"))
        order.append("acknowledged")

    threads = [threading.Thread(target=inbox.take, args=("a", 1, slow)), threading.Thread(target=repeat)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert order == ["handled", "acknowledged"]


def test_senders_that_are_gone_are_forgotten() -> None:
    inbox = Inbox()
    for number in range(MAX_SENDERS + 5):
        inbox.take(f"s{number}", 1, lambda: None)
    assert len(inbox._senders) == MAX_SENDERS
