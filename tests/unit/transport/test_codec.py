"""The frames of the piece protocol."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_ray.errors import ProtocolError
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import LEAST_VERSION, VERSION, Capabilities

_index = st.integers(0, 2**32 - 1)
_digest = st.binary(min_size=32, max_size=32)
_items = st.lists(st.tuples(_index, _digest), max_size=5).map(tuple)
_proof = st.binary(min_size=64, max_size=64)
_frames = st.one_of(
    st.builds(
        p.Challenge, _digest, st.builds(Capabilities, st.just(VERSION), st.just(LEAST_VERSION), _index)
    ),
    st.builds(p.Hello, st.text(max_size=70), st.text(max_size=40), st.binary(max_size=300), _digest, _proof),
    st.builds(p.Accepted, _proof),
    st.builds(p.Welcome, st.binary(max_size=40), _items),
    st.builds(p.Welcome, st.binary(min_size=1, max_size=40), _items, st.integers(0, 8)),
    st.builds(p.Digests, _items),
    st.builds(p.Refused, st.text(max_size=40), st.sampled_from(p.Refusal)),
    st.builds(p.Request, _index, _index),
    st.builds(p.Cancel, _index, _index),
    st.builds(p.Busy, _index, _index),
    st.builds(p.Have, _items),
    st.builds(p.Corrupt, _index),
    st.builds(p.Missing, _index),
    st.builds(p.ManifestRequest, st.integers(0, 2**63), _index),
    st.builds(p.ManifestData, st.integers(0, 2**63), st.binary(max_size=100)),
    st.builds(p.DataHeader, _index, st.integers(0, p.MAX_PIECE), _digest),
    st.builds(p.DataHeader, _index, st.integers(0, p.MAX_PIECE), _digest, st.integers(0, 255)),
    st.builds(p.Unsupported, st.integers(0, 255)),
    st.just(p.Ping()),
    st.just(p.Pong()),
)


@settings(max_examples=300)
@given(st.lists(_frames, max_size=6), st.data())
def test_frames_survive_any_cutting_of_the_stream(frames: list[p.Frame], data: st.DataObject) -> None:
    stream = b"".join(p.encode(frame) for frame in frames)
    parser, found, at = p.Parser(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += parser.feed(stream[at : at + step])
        at += step
    assert found == frames


@settings(max_examples=1000)
@given(st.binary(max_size=400))
def test_hostile_bytes_only_ever_raise_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        p.Parser().feed(data)


@settings(max_examples=500)
@given(st.integers(0, 18), st.binary(max_size=200))
def test_hostile_bodies_only_ever_raise_a_protocol_error(kind: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        p.Parser().feed(p.HEADER.pack(kind, 0, 0, len(body)) + body)


@pytest.mark.parametrize("header", [(200, 0, 0, 5), (0, 0, 0, 0), (13, 1, 0, 0), (13, 0, 1, 0)])
def test_a_frame_that_is_not_known_is_refused_by_its_header(header: tuple[int, int, int, int]) -> None:
    with pytest.raises(ProtocolError, match="unknown frame type"):
        p.Parser().feed(p.HEADER.pack(*header))


@pytest.mark.parametrize(
    ("kind", "length"), [(4, 7), (4, 9), (10, 42), (12, 0), (13, 1), (3, 514), (9, p.MANIFEST_CHUNK + 9)]
)
def test_a_length_that_a_frame_cannot_have_is_refused_by_its_header(kind: int, length: int) -> None:
    with pytest.raises(ProtocolError, match=f"invalid length {length}$"):
        p.Parser().feed(p.HEADER.pack(kind, 0, 0, length))


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError):
        p.Parser().feed(p.HEADER.pack(6, 0, 0, p.MAX_FRAME + 1))
