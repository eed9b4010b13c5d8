"""`/api/v1/preheats`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/preheats", tags=["preheats"])
