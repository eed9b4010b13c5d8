"""One leader at a time, and another when it is gone."""

from __future__ import annotations

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Lease
from dragonfly_ray.serve.leadership import Leadership


def test_one_leads_and_the_other_takes_over_when_it_lets_go(database: Database) -> None:
    first, second = (Leadership(database, renew=0.1) for _ in range(2))
    first.start()
    assert first.wait(30)
    second.start()
    try:
        assert not second.wait(0.5)
        first.stop()
        assert second.wait(30)
        assert not first.leading
    finally:
        second.stop()


def test_a_silent_leader_is_replaced(database: Database) -> None:
    first = Leadership(database, ttl=1.5, renew=3600)
    second = Leadership(database, ttl=1.5, renew=0.1)
    first.start()
    assert first.wait(30)
    second.start()
    try:
        assert second.wait(30)
        assert not first.leading
        first.stop()  # lets go of nothing that is not its own any more
        with database.read() as session:
            assert session.get_one(Lease, "leader").holder == second.holder
    finally:
        second.stop()
