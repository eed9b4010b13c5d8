"""Objects in the object stores that tests run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx


def put_gcs(endpoint: str, objects: Mapping[str, bytes], bucket: str = "", **about: object) -> str:
    """Into a bucket, a new one by default; its name. `about`: more of each object's resource."""
    if not bucket:
        bucket = f"b{uuid4().hex[:12]}"
        made = httpx.post(f"{endpoint}/storage/v1/b", params={"project": "p"}, json={"name": bucket})
        made.raise_for_status()
    for name, data in objects.items():
        # Not by gcsfs: it ends a form's parts with a bare newline, and this server then takes a return at the end of
        # the data for a part of that.
        parts: Any = {
            "meta": (None, json.dumps({"name": name, **about}), "application/json"),
            "data": (None, data, "application/octet-stream"),
        }
        url = f"{endpoint}/upload/storage/v1/b/{bucket}/o"
        httpx.post(url, params={"uploadType": "multipart"}, files=parts).raise_for_status()
    return bucket
