"""Several URLs at one `dest`: whoever is told that an output is there finds it there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import api
from dragonfly_ray.cli import main
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.output_names import check_outputs, names_alike
from tests.ntfs import ntfs_at
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm

SAME = [
    ("https://one/a/f", "https://two/b/f"),
    ("https://h/f?version=1", "https://h/f?version=2"),
    ("https://h/f", "https://h/f/"),
    ("https://h/%66", "https://h/f"),
    ("https://h:443/f", "https://h/f"),
    ("https://h/f#a", "https://h/f"),
    ("s3://one/f", "file:///data/f"),
    ("https://h", "https://h/index"),
    ("https://h/caf%C3%A9", "https://h/caf\u00e9"),
]
APART = [
    ("https://h/a/f", "https://h/a/g"),
    ("https://h/a/F", "https://h/b/f"),
    ("https://h/caf%C3%A9", "https://h/cafe%CC%81"),
    ("https://h/f", "https://h/f.bin"),
    ("s3://h/a%66", "s3://h/af"),
]


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


@pytest.mark.parametrize("dest", ["/d/{name}", "/d/{node}/{name}/", "/d/{name}/below", "/d/a-{name}-{name}"])
@pytest.mark.parametrize("urls", SAME)
def test_two_sources_of_one_name_are_refused_before_anything_starts(urls: tuple[str, str], dest: str) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"have the same file name .*each with its own dest"
    ) as refused:
        check_outputs(dest, urls)
    assert "version=1" not in str(refused.value), "what a query says may be a secret"


@pytest.mark.parametrize("urls", APART)
def test_names_that_a_file_system_may_hold_beside_each_other_pass(urls: tuple[str, str]) -> None:
    check_outputs("/d/{name}", urls)


def test_without_a_name_in_it_one_dest_is_one_output() -> None:
    check_outputs("/d/x", ["https://h/f"])
    check_outputs("/d/", ["https://h/.."])
    for dest in ("/d/x", "/d/", "/d/{node}"):
        with pytest.raises(InvalidRequestError, match=r"must contain {name} for several URLs"):
            check_outputs(dest, ["https://h/f", "https://h/g"])


@pytest.mark.parametrize("name", ["..", "%2e%2e", ".", "%0A", "a%01b", "a%2f..%2fb"])
def test_what_is_no_name_is_refused_before_anything_starts(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot derive a file name from the URL"):
        check_outputs("/d/{name}", [f"https://h/d/{name}"])


@pytest.mark.parametrize("urls", SAME)
def test_nobody_joins_a_cluster_for_them(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the call and by the command; the jobs of the manager have tests of their own."""

    def joined(*rest: Any, **more: Any) -> None:
        raise AssertionError("something has started")

    for name in ("_cluster", "connect", "_source"):
        monkeypatch.setattr(api, name, joined)
    with pytest.raises(InvalidRequestError, match="have the same file name"):
        api.submit(list(urls), dest="/d/{name}")
    with pytest.raises(InvalidRequestError, match="have the same file name"):
        api.distribute(list(urls), dest="/d/{name}")
    monkeypatch.setattr("sys.argv", ["dragonfly", "distribute", *urls, "-d", "/d/{name}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2, "refused input"


def test_names_that_some_file_systems_take_for_one_are_found() -> None:
    urls = ["https://h/F", "https://h/x/f", "https://h/caf%C3%A9", "https://h/CAFE%CC%81", "https://h/other"]
    assert names_alike(urls) == [("f",), ("F",), ("CAFE\u0301",), ("caf\u00e9",), ()]


# --- on the node --------------------------------------------------------------------------------


def test_names_that_are_alike_are_delivered_where_they_are_two(swarm: Swarm, tmp_path: Path) -> None:
    one, two = os.urandom(300_000), os.urandom(300_000)
    with ScriptedOrigin(Behaviour(one)) as first, ScriptedOrigin(Behaviour(two)) as second:
        for spec, origin, name, other in (
            ("s.0", first, "Model", "model"),
            ("s.1", second, "model", "Model"),
        ):
            url = origin.url.replace("content.bin", name)
            swarm.submit(url, spec, dest=f"{tmp_path}/{{node}}/{{name}}", beside=(other,))
        for spec in ("s.0", "s.1"):
            assert {n["state"] for n in swarm.wait(spec)["nodes"].values()} == {"done"}
    for node in ("n0", "n1"):
        assert (tmp_path / node / "Model").read_bytes() == one
        assert (tmp_path / node / "model").read_bytes() == two
        assert sorted(p.name for p in (tmp_path / node).iterdir()) == ["Model", "model"], (
            "and nothing is left"
        )


def test_both_outputs_fail_where_they_would_be_one(swarm: Swarm, tmp_path: Path) -> None:
    """Alike in case; two ways to compose a letter are two names there, and arrive."""
    content = os.urandom(300_000)
    with ntfs_at(tmp_path) as folder, ScriptedOrigin(Behaviour(content)) as origin:

        def delivered(name: str, other: str) -> dict[str, Any]:
            url = origin.url.replace("content.bin", name)
            dest = f"{folder}/{{node}}/{{name}}"
            view = swarm.distribute(url, f"{len(name)}{name}.0", dest=dest, beside=(other,), small=False)
            nodes: dict[str, Any] = view["nodes"]
            return nodes

        for names in (("Model", "model"), ("model", "Model")):
            for record in delivered(*names).values():
                assert record["kind"] == "destination", record
                assert f"treats {names[0]!r} and {names[1]!r} as the same name" in record["message"]
        assert {asked for _, _, asked in origin.requests} == {"bytes=0-0"}, "before anything is fetched"
        assert not list(folder.glob("n?"))
        for names in (("caf%C3%A9", "cafe\u0301"), ("cafe%CC%81", "caf\u00e9")):
            assert {record["state"] for record in delivered(*names).values()} == {"done"}
        assert len(list((folder / "n0").iterdir())) == 2
        assert not list(folder.rglob(".dragonfly-*"))


def test_a_name_of_two_lines_is_one() -> None:
    check_outputs("/d/{name}", ["file:///a/new\nline", "file:///a/x"])
