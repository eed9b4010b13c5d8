"""Corrupted bytes, digests that differ, and who is banned for them: message by message."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.model import digest
from tests.unit.one_scheduler import PIECES, TASK, Cluster, host, started


def test_corrupted_bytes_ban_their_sender_after_two_complaints() -> None:
    cluster = started(4)
    cluster.report(1, bad=("h0",))
    assert not cluster.core.tasks[TASK.id].banned
    cluster.report(2, bad=("h0",))
    assert cluster.core.tasks[TASK.id].banned == {"h0"}
    assert all(any(n.banned == ("h0",) for n in cluster.sent(m.News, to)) for to in (1, 2, 3))


def test_two_digests_for_one_piece_drop_both() -> None:
    cluster = started(3)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, got=(0,), origin=((0, digest(b"evil")),))
    assert any(n.discard == (0,) for n in cluster.sent(m.News))
    assert 0 not in cluster.core.tasks[TASK.id].record


def test_the_record_decides() -> None:
    cluster = started(2)
    digests = [digest(b"%d" % i) for i in range(PIECES)]
    assert cluster.core.verify(m.Verify("h0", TASK.id, digest(b"".join(digests)))).pending
    cluster.report(0, got=tuple(range(PIECES)), origin=tuple(enumerate(digests)))
    assert cluster.core.verify(m.Verify("h1", TASK.id, digest(b"".join(digests)))).ok
    wrong = cluster.core.verify(m.Verify("h1", TASK.id, digest(b"no")))
    assert not wrong.ok
    assert wrong.digests == b"".join(digests)


def banned_elsewhere(*numbers: int, count: int = 4) -> Cluster:
    cluster = Cluster(host(i) for i in range(count))
    for number in numbers:
        cluster.core.hosts[f"h{number}"].banned(cluster.now)
    return cluster


def test_a_host_that_was_banned_lately_gets_everything_and_feeds_nobody() -> None:
    cluster = banned_elsewhere(0)
    cluster.submit(range(4))
    cluster.resolved()
    known = {n: [o.host.id for o in cluster.sent(m.Deliver, n)[0].neighbours] for n in range(4)}
    assert known == {0: ["h1", "h2", "h3"], 1: ["h2", "h3"], 2: ["h1", "h3"], 3: ["h1", "h2"]}
    assert not cluster.sent(m.Deliver, 0)[0].may_claim
    assert cluster.report(0, claim=4).lease == ()
    cluster.report(0, got=tuple(range(PIECES)))
    assert cluster.report(1, claim=4).lease, "what only it has is fetched again"
    for number in range(4):
        cluster.end(number)
    assert cluster.view()["phase"] == "ended"
    assert not cluster.core.tasks[TASK.id].banned, "until the task came to rest"


def test_time_heals() -> None:
    cluster = banned_elsewhere(0)
    cluster.now += 3600.0
    for number in range(4):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit(range(4))
    cluster.resolved()
    assert all(len(cluster.sent(m.Deliver, n)[0].neighbours) == 3 for n in range(4))


def test_where_nobody_else_is_left_those_banned_elsewhere_go_to_the_origin() -> None:
    cluster = banned_elsewhere(0, 1, count=2)
    cluster.submit([0, 1])
    cluster.resolved()
    assert all(cluster.sent(m.Deliver, n)[0].may_claim for n in (0, 1))
    cluster = banned_elsewhere(0, count=2)
    cluster.submit([0, 1])
    cluster.resolved()
    cluster.do(cluster.core.probed("h1", "gone", cluster.now))
    seen: list[int] = []
    for _ in range(2 * PIECES):
        lease = cluster.report(0, claim=4, got=tuple(seen), bytes_origin=len(seen)).lease
        seen += lease
    assert sorted(seen) == list(range(PIECES))


def test_a_ban_is_remembered_in_other_tasks() -> None:
    cluster = started(4)
    for number in (1, 2):
        cluster.report(number, bad=("h0",))
    assert cluster.core.hosts["h0"].guilt(cluster.now) >= 1.0
    cluster.do(cluster.core.announce(m.Announce(host(0, incarnation="2")), cluster.now))
    assert cluster.core.hosts["h0"].guilt(cluster.now) >= 1.0, "a new process of it, too"


def test_who_spread_what_the_record_denies_is_banned_unless_it_says_who_misled_it() -> None:
    cluster = started(5)
    good = digest(b"good")
    cluster.report(0, got=(0,), origin=((0, good),))
    assert cluster.report(4, disputed=(0, 1)).record == ((0, good),)
    # h1 made it up; h2 had it from h1 and passed it on to h3 and h4.
    for number in (3, 4):
        cluster.report(number, misled=(("h2", 0), ("h1", 0)))
    for number in (1, 2):
        assert [n.record for n in cluster.sent(m.News, number) if n.record] == [((0, good),)]
    cluster.report(2, lost=(0,), misled=(("h1", 0),))
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned, "there is a moment to explain"
    cluster.now += 2.1
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.core.tasks[TASK.id].banned == {"h1"}


def test_one_voice_about_the_record_bans_nobody() -> None:
    cluster = started(4)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, misled=(("h0", 0), ("h2", 0), ("h2", 5)))
    cluster.now += 3.0
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned
