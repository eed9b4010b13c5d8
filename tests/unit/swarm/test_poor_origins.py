"""Origins that are poor, busy, away, or do not agree with themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings, Settings
from tests.nginx import Nginx
from tests.origins import Behaviour, BusyOnce, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import SIZE, assert_everywhere, kinds, states
from tests.waiting import until


@pytest.mark.parametrize("behaviour", [
    Behaviour(ranges=False), Behaviour(ranges=False, length=False), Behaviour(etag=""),
], ids=["no ranges", "no length", "no version"])  # fmt: skip
def test_a_poor_origin_is_shared_by_all(
    swarm: Callable[..., Swarm], content: bytes, behaviour: Behaviour
) -> None:
    behaviour.content = content
    with ScriptedOrigin(behaviour) as poor:
        view = swarm(3).distribute(poor.url)
        assert_everywhere(view, content, 3)
        bodies = [r for r in poor.requests if r[2] != "bytes=0-0"]
        if not behaviour.ranges:
            assert len(bodies) <= 1, "one stream, shared by all"


def test_content_that_changes_is_never_mixed(swarm: Callable[..., Swarm], content: bytes) -> None:
    behaviour = Behaviour(content)
    other = content[::-1]

    def change(number: int) -> int:
        if number == 6:
            behaviour.content, behaviour.etag = other, '"v2"'
        return 0

    behaviour.before = change
    with ScriptedOrigin(behaviour) as fickle:
        view = swarm(3).distribute(fickle.url)
        assert_everywhere(view, other, 3)


@pytest.mark.parametrize("ttl", [0.0, 3600.0])
def test_content_without_a_version_counts_as_unchanged_for_a_while(
    swarm: Callable[..., Swarm], content: bytes, ttl: float
) -> None:
    other = content[::-1]
    with ScriptedOrigin(Behaviour(content, etag="")) as silent:
        built = swarm(2, settings=Settings(origin=OriginSettings(unversioned_ttl=ttl)))
        assert_everywhere(built.distribute(silent.url, "a.0"), content, 2)
        silent.behaviour.content = other
        before = len(silent.requests)
        view = built.distribute(silent.url, "b.0")
        assert_everywhere(view, other if ttl == 0.0 else content, 2)
        if ttl:
            assert len(silent.requests) == before + 1, "a look at its length, and no more"


@pytest.mark.parametrize("replicas", [2, 1_000_000])
def test_replicas_that_do_not_agree_end_in_one_clear_error_or_in_one_version(
    swarm: Callable[..., Swarm], content: bytes, replicas: int
) -> None:
    """Each answer comes from the next replica, and each replica has content of its own."""
    behaviour = Behaviour(content)

    def turn(number: int) -> int:
        which = number % replicas
        behaviour.etag, behaviour.content = f'"r{which}"', content[which:] + content[:which]
        return 0

    behaviour.before = turn
    with ScriptedOrigin(behaviour) as fickle:
        view = swarm(3).distribute(fickle.url)
        if set(states(view).values()) == {"done"}:
            assert replicas == 2
            found = {Path(record["path"]).read_bytes() for record in view["nodes"].values()}
            assert found in ({content}, {content[1:] + content[:1]})
        else:
            assert set(kinds(view).values()) == {"source-changed"}
            assert all("replicas" in record["message"] for record in view["nodes"].values())
        resolves = [asked for _, _, asked in fickle.requests if asked == "bytes=0-0"]
        assert len(resolves) <= 2


def test_one_busy_answer_silences_every_node(swarm: Callable[..., Swarm], content: bytes) -> None:
    busy = BusyOnce(content)
    with ScriptedOrigin(busy.behaviour) as origin:
        assert_everywhere(swarm(4).distribute(origin.url), content, 4)
        busy.assert_left_alone(origin, connections=4 * OriginSettings().connections)


@pytest.mark.parametrize(("status", "kind"), [(403, "source-auth"), (404, "source-not-found")])
def test_a_refusal_in_the_middle_ends_it_everywhere(
    swarm: Callable[..., Swarm], content: bytes, status: int, kind: str
) -> None:
    behaviour = Behaviour(content)
    behaviour.before = lambda number: status if number > 5 else 0
    with ScriptedOrigin(behaviour) as refusing:
        view = swarm(3).distribute(refusing.url)
        assert set(kinds(view).values()) == {kind}


def test_an_origin_that_is_away_for_a_while(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 2m;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: origin.sent("/big") > SIZE // 8)
    origin.stop()
    restart = threading.Timer(1.5, origin.start, [""])
    restart.start()
    assert_everywhere(built.wait(), content, 3)
    restart.join()


def test_an_origin_that_never_comes_back(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    origin.restart("limit_rate 1m;")
    built = swarm(3, settings=Settings(origin=OriginSettings(give_up=2.0)))
    built.submit(f"{origin.url}/big")
    until(lambda: origin.sent("/big") > SIZE // 10)
    origin.stop()
    view = built.wait()
    assert set(kinds(view).values()) == {"source-unreachable"}
