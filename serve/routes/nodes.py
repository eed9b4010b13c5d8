"""`/api/v1/nodes`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/nodes", tags=["nodes"])
