"""`/api/v1/secrets`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/secrets", tags=["secrets"])
