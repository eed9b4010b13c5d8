"""Bytes of objects as they are stored: with `Content-Encoding: gzip`, libraries unpack them on the way.

Sizes, ranges and checksums that a store tells of are those of the stored bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Cat = Callable[[Any, str, int | None, int | None], Awaitable[bytes]]

SESSION: Mapping[str, Any] = {"auto_decompress": False, "headers": {"Accept-Encoding": "identity"}}
"""Of aiohttp, for filesystems that have one: nothing is unpacked, and what they ask beside is not answered packed."""
SESSION_OPTIONS: Mapping[str, str] = {
    "gs": "session_kwargs", "gcs": "session_kwargs", "http": "client_kwargs", "https": "client_kwargs"
}  # fmt: skip
"""By protocol: the option that sets it up."""


def reads_stored(fs: Any) -> Cat | None:
    """What reads a file of `fs` as `_cat_file` would, had it not unpacked it; None where that does not unpack."""
    if hasattr(fs, "session_kwargs") and hasattr(fs, "_process_limits"):
        return _google
    if hasattr(fs, "service_client") and hasattr(fs, "split_path"):
        return _azure
    return None


async def _google(fs: Any, path: str, start: int | None, end: int | None) -> bytes:
    """Who does not take gzip gets an object of it unpacked, and whole, whatever range was asked for. Who does may
    get another packed on the way."""
    zonal = getattr(fs, "_is_zonal_bucket", None)
    if zonal and await zonal(fs.split_path(path)[0]):  # read by gRPC
        return bytes(await fs._cat_file(path, start=start, end=end))
    headers = {"Accept-Encoding": "gzip"}
    if start is not None or end is not None:
        headers["Range"] = await fs._process_limits(path, start, end)
    answer, data = await fs._call("GET", fs.url(path), headers=headers)
    stored = answer.get("X-Goog-Stored-Content-Encoding", "")
    if stored == "identity" and answer.get("Content-Encoding", "identity") != "identity":
        _, data = await fs._call("GET", fs.url(path), headers={**headers, "Accept-Encoding": "identity"})
    return bytes(data)


async def _azure(fs: Any, path: str, start: int | None, end: int | None) -> bytes:
    container, blob, version = fs.split_path(path)
    length = None if end is None else end - (start or 0)
    async with fs.service_client.get_blob_client(container=container, blob=blob) as client:
        stream = await client.download_blob(
            offset=None if length is None else start or 0,
            length=length,
            version_id=version,
            max_concurrency=fs.max_concurrency,
            decompress=False,
            **fs._timeout_kwargs,
        )
        return bytes(await stream.readall())
