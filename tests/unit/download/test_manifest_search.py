"""From whom a manifest is fetched."""

from __future__ import annotations

from dragonfly_ray.messages import Neighbour
from dragonfly_ray.model import Host
from dragonfly_ray.scheduling.download.manifest_search import (
    FIRST_PATIENCE_S,
    PATIENCE_GROWTH,
    ManifestSearch,
)


def neighbour(name: str, *, manifest: bool = True) -> Neighbour:
    return Neighbour(Host(name, name, (), name), manifest=manifest)


def test_all_who_have_it_are_asked_in_turn() -> None:
    search = ManifestSearch()
    known = [neighbour("a"), neighbour("b", manifest=False), neighbour("c")]
    for _ in range(2):
        assert [each.host.id for each in search.round(known)] == ["a", "c"]


def test_who_trickles_is_left_for_another_and_not_so_soon_the_next_time() -> None:
    search = ManifestSearch()
    both = [neighbour("a"), neighbour("b")]
    search.round(both)
    assert not search.too_slow(FIRST_PATIENCE_S)
    assert search.too_slow(FIRST_PATIENCE_S + 1)
    search.round(both)
    assert not search.too_slow(FIRST_PATIENCE_S * PATIENCE_GROWTH)
    assert search.too_slow(FIRST_PATIENCE_S * PATIENCE_GROWTH + 1)


def test_who_alone_has_it_may_take_any_time() -> None:
    search = ManifestSearch()
    search.round([neighbour("a"), neighbour("b", manifest=False)])
    assert not search.too_slow(1e9)
