"""Who may have what others have read: decisions of the scheduler alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.model import MIB, Credentials, Entry, Manifest, PieceTable, Source, digest
from dragonfly_ray.peer.access_reads import SPAN, choose
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.scheduling import access_proofs
from dragonfly_ray.scheduling.access_proofs import AccessProofs
from dragonfly_ray.scheduling.actions import Ask, Send
from tests.unit.one_scheduler import PIECES, SOURCE, TASK, Cluster, host

A, B = Credentials(headers={"X-Api-Key": "a"}), Credentials(headers={"X-Api-Key": "b"})
ALL = bitset.to_bytes(bitset.full(PIECES), PIECES)


class Guarded(Cluster):
    def submitted(self, spec_id: str, credentials: Credentials, targets: tuple[int, ...] = (0, 1)) -> None:
        """And resolved."""
        spec = m.DistributionSpec(spec_id, SOURCE, tuple(f"n{t}" for t in targets))
        self.do(self.core.submit(spec, credentials, self.now))
        self.resolved(spec_id)

    def asked(self, kind: type[Any], spec_id: str = "") -> list[Ask]:
        found = [a for a in self.said if isinstance(a, Ask) and isinstance(a.message, kind)]
        return [a for a in found if spec_id in ("", a.spec_id)]

    def proved(self, spec_id: str, kind: str = "", samples: tuple[m.Sample, ...] = ()) -> None:
        ask = self.asked(m.Prove, spec_id)[-1]
        answer = m.Proved(TASK.id, samples, kind, "f: refused" if kind else "")
        self.do(self.core.answered(ask, answer, self.now))

    def delivered(self, spec_id: str) -> dict[str, bool]:
        """Node -> whether it was told of a proof, the last time."""
        sent = [(a.host, a.message) for a in self.said if isinstance(a, Send)]
        return {to: d.proved for to, d in sent if isinstance(d, m.Deliver) and d.spec.id == spec_id}

    def phase(self, spec_id: str) -> object:
        return self.view(spec_id)["phase"]

    def kinds(self, spec_id: str) -> set[str]:
        nodes: Any = self.view(spec_id)["nodes"]
        return {node["kind"] for node in nodes.values()}


def test_who_reads_it_all_at_the_origin_needs_no_proof() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    assert cluster.delivered("a.0") == {"h0": False, "h1": False}
    for number in (0, 1):
        cluster.end(number, "a.0")
    cluster.submitted("a.1", A)
    assert cluster.delivered("a.1") == {"h0": True, "h1": True}
    assert not cluster.asked(m.Prove)


def test_two_that_ask_differently_meet_only_when_both_have_proved() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.submitted("b.0", B)
    assert not cluster.delivered("b.0")
    assert {a.spec_id for a in cluster.asked(m.Prove)} == {"a.0", "b.0"}
    (ask,) = cluster.asked(m.Prove, "b.0")
    assert isinstance(ask.message, m.Prove)
    assert ask.message.credentials == B
    cluster.proved("b.0")
    assert not cluster.delivered("b.0"), "what it reads, the other would get unproved"
    cluster.proved("a.0")
    assert cluster.delivered("b.0") == {"h0": True, "h1": True}
    assert cluster.view("b.0")["task_id"] == TASK.id


def test_whoever_is_found_to_have_no_right_ends_alone() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.submitted("b.0", B)
    cluster.proved("b.0")
    cluster.proved("a.0", "source-auth")
    assert cluster.kinds("a.0") == {"source-auth"}
    assert cluster.phase("b.0") == "running"


def test_the_same_credentials_share_what_they_read() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.submitted("a.1", A)
    assert set(cluster.delivered("a.1")) == {"h0", "h1"}
    assert not cluster.asked(m.Prove)


def test_a_refusal_at_the_origin_ends_only_those_that_ask_so() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.submitted("b.0", B)
    cluster.proved("b.0")
    cluster.proved("a.0")
    refused = m.OriginFailed("h0", TASK.id, "source-auth", "403", (0,), final=True, spec_id="a.0")
    cluster.do(cluster.core.origin_failed(refused, cluster.now))
    assert cluster.kinds("a.0") == {"source-auth"}
    assert cluster.phase("b.0") == "running"
    taken: set[int] = set()
    while more := cluster.report(1, claim=PIECES).lease:
        taken.update(more)
    assert 0 in taken, "somebody else reads it"
    # … and it is not forgotten.
    cluster.submitted("a.1", A)
    assert cluster.asked(m.Prove, "a.1")


@pytest.mark.parametrize("kind", ["storage", "source-unreachable", "not-running", ""])
def test_a_prover_that_fails_is_followed_by_another(kind: str) -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    cluster.submitted("b.0", B)
    first = cluster.asked(m.Prove)[-1]
    if kind:
        cluster.proved("b.0", kind)
    else:
        cluster.do(cluster.core.unanswered(first, cluster.now))
    assert len(cluster.asked(m.Resolve)) == 2
    cluster.resolved("b.0")
    assert cluster.asked(m.Prove)[-1].host != first.host
    cluster.proved("b.0")
    assert cluster.phase("b.0") == "running"


def test_proofs_that_fail_everywhere_end_it() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    cluster.submitted("b.0", B)
    began = cluster.now
    while cluster.phase("b.0") == "resolving":
        cluster.proved("b.0", "source-unreachable")
        cluster.now += 1.0
        cluster.core.beat("b.0", cluster.now)
        cluster.do(cluster.core.tick(cluster.now))
        cluster.resolved("b.0")
    assert cluster.kinds("b.0") == {"source-unreachable"}
    patience = cluster.core.settings.origin.give_up
    assert patience < cluster.now - began < 2 * patience


def test_content_that_changes_during_the_proof_is_looked_at_anew_once() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    cluster.submitted("b.0", B)
    cluster.proved("b.0", "source-changed")
    assert len(cluster.asked(m.Resolve)) == 2
    cluster.resolved("b.0")
    cluster.proved("b.0", "source-changed")
    assert cluster.kinds("b.0") == {"source-changed"}


def test_a_holder_that_was_not_known_joins_when_those_who_read_have_proved() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    assert not any(n.host.id == "h2" for news in cluster.sent(m.TaskUpdate) for n in news.joined)
    assert [a.spec_id for a in cluster.asked(m.Prove)] == ["a.0"]
    cluster.do(cluster.core.announce(m.Announce(host(3)), cluster.now))
    cluster.proved("a.0")
    assert {n.host.id for news in cluster.sent(m.TaskUpdate, 0) for n in news.joined} == {"h2"}


def test_while_a_host_has_not_told_all_that_it_holds_nobody_starts_unproved() -> None:
    cluster = Guarded([host(0), host(1)])
    first = m.Announce(host(2), (), last=False, sequence="x")
    cluster.do(cluster.core.announce(first, cluster.now))
    cluster.submitted("a.0", A)
    assert not cluster.delivered("a.0")
    cluster.proved("a.0", samples=(m.Sample(0, 3, 5, 10, digest(b"x")),))
    assert cluster.delivered("a.0") == {"h0": True, "h1": True}


def test_a_peer_that_has_it_already_hears_of_it_again_after_the_proof() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    held = m.Ended("h1", "a.0", TASK.id, False, kind=m.UNPROVED)
    cluster.do(cluster.core.ended(held, cluster.now)[1])
    assert cluster.phase("a.0") == "running"
    assert len(cluster.sent(m.Deliver, 1)) == 1
    cluster.proved("a.0")
    assert [d.proved for d in cluster.sent(m.Deliver, 1)] == [False, True]
    assert len(cluster.sent(m.Deliver, 0)) == 1
    for number in (0, 1):
        cluster.end(number, "a.0")
    assert cluster.kinds("a.0") == {""}


def test_a_peer_that_comes_back_is_trusted_with_what_it_read_for_the_same() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A)
    cluster.report(1, got=(0, 1, 2), carried=(("a.0", ""),))
    some = bitset.to_bytes(0b111, PIECES)
    back = m.Announce(host(1, incarnation="2"), (m.Held(TASK, some),))
    cluster.do(cluster.core.announce(back, cluster.now))
    assert not cluster.asked(m.Prove)
    assert [d.proved for d in cluster.sent(m.Deliver, 1)] == [False, True]


def test_a_scheduler_that_has_restarted_mixes_nobody_either() -> None:
    before = Guarded([host(0), host(1)])
    before.submitted("a.0", A)
    (deliver,) = before.sent(m.Deliver, 0)
    cluster = Guarded([host(1)])
    cluster.do(cluster.core.announce(m.Announce(host(0), (), (deliver,)), cluster.now))
    assert cluster.phase("a.0") == "running"
    cluster.submitted("b.0", B)
    assert not cluster.delivered("b.0")
    assert {a.spec_id for a in cluster.asked(m.Prove)} == {"a.0", "b.0"}


def test_samples_that_the_prover_does_not_hold_are_compared_by_holders() -> None:
    cluster = Guarded([host(0), host(1)])
    low, high = bitset.to_bytes(bitset.full(50), PIECES), bitset.to_bytes(bitset.full(50) << 50, PIECES)
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, low),)), cluster.now))
    cluster.do(cluster.core.announce(m.Announce(host(3), (m.Held(TASK, high),)), cluster.now))
    cluster.submitted("b.0", B)
    samples = tuple(m.Sample(0, piece, 5, 10, digest(b"x")) for piece in (3, 70))
    cluster.proved("b.0", samples=samples)
    asks = cluster.asked(m.CompareSamples)
    assert {(a.host, *(s.piece for s in a.message.samples)) for a in asks} == {("h2", 3), ("h3", 70)}  # type: ignore[union-attr]
    cluster.do(cluster.core.answered(asks[0], m.SamplesCompared(asks[0].host, TASK.id), cluster.now))
    assert cluster.phase("b.0") == "resolving"
    cluster.do(cluster.core.unanswered(asks[1], cluster.now))
    assert cluster.phase("b.0") == "running", "nobody holds that any more: it will be read at the origin"
    for number in (0, 1):
        cluster.end(number, "b.0")
    cluster.submitted("b.1", B)
    assert cluster.asked(m.Prove, "b.1"), "what could not be compared, counts once"


def test_what_is_dropped_everywhere_during_the_proof_is_resolved_anew() -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    cluster.submitted("b.0", B)
    cluster.core.evicted("h2", TASK.id, cluster.now)
    del cluster.core.tasks[TASK.id]
    cluster.do(cluster.core.tick(cluster.now))
    assert len(cluster.asked(m.Resolve)) == 2
    cluster.resolved("b.0")
    assert cluster.delivered("b.0") == {"h0": False, "h1": False}


# --- the proofs themselves ----------------------------------------------------------------------


def test_a_fingerprint_tells_callers_apart_and_nothing_of_them() -> None:
    proofs = AccessProofs()

    def of(
        url: str = "http://h/f?sig=1", credentials: Credentials = A, policy: UrlPolicy | None = None
    ) -> str:
        return proofs.fingerprint(m.DistributionSpec("s", Source(url), (), policy=policy), credentials)

    assert of() == of()
    assert (
        len(
            {
                of(),
                of("http://h/f?sig=2"),
                of("http://u:p@h/f?sig=1"),
                of(credentials=B),
                of(policy=UrlPolicy()),
            }
        )
        == 5
    )
    assert AccessProofs().fingerprint(m.DistributionSpec("s", Source("http://h/f?sig=1"), ()), A) != of()


def test_proofs_end_by_their_age_and_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_proofs, "MAX_PROOFS", 3)
    proofs = AccessProofs()
    for number in range(5):
        proofs.prove("t", f"f{number}", float(number))
    assert len(proofs) == 3
    assert [proofs.fresh("t", f"f{n}", 6.0, 3.0) for n in range(5)] == [False] * 4 + [True]
    proofs.expire(6.0, 3.0)
    assert len(proofs) == 1
    proofs.forget("t", "f4")
    assert not proofs.fresh("t", "f4", 4.0, 3.0)


def a_folder(ranges: bool = True) -> Manifest:
    sizes = [0, 1, 700, 5000, 30 * MIB, 0, 200_000]
    return Manifest(tuple(Entry(f"f{i}", size, "v") for i, size in enumerate(sizes)), True, ranges)


@pytest.mark.parametrize("ranges", [True, False])
def test_samples_lie_in_their_file_and_in_one_piece_that_is_held(ranges: bool) -> None:
    manifest = a_folder(ranges)
    table = PieceTable.of(manifest)
    held = 1 << 20
    for seed in range(50):
        spans = choose(manifest, table, (0, held), rng=random.Random(seed))
        assert [s.segment.entry for s in spans] == [1, 2, 3, 4, 6]
        for span in spans:
            size = manifest.entries[span.segment.entry].size
            assert span.segment.length == min(SPAN, size)
            assert 0 <= span.segment.offset <= size - span.segment.length
            piece = table[span.piece]
            assert piece.offset + span.at == table.starts[span.segment.entry] + span.segment.offset
            assert 0 <= span.at <= piece.length - span.segment.length
            assert ranges or span.segment.offset == 0
        assert not ranges or spans[3].piece == 20
    places = {choose(manifest, table, (bitset.full(len(table)),))[3].segment.offset for _ in range(20)}
    assert len(places) == (20 if ranges else 1)
    assert len(choose(manifest, table, (0,), most=2)) == 2


def test_a_proof_that_fails_while_it_runs_is_tried_again_by_whoever_there_is() -> None:
    cluster = Guarded([host(0)])
    cluster.submitted("a.0", A, (0,))
    cluster.do(cluster.core.announce(m.Announce(host(0), (m.Held(TASK, ALL),)), cluster.now))
    refused = m.Ended("h0", "a.0", TASK.id, False, kind=m.UNPROVED, message="held here already")
    cluster.do(cluster.core.ended(refused, cluster.now)[1])
    for seconds in (2.0, 10.0, 10.0):  # as long as the origin may be away for those who read it
        asked = len(cluster.asked(m.Prove))
        cluster.do(cluster.core.unanswered(cluster.asked(m.Prove)[-1], cluster.now))
        assert cluster.phase("a.0") == "running"
        cluster.now += seconds
        cluster.core.beat("a.0", cluster.now)
        cluster.do(cluster.core.tick(cluster.now))
        assert len(cluster.asked(m.Prove)) > asked
    cluster.proved("a.0")
    assert cluster.delivered("a.0") == {"h0": True}


def test_a_proof_that_fails_for_as_long_as_an_origin_may_be_away_ends_it() -> None:
    cluster = Guarded([host(0)])
    cluster.submitted("a.0", A, (0,))
    cluster.do(cluster.core.announce(m.Announce(host(0), (m.Held(TASK, ALL),)), cluster.now))
    refused = m.Ended("h0", "a.0", TASK.id, False, kind=m.UNPROVED, message="held here already")
    cluster.do(cluster.core.ended(refused, cluster.now)[1])
    for _ in range(2):
        cluster.proved("a.0", "source-unreachable")
        cluster.now += cluster.core.settings.origin.give_up + 1.0
        cluster.core.beat("a.0", cluster.now)
        cluster.do(cluster.core.tick(cluster.now))
    assert cluster.kinds("a.0") == {"source-unreachable"}


@pytest.mark.parametrize("end", ["it ends", "it is refused", "it ends, while another runs"])
def test_holders_that_were_kept_apart_for_somebody_are_met_when_that_is_over(end: str) -> None:
    cluster = Guarded([host(0), host(1)])
    cluster.submitted("a.0", A, (0,))
    if "another" in end:
        cluster.submitted("b.0", B, (1,))
        cluster.proved("b.0")
        cluster.proved("a.0")
        cluster.core.specs["a.0"].proved = False  # as after a restart of the scheduler
        cluster.core.specs["a.0"].fed.clear()
    cluster.do(cluster.core.announce(m.Announce(host(2), (m.Held(TASK, ALL),)), cluster.now))
    assert cluster.asked(m.Prove, "a.0"), "what that host has, it may not be given yet"
    if "refused" in end:
        cluster.proved("a.0", "source-auth")
    else:
        cluster.end(0, "a.0")
    if "another" in end:
        cluster.now += 2.0
        cluster.core.beat("b.0", cluster.now)
        cluster.do(cluster.core.tick(cluster.now))
        met = {n.host.id for news in cluster.sent(m.TaskUpdate, 1) for n in news.joined}
    else:
        cluster.submitted("b.0", B, (1,))
        cluster.proved("b.0")
        met = {n.host.id for d in cluster.sent(m.Deliver, 1) for n in d.neighbours}
    assert "h2" in met
