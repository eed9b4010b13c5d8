"""Corrupted bytes, digests that differ, and who is banned for them: message by message."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import SchedulerSettings
from dragonfly_ray.model import Credentials, Source, digest
from dragonfly_ray.scheduling.scheduler import Ask
from tests.unit.one_scheduler import PIECES, TASK, Cluster, host, started

BAD = ("h0", "h0")
"""Two bad pieces of one host."""
SILENT = SchedulerSettings().silent_after


def test_corrupted_bytes_ban_their_sender_after_two_complaints() -> None:
    cluster = started(4)
    cluster.report(1, bad=BAD)
    assert not cluster.core.tasks[TASK.id].banned
    cluster.report(2, bad=BAD)
    assert cluster.core.tasks[TASK.id].banned == {"h0"}
    assert all(any(n.banned == ("h0",) for n in cluster.sent(m.TaskUpdate, to)) for to in (1, 2, 3))


def test_two_digests_for_one_piece_drop_both() -> None:
    cluster = started(3)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, got=(0,), origin=((0, digest(b"evil")),))
    assert any(n.discard == (0,) for n in cluster.sent(m.TaskUpdate))
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
    near = {n: cluster.sent(m.Deliver, n)[0].neighbours for n in range(4)}
    asked = {n: [o.host.id for o in near[n] if not o.silent] for n in near}
    assert asked == {0: ["h1", "h2", "h3"], 1: ["h2", "h3"], 2: ["h1", "h3"], 3: ["h1", "h2"]}
    told = {n: [(o.host.id, o.manifest) for o in near[n] if o.silent] for n in near}
    assert told == {0: [], **{n: [("h0", False)] for n in (1, 2, 3)}}, "it hears what they have"
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
        cluster.report(number, bad=BAD)
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
        assert [n.record for n in cluster.sent(m.TaskUpdate, number) if n.record] == [((0, good),)]
    cluster.now += 0.9 * SILENT
    cluster.do(cluster.core.tick(cluster.now))
    cluster.report(2, lost=(0,), misled=(("h1", 0),))
    assert not cluster.core.tasks[TASK.id].banned, "a slow host has time to explain"
    cluster.now += 0.2 * SILENT
    for number in range(5):
        cluster.report(number)
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.core.tasks[TASK.id].banned == {"h1"}


def test_one_voice_about_the_record_bans_nobody() -> None:
    cluster = started(4)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, misled=(("h0", 0), ("h2", 0), ("h2", 5)))
    cluster.now += 1.1 * SILENT
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned


# --- complaints without proof -------------------------------------------------------------------


def test_two_lying_complainers_ban_nobody_out_of_a_healthy_swarm() -> None:
    cluster = started(5)
    for _ in range(10):
        for number in (1, 2):
            cluster.report(number, bad=BAD)
    assert not cluster.core.tasks[TASK.id].banned
    assert not cluster.sent(m.Cancel)
    cluster.report(3, bad=BAD)
    assert cluster.core.tasks[TASK.id].banned == {"h0"}, "three of four agree"


def test_a_bad_piece_that_reached_everybody_bans_nobody() -> None:
    """Bits rot: the host is told, and reads the piece anew."""
    cluster = started(4)
    for number in (1, 2, 3):
        cluster.report(number, bad=("h0",))
    assert not cluster.core.tasks[TASK.id].banned
    for number in (1, 2):
        cluster.report(number, bad=("h0",))
    assert cluster.core.tasks[TASK.id].banned == {"h0"}


def test_whoever_had_good_bytes_of_a_host_and_says_nothing_speaks_for_it() -> None:
    cluster = started(4)
    everything = tuple(range(PIECES))
    cluster.report(3, got=everything, parents=(("h0", 1000),))
    cluster.report(1, bad=BAD)
    assert not cluster.core.tasks[TASK.id].banned
    other = started(4)
    other.report(3, got=everything, parents=(("h1", 1000),))
    for number in (1, 2):
        other.report(number, bad=BAD)
    assert other.core.tasks[TASK.id].banned == {"h0"}, "h3 never needed anything of it"


def test_nobody_is_heard_about_a_host_that_it_was_not_sent_to() -> None:
    cluster = started(3)
    for number in (3, 4):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
        cluster.report(number, bad=BAD)
    cluster.report(1, bad=("h0", "h0", "h0", "h9", "h9"))
    cluster.report(0, bad=BAD)
    task = cluster.core.tasks[TASK.id]
    assert not task.banned
    assert task.complaints == {"h0": {"h1": 3}}


def test_what_the_origin_did_bans_nobody() -> None:
    """It changed its content under one version: h0 read the old bytes, h1 and h2 the new ones."""
    cluster = started(4)
    old, new = digest(b"old"), digest(b"new")
    cluster.report(0, got=(0, 1), origin=((0, old), (1, old)))
    for piece in (0, 1):
        cluster.report(1, got=(piece,), origin=((piece, new),))
        cluster.report(2, got=(piece,), origin=((piece, new),))
    assert cluster.core.tasks[TASK.id].record == {0: new, 1: new}
    # Some still hear the old word from h0, which has nobody to name.
    for number in (1, 2, 3):
        cluster.report(number, misled=(("h0", 0), ("h0", 1)))
    cluster.now += 1.1 * SILENT
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned
    assert not cluster.core.hosts["h0"].guilt(cluster.now)


def test_an_origin_that_never_agrees_with_itself_fails_the_task() -> None:
    cluster = started(3)
    for turn in range(30):
        if cluster.view()["phase"] == "ended":
            break
        cluster.report(turn % 2, got=(0,), origin=((0, digest(b"%d" % turn)),))
    assert cluster.view()["phase"] == "ended"
    assert {c.kind for c in cluster.sent(m.Cancel)} == {"source-changed"}
    assert not cluster.core.tasks[TASK.id].banned


# --- what a ban means ---------------------------------------------------------------------------


def banned(count: int = 4) -> Cluster:
    """A swarm that has just banned h0."""
    cluster = started(count)
    for number in range(1, count):
        cluster.report(number, bad=BAD)
    assert cluster.core.tasks[TASK.id].banned == {"h0"}
    return cluster


def test_a_banned_host_gets_nothing_more_and_its_output_fails() -> None:
    cluster = banned()
    (cancel,) = cluster.sent(m.Cancel, 0)
    assert (cancel.spec_id, cancel.kind) == ("s.0", "integrity")
    nodes = cluster.view()["nodes"]
    assert nodes["n0"]["state"] == "failed"  # type: ignore[index]
    assert nodes["n0"]["kind"] == "integrity"  # type: ignore[index]
    assert not cluster.report(0, grant_refused=True).grant
    for number in (1, 2, 3):
        cluster.end(number)
    assert cluster.view()["phase"] == "ended"


def test_holders_that_take_no_part_hear_of_a_ban() -> None:
    cluster = started(4)
    held = m.Held(TASK, b"\xff" * 12 + b"\x0f", b"".join(digest(b"%d" % i) for i in range(PIECES)))
    cluster.do(cluster.core.announce(m.Announce(host(4), (held,)), cluster.now))
    for number in (1, 2, 3):
        cluster.report(number, bad=BAD)
    assert [n.banned for n in cluster.sent(m.TaskUpdate, 4) if n.banned] == [("h0",)]


def test_whoever_comes_later_hears_who_is_banned() -> None:
    cluster = banned()
    cluster.do(cluster.core.announce(m.Announce(host(4)), cluster.now))
    cluster.submit([1, 4], "s.1")
    cluster.resolved("s.1")
    assert cluster.sent(m.Deliver, 4)[0].banned == ("h0",)
    assert "h0" not in {n.host.id for n in cluster.sent(m.Deliver, 4)[0].neighbours}


def test_a_host_that_was_banned_from_the_task_fails_again_at_once_and_is_forgiven_later() -> None:
    cluster = banned()
    for number in (1, 2, 3):
        cluster.end(number)
    cluster.submit([0, 1], "s.1")
    cluster.resolved("s.1")
    record = cluster.view("s.1")["nodes"]["n0"]  # type: ignore[index]
    assert (record["state"], record["kind"]) == ("failed", "integrity")
    assert len(cluster.sent(m.Deliver, 0)) == 1
    cluster.end(1, "s.1")
    cluster.now += 3600.0
    for number in range(4):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit([0, 1], "s.2")
    cluster.core.cluster.access.prove(TASK.id, cluster.core.specs["s.2"].fingerprint, cluster.now)
    cluster.resolved("s.2")
    assert len(cluster.sent(m.Deliver, 0)) == 2
    assert cluster.view("s.2")["nodes"]["n0"]["state"] == "running"  # type: ignore[index]


def test_where_the_only_host_that_reads_the_source_is_banned_all_fail() -> None:
    cluster = Cluster(host(i) for i in range(4))
    source = Source("file:///f", node="n0")
    spec = m.DistributionSpec("s.0", source, ("n1", "n2", "n3"))
    cluster.do(cluster.core.submit(spec, Credentials(), cluster.now))
    cluster.resolved()
    for number in (1, 2, 3):
        cluster.report(number, bad=BAD)
    assert cluster.view()["phase"] == "ended"
    assert {r["kind"] for r in cluster.view()["nodes"].values()} == {"integrity"}  # type: ignore[attr-defined]


# --- content without a strong version -----------------------------------------------------------


def weakly(count: int = 3, validator: Literal["weak", "none"] = "weak") -> Cluster:
    cluster = Cluster(host(i) for i in range(count))
    cluster.submit(range(count))
    cluster.found = msgspec.structs.replace(TASK, validator=validator)
    cluster.resolved()
    return cluster


@pytest.mark.parametrize("validator", ["weak", "none"])
def test_without_a_strong_version_two_digests_begin_the_content_anew(
    validator: Literal["weak", "none"],
) -> None:
    cluster = weakly(validator=validator)
    cluster.end(2)
    asked = [a.message for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    cluster.said.clear()
    cluster.report(0, got=(0,), origin=((0, digest(b"old")),))
    cluster.report(1, got=(0,), origin=((0, digest(b"new")),))
    again = [a.message for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    assert len(again) == 1
    assert again[0].generation, "what is read from now on is another task"
    assert again[0].generation != asked[0].generation
    assert again[0].nonce != asked[0].nonce
    assert {c.kind for c in cluster.sent(m.Cancel)} == {m.SUPERSEDED}
    assert not cluster.core.tasks[TASK.id].participants
    nodes = cluster.view()["nodes"]
    assert {r["state"] for r in nodes.values()} == {"waiting"}, "also who had it all"  # type: ignore[attr-defined]
    cluster.submit([0], "s.1")
    asked = [a.message for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    assert asked[-1].generation == again[0].generation, "and it stays one"


def test_without_a_strong_version_the_second_dispute_is_an_error() -> None:
    cluster = weakly()
    for turn in range(2):
        for number in (0, 1):
            cluster.report(number, got=(0,), origin=((0, digest(b"%d" % number)),))
        if not turn:
            cluster.core.cluster.access.prove(TASK.id, cluster.core.specs["s.0"].fingerprint, cluster.now)
            cluster.resolved()
    nodes: Any = cluster.view()["nodes"]
    assert {r["kind"] for r in nodes.values()} == {"source-changed"}
    assert all("replicas" in r["message"] for r in nodes.values())
    assert not cluster.core.tasks[TASK.id].banned


def test_without_a_strong_version_nobody_is_banned_for_another_word() -> None:
    cluster = weakly(5)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    for number in (3, 4):
        cluster.report(number, misled=(("h1", 0),))
    cluster.now += 1.1 * SILENT
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned
    assert not cluster.core.hosts["h1"].guilt(cluster.now)


def test_many_disputed_pieces_begin_the_content_anew_also_under_a_strong_version() -> None:
    cluster = started(3)
    for piece in range(4):
        for number in (0, 1):
            cluster.report(number, got=(piece,), origin=((piece, digest(b"%d" % number)),))
    assert not cluster.sent(m.Cancel)
    cluster.said.clear()
    for number in (0, 1):
        cluster.report(number, got=(4,), origin=((4, digest(b"%d" % number)),))
    assert {c.kind for c in cluster.sent(m.Cancel)} == {m.SUPERSEDED}
    (again,) = [a.message for a in cluster.said if isinstance(a, Ask) and isinstance(a.message, m.Resolve)]
    assert again.generation
