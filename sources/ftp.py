"""FTP, where fsspec's filesystem lists a whole folder to tell of one of its files, and does not follow links."""

from __future__ import annotations

import contextlib
import ftplib
import re
import ssl
from functools import partial
from typing import Any

FOLDER_LINK = "folder link"
"""The type of a link to a folder, which may be a symlink loop."""
DEAD_LINK = "dead link"
"""The type of a link to nothing."""
CHUNK = 256 * 1024
_TIME = re.compile(r"\d{14}(\.\d+)?")
"""A time as MLSD and MDTM tell it. One that is meant for people has no seconds, or no year."""
_UNKNOWN = ("500", "501", "502", "504")


def improve(fs: Any) -> None:
    """Of an instance of our own."""
    for method in (info, ls, cat_file):
        setattr(fs, method.__name__, partial(method, fs))


def info(fs: Any, path: str, **options: Any) -> dict[str, Any]:
    """Of one file or folder, by itself; links are followed."""
    path = fs._strip_protocol(path)
    if path == "/":
        return {"name": "/", "size": 0, "type": "directory"}
    found: dict[str, Any] = _by_facts(fs, path) or _by_questions(fs, path)
    return found


def ls(fs: Any, path: str, detail: bool = True, **options: Any) -> list[Any]:
    """As the filesystem's own, but it tells what links lead to, and of times only those that name a version."""
    found = [_followed(fs, each) for each in type(fs).ls(fs, path, True, **options)]
    return found if detail else sorted(each["name"] for each in found)


def cat_file(fs: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
    """Of a stretch that ends before the file does, not much more is sent."""
    left = None if end is None else end - (start or 0)
    data = bytearray()
    fs.ftp.voidcmd("TYPE I")
    try:
        connection = fs.ftp.transfercmd(f"RETR {path}", rest=start or None)
    except ftplib.error_perm as error:
        if str(error)[:3] == "550":
            raise FileNotFoundError(path) from None
        raise
    with connection:
        # One byte more tells whether the file ends there, as the server then will say.
        while left is None or len(data) <= left:
            chunk = connection.recv(CHUNK if left is None else min(CHUNK, left + 1 - len(data)))
            if not chunk:
                break
            data += chunk
        ended = left is None or len(data) <= left
        if ended and isinstance(connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                connection.unwrap()
    try:
        fs.ftp.voidresp()
    except (ftplib.error_temp, ftplib.error_perm):
        if ended:
            raise  # it was cut off
    return bytes(data if left is None else data[:left])


def _by_facts(fs: Any, path: str) -> dict[str, Any] | None:
    """None where the server knows no MLST, or it tells of the link itself."""
    try:
        answer: str = fs.ftp.sendcmd(f"MLST {path}")
    except ftplib.error_perm as error:
        if str(error)[:3] in _UNKNOWN:
            return None
        raise FileNotFoundError(path) from None
    line = answer.splitlines()[1].lstrip() if "\n" in answer else ""
    told = [fact.partition("=") for fact in line.partition(" ")[0].split(";") if fact]
    facts = {name.lower(): value for name, _, value in told}
    kind = facts.get("type", "").lower()
    if kind in ("dir", "cdir", "pdir"):
        return {"name": path, "size": 0, "type": "directory"}
    if kind != "file" or not facts.get("size", "").isdigit():
        return None
    return _timed({**facts, "name": path, "size": int(facts["size"]), "type": "file"})


def _by_questions(fs: Any, path: str) -> dict[str, Any]:
    ftp: ftplib.FTP = fs.ftp
    ftp.voidcmd("TYPE I")
    try:
        size = ftp.size(path)
    except ftplib.error_perm as error:
        if str(error)[:3] in _UNKNOWN:
            found: dict[str, Any] = type(fs).info(fs, path)
            return _timed(found)
        return _folder(ftp, path)
    try:
        modified = ftp.sendcmd(f"MDTM {path}").partition(" ")[2].strip()
    except ftplib.error_perm:
        modified = ""
    return _timed({"name": path, "size": size, "type": "file", "modify": modified})


def _folder(ftp: ftplib.FTP, path: str) -> dict[str, Any]:
    here = ftp.pwd()
    try:
        ftp.cwd(path)
    except ftplib.error_perm:
        raise FileNotFoundError(path) from None
    ftp.cwd(here)
    return {"name": path, "size": 0, "type": "directory"}


def _followed(fs: Any, found: dict[str, Any]) -> dict[str, Any]:
    link = str(found.get("unix.mode", "")).startswith("l") or found["type"] not in ("file", "directory")
    if not link:
        return _timed(found)
    try:
        led: dict[str, Any] = info(fs, found["name"])
    except FileNotFoundError:
        return {**found, "type": DEAD_LINK}
    return {**led, "type": FOLDER_LINK} if led["type"] == "directory" else led


def _timed(found: dict[str, Any]) -> dict[str, Any]:
    if _TIME.fullmatch(str(found.get("modify", ""))):
        return found
    return {name: value for name, value in found.items() if name != "modify"}
