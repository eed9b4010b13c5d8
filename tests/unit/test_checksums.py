"""Checksums that origins offer: read from what they say, and held against what they send."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import random
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import pytest

from dragonfly_ray.checksums import EntryChecksums, spelled
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.errors import IntegrityError, StorageError
from dragonfly_ray.model import Credentials, Entry, Manifest, PieceTable, Source
from dragonfly_ray.peer.checksums import OriginChecksums
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.sources import Resolution, resolve
from dragonfly_ray.sources.origin_checksums import in_headers, in_info, in_s3_head
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.swarm import Swarm
from tests.waiting import HANG, until

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
CONTENT = random.Random(7).randbytes((1 << 20) + 17)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def digest_of(algorithm: str, data: bytes = CONTENT) -> bytes:
    if algorithm == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    if algorithm == "crc32c":
        return int(google_crc32c.value(data)).to_bytes(4, "big")
    return hashlib.new(algorithm, data).digest()


def says(algorithm: str) -> str:
    return f"{algorithm}:{digest_of(algorithm).hex()}"


MD5, SHA256 = digest_of("md5"), digest_of("sha256")
AMZ = {"x-amz-request-id": "1"}


@pytest.mark.parametrize(
    ("headers", "status", "offered"),
    [
        ({"Repr-Digest": f"sha-256=:{b64(SHA256)}:"}, 206, says("sha256")),
        ({"Repr-Digest": f"md5=:{b64(MD5)}:, sha-512=:{b64(digest_of('sha512'))}:"}, 206, says("sha512")),
        ({"Digest": f"SHA-256={b64(SHA256)},MD5={b64(MD5)}"}, 200, says("sha256")),
        ({"Digest": f"SHA={b64(digest_of('sha1'))}"}, 200, says("sha1")),
        ({"Content-MD5": b64(MD5)}, 200, says("md5")),
        ({"Content-MD5": b64(MD5)}, 206, ""),
        ({"Content-Digest": f"sha-256=:{b64(SHA256)}:"}, 206, ""),
        ({"x-goog-hash": f"crc32c={b64(digest_of('crc32c'))}, md5={b64(MD5)}"}, 206, says("md5")),
        ({"x-goog-hash": f"crc32c={b64(digest_of('crc32c'))}"}, 206, says("crc32c")),
        ({"x-goog-hash": f"md5={b64(MD5)}", "x-goog-stored-content-encoding": "gzip"}, 200, ""),
        ({"x-ms-blob-content-md5": b64(MD5)}, 206, says("md5")),
        ({"X-Checksum-Sha256": SHA256.hex(), "X-Checksum-Md5": MD5.hex()}, 206, says("sha256")),
        ({"ETag": f'"{MD5.hex()}"'}, 200, ""),
        (AMZ | {"ETag": f'"{MD5.hex()}"'}, 206, says("md5")),
        (AMZ | {"ETag": f'"{MD5.hex()}-12"'}, 206, ""),
        (AMZ | {"ETag": f'W/"{MD5.hex()}"'}, 206, ""),
        (AMZ | {"ETag": f'"{MD5.hex()}"', "x-amz-server-side-encryption": "AES256"}, 206, says("md5")),
        (AMZ | {"ETag": f'"{MD5.hex()}"', "x-amz-server-side-encryption": "aws:kms"}, 206, ""),
        (AMZ | {"ETag": f'"{MD5.hex()}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"}, 206, ""),
        (AMZ | {"ETag": f'"{MD5.hex()}"', "x-amz-storage-class": "EXPRESS_ONEZONE"}, 206, ""),
        (AMZ | {"x-amz-checksum-sha256": b64(SHA256)}, 200, says("sha256")),
        (AMZ | {"x-amz-checksum-crc32": b64(digest_of("crc32"))}, 200, says("crc32")),
        (AMZ | {"x-amz-checksum-sha256": b64(SHA256), "x-amz-checksum-type": "COMPOSITE"}, 200, ""),
        (AMZ | {"x-amz-checksum-sha256": b64(SHA256) + "-3"}, 200, ""),
        ({"Digest": "SHA-256=short"}, 200, ""),
        ({"Digest": "sha-256", "Content-MD5": "?", "x-goog-hash": "=,=,", "X-Checksum-Md5": "zz"}, 200, ""),
        ({}, 200, ""),
    ],
)  # fmt: skip
def test_what_headers_offer_of_the_whole_file(headers: dict[str, str], status: int, offered: str) -> None:
    assert in_headers(headers, status) == offered


def test_what_apis_offer() -> None:
    assert in_s3_head({"ETag": f'"{MD5.hex()}"'}) == says("md5")
    assert in_s3_head({"ETag": f'"{MD5.hex()}-2"', "ChecksumSHA256": b64(SHA256) + "-2"}) == ""
    assert in_s3_head({"ETag": f'"{MD5.hex()}"', "ServerSideEncryption": "aws:kms"}) == ""
    assert in_s3_head({"ETag": '"x"', "ChecksumCRC32C": b64(digest_of("crc32c"))}) == says("crc32c")
    assert in_s3_head({"ChecksumSHA1": b64(digest_of("sha1")), "ChecksumType": "COMPOSITE"}) == ""
    assert in_info({"md5Hash": b64(MD5), "crc32c": "AAAAAA=="}) == says("md5")
    assert in_info({"md5Hash": b64(MD5), "contentEncoding": "gzip"}) == f"md5:{MD5.hex()}"
    assert in_info({"content_settings": {"content_md5": bytearray(MD5)}}) == says("md5")
    assert in_info({"content_settings": {"content_md5": None}}) == ""


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5", "crc32c", "crc32"])
def test_entries_are_compared_each_over_its_pieces(algorithm: str) -> None:
    parts = [os.urandom(n) for n in (5, 700_000, 0, 300_000, 9)]
    entries = [
        Entry(f"f{n}", len(p), checksum=spelled(algorithm, digest_of(algorithm, p)) if n != 4 else "")
        for n, p in enumerate(parts)
    ]
    data = b"".join(parts)

    def followed(entries: list[Entry]) -> EntryChecksums:
        manifest = Manifest(tuple(entries), directory=True)
        table = PieceTable.of(manifest)
        found = EntryChecksums(manifest, table)
        for piece in table:
            found.feed(piece.index, data[piece.offset : piece.offset + piece.length])
        return found

    assert followed(entries).mismatch is None
    for number in (0, 1, 3):
        wrong = list(entries)
        wrong[number] = msgspec.structs.replace(
            entries[number], checksum=spelled(algorithm, digest_of(algorithm, b"x"))
        )
        mismatch = followed(wrong).mismatch
        assert mismatch is not None
        assert mismatch.path == f"f{number}"


def test_a_checksum_changes_no_identity() -> None:
    plain = Manifest((Entry("f", 3, "v"),), directory=False)
    with_it = Manifest((Entry("f", 3, "v", checksum="md5:00"),), directory=False)
    assert plain.fingerprint == with_it.fingerprint
    assert Manifest.decode(with_it.encode()) == with_it


# --- at the resolver ----------------------------------------------------------------------------


@contextlib.contextmanager
def offering(content: bytes, told: bytes, **behaviour: Any) -> Iterator[ScriptedOrigin]:
    """An origin whose digest is that of `told`, whatever it sends."""
    with ScriptedOrigin(Behaviour(content, **behaviour)) as origin:
        answer = origin.answer

        def with_digest(handler: Any) -> None:
            end = functools.partial(type(handler).end_headers, handler)

            def ending() -> None:
                handler.send_header("Repr-Digest", f"sha-256=:{b64(hashlib.sha256(told).digest())}:")
                end()

            handler.end_headers = ending
            answer(handler)

        origin.answer = with_digest  # type: ignore[method-assign]
        yield origin


def look(origin: ScriptedOrigin, tmp_path: Path, small: int = 0, **settings: Any) -> Resolution:
    return resolve(
        Source(origin.url),
        Credentials(),
        SETTINGS.model_copy(update=settings),
        small_limit=small,
        spool=tmp_path,
    )


@pytest.mark.parametrize("behaviour", [{}, {"ranges": False}, {"ranges": False, "length": False}])
def test_content_that_comes_along_is_compared(behaviour: dict[str, Any], tmp_path: Path) -> None:
    with offering(CONTENT, CONTENT, **behaviour) as origin:
        found = look(origin, tmp_path, len(CONTENT))
        assert found.manifest.entries[0].checksum == says("sha256")
    with offering(os.urandom(len(CONTENT)), CONTENT, **behaviour) as origin:
        if found.spooled:
            found.spooled.unlink()
        with pytest.raises(IntegrityError, match="sha256 of what was read from the origin"):
            look(origin, tmp_path, len(CONTENT))
        assert list(tmp_path.iterdir()) == []
        assert look(origin, tmp_path, len(CONTENT), checksums=False).manifest.entries[0].checksum == ""


# --- at the peers -------------------------------------------------------------------------------


def test_what_the_origin_does_not_send_as_it_offers_it_is_written_nowhere(tmp_path: Path) -> None:
    """And nobody is blamed but the origin's readers; nothing of it is left in a store."""
    content = os.urandom(3 << 20)
    with (
        offering(os.urandom(len(content)), content) as origin,
        contextlib.closing(Swarm(tmp_path / "peers", 3)) as swarm,
    ):
        dest = tmp_path / "{node}"
        view = swarm.distribute(origin.url, "bad.0", dest=str(dest))
        assert {(n["state"], n["kind"]) for n in view["nodes"].values()} == {("failed", "integrity")}, view
        assert all("the origin offers" in n["message"] for n in view["nodes"].values())
        assert not any((tmp_path / node).exists() for node in swarm.peers)
        for node in swarm.peers:
            assert swarm.pieces(node) == 0
        assert not [t for t in swarm.scheduler.core.tasks.values() if t.banned], "no neighbour is to blame"

        origin.behaviour.content = content
        good = swarm.distribute(origin.url, "good.0", dest=str(dest))
        assert {n["state"] for n in good["nodes"].values()} == {"done"}, good
        assert all((tmp_path / node).read_bytes() == content for node in swarm.peers)
        assert not any(t.contested for t in swarm.scheduler.core.tasks.values()), (
            "what was false is forgotten"
        )


