"""`/api/v1/session`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/session", tags=["session"])
