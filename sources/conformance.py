"""What every source must do, as tests that a third party can run against its own fsspec filesystem.

Subclass `SourceConformance` in a pytest module, and give it a fixture `place`:

    class TestMine(SourceConformance):
        @pytest.fixture()
        def place(self):
            yield Place("myfs://bucket/folder", put=..., storage_options={...})

It needs pytest, which is not installed with the package.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceChangedError, SourceError, SourceNotFoundError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Resolution, open_reader, resolve

KIB = 1024
SETTINGS = OriginSettings(read_timeout=10.0)


@dataclass
class Place:
    """An empty folder of a source that may be written to from outside.

    `put(path, data)` makes or replaces a file; `url` has no slash at its end.
    """

    url: str
    put: Callable[[str, bytes], object]
    storage_options: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    empty_folders: bool = False

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.storage_options, self.headers)

    def at(self, path: str) -> str:
        """The URL of a path below."""
        return f"{self.url}/{path}"

    def resolve(self, path: str, *, small: int = 0) -> Resolution:
        source = Source(self.at(path))
        return resolve(source, self.credentials, SETTINGS, small_limit=small)

    def read(self, path: str, manifest: Manifest, first: int = 0, last: int | None = None) -> bytes:
        """The bytes of pieces `first` … `last - 1`."""
        table = PieceTable.of(manifest)
        reader = open_reader(Source(self.at(path)), self.credentials, manifest, table, SETTINGS)
        try:
            return b"".join(
                bytes(view)
                for _, view in reader.read(
                    first,
                    len(table) if last is None else last,
                    lambda i: memoryview(bytearray(table[i].length)),
                    lambda count: None,
                )
            )
        finally:
            reader.close()


class SourceConformance:
    """The tests. Every method is one promise."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError("give a fixture `place`")

    def test_a_file_has_its_size_and_its_bytes(self, place: Place) -> None:
        data = os.urandom(1500 * KIB + 7)
        place.put("file.bin", data)
        manifest = place.resolve("file.bin").manifest
        assert (manifest.size, manifest.directory, len(manifest.entries)) == (len(data), False, 1)
        assert manifest.entries[0].path == "file.bin"
        assert place.read("file.bin", manifest) == data

    def test_any_run_of_pieces_can_be_read(self, place: Place) -> None:
        data = os.urandom(1500 * KIB)
        place.put("file.bin", data)
        manifest = place.resolve("file.bin").manifest
        table = PieceTable.of(manifest)
        for first, last in ((1, 2), (2, 5), (5, 6), (0, 6)):
            assert place.read("file.bin", manifest, first, last) == data[table.cuts[first] : table.cuts[last]]

    def test_many_threads_may_read(self, place: Place) -> None:
        data = os.urandom(1500 * KIB)
        place.put("file.bin", data)
        manifest = place.resolve("file.bin").manifest
        table = PieceTable.of(manifest)
        reader = open_reader(Source(place.at("file.bin")), place.credentials, manifest, table, SETTINGS)

        def one(index: int) -> bytes:
            views = reader.read(
                index, index + 1, lambda i: memoryview(bytearray(table[i].length)), lambda n: None
            )
            return b"".join(bytes(view) for _, view in views)

        with ThreadPoolExecutor(6) as pool:
            assert b"".join(pool.map(one, range(len(table)))) == data
        reader.close()

    def test_an_empty_file(self, place: Place) -> None:
        place.put("empty", b"")
        assert place.resolve("empty").manifest.size == 0

    def test_small_content_comes_along(self, place: Place) -> None:
        place.put("small", b"small content")
        assert place.resolve("small", small=100).content == b"small content"
        assert place.resolve("small", small=5).content is None

    def test_two_looks_agree(self, place: Place) -> None:
        place.put("file.bin", b"x" * 1000)
        assert place.resolve("file.bin").manifest == place.resolve("file.bin").manifest

    def test_a_folder_is_listed_to_the_bottom(self, place: Place) -> None:
        # Ends of lines are what a careless server takes for its own.
        files = {f"d/{i % 3}/deep/f {i}.bin": os.urandom(i * 997) + b"\r" for i in range(1, 12)}
        files["d/large"] = os.urandom(700 * KIB)
        files["d/ümlaut+&%20'().txt"] = b"odd"
        for path, data in files.items():
            place.put(path, data)
        manifest = place.resolve("d/").manifest
        assert manifest.directory
        found = {f"d/{e.path}": e.size for e in manifest.entries if e.kind == "file"}
        assert found == {path: len(data) for path, data in files.items()}
        stream = b"".join(files[f"d/{e.path}"] for e in manifest.entries if e.kind == "file")
        assert place.read("d/", manifest) == stream

    def test_new_content_is_a_new_version(self, place: Place) -> None:
        place.put("file.bin", b"a" * 300_000)
        before = place.resolve("file.bin").manifest
        place.put("file.bin", b"b" * 300_001)
        assert place.resolve("file.bin").manifest.fingerprint != before.fingerprint

    def test_a_change_is_noticed_and_never_mixed(self, place: Place) -> None:
        size = 9 * 1024 * KIB
        place.put("file.bin", b"a" * size)
        manifest = place.resolve("file.bin").manifest
        place.put("file.bin", b"b" * (size + 1))
        with pytest.raises(SourceChangedError):
            place.read("file.bin", manifest)

    @pytest.mark.parametrize("path", ["file.bin", "d/"])
    def test_a_change_of_the_same_length_half_way_is_never_mixed(self, place: Place, path: str) -> None:
        """The first half is read, the file is replaced, and another peer reads the second half."""
        file, size = "file.bin" if path == "file.bin" else "d/file.bin", 3 * 1024 * KIB
        place.put(file, b"a" * size)
        manifest = place.resolve(path).manifest
        half = len(PieceTable.of(manifest)) // 2
        assert set(place.read(path, manifest, 0, half)) == set(b"a")
        place.put(file, b"b" * size)
        with pytest.raises(SourceChangedError):
            place.read(path, manifest, half)

    def test_a_missing_file_says_so_in_one_line(self, place: Place) -> None:
        with pytest.raises(SourceNotFoundError) as caught:
            place.resolve("no/such/file.bin")
        assert isinstance(caught.value, SourceError)
        assert len(str(caught.value).splitlines()) == 1
