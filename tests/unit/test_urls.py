"""URLs as names and as text for people."""

from __future__ import annotations

import pytest

from dragonfly_ray.urls import basename, canonical, redacted

RESERVED = ":/?#[]@!$&'()*+,;="
"""RFC 3986: an escape of one of these is another character than itself."""
SECRETS = [
    "https://host/a?hunter2",
    "https://host/a?x=1&hunter2",
    "https://host/a?x=1;hunter2",
    "https://host/a?=hunter2",
    "https://host/a#hunter2",
    "https://host/a;hunter2/b",
    "https://host/a;session=hunter2",
    "https://user:hunter2@host/a",
    "https://hunter2@host/a",
    "https://user:p@hunter2@host/a",
    "https://user:hunter2/odd@host/a",
    "https://user:hunter2?odd@host/a",
    "https://user:hunter2#odd@host/a",
    "https://user:hunter2%2F%40@host/a",
    "https:user:hunter2@host/a",
    "host/a?hunter2",
    "user:hunter2@host/a",
    "https://host/proxy/http://user:hunter2@inner/a",
    "simplecache::https://user:hunter2@host/a",
    "zip://inner.txt::https://user:hunter2@host/a.zip?sig=hunter2",
    "zip://inner.txt::simplecache::sftp://user:hunter2@host/a.zip",
    "sftp://user:hunter2@host/a",
    "s3://bucket/key?versionId=hunter2",
    "https://[::1/hunter2",
]


@pytest.mark.parametrize("url", SECRETS)
def test_what_is_shown_of_a_url_holds_no_secret(url: str) -> None:
    shown = redacted(url)
    assert "hunter2" not in shown
    assert redacted(shown) == shown, "what is shown may be shown again"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@host:8080/a/b.bin?x=1&y=&z", "https://host:8080/a/b.bin?x=***&y=***&***"),
        ("https://host/@scope/pkg/-/a@1.tgz", "https://host/@scope/pkg/-/a@1.tgz"),
        ("https://[2001:db8::1]:8443/a::b", "https://[2001:db8::1]:8443/a::b"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://host/a;v=1/b;c", "https://host/a;v=***/b;***"),
        ("file:///data/a b", "file:///data/a b"),
        ("/data/a@b:c", "/data/a@b:c"),
        ("zip://a.txt::https://host/b.zip", "zip://a.txt::https://host/b.zip"),
    ],
)
def test_the_rest_of_a_url_is_shown_as_it_is(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h/a%2Fb", "http://h/a/b"),
        ("http://h/a%252Fb", "http://h/a%2Fb"),
        ("http://h/%ff", "http://h/%fe"),
        ("http://h/a%3Fb", "http://h/a?b"),
        ("http://h/a%23b", "http://h/a"),
        ("http://h/a%25b", "http://h/a%2525b"),
        ("http://h:81/a", "http://h/a"),
        ("http://h/a?x=%ff", "http://h/a?x=%fe"),
        ("http://h/a?x=1&x=2", "http://h/a?x=2&x=1"),
        ("https://h/a", "http://h/a"),
        ("http://h/g%2Fp/raw.bin", "http://h/g/p/raw.bin"),
        ("http://h/g%2fp/raw.bin", "http://h/g/p/raw.bin"),
        ("http://h/a%5Cb", "http://h/a/b"),
        *((f"http://h/a%{ord(c):02X}b", f"http://h/a{c}b") for c in RESERVED),
        *((f"http://h/a?x=a%{ord(c):02X}b", f"http://h/a?x=a{c}b") for c in RESERVED),
        ("http://h/a%2541", "http://h/aA"),
        ("http://h/a%20b", "http://h/a+b"),
        ("http://h/a?x=a%20b", "http://h/a?x=a+b"),
        ("http://h/a?x", "http://h/a?x="),
        ("http://h/a/", "http://h/a"),
        ("http://h//a", "http://h/a"),
        ("http://h/A", "http://h/a"),
    ],
)
def test_urls_that_may_name_different_content_are_never_one(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://H:80/a%20b", "http://h/a b"),
        ("http://h", "http://h/"),
        ("http://h/a?y=2&x=%C3%A4", "http://h/a?x=ä&y=2"),
        ("http://h/%7Ea%2fb", "http://h/~a%2Fb"),
        ("http://h/%C3%A4", "http://h/ä"),
        ("http://u:p@h/a#f", "http://h/a"),
        ("http://h/a%3bb%2b%3f%23%25", "http://h/a%3Bb%2B%3F%23%25"),
        *((f"http://h/a%{ord(c):02x}b?x=%{ord(c):02X}", f"http://h/a{c}b?x={c}") for c in "azAZ09-._~"),
        ("sftp://u:one@h/a", "sftp://u:other@h/a"),
    ],
)
def test_spellings_of_one_url_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b%20c%3B%3F%23%25.bin?x=1", "b c;?#%.bin"),
        ("http://h/%C3%A4", "ä"),
        ("http://h/projects/group%2Fproject", "group%2Fproject"),
        ("http://h/..%2f..%2Fetc%2fpasswd", "..%2f..%2Fetc%2fpasswd"),
        ("http://h/a%00b", "a%00b"),
        ("http://h/%ff.bin", "%ff.bin"),
        ("http://h/%252F", "%2F"),
        ("http://h/dir/", "dir"),
        ("http://h", "index"),
    ],
)
def test_the_name_of_a_file_is_one_name(url: str, name: str) -> None:
    assert basename(url) == name
