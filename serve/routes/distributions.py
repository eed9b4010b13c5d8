"""`/api/v1/distributions`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/distributions", tags=["distributions"])
