"""Streams are counted for each user

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "open_streams",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("replica", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_open_streams_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_open_streams")),
    )
    with op.batch_alter_table("open_streams", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_open_streams_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_open_streams_user_id"), ["user_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("open_streams", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_open_streams_user_id"))
        batch_op.drop_index(batch_op.f("ix_open_streams_expires_at"))
    op.drop_table("open_streams")
