"""Whether this replica lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter

from dragonfly_ray.serve.accounts.permissions import Access, requires

router = APIRouter(tags=["health"])


@router.get("/healthz")
@requires(Access.PUBLIC)
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}
