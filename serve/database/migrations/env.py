"""What Alembic runs: migrations over the connection that it is given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from dragonfly_ray.serve.database.tables import Base, UtcTime


def _render(kind: str, item: Any, autogenerating: Any) -> str | Literal[False]:
    """A migration does not depend on the tables as they are today."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=_render,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
