"""Outcomes tell which pieces a node has read at the origin, and what it has read to compare

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job_nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("bytes_audit", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("origin_pieces", sa.Text(), nullable=False, server_default=""))
    # Like every other column, it is the code that says what is meant by default.
    with op.batch_alter_table("job_nodes", schema=None) as batch_op:
        batch_op.alter_column("bytes_audit", server_default=None)
        batch_op.alter_column("origin_pieces", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("job_nodes", schema=None) as batch_op:
        batch_op.drop_column("origin_pieces")
        batch_op.drop_column("bytes_audit")
