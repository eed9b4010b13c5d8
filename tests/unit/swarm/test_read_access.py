"""Content that is held is given to those alone whom the origin lets read it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import Credentials
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.origin_queries import OriginQueries
from dragonfly_ray.scheduling.access_proofs import AccessProofs
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds, states
from tests.waiting import until

GOOD, BAD = Credentials(headers={"X-Api-Key": "good"}), Credentials(headers={"X-Api-Key": "bad"})
FILES = 60


def only_good(path: str, key: str, asked: str) -> bool:
    return key == "good"


@pytest.fixture
def folder() -> Iterator[FolderOrigin]:
    """60 files that are listed to anybody, and read by those with the good key."""
    with FolderOrigin({f"f{i:03}": os.urandom(i * 377 % 90_000 + 1) for i in range(FILES)}) as made:
        made.allowed = only_good
        yield made


@pytest.fixture
def file() -> Iterator[FolderOrigin]:
    """One file of a few pieces."""
    with FolderOrigin({"big": os.urandom(3_000_000)}) as made:
        made.allowed = only_good
        yield made


def questions(built: Swarm, kind: type[m.Message]) -> list[m.Message]:
    return [ask.message for ask in built.scheduler.asked if isinstance(ask.message, kind)]


def received(view: dict[str, Any], what: str) -> int:
    return sum(record[what] for record in view["nodes"].values())


def assert_folder(view: dict[str, Any], files: dict[str, bytes]) -> None:
    assert set(states(view).values()) == {"done"}, view
    for record in view["nodes"].values():
        assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files


def test_who_may_list_but_not_read_gets_nothing_that_is_held(
    folder: FolderOrigin, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    built = swarm(3)
    assert_folder(built.distribute(folder.url, "good.0", credentials=GOOD), folder.files)
    before = len(folder.keys)
    view = built.distribute(folder.url, "bad.0", credentials=BAD, dest=str(tmp_path / "out" / "{node}"))
    assert set(kinds(view).values()) == {"source-auth"}
    assert all(any(name in r["message"] for name in folder.files) for r in view["nodes"].values())
    assert not (tmp_path / "out").exists()
    assert len(folder.keys) == before
    assert view["task_id"] == "", "nothing by which to ask a peer"
    assert view["size"] is None
    # Nobody else is any worse for it.
    assert_folder(built.distribute(folder.url, "good.1", credentials=GOOD), folder.files)


def test_one_file_that_only_some_may_read_is_not_refused_to_be_stored_but_to_be_given(
    file: FolderOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(2)
    url = f"{file.url}big"
    # Its first byte is anybody's, as is the head of some public previews.
    file.allowed = lambda path, key, asked: key == "good" or asked == "bytes=0-0"
    assert set(states(built.distribute(url, "good.0", credentials=GOOD)).values()) == {"done"}
    view = built.distribute(url, "bad.0", credentials=BAD)
    assert set(kinds(view).values()) == {"source-auth"}


def test_who_may_read_gets_it_from_the_cache_after_a_little_of_each_file(
    folder: FolderOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(3)
    folder.allowed = None
    built.distribute(folder.url, "first.0", credentials=GOOD)
    before = len(folder.asked)
    view = built.distribute(folder.url, "second.0", credentials=Credentials(headers={"X-Api-Key": "other"}))
    assert_folder(view, folder.files)
    assert received(view, "bytes_origin") == received(view, "bytes_peers") == 0
    ranges = [asked for how, path, asked in folder.asked[before:] if how == "GET" and path]
    assert len(ranges) == FILES
    for asked in filter(None, ranges):
        start, _, end = asked.removeprefix("bytes=").partition("-")
        assert int(end) - int(start) < 1024
    # Whole, where a file has no more.
    assert ranges.count("") == sum(len(data) <= 1024 for data in folder.files.values())


def test_a_proof_is_kept_for_a_while_and_for_all_of_the_cluster(
    folder: FolderOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(3, settings=Settings(origin=OriginSettings(proof_ttl=100.0)))
    folder.allowed = None
    built.distribute(folder.url, "first.0", credentials=GOOD)
    assert not questions(built, m.Prove), "who has read it all has proved it by that"
    built.distribute(folder.url, "again.0", credentials=GOOD)
    assert not questions(built, m.Prove)
    other = Credentials(headers={"X-Api-Key": "other"})
    built.distribute(folder.url, "other.0", nodes=["n0"], credentials=other)
    assert len(questions(built, m.Prove)) == 1
    built.distribute(folder.url, "other.1", nodes=["n1", "n2"], credentials=other)
    assert len(questions(built, m.Prove)) == 1
    # Of the setting that counts when somebody asks.
    built.settings.origin.__dict__["proof_ttl"] = 0.0
    built.distribute(folder.url, "other.2", nodes=["n1", "n2"], credentials=other)
    assert len(questions(built, m.Prove)) == 2


def test_a_proof_ends_where_the_origin_refuses(folder: FolderOrigin, swarm: Callable[..., Swarm]) -> None:
    built = swarm(2, settings=Settings(origin=OriginSettings(proof_ttl=0.0)))
    assert_folder(built.distribute(folder.url, "a.0", credentials=GOOD), folder.files)
    folder.allowed = lambda path, key, asked: False
    view = built.distribute(folder.url, "b.0", credentials=GOOD)
    assert set(kinds(view).values()) == {"source-auth"}


def test_public_content_is_proved_without_credentials(
    folder: FolderOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(2)
    folder.allowed = None
    built.distribute(folder.url, "a.0", credentials=GOOD)
    assert_folder(built.distribute(folder.url, "b.0"), folder.files)
    folder.allowed = only_good
    assert_folder(built.distribute(folder.url, "c.0"), folder.files)  # proved a moment ago
    assert set(kinds(built.distribute(folder.url, "d.0", credentials=BAD)).values()) == {"source-auth"}


def test_small_content_is_read_anew_and_needs_no_other_proof(swarm: Callable[..., Swarm]) -> None:
    with FolderOrigin({"small": os.urandom(5000)}) as origin:
        origin.allowed = only_good
        built, url = swarm(2), f"{origin.url}small"
        assert set(states(built.distribute(url, "a.0", credentials=GOOD)).values()) == {"done"}
        assert set(states(built.distribute(url, "b.0", credentials=GOOD)).values()) == {"done"}
        assert set(kinds(built.distribute(url, "c.0", credentials=BAD)).values()) == {"source-auth"}
        assert not questions(built, m.Prove)


def test_files_are_sampled_only_where_a_setting_says_so(
    folder: FolderOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(2, settings=Settings(origin=OriginSettings(proof_sample=7)))
    folder.allowed = None
    built.distribute(folder.url, "a.0", credentials=GOOD)
    before = len(folder.asked)
    assert_folder(built.distribute(folder.url, "b.0"), folder.files)
    assert sum(how == "GET" and path != "" for how, path, _ in folder.asked[before:]) == 7


@pytest.mark.parametrize(("status", "kind"), [(401, "source-auth"), (404, "source-not-found"),
                                              (412, "source-changed")])  # fmt: skip
def test_what_the_origin_says_to_a_sample_ends_that_distribution_alone(
    folder: FolderOrigin, swarm: Callable[..., Swarm], status: int, kind: str
) -> None:
    built = swarm(3)
    folder.allowed = None
    built.distribute(folder.url, "a.0", credentials=GOOD)
    folder.before = lambda how, path: status if how == "GET" and path == "f033" else 0
    view = built.distribute(folder.url, "b.0")
    assert set(kinds(view).values()) == {kind}
    assert all("f033" in record["message"] for record in view["nodes"].values())
    folder.before = None
    assert_folder(built.distribute(folder.url, "c.0", credentials=GOOD), folder.files)


def test_other_bytes_under_the_version_that_is_held_are_no_proof(swarm: Callable[..., Swarm]) -> None:
    content = os.urandom(3_000_000)
    with ScriptedOrigin(Behaviour(content)) as origin:
        built = swarm(3)
        assert set(states(built.distribute(origin.url, "a.0", credentials=GOOD)).values()) == {"done"}
        origin.behaviour.content = other = os.urandom(len(content))
        view = built.distribute(origin.url, "b.0")
        assert_everywhere(view, other, 3)
        assert received(view, "bytes_origin") == len(other), (
            "what the origin gives it, and nothing of what is held"
        )
        assert_everywhere(built.distribute(origin.url, "c.0", credentials=GOOD), content, 3)


def test_who_reads_samples_need_not_hold_anything(folder: FolderOrigin, swarm: Callable[..., Swarm]) -> None:
    built = swarm(3)
    folder.allowed = None
    built.distribute(folder.url, "a.0", nodes=["n0", "n1"], credentials=GOOD)
    view = built.distribute(folder.url, "b.0", nodes=["n2"])
    assert_folder(view, folder.files)
    assert received(view, "bytes_origin") == 0
    assert len(questions(built, m.CompareSamples)) == 1
    # … and is found out where it is not what the others have.
    (task,) = built.peers["n2"].store.tasks()
    built.peers["n2"].evict(task.task.id)
    for node in ("n0", "n1"):
        peer = built.peers[node]
        peer.ask = lambda ask, peer=peer: _spoiled(peer, ask)  # type: ignore[method-assign, misc]
    view = built.distribute(
        folder.url, "c.0", nodes=["n2"], credentials=Credentials(headers={"X-Api-Key": "c"})
    )
    assert_folder(view, folder.files)
    assert received(view, "bytes_origin") == sum(map(len, folder.files.values())), "nothing of what is held"


def _spoiled(peer: PeerNode, ask: m.Message) -> m.Message:
    if isinstance(ask, m.CompareSamples):
        return m.SamplesCompared(ask.host, ask.task_id, wrong=(ask.samples[0].entry,))
    return PeerNode.ask(peer, ask)


def test_the_samples_of_a_large_folder_are_read_by_several_peers(swarm: Callable[..., Swarm]) -> None:
    with FolderOrigin({f"f{i:03}": os.urandom(i * 37 % 9000 + 1) for i in range(400)}) as many:
        built = swarm(4)
        built.distribute(many.url, "a.0", credentials=GOOD)
        before = len(many.asked)
        looks: dict[str, int] = {}
        for node, peer in built.peers.items():

            def look(ask: m.Stat, node: str = node, peer: PeerNode = peer) -> m.StatReply:
                looks[node] = looks.get(node, 0) + len(ask.spans)
                return OriginQueries.look(peer.queries, ask)

            peer.queries.look = look  # type: ignore[method-assign]
        assert_folder(built.distribute(many.url, "b.0"), many.files)
        assert 0 < sum(looks.values()) < 400, "the prover reads, too"
        asked = [path for how, path, _ in many.asked[before:] if how == "GET" and path]
        assert sorted(asked) == sorted(many.files)


def test_an_origin_that_asks_for_patience_gets_it(folder: FolderOrigin, swarm: Callable[..., Swarm]) -> None:
    built = swarm(2)
    folder.allowed = None
    built.distribute(folder.url, "a.0", credentials=GOOD)
    complained: list[str] = []

    def once(how: str, path: str) -> int:
        if how == "GET" and path == "f020" and not complained:
            complained.append(path)
            return 429
        return 0

    folder.before = once
    assert_folder(built.distribute(folder.url, "b.0"), folder.files)
    assert complained
    until(lambda: built.scheduler.heard["Throttled"])
    assert built.scheduler.heard["Throttled"] == 1


def test_a_cancel_ends_the_proof(folder: FolderOrigin, swarm: Callable[..., Swarm]) -> None:
    built = swarm(2)
    folder.allowed = None
    built.distribute(folder.url, "a.0", credentials=GOOD)
    asked, go_on = threading.Event(), threading.Event()

    def slow(how: str, path: str) -> int:
        if how == "GET" and path:
            asked.set()
            go_on.wait(30)
        return 0

    folder.before = slow
    try:
        built.submit(folder.url, "b.0")
        assert asked.wait(20)
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.cancel("b.0", 0.0))
        assert set(kinds(built.wait("b.0")).values()) == {"cancelled"}
    finally:
        go_on.set()
    # What was under way at the peer has ended, too.
    folder.before = None
    assert_folder(built.distribute(folder.url, "c.0", credentials=GOOD), folder.files)


@pytest.mark.parametrize("may", [True, False])
def test_a_scheduler_that_forgot_who_holds_what_gives_nothing_away(
    folder: FolderOrigin, swarm: Callable[..., Swarm], may: bool
) -> None:
    built = swarm(3)
    assert_folder(built.distribute(folder.url, "good.0", credentials=GOOD), folder.files)
    with built.scheduler.changed:
        built.scheduler.core.tasks.clear()
        built.scheduler.core.cluster.access = AccessProofs()
    before = len(folder.keys)
    view = built.distribute(folder.url, "next.0", credentials=GOOD if may else BAD)
    if may:
        assert_folder(view, folder.files)
        assert received(view, "bytes_origin") == 0
    else:
        assert set(kinds(view).values()) == {"source-auth"}
        assert len(folder.keys) == before


def test_one_whose_credentials_fail_half_way_does_not_end_the_others(swarm: Callable[..., Swarm]) -> None:
    with FolderOrigin({"big": os.urandom(8_000_000)}) as origin:
        revoked, asked = threading.Event(), threading.Event()

        def allowed(path: str, key: str, asked_for: str) -> bool:
            # It gives first bytes and samples only, until one of the keys is taken back.
            first, _, last = asked_for.removeprefix("bytes=").partition("-")
            if int(last or 1 << 40) - int(first or 0) < 1024:
                return not (revoked.is_set() and key == "bad")
            asked.set()
            revoked.wait(30)
            return key != "bad"

        origin.allowed = allowed
        built, url = swarm(2), f"{origin.url}big"
        built.submit(url, "bad.0", credentials=BAD)
        assert asked.wait(20)
        built.submit(url, "good.0", credentials=GOOD)
        with built.scheduler.changed:
            built.scheduler.changed.wait_for(
                lambda: built.scheduler.core.specs["good.0"].phase == "running", 20
            )
        revoked.set()
        assert set(kinds(built.wait("bad.0")).values()) == {"source-auth"}
        view = built.wait("good.0")
        assert set(states(view).values()) == {"done"}, view
        assert Path(view["nodes"]["n0"]["path"]).read_bytes() == origin.files["big"]
