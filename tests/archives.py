"""Archives that stand for a folder: each file that is put in makes the archive anew."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tar_bytes(files: Mapping[str, bytes], *, dot: bool = False, compression: str = "") -> bytes:
    """`dot`: names as `tar -cf x.tar .` has them. Every member has the same time."""
    kept = io.BytesIO()
    mode: Any = f"w:{compression}"
    with tarfile.open(fileobj=kept, mode=mode) as archive:
        if dot:
            folder = tarfile.TarInfo(".")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}" if dot else name)
            member.size, member.mtime = len(data), 1_700_000_000
            archive.addfile(member, io.BytesIO(data))
    return kept.getvalue()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=zipfile.ZIP_DEFLATED)
    return kept.getvalue()


class Archive:
    """One file on disk; `put` replaces it by one that holds another member, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, bytes] = {}
        self._seconds = itertools.count(1_700_000_000)
        self._write()

    def put(self, name: str, data: bytes) -> None:
        self._files[name] = data
        self._write()

    def _write(self) -> None:
        data = zip_bytes(self._files) if self.path.suffix == ".zip" else self._tar()
        draft = self.path.with_name(f".{self.path.name}")
        draft.write_bytes(data)
        os.utime(draft, (now := next(self._seconds), now))
        os.replace(draft, self.path)

    def _tar(self) -> bytes:
        kind = self.path.name.partition(".tar")[2].lstrip(".")
        return tar_bytes(self._files, dot=self.path.name.startswith("dot"), compression=kind)