def test_what_was_whole_but_not_compared_when_its_peer_ended_is_compared_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3 << 20)
    with (
        offering(os.urandom(len(content)), content) as origin,
        contextlib.closing(Swarm(tmp_path / "peers", 1)) as swarm,
    ):
        peer, ended = swarm.peers["n0"], threading.Event()

        def killed(run: TaskDownload, checksums: OriginChecksums) -> None:
            run.stop()
            ended.set()
            raise StorageError("the process was killed")

        with monkeypatch.context() as patch:
            patch.setattr(TaskDownload, "_compare", killed)
            swarm.submit(origin.url, "bad.0")
            assert ended.wait(HANG)
        until(lambda: not peer._runs)
        (task,) = peer.store.tasks()
        assert task.complete
        peer.stop()
        swarm.start("n0")
        view = swarm.distribute(origin.url, "bad.1", dest=str(tmp_path / "out"))
        assert {n["kind"] for n in view["nodes"].values()} == {"integrity"}, view
        assert not (tmp_path / "out").exists()


def test_a_file_of_a_folder_that_is_not_what_the_origin_offers_fails_it(tmp_path: Path) -> None:
    files = {f"f{n}": os.urandom(50_000 + n) for n in range(8)}
    with FolderOrigin(dict(files)) as folder, contextlib.closing(Swarm(tmp_path / "peers", 2)) as swarm:
        told = {name: hashlib.sha256(data).digest() for name, data in files.items()}
        answer = folder.answer

        def with_digest(handler: Any) -> None:
            end = functools.partial(type(handler).end_headers, handler)
            name = handler.path.lstrip("/")

            def ending() -> None:
                if name in told:
                    handler.send_header("Repr-Digest", f"sha-256=:{b64(told[name])}:")
                end()

            handler.end_headers = ending
            answer(handler)

        folder.answer = with_digest  # type: ignore[method-assign]
        good = swarm.distribute(folder.url, "good.0")
        assert {n["state"] for n in good["nodes"].values()} == {"done"}, good
        told["f5"] = hashlib.sha256(b"other").digest()
        folder.files = {n: d[::-1] for n, d in files.items()}  # new versions
        told |= {n: hashlib.sha256(d).digest() for n, d in folder.files.items() if n != "f5"}
        bad = swarm.distribute(folder.url, "bad.0")
        assert {n["kind"] for n in bad["nodes"].values()} == {"integrity"}, bad
        assert all("(f5)" in n["message"] for n in bad["nodes"].values())


def test_with_the_setting_off_nothing_is_compared(tmp_path: Path) -> None:
    settings = Settings(origin=OriginSettings(checksums=False))
    with (
        offering(os.urandom(3 << 20), CONTENT) as origin,
        contextlib.closing(Swarm(tmp_path, 2, settings=settings)) as swarm,
    ):
        view = swarm.distribute(origin.url)
        assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
