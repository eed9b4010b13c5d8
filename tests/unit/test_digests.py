"""Digests of whole content: what may be asked for."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from dragonfly_ray.checksums import parse_digest as parse
from dragonfly_ray.errors import InvalidRequestError


@pytest.mark.parametrize(
    "text",
    [
        "shake_128:",
        "shake_256:",
        "SHAKE_128:00",
        "shake_128:" + "0" * 32,
        "crc32:00000000",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "g" * 64,
        ":" + "0" * 64,
        "",
        "blake3",
        "no\0algorithm:00",
        "\udcff:00",
        "md4:zz",
    ],
)
def test_a_digest_that_cannot_be_compared_is_refused_before_any_work(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha3_256", "blake2b", "md5"])
def test_algorithms_of_a_fixed_length_are_taken(algorithm: str) -> None:
    value = hashlib.new(algorithm, b"x").hexdigest()
    assert parse(f"{algorithm}:{value.upper()}") == (algorithm, value)
    assert parse(blake3(b"x").hexdigest())[0] == "sha256"
