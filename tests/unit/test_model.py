"""How content is cut, and how its names follow from it."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly_ray import errors
from dragonfly_ray.model import SHORT_LEAF, USUAL_LEAF, Entry, Manifest, PieceTable, Source, leaf_size

SIZES = st.lists(st.integers(0, 3 * USUAL_LEAF), max_size=30)


@given(SIZES)
def test_pieces_and_their_segments_cover_the_stream_once(sizes: list[int]) -> None:
    table = PieceTable(sizes, USUAL_LEAF)
    assert sum(piece.length for piece in table) == sum(sizes) == table.size
    assert all(0 < piece.length <= USUAL_LEAF for piece in table)
    filled = [0] * len(sizes)
    for piece in table:
        segments = table.segments(piece.index)
        assert sum(s.length for s in segments) == piece.length
        for segment in segments:
            assert segment.offset == filled[segment.entry]
            filled[segment.entry] += segment.length
    assert filled == sizes


@given(SIZES)
def test_a_small_file_is_one_request(sizes: list[int]) -> None:
    table = PieceTable(sizes, USUAL_LEAF)
    for entry, size in enumerate(sizes):
        if 0 < size <= USUAL_LEAF:
            assert len(table.of_entry(entry)) == 1


@given(SIZES, st.integers(0, 10 * USUAL_LEAF), st.integers(1, 10 * USUAL_LEAF))
def test_covering_finds_exactly_the_pieces_of_a_range(sizes: list[int], offset: int, length: int) -> None:
    table = PieceTable(sizes, USUAL_LEAF)
    wanted = [p.index for p in table if p.offset < offset + length and offset < p.offset + p.length]
    assert list(table.covering(offset, length)) == wanted


@pytest.mark.parametrize(
    ("size", "leaf"), [(0, USUAL_LEAF), (256 << 20, USUAL_LEAF), (1 << 30, 1 << 20), (1 << 40, 16 << 20)]
)
def test_leaf_size_follows_from_the_size(size: int, leaf: int) -> None:
    assert leaf_size(size) == leaf


@pytest.mark.parametrize(
    ("size", "leaf"), [(0, SHORT_LEAF), (64 << 20, SHORT_LEAF), (65 << 20, USUAL_LEAF), (1 << 30, 1 << 20)]
)
def test_a_single_small_file_has_shorter_pieces(size: int, leaf: int) -> None:
    assert Manifest((Entry("", size),), directory=False).leaf == leaf
    assert Manifest((Entry("f", size),), directory=True).leaf == leaf_size(size)


@pytest.mark.parametrize(
    ("files", "size", "leaf"),
    [
        (10_000, 4096, USUAL_LEAF),
        (100, 200_000, USUAL_LEAF),
        (3000, 700_000, 4 << 20),
        (30_000, 70_000, 2 << 20),
        (300, 7_000_000, 2 << 20),
        (20_000, 5_000_000, 16 << 20),
    ],
)
def test_a_piece_holds_several_files_or_a_part_of_one(files: int, size: int, leaf: int) -> None:
    manifest = Manifest(tuple(Entry(f"{n}", size) for n in range(files)), directory=True)
    table = PieceTable.of(manifest)
    assert table.leaf == manifest.leaf == leaf
    assert table.size == files * size
    assert all(piece.length <= leaf for piece in table)


def test_equal_urls_are_one_source_and_filtered_parameters_do_not_count() -> None:
    plain = Source("http://Host:80/a%20b?x=1&y=2")
    assert plain.id == Source("http://user:pw@host/a b?y=2&x=1#f").id
    assert plain.id != Source("http://host/a b?y=3&x=1").id
    assert (
        Source("http://h/a?sig=1", filtered_query_params=("sig",)).id
        == Source("http://h/a?sig=2", filtered_query_params=("sig",)).id
    )


@pytest.mark.parametrize("cls", errors.BY_KIND.values())
def test_every_error_pickles_and_prints_one_line(cls: type[errors.DragonflyError]) -> None:
    error = cls("host a: no such file; check the URL", retry_after=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error) == "host a: no such file; check the URL"
    assert again.details == error.details
