"""What people read at the end, on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dragonfly_ray.cli import show
from dragonfly_ray.distribution import Distribution, Outcome, told_apart
from dragonfly_ray.errors import StorageFullError
from dragonfly_ray.result_table import split

WIDTH = 80
LONG = "/tmp/dragonfly-demo-5e2ye2y/nodes"
URL = "http://127.0.0.1:44359/big.bin"


def outcome(number: int, where: str, **more: object) -> Outcome:
    values: dict[str, object] = {
        "node_id": f"{number:056x}",
        "node": f"192.0.2.2 (5bb70{number})",
        "url": URL,
        "state": "done",
        "path": Path(where.format(node=f"{number:056x}")),
        "size": 268_435_456,
        "seconds": 6.07,
        "bytes_origin": 1,
        "bytes_peers": 3,
    }
    return Outcome(**(values | more))  # type: ignore[arg-type]


def printed(*outcomes: Outcome) -> str:
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(Distribution(id="d", urls=(URL,), outcomes=outcomes, seconds=6.3, size=268_435_456))
    found = captured.get()
    rows = [line for line in found.splitlines() if line[:1] in "┃┏│"]
    assert rows
    assert all(line[-1] in "┃┓│" for line in rows), f"cut off:\n{found}"
    return found


def test_one_path_for_all_is_said_once_and_whole() -> None:
    found = printed(*(outcome(n, LONG + "/{node}/big.bin") for n in range(4)))
    assert found.count(f"path: {LONG}/{{node}}/big.bin") == 1
    assert "path or error" not in found
    for number in range(4):
        (line,) = [line for line in found.splitlines() if f"(5bb70{number})" in line]
        assert "192.0.2.2" in line
        assert "25\u00a0%" in line


def test_what_differs_is_seen() -> None:
    found = printed(*(outcome(n, f"{LONG}/{{node}}/part-{n}.bin") for n in range(4)))
    assert f"…: {LONG}/{{node}}" in found
    assert all(f"…/part-{n}.bin" in found for n in range(4))
    assert "…" not in found.replace("…/part-", "").replace("…: /", ""), "nothing is cut"


def test_an_error_is_said_whole_and_once_with_its_nodes() -> None:
    error = StorageFullError("no space left on the device of /data/models, 3 MiB are free")
    failed = [outcome(n, LONG, state="failed", path=None, error=error) for n in range(1, 6)]
    found = printed(outcome(0, LONG + "/{node}/b"), *failed)
    lines = " ".join(found.split())
    who = ", ".join(f"192.0.2.2 (5bb70{n})" for n in (1, 2, 3))
    assert lines.count(f"{who} and 2 more: {error.kind}: {error}") == 1
    assert f"path: {LONG}/{{node}}/b" in found


def test_who_wrote_nothing_is_told_apart() -> None:
    found = printed(outcome(0, LONG + "/x"), outcome(1, LONG + "/x", written_by="0" * 56))
    assert found.count("(shared)") == 1
    assert f"path: {LONG}/x" in found


def test_short_or_unlike_paths_stay_as_they_are() -> None:
    assert split(["/a/x", "/a/y"]) == ("", ["/a/x", "/a/y"])
    assert split(["/models/one/x", "/data/one/x"]) == ("", ["/models/one/x", "/data/one/x"])
    assert split([]) == ("", [])
    assert split(["", ""]) == ("", ["", ""])
    assert split(["/models/llama/x", "", "/models/llama/x/y"]) == (
        "/models/llama",
        ["…/x", "", "…/x/y"],
    )


def test_urls_of_a_listing_are_told_apart_by_their_ends() -> None:
    start = "https://models.example.org/a/very/long/way/to/the/content/of/the/release/number/"
    urls = [f"{start}{n}.bin" for n in range(2)]
    rows = [{"url": url, "host": "10.0.0.7", "size": 1, "share": 1.0} for url in urls]
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(show.listing(rows))
    joined = "".join(line.split("│")[1].strip() for line in captured.get().splitlines() if "│" in line)
    assert all(url in joined for url in urls)


def test_nodes_of_one_name_get_as_much_of_their_ids_as_it_takes() -> None:
    names = {"aaaaaaaa1": "n", "aaaaaaaa2": "n", "bbbbbbbbb": "n", "cccccccc": "other"}
    assert told_apart(names) == {
        "aaaaaaaa1": "n (aaaaaaaa1)",
        "aaaaaaaa2": "n (aaaaaaaa2)",
        "bbbbbbbbb": "n (bbbbbbbbb)",
        "cccccccc": "other",
    }
    assert told_apart({"12345678": "n", "87654321": "n"}) == {
        "12345678": "n (123456)",
        "87654321": "n (876543)",
    }


def test_what_was_read_twice_at_the_origin_is_said_apart() -> None:
    line = "read at the origin a second time"
    assert line not in printed(outcome(0, LONG))
    found = printed(outcome(0, LONG, bytes_audit=100_000), outcome(1, LONG, bytes_audit=31_072))
    (said,) = [each for each in found.splitlines() if line in each]
    assert "131" in said
