"""Content of few pieces is over after few rounds by the scheduler: each costs more than a piece does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import SchedulerSettings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.model import SHORT_LEAF
from dragonfly_ray.peer.origin_workers import OriginWorkers
from dragonfly_ray.sources import Reader
from tests.nginx import Nginx
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, assert_everywhere, patient

HOSTS = 4
RARELY = patient().model_copy(update={"scheduler": SchedulerSettings(report_interval=60.0)})
"""No report is made for the time that has passed, but as a sign of life on a slow machine."""


def rounds(swarm: Swarm) -> int:
    return sum(swarm.scheduler.heard.values())


@pytest.mark.parametrize("mib", [1, 4])
def test_small_content_takes_two_messages_of_each_host(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, mib: int
) -> None:
    small = content[: mib * MIB]
    (origin.root / "small").write_bytes(small)
    built = swarm(HOSTS, settings=RARELY)
    announced = rounds(built)
    view = built.distribute(f"{origin.url}/small")
    assert_everywhere(view, small, HOSTS)
    heard = built.scheduler.heard
    assert heard["Ended"] == HOSTS
    # One question for the record and one outcome each; some ask again where the machine runs them at different times.
    assert rounds(built) - announced <= 4 * HOSTS, heard
    leases = [d for d in built.scheduler.core.decisions.recent() if d.kind == "lease"]
    # Later ones are of what slow hosts have given back.
    assert len({d.host for d in leases[:HOSTS]}) == HOSTS, "one lease a host"
    assert sum(len(d.choice) for d in leases[:HOSTS]) == mib * MIB // SHORT_LEAF, "all of it"
    assert sum(n["bytes_origin"] for n in view["nodes"].values()) == mib * MIB


def test_what_was_read_is_told_with_the_question_for_the_record(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    (origin.root / "small").write_bytes(content[:MIB])
    built = swarm(1, settings=RARELY)
    assert_everywhere(built.distribute(f"{origin.url}/small"), content[:MIB], 1)
    assert built.scheduler.heard["Verify"] == 1
    assert built.scheduler.heard["Report"] == 0


@pytest.mark.parametrize("reached", [False, True], ids=["question lost", "answer lost"])
def test_what_a_lost_question_told_is_told_again(
    origin: Nginx,
    swarm: Callable[..., Swarm],
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    reached: bool,
) -> None:
    (origin.root / "small").write_bytes(content[:MIB])
    built = swarm(2, settings=RARELY)
    call, lost = built.scheduler.call, list[m.Verify]()

    def lossy(message: m.Message) -> m.Message | None:
        if isinstance(message, m.Verify) and message.report is not None and len(lost) < 2:
            lost.append(message)
            if reached:
                call(message)
            raise ClusterError("not reached")
        return call(message)

    monkeypatch.setattr(built.scheduler, "call", lossy)
    view = built.distribute(f"{origin.url}/small")
    assert_everywhere(view, content[:MIB], 2)
    assert lost
    assert sum(n["bytes_origin"] for n in view["nodes"].values()) == MIB


def test_a_host_that_reads_slowly_gives_back_what_it_has_not_begun(
    swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its share of a small file was leased to it at once: eight pieces, of which it would read one in a second."""
    small, begin, pieces = content[: 4 * MIB], OriginWorkers._open, 4 * MIB // SHORT_LEAF
    with ScriptedOrigin(Behaviour(small)) as quick, ScriptedOrigin(Behaviour(small, pace=SHORT_LEAF)) as slow:

        def elsewhere(self: OriginWorkers) -> Reader:
            access = self._access()
            if self._engine.context.node_name == "n0" and access.spec.source.url != slow.url:
                source = msgspec.structs.replace(access.spec.source, url=slow.url)
                spec = msgspec.structs.replace(access.spec, source=source)
                access = msgspec.structs.replace(access, spec=spec)
                self._access = lambda: access
            return begin(self)

        monkeypatch.setattr(OriginWorkers, "_open", elsewhere)
        built = swarm(HOSTS)
        view = built.distribute(quick.url)
        assert_everywhere(view, small, HOSTS)
        first = next(d for d in built.scheduler.core.decisions.recent() if d.kind == "lease")
        assert len(first.choice) == pieces // HOSTS
        read = view["nodes"]["n0"]["bytes_origin"] // SHORT_LEAF
        assert read <= pieces // HOSTS // 2, "others read the rest"


def test_who_fed_whom_comes_with_the_outcome(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    (origin.root / "small").write_bytes(content[:MIB])
    built = swarm(3)
    view = built.distribute(f"{origin.url}/small", dest=str(tmp_path / "{node}"))
    (task,) = built.scheduler.core.tasks
    fed = sum(edge["bytes"] for edge in built.scheduler.core.edges(task))
    assert fed == sum(n["bytes_peers"] for n in view["nodes"].values()) == 2 * MIB
