"""The journal of a task: torn, foreign, full."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from dragonfly_ray.model import digest
from dragonfly_ray.storage.journal import HAVE, RECORD_SIZE, Journal, Record


def test_a_journal_cut_at_every_byte_opens_again(tmp_path: Path) -> None:
    path, owner = tmp_path / "journal", digest(b"m")
    journal = Journal(path, owner)
    for index in range(200):
        journal.append(Record(HAVE, index, digest(b"%d" % index)))
    journal.close()
    whole = path.read_bytes()
    head = len(whole) - 200 * RECORD_SIZE
    opened = 0
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path, owner)
        kept = max(0, cut - head) // RECORD_SIZE
        assert [r.piece for r in journal.records] == list(range(kept))
        journal.append(Record(HAVE, 7, digest(b"x")))
        journal.close()
        again = Journal(path, owner)
        assert len(again.records) == kept + 1
        again.close()
        opened += 1
    print(f"a journal of 200 records, cut at each of {opened} places, opened again")
    assert opened == head + 200 * RECORD_SIZE + 1


def test_a_journal_of_another_manifest_starts_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", digest(b"a"))
    journal.append(Record(HAVE, 1, digest(b"x")))
    journal.close()
    assert Journal(tmp_path / "j", digest(b"b")).records == []


def test_a_disk_that_fills_up_within_a_record_leaves_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    records = [Record(HAVE, i, bytes([i]) * 32) for i in range(6)]
    journal = Journal(path, b"m" * 32)
    journal.append(*records[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + RECORD_SIZE + 7, hard))
    try:
        with pytest.raises(OSError) as caught:
            journal.append(*records[2:4])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG, "the cause, as the system says it"
    journal.append(*records[4:])
    journal.close()
    assert Journal(path, b"m" * 32).records == [*records[:2], *records[4:]]


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, digest(b"a"))
    for index in range(5):
        journal.append(Record(HAVE, index, digest(b"x")))
    journal.close()
    data = bytearray(path.read_bytes())
    data[-2 * RECORD_SIZE] ^= 1
    path.write_bytes(data)
    assert [r.piece for r in Journal(path, digest(b"a")).records] == [0, 1, 2]
