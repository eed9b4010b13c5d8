"""Which parameters of a signed URL are no part of what it names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dragonfly_ray.model import Credentials
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.urls import canonical, redacted
from tests import presigning

PLAIN = "https://bucket.example.com/set/a.bin"
SIGNERS: dict[str, tuple[Callable[[int], str], Callable[[int], str]]] = {
    "s3-v4": (
        lambda n: presigning.s3("https://h", f"k{n}", expires=600 + n),
        lambda n: presigning.s3("https://h", f"k{n}", VersionId="v2"),
    ),
    "s3-v2": (
        lambda n: presigning.s3("https://h", f"k{n}", version="s3", expires=600 + n),
        lambda n: presigning.s3("https://h", f"k{n}", version="s3", VersionId="v2"),
    ),
    "s3-response": (
        lambda n: presigning.s3("https://h", f"k{n}", ResponseContentType="text/plain"),
        lambda n: presigning.s3("https://h", f"k{n}", ResponseContentType="text/html"),
    ),
    "gcs-v4": (
        lambda n: presigning.gcs(f"a{n}", expires=600 + n),
        lambda n: presigning.gcs(f"a{n}", generation=7),
    ),
    "gcs-v2": (
        lambda n: presigning.gcs(f"a{n}", version="v2", expires=600 + n),
        lambda n: presigning.gcs(f"a{n}", version="v2", generation=7),
    ),
    "azure": (
        lambda n: presigning.azure("https://h", expires=600 + n, ip=f"10.0.0.{n}"),
        lambda n: presigning.azure("https://h", expires=600 + n, name="b.bin"),
    ),
    "azure-headers": (
        lambda n: presigning.azure("https://h", expires=600 + n, content_type="text/plain"),
        lambda n: presigning.azure("https://h", expires=600 + n, content_type="text/html"),
    ),
    "azure-snapshot": (
        lambda n: presigning.azure("https://h", expires=600 + n) + "&snapshot=2026-01-01",
        lambda n: presigning.azure("https://h", expires=600 + n) + "&snapshot=2026-01-02",
    ),
    "oss-v1": (
        lambda n: presigning.keyed(PLAIN, "OSSAccessKeyId", expires=n, **{"security-token": f"t{n}"}),
        lambda n: presigning.keyed(f"{PLAIN}?x-oss-process=image/resize", "OSSAccessKeyId", expires=n),
    ),
    "oss-v4": (
        lambda n: presigning.oss4(PLAIN),
        lambda n: presigning.oss4(f"{PLAIN}?versionId=2"),
    ),
    "obs": (
        lambda n: presigning.keyed(PLAIN, "AccessKeyId", expires=n, **{"x-obs-security-token": f"t{n}"}),
        lambda n: presigning.keyed(f"{PLAIN}?versionId=2", "AccessKeyId", expires=n),
    ),
    "cos": (lambda n: presigning.cos(PLAIN), lambda n: presigning.cos(f"{PLAIN}?versionId=2")),
    "cloudfront": (
        lambda n: presigning.keyed(PLAIN, "Key-Pair-Id", expires=n, Policy=f"p{n}"),
        lambda n: presigning.keyed(f"{PLAIN}?page=2", "Key-Pair-Id", expires=n),
    ),
    "in a chain": (
        lambda n: f"zip://in.txt::{presigning.s3('https://h', f'k{n}', expires=600 + n)}",
        lambda n: f"zip://other.txt::{presigning.s3('https://h', f'k{n}', expires=600 + n)}",
    ),
}  # fmt: skip


def id_of(url: str, *filters: str) -> str:
    return source_of(url, Credentials(), filtered_query_params=filters).id


@pytest.mark.parametrize("kind", SIGNERS)
def test_two_signatures_of_one_object_are_one_source(kind: str) -> None:
    same, other = SIGNERS[kind]
    assert same(1) != same(2)
    assert id_of(same(1)) == id_of(same(2))
    assert id_of(same(1)) != id_of(other(1)), "what chooses the content stays"
    assert id_of(other(1)) == id_of(other(2))
    signed = same(1)
    assert source_of(signed, Credentials()).url == signed, "the request keeps all of it"


@pytest.mark.parametrize("kind", SIGNERS)
def test_nothing_of_a_signature_is_shown(kind: str) -> None:
    url = SIGNERS[kind][0](1)
    shown = redacted(url)
    for field in url.partition("?")[2].split("&"):
        value = field.partition("=")[2]
        assert len(value) < 4 or value not in shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Expires=1", "Expires=2"),
        ("Signature=a", "Signature=b"),
        ("AccessKeyId=a", "AccessKeyId=b"),
        ("Policy=a&Signature=x", "Policy=b&Signature=x"),
        ("sp=1", "sp=2"),
        ("sv=1&se=1", "sv=1&se=2"),
        ("sig=1&sr=1", "sig=1&sr=2"),
        ("x-amz-signature=a", "x-amz-signature=b"),
        ("OSSAccessKeyId=a&Signature=s&expires=1", "OSSAccessKeyId=a&Signature=s&expires=2"),
        ("X-Amz-Signature=a&Version=1", "X-Amz-Signature=a&Version=2"),
    ],
)
def test_names_that_may_mean_anything_count_in_a_whole_signature_only(one: str, other: str) -> None:
    assert id_of(f"{PLAIN}?{one}") != id_of(f"{PLAIN}?{other}")


def test_a_path_that_looks_like_a_chain_is_a_path() -> None:
    one, other = (f"/data/a::https://h/b?X-Amz-Signature={n}" for n in "12")
    assert canonical(one) != canonical(other)
    assert canonical(f"file://{one}") != canonical(f"file://{other}")


def test_a_callers_own_filter_is_added_to_them() -> None:
    one, other = (f"{presigning.cos(PLAIN)}&request={n}" for n in "12")
    assert id_of(one) != id_of(other)
    assert id_of(one, "request") == id_of(other, "request")
    assert id_of(one, "request") != id_of(one), "what another left out may have chosen the content"
    assert id_of(one, "q-signature", "q-ak") == id_of(one), "that is left out anyway"


def test_a_filter_of_a_name_that_may_mean_anything_is_told_where_it_is_no_signature() -> None:
    assert id_of(f"{PLAIN}?Expires=1", "Expires") != id_of(PLAIN)
    signed = presigning.keyed(PLAIN, "OSSAccessKeyId")
    assert id_of(signed, "Expires") == id_of(signed) == id_of(PLAIN)
