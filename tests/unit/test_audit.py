"""Pieces that a second host reads at the origin: decisions alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import MIB, Entry, Manifest, PieceTable, digest
from dragonfly_ray.peer.origin_queries import _covered
from dragonfly_ray.scheduling.audit_table import AuditTable
from dragonfly_ray.scheduling.scheduler import Ask, SchedulerCore
from tests.unit.one_scheduler import PIECES, TASK, Cluster, host

TRUE, FALSE = digest(b"true"), digest(b"false")


@pytest.mark.parametrize(("pieces", "share"), [(1024, 0.005), (10, 0.005), (300, 0.5), (20, 1.0)])
def test_a_share_of_the_pieces_is_drawn_but_not_of_the_last_tenth(pieces: int, share: float) -> None:
    tables = [AuditTable(pieces, share, 2.0, random.Random(seed)) for seed in range(400)]
    assert sum(t.chosen.bit_count() for t in tables) / 400 == pytest.approx(share * pieces, rel=0.5)
    union = 0
    for table in tables:
        union |= table.chosen
    if share == 1.0:
        assert union == bitset.full(pieces)
    else:
        assert union.bit_length() <= pieces - pieces // 10
    assert len({t.chosen for t in tables}) > 1 or share == 1.0


def test_what_a_checksum_of_the_origin_covers_is_not_read_twice() -> None:
    table = AuditTable(10, 1.0, 2.0)
    table.cover(0b11)
    assert table.chosen == bitset.full(10) & ~0b11
    entries = (
        Entry("a", 3 * MIB, checksum="md5:00"),
        Entry("b", 3 * MIB, checksum="crc32c:00"),
        Entry("c", 3 * MIB),
        Entry("d", 3 * MIB, checksum="sha256:00"),
    )
    manifest = Manifest(entries, directory=True)
    pieces = PieceTable.of(manifest)
    found = bitset.from_bytes(_covered(manifest, pieces), len(pieces))
    assert found == bitset.of([*pieces.of_entry(0), *pieces.of_entry(3)])


class Audited(Cluster):
    """All pieces are read twice."""

    def __init__(self, count: int = 3) -> None:
        super().__init__([])
        self.core = SchedulerCore(Settings(origin=OriginSettings(audit=1.0)), lambda task, host: b"grant")
        for number in range(count):
            self.do(self.core.announce(m.Announce(host(number)), self.now))
        self.submit(range(count))
        self.resolved()
        self.leased = {n: set(self.sent(m.Deliver, n)[0].lease) for n in range(count)}

    def read(self, number: int, pieces: Iterable[int], digest: bytes = TRUE) -> m.ReportReply:
        pieces = list(pieces)
        return self.report(number, got=tuple(pieces), origin=tuple((p, digest) for p in pieces))

    def read_all(self, numbers: Iterable[int], lie: dict[int, bytes] | None = None) -> None:
        """Every piece, by those, and what they are to audit."""
        for _ in range(10 * PIECES):
            for number in numbers:
                while (reply := self.report(number, claim=8)).lease:
                    self.leased[number].update(reply.lease)
                    self.audit(number, reply, lie)
                self.audit(number, reply, lie)
                if self.leased[number]:
                    self.audit(
                        number, self.read(number, self.leased[number], (lie or {}).get(number, TRUE)), lie
                    )
                    self.leased[number].clear()
                self.audit(number, self.report(number), lie)
            if not self.task.audits.pending and len(self.task.record) == PIECES:
                return
        raise AssertionError("it does not end")

    def audit(self, number: int, reply: m.ReportReply, lie: dict[int, bytes] | None = None) -> None:
        while reply.audit:
            said = (lie or {}).get(number, TRUE)
            reply = self.report(number, audited=tuple((p, said) for p in reply.audit))

    @property
    def task(self) -> Any:
        return self.core.tasks[TASK.id]


def test_every_piece_is_read_by_two_and_who_read_what_is_kept() -> None:
    cluster = Audited()
    cluster.read_all(range(3))
    assert cluster.task.audits.confirmed == bitset.full(PIECES)
    readers = cluster.task.readers
    assert sum(bits.bit_count() for bits in readers.values()) == PIECES
    for number in range(3):
        cluster.report(number, got=tuple(range(PIECES)), bytes_audit=7)
        assert cluster.core.verify(m.Verify(f"h{number}", TASK.id, cluster.task.root())).ok
        ended = m.Ended(f"h{number}", "s.0", TASK.id, True, bytes_audit=7)
        cluster.do(cluster.core.ended(ended, cluster.now)[1])
    nodes: Any = cluster.view()["nodes"]
    assert {n: r["origin_pieces"] for n, r in nodes.items()} == {
        f"n{i}": bitset.ranges(readers[f"h{i}"]) for i in range(3)
    }
    assert {r["bytes_audit"] for r in nodes.values()} == {7}


def test_an_audit_goes_to_another_host_and_to_one_alone() -> None:
    cluster = Audited()
    mine = sorted(cluster.leased[0])[:1]
    assert not cluster.read(0, mine).audit, "it has read that itself"
    assert cluster.report(1).audit == tuple(mine)
    assert not cluster.report(2).audit
    cluster.report(1, unaudited=tuple(mine))
    assert cluster.report(2).audit == tuple(mine)


def test_nobody_waits_longer_for_an_audit_than_for_a_lease() -> None:
    cluster = Audited(2)
    taken: set[int] = set(cluster.leased[0])
    while more := cluster.report(0, claim=8).lease:
        taken.update(more)
    cluster.read(0, taken)
    cluster.now += 10.0
    cluster.do(cluster.core.tick(cluster.now))
    while more := cluster.report(0, claim=8).lease:
        cluster.read(0, more)
    ask = m.Verify("h0", TASK.id, cluster.task.root())
    assert cluster.core.verify(ask).pending
    cluster.now += 1.9
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.core.verify(ask).pending
    cluster.now += 0.2
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.core.verify(ask) == m.Verified()
    assert cluster.task.audits.missed == PIECES


def test_who_asks_whether_all_is_right_gets_the_audit_that_is_left() -> None:
    cluster = Audited(2)
    for number in (0, 1):
        for piece in range(PIECES):
            cluster.task.learn(f"h{number}", [(piece, TRUE)])
    cluster.task.audits.read("h0", [5], cluster.now)
    answer = cluster.core.verify(m.Verify("h1", TASK.id, cluster.task.root()))
    assert (answer.pending, answer.audit) == (True, (5,))


def test_a_third_decides_who_of_two_was_wrong() -> None:
    cluster = Audited()
    piece = min(cluster.leased[0])
    cluster.read(0, [piece], FALSE)
    assert cluster.report(1).audit == (piece,)
    cluster.report(1, audited=((piece, TRUE),))
    assert any(piece in news.discard for news in cluster.sent(m.TaskUpdate, 0))
    assert not cluster.task.banned
    cluster.report(2, released=tuple(cluster.leased[2]))
    taken = {n: {p for _ in range(PIECES) for p in cluster.report(n, claim=8).lease} for n in (0, 1, 2)}
    assert piece not in taken[0] | taken[1]
    assert piece in taken[2]
    cluster.read(0, [piece], FALSE)  # it says it again, unasked
    assert piece not in cluster.task.record
    cluster.read(2, [piece], TRUE)
    assert cluster.task.banned == {"h0"}
    assert cluster.task.record[piece] == TRUE


def test_a_liar_that_reads_second_is_found_out_too() -> None:
    cluster = Audited()
    cluster.read_all(range(3), lie={2: FALSE})
    assert cluster.task.banned == {"h2"}
    assert set(cluster.task.record.values()) == {TRUE}


def test_two_that_differ_with_no_third_end_it() -> None:
    cluster = Audited(2)
    piece = min(cluster.leased[0])
    cluster.read(0, [piece], FALSE)
    cluster.report(1)
    cluster.report(1, audited=((piece, TRUE),))
    nodes: Any = cluster.view()["nodes"]
    assert {r["kind"] for r in nodes.values()} == {"integrity"}
    assert all("host0" in r["message"] and "host1" in r["message"] for r in nodes.values())


def test_three_that_differ_blame_the_origin() -> None:
    cluster = Audited()
    piece = min(cluster.leased[0])
    cluster.read(0, [piece], FALSE)
    cluster.report(1)
    cluster.report(1, audited=((piece, TRUE),))
    cluster.report(2, released=tuple(cluster.leased[2]))
    while piece not in (lease := cluster.report(2, claim=8).lease):
        assert lease
    cluster.read(2, [piece], digest(b"another"))
    nodes: Any = cluster.view()["nodes"]
    assert {r["kind"] for r in nodes.values()} == {"source-changed"}


def test_where_one_alone_may_go_to_the_origin_nothing_is_read_twice() -> None:
    cluster = Audited(1)
    while lease := cluster.leased[0] or set(cluster.report(0, claim=8).lease):
        assert not cluster.read(0, lease).audit
        cluster.leased[0] = set()
    assert cluster.core.verify(m.Verify("h0", TASK.id, cluster.task.root())) == m.Verified(), "at once"
    assert cluster.task.audits.missed == PIECES


def test_ranges_for_people() -> None:
    assert bitset.ranges(0) == ""
    assert bitset.ranges(0b1011_0111) == "0-2,4-5,7"
    assert bitset.ranges(bitset.full(100) << 3) == "3-102"


# --- the origin's doing, or a host's ------------------------------------------------------------


def disputed() -> tuple[Audited, int]:
    """h1 has read a piece, then h0 another, which h2 and h1 read otherwise since. Returns the first."""
    cluster = Audited(4)
    before, piece = min(cluster.leased[1]), min(cluster.leased[0])
    cluster.read(1, [before])
    assert cluster.read(0, [piece], FALSE).audit == (before,)
    cluster.report(0, audited=((before, TRUE),))
    assert cluster.report(2).audit == (piece,)
    cluster.report(2, audited=((piece, TRUE),))
    cluster.report(1, released=tuple(cluster.leased[1] - {before}))
    while piece not in (lease := cluster.report(1, claim=8).lease):
        assert lease
    assert not cluster.read(1, [piece]).audit
    assert not cluster.task.banned, "first it is found out whether the origin has changed"
    return cluster, before


def auditor_of(cluster: Audited, piece: int) -> int:
    assert not cluster.report(0).audit, "not whom it is about"
    assert not cluster.report(1).audit, "nor who has read it"
    return next(n for n in (2, 3) if cluster.report(n).audit == (piece,))


def test_who_was_wrong_is_banned_once_the_origin_is_known_to_be_as_it_was() -> None:
    cluster, before = disputed()
    cluster.report(auditor_of(cluster, before), audited=((before, TRUE),))
    assert cluster.task.banned == {"h0"}


def test_what_it_says_again_while_the_verdict_is_awaited_does_not_last() -> None:
    cluster, before = disputed()
    piece = min(cluster.leased[0])
    assert cluster.task.record[piece] == TRUE
    cluster.read(0, [piece], FALSE)
    assert piece not in cluster.task.record, "two digests"
    cluster.report(0, released=tuple(cluster.leased[0]))
    assert not cluster.report(0, claim=8).lease, "who was outvoted reads nothing meanwhile"
    cluster.read(0, [piece], FALSE)  # unasked
    cluster.report(auditor_of(cluster, before), audited=((before, TRUE),))
    assert cluster.task.banned == {"h0"}
    assert cluster.task.record.get(piece) != FALSE
    assert cluster.task.leases.free >> piece & 1, "another reads it"


def test_nobody_is_banned_where_the_origin_has_changed_under_a_strong_version() -> None:
    cluster, before = disputed()
    cluster.said.clear()
    cluster.report(auditor_of(cluster, before), audited=((before, FALSE),))
    cluster.now += 60.0
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.task.banned
    assert not any(each.blame for each in cluster.core.hosts.values())
    (again,) = [a.message for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    assert again.generation


def test_what_nobody_can_find_out_in_time_does_not_save_who_was_wrong() -> None:
    cluster, _ = disputed()
    cluster.now += 60.0
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.task.banned == {"h0"}


def test_disputes_that_have_no_host_in_common_are_the_origins_doing() -> None:
    cluster = Audited(4)
    first, second = min(cluster.leased[0]), min(cluster.leased[2])
    cluster.read(0, [first], FALSE)
    assert cluster.report(1).audit == (first,)
    assert cluster.read(2, [second], FALSE).audit == ()
    assert cluster.report(3).audit == (second,)
    cluster.report(1, audited=((first, TRUE),))
    cluster.said.clear()
    cluster.report(3, audited=((second, TRUE),))
    assert [a for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    assert not cluster.task.participants
    assert not cluster.task.banned


def test_a_verdict_waits_for_all_of_its_controls() -> None:
    table = AuditTable(20, 1.0, 2.0)
    readers = {"a": 0b1, "b": 0b111110, "c": 0b1000000}
    table.noted([5, 4, 3, 2, 1, 0, 6])
    assert table.control(0, ["a"], readers, bitset.full(20))
    assert set(table.controls) == {1, 2, 3}, "the nearest that others had read before"
    for piece in (1, 2):
        table.begin("c", piece)
        assert table.controlled("c", piece, TRUE, TRUE)
        assert not table.upheld(piece)
    table.expire(3.0)
    assert table.uncontrolled() == ["a"]
    assert not table.controls


def test_the_order_of_readings_is_forgotten_when_the_task_comes_to_rest() -> None:
    """A scheduler knows as many tasks as its hosts hold."""
    cluster = Audited(2)
    cluster.read_all(range(2))
    assert len(cluster.task.audits._read_at) == PIECES
    for number in range(2):
        cluster.report(number, got=tuple(range(PIECES)))
        cluster.end(number)
    assert cluster.view()["phase"] == "ended"
    assert not cluster.task.audits._read_at
